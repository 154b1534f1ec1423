"""A server on this machine, and originals fetched from it."""

import threading
from collections.abc import Iterator

import pytest
from _servers import Clock, Server

from findnemo.files import fetch, originals
from findnemo.files.originals import Originals


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


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (fetch, originals):
        monkeypatch.setattr(module, "time", clock)
    return clock
