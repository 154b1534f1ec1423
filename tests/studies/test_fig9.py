"""Figure 9: the captions whose memory persists longest."""

from __future__ import annotations

import pytest
from _workshop import Pixels

import findnemo
from findnemo.edits import deactivate
from findnemo.images import generate
from findnemo.seeds import FRESH
from findnemo.studies import Bench
from findnemo.studies.fig9 import fig9


def test_highly_memorized_captions_come_in_the_order_of_what_the_listing_leaves(work):
    made = fig9(Bench(work, ()))
    rows = made.tables[0].rows
    assert [row[4] for row in rows] == sorted((row[4] for row in rows), reverse=True)
    caption = next(c for c in work.run.captions() if c.text == rows[0][0])
    found = findnemo.localize(work.model, caption.text, work.calibration, "listing").neurons
    samples = range(FRESH, FRESH + 2)
    with deactivate(work.model, found):
        after = generate(work.model, caption.text, samples, work.plan.image_settings)
    one = Pixels()(after) @ Pixels()([work.original(caption)]).T
    assert rows[0][3:5] == [len(found), pytest.approx(float(one.median()), abs=2e-4)]
