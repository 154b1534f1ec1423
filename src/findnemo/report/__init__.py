"""The report: a run directory as one self-contained HTML file; and the evidence pack.

No model is loaded; only the contents of runs are shown.

May be imported: the names below and the modules without an underscore. May import: studies, runs and what lies under them.
"""

from __future__ import annotations

from pathlib import Path

from findnemo.errors import InputError
from findnemo.files.writing import atomic_write
from findnemo.report._evidence import evidence, write_evidence
from findnemo.report._facts import facts
from findnemo.report._sources import RELEASES
from findnemo.report._text import environment
from findnemo.report._verify import Checked, run_of_evidence, verify_evidence
from findnemo.runs import Run, refuse_links

__all__ = [
    "RELEASES",
    "Checked",
    "evidence",
    "render",
    "run_of_evidence",
    "verify_evidence",
    "write",
    "write_evidence",
]

NAME = "report.html"


def render(run: Run) -> str:
    """The page: HTML with styles, charts, thumbnails and one script inside, under 5 MB for a
    usual run.

    A run always gives the same page. Captions and paths are escaped. Raises InputError for a run
    without a calibration (one of detectors).

        with Run.open("run") as run:
            html = findnemo.report.render(run)
    """
    refuse_links(run.path)  # no picture from outside the run may enter the page
    return environment().get_template("report.html.j2").render(facts(run))


def write(run: Run, path: str | Path | None = None) -> Path:
    """Write the page to a file (default: `report.html` in the run directory), whole or not at all;
    return its path.

    Raises InputError for a path that is a directory.

        with Run.open("run") as run:
            findnemo.report.write(run, "report.html")
    """
    target = Path(path) if path is not None else run.path / NAME
    if target.is_dir():
        raise InputError(f"{target} is a directory: give a file, such as {target / NAME}")
    page = render(run)
    with atomic_write(target) as part:
        part.write_text(page, encoding="utf-8")
    return target
