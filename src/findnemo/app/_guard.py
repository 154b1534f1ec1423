"""Restrict requests to the app to its own pages.

A foreign page, open in the same browser, must not control it.

gradio refuses foreign origins if the browser says `localhost`, but does not check the host name
that the browser requests. A page whose own name is pointed at 127.0.0.1 while it is open (DNS
rebinding) would pass. So both are checked here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
HERE = ("127.0.0.1", "localhost", "::1")


def guarded(app: App, host: str) -> App:
    """An ASGI application that passes on only requests under a name of this machine, from pages of
    that name.

    `host`: the address that the app listens on. If other machines can reach it, they may use any
    name for it: then only the origin must fit.
    """

    async def guard(scope: Scope, receive: Any, send: Any) -> None:
        asks = scope["type"] in ("http", "websocket")
        if asks and not allowed(dict(scope["headers"]), local=host in HERE):
            await _refused(scope, send)
        else:
            await app(scope, receive, send)

    return guard


def allowed(headers: dict[bytes, bytes], local: bool) -> bool:
    """Whether a request names this machine (if `local`), and comes from a page of the same name or
    from no page.

    >>> allowed({b"host": b"127.0.0.1:7860"}, True), allowed({b"host": b"evil.example:7860"}, True)
    (True, False)
    >>> allowed({b"host": b"localhost:7860", b"origin": b"http://evil.example"}, True)
    False
    """
    asked = headers.get(b"host", b"").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    try:
        name = urlsplit(f"//{asked}").hostname
        page = urlsplit(origin).netloc if origin else asked
    except ValueError:
        return False
    return page == asked and (not local or name in HERE)


async def _refused(scope: Scope, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    why = b"asked under another name, or from another page"
    await send({"type": "http.response.body", "body": why})
