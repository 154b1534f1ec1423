"""Figure 6: similarity to the training image, and the type of memory that follows."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from _workshop import Pixels

from findnemo.images import generate
from findnemo.prompts import read_prompts
from findnemo.seeds import FRESH
from findnemo.studies import Bench, write
from findnemo.studies.fig6 import fig6


def test_types_are_told_by_the_best_of_ten_and_read_by_other_commands(work, tmp_path):
    """One caption's training image is one of its own generations; no other's is."""
    first, *others = [c for c in work.run.captions() if c.type]
    settings = work.plan.image_settings
    images = generate(work.model, first.text, range(FRESH, FRESH + 10), settings)

    def original(caption):
        return images[9] if caption.text == first.text else work.original(caption)

    made = fig6(Bench(replace(work, original=original), ()))
    write(made, tmp_path, "fig6")
    with (tmp_path / "fig6-2.csv").open(encoding="utf-8") as file:
        told = {row["caption"]: row for row in csv.DictReader(file)}
    assert float(told[first.text]["similarity"]) == pytest.approx(1, abs=1e-3)
    similar = Pixels()(images) @ Pixels()([images[9]]).T
    over = int((similar > 0.7).sum())
    assert told[first.text]["type"] == "VM"
    for caption in others:
        best = float(told[caption.text]["similarity"])
        assert told[caption.text]["type"] == ("VM" if best > 0.7 else "TM")
    line = next(row for row in made.tables[0].rows if row[0] == first.type)
    group = [c for c in (first, *others) if c.type == first.type]
    assert line[1] == len(group)
    assert line[4] >= over / (10 * len(group))
    read = {p.text: p.type for p in read_prompts(tmp_path / "fig6-2.csv").prompts}
    assert read == {text: row["type"] for text, row in told.items()}
