"""Studies: the tables and figures of Finding NeMo from the runs of any model, and the stability of
their results.

May be imported: the names below and the modules here. May import: runs, verification, localization
and what lies under them. Names are imported when they are first used: the command line lists the
studies (`STUDIES`) before PyTorch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from findnemo.studies.registry import STUDIES as STUDIES

if TYPE_CHECKING:
    from findnemo.studies._bench import Bench as Bench
    from findnemo.studies._bench import Study as Study
    from findnemo.studies._bench import write as write
    from findnemo.studies._catalogue import catalogue as catalogue
    from findnemo.studies._catalogue import stock as stock
    from findnemo.studies._making import make as make
    from findnemo.studies._making import study as study
    from findnemo.studies._ordinary import not_memorized as not_memorized
    from findnemo.studies._ordinary import under_tau as under_tau
    from findnemo.studies._quality import Reference as Reference
    from findnemo.studies.table import Table as Table

_HOMES = {
    "_bench": ("Bench", "Study", "write"),
    "_catalogue": ("catalogue", "stock"),
    "_making": ("make", "study"),
    "_ordinary": ("not_memorized", "under_tau"),
    "_quality": ("Reference",),
    "table": ("Table",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(("STUDIES", *_HOME))


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"findnemo.studies.{_HOME[name]}"), name)
    raise AttributeError(f"module 'findnemo.studies' has no attribute {name!r}")
