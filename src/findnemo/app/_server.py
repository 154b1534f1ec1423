"""Serve the page: on this machine, without telemetry or uploads, and with files of the app's own
folder only.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from typing import Any

from findnemo.app.subject import Subject, open_subject
from findnemo.errors import InputError
from findnemo.models import Model

LOCAL = "127.0.0.1"
FIRST_PORT = 7860
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
}


def require_gradio() -> None:
    """Import gradio with its telemetry off. Raises InputError if it is not installed."""
    os.environ.update(QUIET)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise InputError(
            f'the app needs gradio, which is not installed ({error}): pip install "findnemo[app]"'
        ) from error


def launch(
    place: str | os.PathLike,
    calibration: str | os.PathLike | None = None,
    host: str = LOCAL,
    port: int | None = None,
    model: Model | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the app for a run directory, or for anything that `findnemo.load` takes, until
    interrupted.

    `calibration`: a directory made by `findnemo calibrate`; a run and the demo model have their
    own. `host`: an address of this machine, by default reachable from this machine only. `port`: by
    default the first free one from 7860. `model`: that of `place`, if already loaded. `ready(url)`:
    called once the page can be opened. Raises InputError if gradio is missing, or for a place that
    is neither a run nor a model.

        findnemo.app.launch("run")
    """
    require_gradio()
    with tempfile.TemporaryDirectory(prefix="findnemo-app-") as folder:
        page, url = serve(open_subject(place, folder, calibration, model), host, port)
        try:
            ready(url)
            page.block_thread()
        finally:
            page.close(verbose=False)


def serve(subject: Subject, host: str = LOCAL, port: int | None = None) -> tuple[Any, str]:
    """Start the server in its own threads; return the page, whose `close` ends it, and its
    address.
    """
    require_gradio()
    check_address(host, port)
    # the only folder from which files are served
    os.environ["GRADIO_TEMP_DIR"] = str(subject.folder)
    from starlette.middleware import Middleware

    from findnemo.app import layout
    from findnemo.app._guard import guarded

    page = layout.build(subject).queue(api_open=False, max_size=64, default_concurrency_limit=8)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,
            footer_links=[],
            run_history=False,
            allowed_paths=[],
            max_file_size=0,  # no uploads
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            app_kwargs={"middleware": [Middleware(guarded, host=host)]},
            theme=layout.THEME,
            css=layout.CSS,
        )
    except OSError as error:
        raise InputError(
            f"no free port from {FIRST_PORT} on {host} ({error}): give another --port"
        ) from error
    return page, url


def check_address(host: str, port: int | None = None) -> None:
    """Raises InputError for an address that cannot be listened on; gradio would keep trying for
    minutes.
    """
    try:
        kind, *_, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        where = f"{host}, port {port}" if port else host
        raise InputError(
            f"{where} cannot be listened on ({error.strerror}): give another --host or --port"
        ) from error
