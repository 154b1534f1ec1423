"""Commands that refuse what they are given: what they say, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path

from _command import Result


def everything(folder: Path) -> dict[str, tuple]:
    """All files below a folder with content and time, without what SQLite and
    the lock do on the side.
    """
    files = (p for p in folder.rglob("*") if not p.name.startswith(("run.sqlite-", ".lock")))
    return {
        str(p): (p.stat().st_mtime_ns if p.is_file() else 0, p.is_file() and p.read_bytes())
        for p in files
    }


def refused(result: Result, status: int, *says: str) -> None:
    """Nothing on standard output; on standard error one line of error after what was
    loaded and what it would go without, and no traceback.
    """
    assert (result.status, result.out) == (status, ""), result.err
    *before, last = result.err.splitlines()
    assert last.startswith("error: "), result.err
    assert all(
        line.startswith(("loading ", "warning: ", "no descriptor: ", "no clip: "))
        for line in before
    ), result.err
    for text in says:
        assert text in last


READERS = {
    "calibrate": ["calibrate", "MODEL", "--prompts", "FILE"],
    "detect": ["detect", "MODEL", "--prompts", "FILE", "--calibration", "calibration"],
    "localize": ["localize", "MODEL", "--prompts", "FILE", "--calibration", "calibration"],
    "audit": ["audit", "MODEL", "--prompts", "FILE", "--calibration", "calibration"],
    "audit --holdout": ["audit", "MODEL", "--prompts", "captions.csv", "--holdout", "FILE"],
}


def filled(
    place: Path, arguments: list[str], file: object = "", model: object = None
) -> list[object]:
    """The arguments with the places put in."""
    paths = {"MODEL": model or place / "model", "FILE": file}
    paths |= {name: place / name for name in ("calibration", "captions.csv", "holdout.txt", "run")}
    return [paths.get(argument, argument) for argument in arguments]
