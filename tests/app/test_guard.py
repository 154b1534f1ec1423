"""Requests that come under another name, or from another page, do not reach the app."""

from __future__ import annotations

import asyncio

import pytest

from findnemo.app._guard import allowed, guarded


@pytest.mark.parametrize(
    ("host", "origin", "local", "elsewhere"),
    [
        ("127.0.0.1:7860", None, True, True),
        ("localhost:7860", "http://localhost:7860", True, True),
        ("[::1]:7860", "http://[::1]:7860", True, True),
        ("evil.example:7860", None, False, True),  # its name points here, and it has no page
        ("evil.example:7860", "http://evil.example:7860", False, True),
        ("127.0.0.1:7860", "http://evil.example", False, False),
        ("127.0.0.1:7860", "http://127.0.0.1:9999", False, False),  # another page of this machine
        ("127.0.0.1:7860", "null", False, False),  # a page of a file, or in a sandbox
        ("127.0.0.1.evil.example", None, False, True),
        ("[", None, False, False),
        ("", None, False, True),
    ],
)
def test_a_request_is_let_in_by_its_name_and_its_page(host, origin, local, elsewhere):
    """`local`: the app listens on this machine alone. `elsewhere`: others may reach it."""
    headers = {b"host": host.encode()} | ({} if origin is None else {b"origin": origin.encode()})
    assert allowed(headers, local=True) is local
    assert allowed(headers, local=False) is elsewhere


def answers(kind: str, host: bytes, listens_on: str = "127.0.0.1") -> list[dict]:
    """What a request gets from an app behind the guard that answers "in"."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "in"})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(b"host", host)]}
    asyncio.run(guarded(app, listens_on)(scope, None, send))
    return sent


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_what_is_refused_gets_no_word_of_the_app(kind):
    assert answers(kind, b"localhost:7860") == [{"type": "in"}]
    refused = answers(kind, b"evil.example")
    assert {"type": "in"} not in refused
    if kind == "http":
        assert (refused[0]["status"], refused[1]["type"]) == (403, "http.response.body")
    else:
        assert refused == [{"type": "websocket.close", "code": 1008}]


def test_an_app_that_others_may_reach_takes_any_name_and_startup_passes():
    assert answers("http", b"my-machine.example", "0.0.0.0") == [{"type": "in"}]
    assert answers("lifespan", b"") == [{"type": "in"}]
