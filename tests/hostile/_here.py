"""The command line in this process, and a process of its own with little memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from findnemo.cli import main


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


def cli(*arguments: object) -> Result:
    """`findnemo ARGUMENTS` through the same entry point as the real one."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", ["findnemo", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Result(status, out.getvalue(), err.getvalue())


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
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("PEAK", int(peak.split()[1]) >> 10)
"""


def limited(before: str, what: str, more: int) -> tuple[str, int]:
    """What a statement ends with in a process that may take `more` bytes of address space beyond what its imports took: what it said, and
    the most memory it ever had, in MiB (VmHWM: `ru_maxrss` would begin with what the parent has)."""
    code = LIMITED.format(before=before, what=what, more=more)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said, peak = done.stdout.strip().rsplit("\nPEAK ", 1)
    return said, int(peak)
