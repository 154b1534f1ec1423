"""How many canaries a copy test detects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from _photos import SMALL, photos
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import beta

from findnemo.errors import InputError
from findnemo.training import Canary, compared, plant, sensitivity
from findnemo.training.drawing import drawn


def canaries(*repeats: int) -> list[Canary]:
    return [Canary(f"tile {k}", n, Path(), "", Path()) for k, n in enumerate(repeats)]


def test_a_case_by_hand():
    # 200 negatives 0 to 1.99: two may exceed, so the threshold is the third from above
    negatives = torch.arange(200)[:, None] / 100
    similarity = torch.tensor([[1.97, 0.0], [0.0, 1.98], [0.5, 1.0], [1.99, 2.0]])
    found = sensitivity(canaries(1, 16, 1, 16), similarity, negatives.expand(-1, 2))
    assert found.threshold == pytest.approx(1.97)
    assert {n: (seen.hits, seen.of) for n, seen in found.seen.items()} == {1: (0, 2), 16: (2, 2)}
    low, high = found.seen[16].interval
    assert (low, high) == (pytest.approx(beta.ppf(0.025, 2, 1)), 1.0)
    assert found.to_json()["seen"]["16"]["hits"] == 2
    json.dumps(found.to_json())


@settings(max_examples=30, deadline=None)
@given(st.integers(100, 400), st.integers(1, 3), st.integers(0, 10_000))
def test_no_more_than_one_negative_in_a_hundred_exceeds_the_threshold(count, samples, seed):
    generator = torch.Generator().manual_seed(seed)
    negatives = torch.rand(count, samples, generator=generator)
    similarity = torch.rand(10, samples, generator=generator)
    found = sensitivity(canaries(*[4] * 10), similarity, negatives)
    best = negatives.double().amax(1)
    exceeding = int((best > found.threshold).sum())
    assert exceeding <= count / 100 < exceeding + 1  # a lower threshold would let one more through
    hits = sum(bool((row > found.threshold).any()) for row in similarity.double())
    assert found.seen[4].hits == hits


@pytest.mark.parametrize(
    ("similarity", "negatives", "says"),
    [
        (torch.zeros(2, 1), torch.zeros(99, 1), "99 negatives are too few .* it takes 100"),
        (torch.zeros(3, 1), torch.zeros(100, 1), "not those of 2 canaries"),
        (torch.zeros(2), torch.zeros(100, 1), "not those of 2 canaries"),
        (torch.zeros(2, 2), torch.zeros(100, 1), "as many generations"),
        (torch.full((2, 1), float("nan")), torch.zeros(100, 1), "NaN"),
    ],
)
def test_what_says_nothing_is_refused(similarity, negatives, says):
    with pytest.raises(InputError, match=says):
        sensitivity(canaries(1, 16), similarity, negatives)


def test_compared_holds_each_against_its_own_and_all_against_the_twins(tmp_path):
    planted = plant(photos(tmp_path / "photos"), **SMALL)
    own = [Image.open(one.picture) for one in planted]
    twins = [Image.open(one.twin) for one in planted]
    other = [drawn([99, k], 64) for k in range(24)]
    images = [[other[k], own[k]] for k in range(12)]
    twin_images = [[other[12 + k], other[k]] for k in range(12)]
    similarity, negatives = compared(planted, images, twin_images)
    assert similarity.shape == (12, 2)
    assert negatives.shape == (2 * 12 * 12, 2)

    def alike(one, picture):
        pixels = np.asarray(picture)
        both = (pixels, pixels[:, ::-1])
        return max(np.corrcoef(np.ravel(np.asarray(one)), p.ravel())[0, 1] for p in both)

    for k in range(12):
        expected = [alike(image, own[k]) for image in images[k]]
        assert similarity[k].tolist() == pytest.approx(expected, abs=1e-5)
        assert similarity[k, 1] > 0.999
    by_hand = [
        [alike(image, twin) for image in some] for some in (*images, *twin_images) for twin in twins
    ]
    assert np.allclose(np.sort(negatives.numpy(), 0), np.sort(by_hand, 0), atol=1e-5)
    assert all(seen.rate == 1 for seen in sensitivity(planted, similarity, negatives).seen.values())
    assert compared(planted, images)[1].shape == (144, 2)


def test_images_that_are_not_those_of_the_canaries(tmp_path):
    planted = plant(photos(tmp_path / "photos"), **SMALL)
    image = drawn([0], 64)
    with pytest.raises(InputError, match="images of 3 captions"):
        compared(planted, [[image]] * 3)
    with pytest.raises(InputError, match="different numbers of images"):
        compared(planted, [[image]] * 11 + [[image, image]])
