"""Original images: what a hostile table or server may try, against a real server on this
machine; and that nothing of it is fatal.
"""

import io
import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from findnemo import demo
from findnemo._version import __version__
from findnemo.errors import InputError
from findnemo.files import fetch, originals
from findnemo.files.fetch import RefusedError
from findnemo.files.originals import Originals, decode
from findnemo.runs.store import Caption


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 6, height: int = 4) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


PNG = encoded(picture())


def png_that_declares(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def same(image: Image.Image | None, want: Image.Image) -> bool:
    return (
        image is not None
        and image.mode == "RGB"
        and np.array_equal(np.asarray(image), np.asarray(want))
    )


# a server -----------------------------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers with what `answers` holds for a path, and remembers the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what is tested."""

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.answers[self.path](self)

    def log_message(self, *args: object) -> None:
        pass


def body(data: bytes, status: int = 200, length: bool = True, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (
            headers | ({"Content-Length": str(len(data))} if length else {})
        ).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def redirect(url: str, status: int = 302) -> Answer:
    return body(b"", status, Location=url)


def endless(first: bytes, data: bytes = b"\0") -> Answer:
    """An answer that has no end: only who hangs up gets away."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(first)
        while not handler.server.closing.is_set():
            handler.wfile.write(data)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def lenient(monkeypatch) -> None:
    """This machine counts as public, every other address as what it is."""
    real = fetch.is_public
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1" or real(address))


@pytest.fixture
def original(tmp_path, lenient) -> Originals:
    """Its time only ends a test that hangs."""
    return Originals(tmp_path / "cache", tmp_path, timeout=60, pause=0)


class Clock:
    """Time that passes only where somebody sleeps, or says that it does."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SlowConnection:
    """A real connection of which every read takes so many seconds of the clock, for one byte."""

    def __init__(self, sock: socket.socket, clock: Clock, seconds: float) -> None:
        self.sock = sock
        self.clock = clock
        self.seconds = seconds
        self.timeout = 0.0

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds

    def recv_into(self, buffer: memoryview) -> int:
        self.clock.sleep(min(self.seconds, self.timeout))
        if self.seconds > self.timeout:
            raise TimeoutError
        return self.sock.recv_into(buffer[:1])

    def sendall(self, data: bytes) -> None:
        self.sock.sendall(data)

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (fetch, originals):
        monkeypatch.setattr(module, "time", clock)
    return clock


def reason(original: Originals, reference: str) -> str:
    assert original(reference) is None
    return original.failures[reference]


# what is found ------------------------------------------------------------------------------------


def test_a_fetched_image_is_kept_as_it_came_and_not_fetched_again(original, server, tmp_path):
    server.answers["/a.png?x=1"] = body(PNG)
    assert same(original(server.url("/a.png?x=1")), picture())
    assert [f.read_bytes() for f in (tmp_path / "cache").iterdir()] == [PNG]
    assert same(original(server.url("/a.png?x=1")), picture())
    assert same(Originals(tmp_path / "cache")(server.url("/a.png?x=1")), picture())
    assert len(server.requests) == 1
    assert original.failures == {}


def test_the_request_says_who_asks_and_wants_no_compression(original, server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.answers["/a%20b/%C3%BC.png?q=%C3%A9&r=1%2F2"] = body(PNG)
    assert same(original(server.url("/a b/ü.png?q=é&r=1%2F2#part")), picture())
    headers = server.requests[0][1]
    assert headers["User-Agent"].startswith(f"findnemo/{__version__} (+https://")
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"] == f"127.0.0.1:{server.server_address[1]}"
    assert "Cookie" not in headers
    assert "Authorization" not in headers


def test_paths_are_relative_to_the_table_or_absolute(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(PNG)
    (tmp_path / "http:b.png").write_bytes(PNG)
    original = Originals(tmp_path / "cache", tmp_path)
    for reference in ("images/a.png", str(tmp_path / "images" / "a.png"), "./http:b.png"):
        assert same(original(reference), picture())
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
def test_four_formats_are_read(kind):
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    found = decode(io.BytesIO(encoded(image.quantize(8) if kind == "GIF" else image, kind)))
    assert found.mode == "RGB"
    assert np.asarray(found).reshape(-1, 3).mean(0) == pytest.approx([200, 100, 50], abs=3)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO", "PDF"])
def test_other_formats_are_not(kind):
    with pytest.raises(RefusedError, match="not an image that is read"):
        decode(io.BytesIO(encoded(picture(32, 32), kind)))


def test_of_a_moving_picture_the_first_is_taken():
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        moving = encoded(red, kind, save_all=True, append_images=[blue], **options)
        assert same(decode(io.BytesIO(moving)), red)


def test_a_picture_is_turned_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise to show it
    found = decode(io.BytesIO(encoded(picture(6, 4), exif=exif)))
    assert same(found, picture(6, 4).transpose(Image.Transpose.ROTATE_270))


def test_what_is_transparent_becomes_white():
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    for image in (clear, clear.convert("LA")):
        assert decode(io.BytesIO(encoded(image))).getpixel((0, 0)) == (255, 255, 255)
    assert decode(io.BytesIO(encoded(half))).getpixel((0, 0)) == (127, 127, 127)
    keyed = encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))
    assert decode(io.BytesIO(keyed)).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_cut_off():
    grey = Image.fromarray(np.full((2, 2), 128 * 257, np.uint16))
    assert decode(io.BytesIO(encoded(grey))).getpixel((0, 0)) == (128, 128, 128)


# what is refused before a request -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("ftp://example.org/a.png", "scheme 'ftp' is not fetched"),
        ("file:///etc/hostname", "scheme 'file' is not fetched"),
        ("data:image/png;base64,AAAA", "scheme 'data' is not fetched"),
        ("http://user:secret@example.org/a.png", "user name or password"),
        ("https://token@example.org/a.png", "user name or password"),
        ("http:///a.png", "names no host"),
        ("http://example.org:0/a.png", "names no host"),
        ("http://example.org:99999/a.png", "not a URL"),
        ("http://[::1/a.png", "not a URL"),
        ("nowhere/a.png", "no such file"),
        ("a\0b.png", "no such file|cannot be opened"),
        ("x" * 5000, "cannot be opened"),
        ("/dev/zero", "no such file"),
        ("", "no such file"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_its_reason(original, monkeypatch, reference, why):
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *args, **options: pytest.fail("looked up a name")
    )
    found = reason(original, reference)
    assert any(part in found for part in why.split("|")), found


PRIVATE = """
    127.0.0.1 10.1.2.3 192.168.0.1 172.16.0.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 240.0.0.1 255.255.255.255 192.0.2.1 198.18.0.1
    :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 fe80::1 fe80::1%eth0 fc00::1 fec0::1 ff02::1 2001:db8::1 64:ff9b::7f00:1 64:ff9b::a00:1
    2002:7f00:1:: 2001::1 ::7f00:1
"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address):
    assert not fetch.is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_that_are_public(address):
    assert fetch.is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "127.1", "0"],
)
def test_this_machine_is_not_asked_by_any_name(tmp_path, server, host):
    found = reason(Originals(tmp_path, timeout=5), server.url("/a.png", host))
    assert "is not a public address" in found or "no answer" in found, found
    assert server.requests == []


def names(monkeypatch, table: dict[str, list[list[str]]]) -> list[str]:
    """Make names resolve to one list of addresses after another; returns what was
    asked, addresses left out.
    """
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host, port, *args, **options):
        if host not in table:
            return real(host, port, *args, **options)
        asked.append(host)
        answers = table[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            found for address in addresses for found in real(address, port, type=socket.SOCK_STREAM)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_one_private_address_among_public_ones_is_enough_to_refuse(original, server, monkeypatch):
    names(monkeypatch, {"both.test": [["127.0.0.1", "10.0.0.1"]]})
    assert reason(original, server.url("/a.png", "both.test")) == "10.0.0.1 is not a public address"
    assert server.requests == []


def test_the_address_that_was_checked_is_the_one_that_is_asked(original, server, monkeypatch):
    server.answers["/a.png"] = body(PNG)
    asked = names(monkeypatch, {"rebind.test": [["127.0.0.1"], ["10.0.0.1"]]})
    assert same(original(server.url("/a.png", "rebind.test")), picture())
    assert asked == ["rebind.test"]
    assert server.requests[0][1]["Host"] == f"rebind.test:{server.server_address[1]}"


def test_the_next_address_is_asked_where_one_does_not_answer(original, server, monkeypatch):
    server.answers["/a.png"] = body(PNG)
    monkeypatch.setattr(fetch, "is_public", lambda address: True)
    names(monkeypatch, {"two.test": [["127.0.0.99", "127.0.0.1"]]})
    assert same(original(server.url("/a.png", "two.test")), picture())


def test_over_https_the_certificate_is_asked_of_the_name(original, server, monkeypatch):
    class Context:
        def wrap_socket(self, sock, server_hostname):
            self.name = server_hostname
            return sock

    context = Context()
    monkeypatch.setattr(fetch.ssl, "create_default_context", lambda: context)
    names(monkeypatch, {"secure.test": [["127.0.0.1"]]})
    server.answers["/a.png"] = body(PNG)
    assert same(original(server.url("/a.png", "secure.test", "https")), picture())
    assert context.name == "secure.test"
    assert server.requests[0][1]["Host"] == f"secure.test:{server.server_address[1]}"


def test_a_server_without_a_certificate_is_refused(original, server):
    assert reason(original, server.url("/a.png", scheme="https")).startswith("no secure connection")
    assert server.requests == []


# what is refused of an answer ---------------------------------------------------------------------


def test_three_redirects_are_followed_and_no_more(original, server):
    server.answers |= {
        f"/{k}": redirect(f"/{k + 1}", status) for k, status in enumerate((301, 302, 303, 307, 308))
    }
    server.answers["/5"] = body(PNG)
    assert same(original(server.url("/2")), picture())
    server.requests.clear()
    assert reason(original, server.url("/1")) == "more than 3 redirects"
    assert [path for path, _ in server.requests] == ["/1", "/2", "/3", "/4"]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://10.0.0.1/a.png", "10.0.0.1 is not a public address"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 is not a public address"),
        ("http://127.0.0.2:{port}/a.png", "127.0.0.2 is not a public address"),
        ("//127.0.0.2:{port}/a.png", "127.0.0.2 is not a public address"),
        ("http://[::1]:{port}/a.png", "::1 is not a public address"),
        ("file:///etc/hostname", "scheme 'file' is not fetched"),
        ("http://user:secret@127.0.0.1:{port}/a.png", "user name or password"),
    ],
)
def test_a_redirect_is_checked_as_the_url_itself(original, server, target, why):
    server.answers |= {
        "/": redirect(target.format(port=server.server_address[1])),
        "/a.png": body(PNG),
    }
    assert why in reason(original, server.url("/"))
    assert [path for path, _ in server.requests] == ["/"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (body(PNG, 404), "answers 404"),
        (body(PNG, 500), "answers 500"),
        (body(b"", 304), "answers 304"),
        (body(b"", 302), "answers 302"),
        (body(b"<html>gone</html>"), "not an image that is read"),
        (body(b""), "not an image that is read"),
        (body(PNG[: len(PNG) // 2]), "a broken image"),
        (body(PNG[:60], length=False, Content_Length="100"), "broke off 40 bytes before its end"),
        (body(png_that_declares(60000, 60000)), "more than 50 megapixels"),
        (body(png_that_declares(10000, 10000)), "more than 50 megapixels"),
        (body(png_that_declares(8000, 7000)), "8000 x 7000 pixels, more than 50 megapixels"),
        (body(png_that_declares(7000, 7000)), "a broken image"),
        (body(zlib.compress(PNG), Content_Encoding="deflate"), "compressed data"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n"), "no answer"),
        (
            lambda handler: handler.wfile.write(
                b"HTTP/1.0 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"
            ),
            "no answer",
        ),
        (lambda handler: None, "no answer"),
    ],
)
def test_a_bad_answer_is_a_reason_and_no_exception(original, server, tmp_path, answer, why):
    server.answers["/"] = answer
    assert why in reason(original, server.url("/"))
    assert [f.name for f in (tmp_path / "cache").iterdir()] == ["failures.jsonl"]


def chunked(data: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))

    return answer


def announced(handler: BaseHTTPRequestHandler) -> None:
    """Says that it is too big, and never comes to it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(fetch.MOST_BYTES + 1))
    handler.end_headers()
    handler.server.closing.wait()


@pytest.mark.parametrize(
    "answer",
    [
        announced,
        body(PNG + bytes(2000), length=False),
        chunked(PNG + bytes(2000)),
        endless(b"HTTP/1.0 200 OK\r\n\r\n", bytes(500)),
    ],
)
def test_a_body_that_is_too_big_is_refused_whatever_it_says_of_its_length(
    original, server, monkeypatch, answer
):
    """Where the body never comes or has no end, waiting for it would end as "took too long"."""
    monkeypatch.setattr(fetch, "MOST_BYTES", 1000)
    server.answers |= {"/": answer, "/small": chunked(PNG)}
    assert reason(original, server.url("/")).startswith("more than")
    assert same(original(server.url("/small")), picture())


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (lambda handler: handler.server.closing.wait(), float("inf")),
        (endless(b""), 1),
        (endless(b"HTTP/1.0 200 OK\r\nX: ", b"x"), 1),
        (endless(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n" + PNG), 1),
    ],
    ids=["silent", "status", "header", "body"],
)
def test_a_slow_server_is_given_up_in_time(original, server, clock, monkeypatch, answer, seconds):
    real = socket.create_connection
    monkeypatch.setattr(
        socket,
        "create_connection",
        lambda *args, **options: SlowConnection(real(*args, **options), clock, seconds),
    )
    server.answers["/"] = answer
    original.timeout = 100.5
    assert reason(original, server.url("/")) == "took too long"
    assert clock.now == 100.5


def test_all_redirects_share_one_time(original, server, clock):
    def late(target: str) -> Answer:
        return lambda handler: (clock.sleep(15), redirect(target)(handler))

    server.answers |= {"/0": late("/1"), "/1": late("/2"), "/2": late("/3"), "/3": body(PNG)}
    original.timeout = 40
    assert reason(original, server.url("/0")) == "took too long"
    assert [path for path, _ in server.requests] == ["/0", "/1", "/2"]


def test_a_name_that_takes_too_long_to_look_up_is_given_up_in_time(original, monkeypatch):
    asked = threading.Event()
    test_is_over = threading.Event()

    def look_up(*args: object, **options: object) -> None:
        asked.set()
        test_is_over.wait()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    original.timeout = 0.01
    assert reason(original, "http://slow.test/a.png") == "took too long"
    assert asked.wait(60)  # the limit only ends a test that hangs
    test_is_over.set()


def test_dead_links_do_not_raise(original, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert reason(original, f"http://127.0.0.1:{unused.getsockname()[1]}/a.png").startswith(
            "no answer"
        )

    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert reason(original, "http://nowhere.test/a.png") == "no answer (Name or service not known)"
    for host in ("a" * 70 + ".test", "..", "exa mple", "\ud800"):
        assert reason(original, f"http://{host}/a.png")


# bookkeeping --------------------------------------------------------------------------------------


def test_a_failure_is_written_down_and_not_tried_again_by_the_same_object(
    original, server, tmp_path
):
    server.answers["/"] = body(b"", 503)
    url = server.url("/")
    assert original(url) is original(url) is None
    assert len(server.requests) == 1
    lines = [
        json.loads(line)
        for line in (tmp_path / "cache" / "failures.jsonl").read_text().splitlines()
    ]
    assert [(line["image"], line["reason"]) for line in lines] == [(url, "answers 503")]
    server.answers["/"] = body(PNG)
    assert same(Originals(tmp_path / "cache")(url), picture())


def test_a_host_is_asked_one_request_at_a_time_with_a_pause(original, server, clock):
    times: list[float] = []

    def timed(handler: BaseHTTPRequestHandler) -> None:
        times.append(clock.now)
        body(PNG)(handler)

    server.answers |= {f"/{k}": timed for k in range(4)}
    original.pause = 30
    original.timeout = 10  # waiting for a turn is not the image's time
    found: list[Image.Image | None] = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(original(server.url(f"/{k}"))))
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(image, picture()) for image in found), original.failures
    assert times == [0, 30, 60, 90]


def test_two_hosts_do_not_wait_for_each_other(original, server, clock, monkeypatch):
    names(monkeypatch, {"one.test": [["127.0.0.1"]], "two.test": [["127.0.0.1"]]})
    server.answers["/"] = body(PNG)
    original.pause = 30
    assert same(original(server.url("/", "one.test")), picture())
    assert same(original(server.url("/", "two.test")), picture())
    assert clock.now == 0


def test_a_cache_that_cannot_be_written_is_an_error(server, tmp_path, lenient):
    (tmp_path / "file").write_text("")
    server.answers["/"] = body(PNG)
    original = Originals(tmp_path / "file", tmp_path, pause=0)
    for reference in (server.url("/"), "nowhere.png"):
        with pytest.raises(InputError, match=r"file cannot be written"):
            original(reference)


@pytest.mark.parametrize(("timeout", "pause"), [(0, 1), (-1, 1), (5, -1), (float("nan"), 1)])
def test_times_that_make_no_sense_are_refused(tmp_path, timeout, pause):
    with pytest.raises(InputError, match="give a timeout above 0"):
        Originals(tmp_path, timeout=timeout, pause=pause)


def test_an_audit_gets_the_originals_of_its_captions(tmp_path):
    original = Originals(tmp_path / "run" / "originals", demo.ASSETS)
    prompt = demo.memorized()[0]
    captions = [
        Caption(1, prompt.text, 1, "VM", image, {}, {}, 0.0)
        for image in (prompt.image, None, "nowhere.png")
    ]
    found = [original.of_caption(caption) for caption in captions]
    assert same(found[0], demo.training_image(prompt.text))
    assert found[1:] == [None, None]
    assert original.failures == {"nowhere.png": "no such file"}
    assert (tmp_path / "run" / "originals" / originals.FAILURES).exists()
