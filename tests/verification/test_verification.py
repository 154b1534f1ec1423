"""The judges' figures of images before and after an edit, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from _angles import by_angle, by_brightness, cos, picture
from PIL import Image

from findnemo.metrics import Judges
from findnemo.metrics.copies import compare_images, copying

COPIES = {"copies_before", "copies_after"}


# Finished images


def test_figures_are_medians_over_the_seeds():
    before, after = [picture(d) for d in (0, 10, 30)], [picture(d) for d in (60, 20, 90)]
    values = compare_images("abc", before, after, Judges(by_angle, by_brightness, picture(40)))
    assert values == pytest.approx(
        {
            "sscd_gen": cos(60),  # 60, 10, 60 degrees apart
            "d_sscd_before": cos(20),  # 10, 20, 30
            "d_sscd_after": cos(40),  # 30, 40, 70
            "sscd_orig_before": cos(30),  # 40, 30, 10
            "sscd_orig_after": cos(20),  # 20, 20, 50
            "a_clip_before": 3.10,
            "a_clip_after": 3.60,
            "copies_before": 1.0,  # 10, 10, 20 degrees to the closest other seed
            "copies_after": 2 / 3,  # 30, 10, 80; a copy is one within 45.6
        },
        abs=1e-5,
    )


@pytest.mark.parametrize(
    ("judges", "count", "names"),
    [
        (Judges(), 1, set()),
        (Judges(), 2, COPIES),
        (Judges(alignment=by_brightness), 2, {"a_clip_before", "a_clip_after"} | COPIES),
        (Judges(descriptor=by_angle), 2, {"sscd_gen", "d_sscd_before", "d_sscd_after"} | COPIES),
        (Judges(descriptor=by_angle), 1, {"sscd_gen"}),
    ],
)
def test_only_what_can_be_judged_is_judged(judges, count, names):
    assert set(compare_images("abc", [picture(0)] * count, [picture(9)] * count, judges)) == names


# Copies of what other seeds gave


def test_copying_is_the_similarity_to_the_closest_image_of_another_seed():
    before, after = [picture(d) for d in (0, 10, 40)], [picture(d) for d in (0, 90, 41)]
    assert copying(before, before, by_angle).tolist() == pytest.approx([cos(10), cos(10), cos(30)])
    assert copying(after, before, by_angle).tolist() == pytest.approx(
        [cos(10), cos(50), cos(31)]
    )  # its own 0 does not count
    assert copying(before[:2], before[:2], by_angle).tolist() == pytest.approx([cos(10), cos(10)])


def test_without_a_descriptor_it_is_the_correlation_of_the_pixels():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(4)]
    other = [Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)) for _ in range(4)]
    flat_ = [np.asarray(i, np.float64).ravel() for i in (*images, *other)]
    table = np.corrcoef(flat_)[:4, 4:]
    np.fill_diagonal(table, -1)
    assert copying(images, other).tolist() == pytest.approx(table.max(1).tolist(), abs=1e-5)
    dark = [Image.fromarray(np.asarray(i) // 2) for i in images]
    assert copying([dark[1], dark[0]], images[:2]).tolist() == pytest.approx([1, 1], abs=1e-3)
