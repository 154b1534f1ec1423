"""A command of findnemo in this process, and what it gave."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple
from unittest import mock

from findnemo.cli import main


class Result(NamedTuple):
    """What a command gave: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def cli(*arguments: object, stdin: str = "") -> Result:
    """`findnemo ARGUMENTS` in this process, through the same entry point as the real one."""
    out = io.StringIO()
    err = io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    argv = ["findnemo", *map(str, arguments)]
    with (
        mock.patch.multiple(sys, argv=argv, stdin=given),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Result(status, out.getvalue(), err.getvalue())
