"""Run a function in a separate process with limited memory, for files that could exhaust memory or
break their library.

    table = call("findnemo.prompts._reading", "_read_through", "captions.parquet", None)

Arguments and result are passed as JSON. If the function fails, runs out of memory or crashes, the
caller gets an InputError.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from findnemo.errors import InputError

MEMORY = 6 << 30  # bytes of address space
SECONDS = 900
_CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from findnemo.files.contained import"
    " serve; serve(*sys.argv[2:])"
)


def call(module: str, name: str, source: str, *rest: Any) -> Any:
    """The result of a function of findnemo for a file.

    Raises InputError naming `source`: the function's own, or saying how its process ended.
    """
    served = [str(MEMORY), module, name, json.dumps([source, *rest])]
    command = [sys.executable, "-I", "-c", _CODE, json.dumps(sys.path), *served]
    environment = {**os.environ, "POLARS_MAX_THREADS": "2", "RUST_BACKTRACE": "0"}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{source}: not read in {SECONDS} s: write it again, or split it"
        ) from None
    if done.returncode != 0:
        status = done.returncode
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise InputError(
            f"{source}: its reader {ended}: it takes more than {MEMORY >> 30} GiB"
            " of memory, or is damaged; write it again, split it, or export it as .csv"
        )
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["value"]


def serve(memory: str, module: str, name: str, given: str) -> None:
    """In the separate process: call the function under the limit and print its result."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(memory) if hard == resource.RLIM_INFINITY else min(int(memory), hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    function: Callable[..., Any] = getattr(import_module(module), name)
    try:
        answer = {"value": function(*json.loads(given))}
    except InputError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer))
