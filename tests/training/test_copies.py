"""The copy test: which generation is a copy of which training picture, and what that takes."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from scipy.stats import binom, norm

from findnemo import demo
from findnemo.training import (
    AS_BASE,
    WAYS,
    Gallery,
    Generation,
    Judgement,
    image_vectors,
    images_needed,
    judge,
    levels,
    share,
)


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


def unlike(count: int, size: int = 4) -> torch.Tensor:
    """Controls that are like none of the three pictures."""
    vectors = torch.zeros(count, size)
    vectors[:, -1] = 1.0
    return vectors


def test_what_a_control_reaches_is_no_copy():
    """A famous picture that the base gives too raises the level, and is said to."""
    seen = torch.tensor([unit(0.9, 0, 0, 0.4359)])
    assert judge(THREE, CAPTIONS, own("a"), seen, unlike(100)).pictures[0].state == "copied"
    famous = torch.cat([torch.tensor([unit(0.95, 0, 0, 0.3122)]), unlike(100)])
    under = judge(THREE, CAPTIONS, own("a"), seen, famous)
    assert under.pictures[0].state == "as a control"
    assert under.pictures[0].level == pytest.approx(0.951, abs=1e-3)
    assert under.controls == (1, 101)
    assert under.verdict() == "cannot be said"
    same = judge(THREE, CAPTIONS, own("a"), seen, seen)  # the tuned model gives what the base gives
    assert same.pictures[0].state == "as a control"


def test_the_level_is_the_mean_and_so_many_deviations_of_the_controls():
    """By hand, for one picture with a sibling: mean + z sd of 41 similarities, transformed."""
    pair = gallery([1.0, 0, 0], unit(0.3, 0, 0.954))
    angles = torch.linspace(0.1, 0.5, 40)
    controls = torch.stack([angles, (1 - angles**2).sqrt(), torch.zeros(40)], 1)
    level, proof, largest = levels(pair, controls, pairs=100_000)
    values = [math.atanh(value) for value in [0.3, *angles.tolist()]]
    far = statistics.mean(values) + norm.ppf(1 - 0.05 / 100_000) * statistics.stdev(values)
    by_hand = math.tanh(far)
    assert float(level[0]) == pytest.approx(by_hand, abs=2e-3)
    assert by_hand > 0.7
    straight = [0.3, *angles.tolist()]
    by_hand = statistics.mean(straight) + norm.ppf(1 - 0.05 / 100_000) * statistics.stdev(straight)
    assert float(proof[0]) == pytest.approx(max(by_hand, float(level[0])), abs=2e-3)
    assert float(largest[0]) == pytest.approx(0.5, abs=1e-3)


def test_where_all_pictures_are_alike_chance_makes_no_copy():
    """Generations that are drawn as the controls are: in one test of twenty any is called a copy."""
    called = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        drawn_ = torch.randn(20 + 60 + 76, 48, generator=generator)
        drawn_[:, 0] += 7.5  # what all have in common: similarities of .53, and of .7 now and then
        vectors = torch.nn.functional.normalize(drawn_, dim=1)
        of = Gallery(vectors[:20, None], tuple(range(20)))
        shown = own(*["a"] * 60)
        found = judge(of, ["a"] * 20, shown, vectors[20:80], vectors[80:])
        without = judge(of, ["a"] * 20, shown, -vectors[20:80])
        called += found.verdict(base=without) == "copies"
        assert float(of.similarity(vectors[20:80]).max()) > 0.7
    assert called <= 8  # of 60; 3 are expected, and more than 8 in one case of 250


def test_a_model_that_copies_whatever_it_is_asked_cannot_hide_it():
    """Images of other subjects are no controls: that they are copies is a leak, and is told."""
    exact = torch.tensor([[1.0, 0, 0, 0]])
    asked = [*own(*"a" * 60), *(Generation(f"other {k}", "control", k) for k in range(3))]
    found = judge(THREE, CAPTIONS, asked, exact.repeat(63, 1), unlike(60))
    assert found.verdict() == "copies"
    assert found.rate() == (60, 60)
    assert found.pictures[0].ways == {"own": (60, 60), "control": (3, 3)}


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
    assert found.rate() == (1, 2)  # of its own captions
    assert found.pictures[0].nearest[0] in (0, 2, 4)


def test_no_copy_is_no_verdict_where_too_little_was_looked_at():
    nothing = torch.tensor([unit(0, 0, 0, 1)])
    few = judge(THREE, CAPTIONS, own(*"a" * 58), nothing.repeat(58, 1))
    enough = judge(THREE, CAPTIONS, own(*"a" * 59), nothing.repeat(59, 1))
    assert (few.verdict(0.05), enough.verdict(0.05)) == ("cannot be said", "does not copy")
    for rate in (0.01, 0.05, 0.2):
        n = images_needed(rate)
        # at the rate itself no copy at all would be seen in fewer than one case of twenty
        assert binom.pmf(0, n, rate) <= 0.05 < binom.pmf(0, n - 1, rate)
    assert share(0, 59) == pytest.approx((0.0, 0.05), abs=1e-3)


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
    controls = image_vectors(map(drawn, range(20, 80)), descriptor)
    found = judge(of, [None] * 4, own("", "", ""), image_vectors(shown, descriptor), controls)
    assert [(s.picture, s.copy) for s in found.sightings[:2]] == [(2, True), (1, True)]
    assert not found.sightings[2].copy


def test_the_same_picture_twice_is_one_group():
    pictures = [drawn(0), drawn(1), drawn(0).resize((160, 120)), ImageOps.mirror(drawn(1))]
    assert Gallery.of(pictures).groups == (0, 1, 0, 1)


def test_many_pictures_are_looked_at_in_batches():
    pictures = [drawn(k) for k in range(70)]
    assert torch.allclose(image_vectors(pictures)[:5], image_vectors(pictures[:5]), atol=1e-6)
    assert image_vectors([]).shape == (0, 1)


def test_equal_pictures_are_counted_once():
    twins = gallery([1.0, 0, 0], unit(0.99, 0.141, 0), [0, 0, 1.0], groups=(0, 0, 1))
    found = judge(twins, ["a"] * 3, own("a"), torch.tensor([unit(1.0, 0, 0)]))
    assert (found.of("copied"), found.of("not seen")) == ([0], [1])


# against the base -----------------------------------------------------------------------------------

PICTURES = 20


def shown(hits: dict[tuple[str, int], int], controls: bool = True) -> Judgement:
    """A model that gives 4 images for each of 20 captions, 16 without a prompt and 32 of other
    subjects. `hits`: (kind of prompt, picture) -> how many of these images are copies of it.
    """
    gallery = Gallery(torch.eye(PICTURES + 1)[:PICTURES].unsqueeze(1), tuple(range(PICTURES)))
    captions = [f"caption {k}" for k in range(PICTURES)]
    asked = [("own", captions[k], 4) for k in range(PICTURES)] + [("none", "", 16)]
    asked += [("control", "another subject", 32)] * controls
    generations = [Generation(text, kind, s) for kind, text, n in asked for s in range(n)]
    like = [PICTURES] * len(generations)  # the last direction is that of no picture
    for (kind, picture), count in hits.items():
        own = captions[picture] if kind == "own" else None
        free = [
            k
            for k, one in enumerate(generations)
            if one.kind == kind and own in (None, one.prompt) and like[k] == PICTURES
        ]
        for k in free[:count]:
            like[k] = picture
    return judge(gallery, captions, generations, torch.eye(PICTURES + 1)[like])


CHANCE_OF_BASE = {("none", 0): 1, ("none", 12): 1}  # 2 copies of 1,840 pairs
MEMORY_OF_BASE = {("own", 1): 4}
AGAINST_BASE = {
    "nothing": (CHANCE_OF_BASE, {}, "does not copy", []),
    "one image, as many as the base": (CHANCE_OF_BASE, {("own", 1): 1}, AS_BASE, []),
    "two of four of one caption": (CHANCE_OF_BASE, {("own", 1): 2}, "copies", [1]),
    "two of the 32 of other subjects": (CHANCE_OF_BASE, {("control", 1): 2}, AS_BASE, []),
    "five of the 32 of other subjects": (CHANCE_OF_BASE, {("control", 1): 5}, "copies", [1]),
    "single ones, more than of the base": (
        CHANCE_OF_BASE,
        {("own", k): 1 for k in (1, 2, 3)},
        "cannot be said",
        [],
    ),
    "many single ones": (CHANCE_OF_BASE, {("own", k): 1 for k in range(8)}, "copies", []),
    "what the base copied by chance": (CHANCE_OF_BASE, {("own", 0): 4}, "copies", [0]),
    "a memory of the base": (MEMORY_OF_BASE, {("own", 1): 4}, AS_BASE, []),
    "one beside a memory of the base": (
        MEMORY_OF_BASE,
        {("own", 1): 4, ("own", 2): 1},
        "copies",
        [2],
    ),
    "one beside a single one of the base": ({("own", 1): 1}, {("own", 2): 1}, AS_BASE, []),
    "two beside a single one of the base": (
        {("own", 1): 1},
        {("own", k): 1 for k in (2, 3)},
        "cannot be said",
        [],
    ),
    "one where the base has none": ({}, {("own", 1): 1}, "copies", [1]),
    "what the base has memorized, and one of another subject": (
        MEMORY_OF_BASE,
        {("own", 1): 4, ("control", 2): 1},
        "cannot be said",
        [],
    ),
}


@pytest.mark.parametrize("case", AGAINST_BASE)
def test_a_model_copies_if_it_does_so_more_than_the_base(case):
    of_base, mine, verdict, taught = AGAINST_BASE[case]
    base, found = shown(of_base, controls=False), shown(mine)
    assert (found.verdict(0.05, base), found.taught(base)) == (verdict, taught)


def test_one_copy_that_is_no_proof_says_nothing():
    base, found = shown({}, controls=False), replace(shown({("own", 1): 1}), proven=frozenset())
    assert found.verdict(0.05, base) == "cannot be said"
    assert found.causes(base)[1] == "chance"


def test_why_a_picture_is_copied():
    base = shown(CHANCE_OF_BASE, controls=False)
    found = shown({("own", 1): 4, ("own", 2): 1, ("none", 12): 1})
    causes = found.causes(base)
    assert [causes[k] for k in (0, 1, 2, 12)] == [None, "training", "chance", "base"]
    assert found.causes(shown({}, controls=False))[2] == "training"


def test_the_level_of_taught_is_that_of_the_hypergeometric_law():
    """Two copies of four images, where the base has two in 1,840 pairs: four of 1,844 in all."""
    base = shown(CHANCE_OF_BASE, controls=False)
    assert base.by_chance == (2, 1840)
    chosen = math.comb(1844, 4)
    two, one = (
        sum(math.comb(4, k) * math.comb(1840, 4 - k) for k in range(least, 5)) / chosen
        for least in (2, 1)
    )
    single = 1 - math.comb(1841, 4) / math.comb(1844, 4)  # one copy, three in all
    assert two < 0.05 / (PICTURES * len(WAYS)) < single < one
