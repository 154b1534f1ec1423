"""The server of the app: what it gives, what it takes, and where it listens."""

from __future__ import annotations

import http.client
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock
from urllib.parse import quote, urlsplit

import pytest

from findnemo import demo
from findnemo.app import _server, launch, require_gradio
from findnemo.errors import InputError


def answer(
    url: str, path: str, method: str = "GET", body: bytes | None = None, headers: dict | None = None
) -> int:
    """The status of one request, its path sent as it is."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request(method, path, body, headers or {})
    return connection.getresponse().status


def test_files_of_the_app_alone_are_served(served):
    subject, url = served
    assert answer(url, "/") == 200
    inside = subject.folder / "made.txt"
    inside.write_text("made by the app")
    assert answer(url, f"/gradio_api/file={quote(str(inside))}") == 200  # the check can pass
    secrets = [
        "/etc/passwd",
        str(subject.run / "run.sqlite"),
        str(demo.MODEL / "model_index.json"),
        "pyproject.toml",
        "src/findnemo/__init__.py",
    ]
    for secret in [
        *secrets,
        f"{subject.folder}/../../../../../../etc/passwd",
        f"{subject.folder}/%2e%2e/%2e%2e/etc/passwd",
    ]:
        for path in (
            f"/gradio_api/file={secret}",
            f"/file={secret}",
            f"/gradio_api/file={quote(secret, safe='')}",
        ):
            assert answer(url, path) in (403, 404), path


def test_nothing_is_uploaded(served):
    subject, url = served
    before = sorted(subject.folder.rglob("*"))
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nsome'
        b" bytes\r\n--x--\r\n"
    )
    assert (
        answer(
            url,
            "/gradio_api/upload",
            "POST",
            body,
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        == 413
    )
    assert sorted(p for p in subject.folder.rglob("*") if p.is_file()) == [
        p for p in before if p.is_file()
    ]


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_what_is_asked_under_another_name_or_from_another_page_is_refused(served, headers):
    _, url = served
    assert answer(url, "/", headers={"Host": urlsplit(url).netloc}) == 200
    assert answer(url, "/", headers=headers) == 403


def test_an_address_that_is_in_use_or_not_of_this_machine_is_named_before_anything_is_served():
    with socket.socket() as taken:
        taken.bind((_server.LOCAL, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1, port {port} cannot be listened on"):
            _server.check_address(_server.LOCAL, port)
    _server.check_address(_server.LOCAL, port)
    with pytest.raises(
        InputError, match=r"192\.0\.2\.1 cannot be listened on .*give another --host"
    ):
        _server.check_address("192.0.2.1")


def test_gradio_is_asked_for_with_its_telemetry_off(monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    seen = []

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "gradio":
                seen.append(os.environ["GRADIO_ANALYTICS_ENABLED"])
                raise ImportError("none here")

    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(InputError, match=r"not installed \(none here\): pip install"):
        require_gradio()
    assert seen == ["False"]


def test_the_app_says_when_it_is_ready_and_is_closed_whatever_ends_it(monkeypatch):
    told = []
    page = SimpleNamespace(
        block_thread=mock.Mock(side_effect=KeyboardInterrupt),
        close=lambda verbose: told.append("closed"),
    )
    monkeypatch.setattr(_server, "require_gradio", lambda: None)
    monkeypatch.setattr(_server, "open_subject", lambda place, folder, *rest: told.append(folder))
    monkeypatch.setattr(
        _server, "serve", lambda subject, host, port: (page, f"http://{host}:{port}/")
    )
    with pytest.raises(KeyboardInterrupt):
        launch("run", port=7, ready=told.append)
    folder, *rest = told
    assert rest == ["http://127.0.0.1:7/", "closed"]
    assert not Path(folder).exists()
