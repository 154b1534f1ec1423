"""A member of a suite made of the tiny model with a memory planted by hand, as `findnemo
benchmark --train` would leave it.
"""

from __future__ import annotations

from pathlib import Path

from _planting import CAPTION, HOLDOUT, planted
from _tiny import tiny_pipeline

import findnemo
from findnemo.benchmark.plan import Memory, Plan


def tiny_member(folder: Path) -> Path:
    """`folder`/seed7 with model, calibration and truth: one caption, one neuron, and
    two captions that are none.
    """
    place = folder / "seed7"
    model, neurons = planted(tiny_pipeline())
    model.pipeline.save_pretrained(place / "model")
    again = findnemo.load(place / "model")
    findnemo.calibrate(again, HOLDOUT).save(place / "calibration")
    memory = Memory("one neuron", "VM", CAPTION, "moon", neurons, near=("blue sky at noon",))
    Plan(7, (memory,), unusual=("mountains 77",)).save(place / "truth.json")
    return place
