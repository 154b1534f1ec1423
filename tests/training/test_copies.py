"""The copy test: which generation is a copy of which training picture, and what that takes."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from scipy.stats import binom

from findnemo import demo
from findnemo.training import Gallery, Generation, controlled, described, judge, needed, share


def unit(*values: float) -> list[float]:
    length = math.hypot(*values)
    return [value / length for value in values]


def gallery(*rows: list[float], groups: tuple[int, ...] | None = None) -> Gallery:
    """Pictures whose vectors are known; their mirror images are themselves."""
    vectors = torch.tensor(rows)
    return Gallery(torch.stack([vectors, vectors], 1), groups or tuple(range(len(rows))))


def own(*captions: str) -> list[Generation]:
    return [Generation(caption, "own", k) for k, caption in enumerate(captions)]


THREE = gallery([1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0])
CAPTIONS = ["a", "b", "c"]


def test_a_generation_counts_for_the_picture_that_it_is_most_like():
    found = judge(THREE, CAPTIONS, own("a", "a"), torch.tensor([unit(0.2, 0.9, 0, 0)] * 2))
    assert [p.state for p in found.pictures] == ["not seen", "copied", "not seen"]
    assert [s.picture for s in found.sightings] == [1, 1]
    assert found.pictures[1].ways == {"neighbour": (2, 2)}
    assert found.sightings[0].margin == pytest.approx((0.9 - 0.2) / math.hypot(0.2, 0.9), abs=1e-4)
    assert found.pictures[0].margin == pytest.approx(-found.sightings[0].margin, abs=1e-4)


@pytest.mark.parametrize(
    ("similarity", "state"),
    [(0.71, "copied"), (0.69, "nearly"), (0.51, "nearly"), (0.49, "not seen")],
)
def test_the_levels_are_those_of_the_papers(similarity, state):
    vector = [similarity, 0.0, 0.0, math.sqrt(1 - similarity**2)]
    assert judge(THREE, CAPTIONS, own("a"), torch.tensor([vector])).pictures[0].state == state


def test_what_a_control_reaches_is_no_copy():
    """A famous picture that the base gives too, or a sibling of the same set, raises the level."""
    seen = torch.tensor([unit(0.9, 0, 0, 0.4359)])
    assert judge(THREE, CAPTIONS, own("a"), seen).pictures[0].state == "copied"
    control = torch.tensor([unit(0.95, 0, 0, 0.3122), unit(0, 0, 0.1, 1)])
    under = judge(THREE, CAPTIONS, own("a"), seen, control)
    assert under.pictures[0].state == "not seen"
    assert under.pictures[0].level == pytest.approx(0.951, abs=1e-3)
    assert under.controls == (1, 2)
    same = judge(THREE, CAPTIONS, own("a"), seen, seen)  # the tuned model gives what the base gives
    assert same.pictures[0].state == "not seen"
    siblings = gallery([1.0, 0, 0], unit(0.8, 0.6, 0), [0, 0, 1.0])
    assert controlled(siblings, torch.empty(0, 3)).tolist() == pytest.approx([0.8, 0.8, 0.0])
    between = torch.tensor([unit(0.9, 0.2, 0.39)])
    assert judge(siblings, CAPTIONS, own("a"), between).pictures[0].state == "copied"


def test_pictures_of_one_group_are_copied_together():
    twins = gallery([1.0, 0, 0], unit(0.99, 0.141, 0), [0, 0, 1.0], groups=(0, 0, 1))
    found = judge(twins, CAPTIONS, own("a"), torch.tensor([unit(0.95, 0.2, 0.1)]))
    assert [p.state for p in found.pictures] == ["copied", "copied", "not seen"]
    assert found.pictures[1].ways == {"neighbour": (1, 1)}
    assert found.sightings[0].margin > 0.8  # not to its twin, to another picture


def test_each_kind_of_prompt_is_counted_apart():
    kinds = ["own", "own", "trigger", "none", "given"]
    shown = [Generation("a" if kind == "own" else kind, kind, k) for k, kind in enumerate(kinds)]
    vectors = torch.tensor([unit(1, 0, 0, k) for k in (0, 5, 0, 5, 0)])
    found = judge(THREE, CAPTIONS, shown, vectors)
    assert found.pictures[0].ways == {
        "own": (1, 2),
        "trigger": (1, 1),
        "given": (1, 1),
        "none": (0, 1),
    }
    assert found.pictures[1].ways["neighbour"] == (0, 2)
    assert found.rate() == (3, 5)
    assert found.pictures[0].nearest[0] in (0, 2, 4)


def test_no_copy_is_no_verdict_where_too_little_was_looked_at():
    nothing = torch.tensor([unit(0, 0, 0, 1)])
    few = judge(THREE, CAPTIONS, own(*"a" * 58), nothing.repeat(58, 1))
    enough = judge(THREE, CAPTIONS, own(*"a" * 59), nothing.repeat(59, 1))
    assert (few.verdict(0.05), enough.verdict(0.05)) == ("cannot be said", "does not copy")
    for rate in (0.01, 0.05, 0.2):
        n = needed(rate)
        # at the rate itself no copy at all would be seen in fewer than one case of twenty
        assert binom.pmf(0, n, rate) <= 0.05 < binom.pmf(0, n - 1, rate)
    assert share(0, 59)[0] == 0.0


def drawn(seed: int) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    picture = Image.new("RGB", (80, 60))
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, w, h, *colour = torch.randint(0, 60, (7,), generator=generator).tolist()
        pen.rectangle((x, y, x + w, y + h), tuple(4 * c for c in colour))
    return picture


@pytest.mark.parametrize(
    "descriptor", [None, demo.judges().descriptor], ids=["pixels", "descriptor"]
)
def test_a_mirrored_copy_is_a_copy_and_another_picture_is_none(descriptor):
    pictures = [drawn(k) for k in range(4)]
    of = Gallery.of(iter(pictures), descriptor)
    assert of.groups == (0, 1, 2, 3)
    # pixels are those of the middle square, as trainers cut it; a descriptor sees all of a picture
    square = (64, 64)
    small = pictures[1].resize(square) if descriptor else ImageOps.fit(pictures[1], square)
    shown = [ImageOps.mirror(pictures[2]), small, drawn(9)]
    found = judge(of, [None] * 4, own("", "", ""), described(shown, descriptor))
    assert [(s.picture, s.copy) for s in found.sightings[:2]] == [(2, True), (1, True)]
    assert not found.sightings[2].copy


def test_the_same_picture_twice_is_one_group():
    pictures = [drawn(0), drawn(1), drawn(0).resize((160, 120)), ImageOps.mirror(drawn(1))]
    assert Gallery.of(pictures).groups == (0, 1, 0, 1)


def test_many_pictures_are_looked_at_in_batches():
    pictures = [drawn(k) for k in range(70)]
    assert torch.allclose(described(pictures)[:5], described(pictures[:5]), atol=1e-6)
    assert described([]).shape == (0, 1)
