"""The command line in this process, and a process of its own with little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from findnemo.errors import FindnemoError
from findnemo.runs import Run

LIMITED = """
import resource, sys
{before}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {more}, resource.RLIM_INFINITY))
from findnemo.errors import FindnemoError
try:
    {what}
except FindnemoError as error:
    print("REFUSED", error)
else:
    print("READ")
print("PEAK", next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM")))  # not the parent's
"""


def limited(before: str, what: str, more: int) -> tuple[str, int]:
    """What a statement ends with in a process that may take `more` bytes of address space beyond
    what its imports took: what it said, and the most memory it ever had, in MiB.
    """
    code = LIMITED.format(before=before, what=what, more=more)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, peak = done.stdout.strip().rsplit("\nPEAK ", 1)
    return said, int(peak)


def refused(read: Callable[[], Any]) -> str | None:
    """Why a file was refused; None if it was read. Any other exception is raised."""
    try:
        read()
    except FindnemoError as error:
        return str(error)
    return None


def settings_in(out: Path) -> dict:
    with Run.open(out) as run:
        return run.meta("settings")
