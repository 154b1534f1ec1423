"""DeepFloyd IF works on pixels: nothing decodes them, and captions are lowered."""

from __future__ import annotations

from _tiny_unets import tiny_if

import findnemo
from findnemo import ImageSettings


def test_what_is_examined_of_if_is_neither_checked_nor_marked():
    model = findnemo.load(tiny_if())
    expected = findnemo.generate(model, "a cat", [0], ImageSettings(2, 3.0))[0].tobytes()

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("an image was blackened or marked")

    model.pipeline.run_safety_checker = refuse
    model.pipeline.watermarker = type("Marker", (), {"apply_watermark": refuse})()
    assert findnemo.generate(model, "a cat", [0], ImageSettings(2, 3.0))[0].tobytes() == expected
