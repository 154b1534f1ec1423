"""Serve the app for a run or a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from findnemo import app
from findnemo.app.subject import is_run
from findnemo.runs import Run
from findnemo.runtime.threads import suited, threads
from findnemo.tasks.listening import Listener, silent
from findnemo.tasks.opening import load_model, refuse_many, source_of, without_run
from findnemo.tasks.options import Workers

LOCAL = "127.0.0.1"


def launch(
    place: str | Path,
    model: Any = None,
    calibration: str | Path | None = None,
    host: str = LOCAL,
    port: int | None = None,
    workers: Workers = Workers(),
    listener: Listener = Listener(),
    ready: Callable[[str], None] = silent,
) -> None:
    """Open a run or a model as the other tasks do, and serve the app for it until interrupted.

    What `findnemo app` does. `place`: a run directory, or a model. `model`: the place of a run's
    model, if it has moved, or a `Source` with the options of the model. `calibration`, `host`,
    `port`, `ready`: as for `findnemo.app.launch`. The listener is asked to stop until the page is
    served. Raises InputError if gradio is missing, for a place that is neither a run nor a model,
    and for the place of another model without a run.

        findnemo.tasks.launch("run", findnemo.tasks.Source(device="cpu"))
    """
    app.require_gradio()
    refuse_many(workers)
    if is_run(place):
        with Run.open(place) as run:
            source = source_of(run, model, ("model",))
    else:
        source = without_run(place, model)
    own = load_model(source, listener)
    if listener.stop():
        return
    if host not in (LOCAL, "localhost", "::1"):
        listener.warn(f"everyone who can reach {host} can use this app, its model and its exports")
    with threads(workers.threads or suited(own.denoiser, own.latent_shape)):
        app.launch(place, calibration, host, port, own, ready)
