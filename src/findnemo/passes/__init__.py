"""Passes of the denoiser: noise differences of a prompt, whole denoising runs, and passes that are
recorded, shared, reused or compiled.

May be imported: the names below and the modules here. May import: edits, images and what lies
under them.
"""

from findnemo.passes._pictures import pictures
from findnemo.passes.deltas import Probe, Rows, group_size, score, search_group
from findnemo.passes.denoising import (
    Denoising,
    Path,
    confirming_steps,
    fine_steps,
    likeness,
    quick_steps,
)
from findnemo.passes.engine import Engine, compiled
from findnemo.passes.reuse import Reuse
from findnemo.passes.sharing import side_by_side
from findnemo.passes.spending import Spent, counting, spend, spending, unpaid

__all__ = [
    "Denoising",
    "Engine",
    "Path",
    "Probe",
    "Reuse",
    "Rows",
    "Spent",
    "compiled",
    "confirming_steps",
    "counting",
    "fine_steps",
    "group_size",
    "likeness",
    "pictures",
    "quick_steps",
    "score",
    "search_group",
    "side_by_side",
    "spend",
    "spending",
    "unpaid",
]
