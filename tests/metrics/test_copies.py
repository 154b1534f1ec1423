"""Copies among finished images, by pictures and numbers that can be followed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _angles import by_angle, by_brightness, cos
from _angles import picture as at_angle
from PIL import Image

from findnemo.metrics import Judges
from findnemo.metrics.copies import (
    compare_images,
    copies_in,
    copying,
    pixel_changes,
    pixel_vectors,
    shares,
)

COPIES = {"copies_before", "copies_after"}


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(pixels)


def test_products_of_pixel_vectors_are_correlations():
    images = [picture(k) for k in range(3)]
    vectors = pixel_vectors(images)
    rows = np.stack([np.asarray(image, float).ravel() for image in images])
    np.testing.assert_allclose((vectors @ vectors.T).numpy(), np.corrcoef(rows), atol=1e-5)


def test_an_image_is_compared_with_those_of_other_seeds_only():
    first, second, third = (picture(k) for k in range(3))
    alone = copying([first, second, third], [first, second, third])
    assert alone.max() < 0.3, "an image is no copy of itself"
    twice = copying([first, first, third], [first, first, third])
    assert twice[:2].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert twice[2] < 0.3


@pytest.mark.parametrize(
    ("before", "after", "trained_before", "trained_after", "found"),
    [
        (1.0, 0.0, None, None, (True, False)),
        (1.0, 0.25, None, None, (True, True)),
        (0.5, 0.0, None, None, (True, False)),
        (0.25, 0.25, None, None, (False, False)),  # two similar images are chance
        (None, None, 0.7, 0.69, (True, False)),
        (0.0, 0.0, 0.7, 0.7, (True, True)),
        (None, None, None, None, (None, None)),
    ],
)
def test_the_rule_of_a_copy(before, after, trained_before, trained_after, found):
    values = {
        "copies_before": before,
        "copies_after": after,
        "sscd_orig_before": trained_before,
        "sscd_orig_after": trained_after,
    }
    assert (copies_in(values, "before"), copies_in(values, "after")) == found


def test_a_similarity_of_exactly_the_level_is_a_copy():
    found = shares({"copies_after": torch.tensor([0.7, 0.6999], dtype=torch.float64)})
    assert found == {"copies_after": 0.5}


def test_changes_of_pixels_are_from_0_to_1():
    black, white = (Image.new("RGB", (4, 4), name) for name in ("black", "white"))
    assert pixel_changes([black, black, white], [white, black, white]) == [1, 0, 0]


def test_figures_are_medians_over_the_seeds():
    before, after = [at_angle(d) for d in (0, 10, 30)], [at_angle(d) for d in (60, 20, 90)]
    values = compare_images("abc", before, after, Judges(by_angle, by_brightness, at_angle(40)))
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
    assert set(compare_images("abc", [at_angle(0)] * count, [at_angle(9)] * count, judges)) == names


def test_copying_is_the_similarity_to_the_closest_image_of_another_seed():
    before, after = [at_angle(d) for d in (0, 10, 40)], [at_angle(d) for d in (0, 90, 41)]
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
