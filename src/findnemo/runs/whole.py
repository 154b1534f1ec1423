"""A run as faces show it: whatever they need is there. The store itself takes what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from findnemo.runs import _shapes
from findnemo.runs.store import Caption, Run


def settings_of(run: Run, audit: bool = True) -> dict[str, Any]:
    """The settings of an audit, or of any run. Raises InputError naming what is missing."""
    known, where = run.meta("settings") or {}, str(run.path / "run.sqlite")
    _shapes.require(known, _shapes.AUDIT if audit else _shapes.DETECTORS, where)
    return known


def captions_of(run: Run) -> list[Caption]:
    """All captions. Raises InputError naming a caption of which a result lacks something."""
    return list(each_caption(run))


def each_caption(run: Run) -> Iterator[Caption]:
    """The same one by one."""
    for caption in run.captions():
        for stage, result in caption.results.items():
            where = f"{run.path / 'run.sqlite'}, caption {caption.id}, {stage!r:.60}"
            _shapes.require(result, _shapes.kinds(stage), where)
            if stage == "verify" and "copies_before" in result:
                _shapes.require(result, {"copies_after": _shapes.number}, where)
        yield caption
