"""Tasks: what the commands do, for Python.

Each task opens a model once, writes one run directory, and continues where it stopped.

May be imported: the names below and the modules here. May import: everything but the command
line. Names are imported when they are first used, because the command line reads options before
PyTorch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from findnemo.runs.detectors import Detectors as Detectors
    from findnemo.tasks.auditing import audit as audit
    from findnemo.tasks.auditing import audit_demo as audit_demo
    from findnemo.tasks.auditing import audited_of as audited_of
    from findnemo.tasks.auditing import detect as detect
    from findnemo.tasks.auditing import localize as localize
    from findnemo.tasks.benchmarking import benchmark as benchmark
    from findnemo.tasks.benchmarking import check_demo as check_demo
    from findnemo.tasks.calibrating import calibrate as calibrate
    from findnemo.tasks.calibrating import calibrate_published as calibrate_published
    from findnemo.tasks.checking import CheckedRun as CheckedRun
    from findnemo.tasks.checking import Hardened as Hardened
    from findnemo.tasks.checking import harden as harden
    from findnemo.tasks.checking import verify as verify
    from findnemo.tasks.comparing import compare as compare
    from findnemo.tasks.comparing import compare_detectors as compare_detectors
    from findnemo.tasks.comparing import studies as studies
    from findnemo.tasks.comparing import study as study
    from findnemo.tasks.exporting import check_export as check_export
    from findnemo.tasks.exporting import export as export
    from findnemo.tasks.listening import Listener as Listener
    from findnemo.tasks.options import Captions as Captions
    from findnemo.tasks.options import Comparing as Comparing
    from findnemo.tasks.options import Detecting as Detecting
    from findnemo.tasks.options import FineTune as FineTune
    from findnemo.tasks.options import HardeningOptions as HardeningOptions
    from findnemo.tasks.options import Localizing as Localizing
    from findnemo.tasks.options import Output as Output
    from findnemo.tasks.options import Pictures as Pictures
    from findnemo.tasks.options import Scoring as Scoring
    from findnemo.tasks.options import Selecting as Selecting
    from findnemo.tasks.options import Source as Source
    from findnemo.tasks.options import Studying as Studying
    from findnemo.tasks.options import Trying as Trying
    from findnemo.tasks.options import Workers as Workers
    from findnemo.tasks.options import Writing as Writing
    from findnemo.tasks.serving import launch as launch
    from findnemo.tasks.watching import watch as watch

_HOMES = {
    "auditing": ("audit", "audit_demo", "audited_of", "detect", "localize"),
    "benchmarking": ("benchmark", "check_demo"),
    "calibrating": ("calibrate", "calibrate_published"),
    "checking": ("CheckedRun", "Hardened", "harden", "verify"),
    "comparing": ("Detectors", "compare", "compare_detectors", "studies", "study"),
    "exporting": ("check_export", "export"),
    "listening": ("Listener",),
    "options": (
        *("Captions", "Comparing", "Detecting", "FineTune", "HardeningOptions", "Localizing"),
        *("Output", "Pictures", "Scoring", "Selecting", "Source", "Studying", "Trying"),
        *("Workers", "Writing"),
    ),
    "serving": ("launch",),
    "watching": ("watch",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"findnemo.tasks.{_HOME[name]}"), name)
    raise AttributeError(f"module 'findnemo.tasks' has no attribute {name!r}")
