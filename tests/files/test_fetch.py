"""Requests to untrusted hosts: public addresses only, limited bytes and time."""

import socket
import struct
import threading
import zlib
from http.server import BaseHTTPRequestHandler

import pytest
from _servers import PNG, Answer, Clock, body, names, picture, reason, same

from findnemo.files import fetch
from findnemo.files.originals import Originals


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


def redirect(url: str, status: int = 302) -> Answer:
    return body(b"", status, Location=url)


def endless(first: bytes, data: bytes = b"\0") -> Answer:
    """An answer that has no end: only who hangs up gets away."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(first)
        while not handler.server.closing.is_set():
            handler.wfile.write(data)

    return answer


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
