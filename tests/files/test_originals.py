"""Original images: what a hostile table or server may try, against a real server on this
machine; and that nothing of it is fatal.
"""

import io
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from _servers import PNG, body, encoded, names, picture, reason, same
from PIL import Image

from findnemo import __version__, demo
from findnemo.errors import InputError
from findnemo.files import originals
from findnemo.files.fetch import RefusedError
from findnemo.files.originals import Originals, decode
from findnemo.runs.store import Caption


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
