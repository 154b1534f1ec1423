"""Quick verification: what few steps say, what is made in all steps, and when nothing less will
do.
"""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from findnemo import demo
from findnemo.edits import deactivate
from findnemo.images import ImageSettings, decoded_pictures, generate
from findnemo.metrics.copies import COPY, copies_in, copying
from findnemo.neurons import EMPTY
from findnemo.passes import Denoising
from findnemo.seeds import FRESH
from findnemo.verification import Look, verify
from findnemo.verification.effect import in_doubt

CAPTION = "Brantwood Roasters first cup, a large brown ring"
STEPS = 8
WHOLE = 2 * STEPS  # evaluations of an image
QUICK = 2 * 3
NOISE = 2 * 10  # noise differences before and after


@pytest.fixture(scope="module")
def judges():
    return replace(demo.judges(), alignment=None, original=demo.training_image(CAPTION))


@pytest.fixture(scope="module")
def verified(demo_model, judges):
    def by(neurons, thorough=False, images=4, judged=None, steps=STEPS):
        calibration = demo.calibration()
        return verify(
            demo_model,
            CAPTION,
            neurons,
            calibration.settings,
            images,
            ImageSettings(steps, 2.0),
            judged or judges,
            Look(thorough=thorough, tau=calibration.tau),
        )

    return by


def said(result):
    return [copies_in(result.values, when) for when in ("before", "after")]


def most_apart(one, other):
    """The largest difference of two images, of 255."""
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


@pytest.mark.slow
def test_it_says_what_the_thorough_one_says_at_a_third_of_the_cost(verified, demo_model, judges):
    neurons = demo.planted()[CAPTION]
    quick = verified(neurons)
    thorough = verified(neurons, thorough=True)
    assert said(quick) == said(thorough) == [True, False]
    assert quick.values["evaluations"] == NOISE + 8 * QUICK + WHOLE
    assert thorough.values["evaluations"] == NOISE + 8 * WHOLE
    assert (quick.values["steps"], "steps" in thorough.values) == (3, False)
    assert set(quick.values) - {"steps", "confirmed", "seed"} == set(thorough.values)
    for when, images in (("before", thorough.before), ("after", thorough.after)):
        table = judges.descriptor.similarity(images, thorough.before).fill_diagonal_(-1)
        trained = judges.descriptor.similarity(images, [judges.original])
        largest = max(float(table.max()), float(trained.max()))
        assert thorough.values[f"largest_{when}"] == pytest.approx(largest, abs=1e-4)
    assert quick.values["largest_after"] >= quick.values["confirmed"]
    ((when, seed),) = quick.looked.whole
    assert seed == quick.values["seed"]
    picture = quick.looked.whole[when, seed]
    assert when == "after"
    # the very image in all steps: to the bit as it is made alone, and the one of four but for what
    # some processors round otherwise in a batch
    with deactivate(demo_model, neurons):
        (alone,) = generate(demo_model, CAPTION, [FRESH + seed], ImageSettings(STEPS, 2.0))
    assert picture.tobytes() == alone.tobytes()
    assert most_apart(picture, thorough.after[seed]) <= 2
    assert most_apart(picture, thorough.after[(seed + 1) % 4]) > 20
    others = [image for k, image in enumerate(quick.before) if k != seed]
    known = [*others, judges.original]
    nearest = float(judges.descriptor.similarity([picture], known).max())
    assert quick.values["confirmed"] == pytest.approx(nearest, abs=1e-4)
    for old, new in ((quick.before, thorough.before), (quick.after, thorough.after)):
        assert [i.tobytes() for i in old] != [i.tobytes() for i in new]
    alike = copying(thorough.after, thorough.before, judges.descriptor) >= COPY
    assert torch.equal(quick.looked.alike["copies_after"] >= COPY, alike)


@pytest.mark.slow
def test_an_image_in_all_steps_that_tells_otherwise_makes_it_thorough(verified, monkeypatch):
    """The few steps show no copy; the finished images, made without the edit, are copies."""
    monkeypatch.setattr("findnemo.passes._pictures.deactivate", lambda *_: nullcontext())
    result = verified(demo.planted()[CAPTION])
    assert said(result) == [True, True]
    assert "steps" not in result.values
    assert not result.looked.whole
    assert result.values["evaluations"] == NOISE + 8 * QUICK + WHOLE + 8 * WHOLE


@pytest.mark.slow
def test_copies_that_only_all_steps_show_are_seen(verified, demo_model, monkeypatch):
    """Few steps give pictures that are like no other, all steps the copy: it is no ordinary caption."""
    scenes = demo.unrelated()[:8]
    unlike = [generate(demo_model, text, [0], ImageSettings(3, 2.0))[0] for text in scenes]
    monkeypatch.setattr("findnemo.verification.effect.pictures_of", lambda *_: unlike)
    plain = replace(demo.judges(), alignment=None)
    result = verified(demo.planted()[CAPTION], judged=plain)
    assert said(result) == [True, False]
    assert "steps" not in result.values


@pytest.mark.slow
def test_doubt_is_settled_image_by_image(verified, monkeypatch):
    """With a doubt that no image escapes, each is made in all steps until it is plain."""
    monkeypatch.setattr("findnemo.verification.effect.DOUBT", (-1.0, 1.01))
    monkeypatch.setattr("findnemo.verification.effect.WHOLE_DOUBT", (0.69, 0.71))
    result = verified(demo.planted()[CAPTION])
    assert said(result) == [True, False]
    made = sorted(result.looked.whole)
    assert [seed for when, seed in made if when == "after"] == [0, 1, 2, 3]
    assert len([seed for when, seed in made if when == "before"]) < 4  # two copies are enough
    assert result.values["evaluations"] == NOISE + 8 * QUICK + len(made) * WHOLE


MANY = 18  # steps beside which fine ones are few
FINE = 2 * 6


@pytest.mark.slow
def test_fine_steps_stand_for_many(verified, demo_model, judges):
    """Against the picture that is most suspicious, made by itself."""
    neurons = demo.planted()[CAPTION]
    result = verified(neurons, steps=MANY)
    assert said(result) == [True, False]
    assert result.values["evaluations"] == NOISE + 8 * QUICK + FINE
    assert not result.looked.whole
    seed = result.values["seed"]
    denoising = Denoising(demo_model, CAPTION, 4, 2.0, first=FRESH)
    with deactivate(demo_model, neurons):
        path = denoising.run([seed], 6, whole=MANY)
    known = [*(image for k, image in enumerate(result.before) if k != seed), judges.original]
    alike = judges.descriptor.similarity(decoded_pictures(demo_model, path.image), known)
    assert result.values["confirmed"] == pytest.approx(float(alike.max()), abs=2e-3)
    (whole,) = generate(demo_model, CAPTION, [FRESH], ImageSettings(MANY, 2.0))
    fine = decoded_pictures(demo_model, denoising.run([0], 6, whole=MANY).image)
    assert float(judges.descriptor.similarity(fine, [whole])) > 0.95


@pytest.mark.slow
def test_what_fine_steps_leave_in_doubt_is_made_in_all(verified, monkeypatch):
    monkeypatch.setattr("findnemo.verification.effect.FINE_DOUBT", (-1.0, 1.01))
    result = verified(demo.planted()[CAPTION], steps=MANY)
    assert said(result) == [True, False]
    assert list(result.looked.whole) == [("after", result.values["seed"])]
    assert result.values["evaluations"] == NOISE + 8 * QUICK + FINE + 2 * MANY


@pytest.mark.slow
def test_where_quick_steps_show_no_copy_fine_ones_do(verified, demo_model, monkeypatch):
    """Quick steps give pictures that are like no other, finer ones the copy."""
    scenes = demo.unrelated()[:8]
    unlike = [generate(demo_model, text, [0], ImageSettings(2, 2.0))[0] for text in scenes]
    made = iter([unlike])
    monkeypatch.setattr(
        "findnemo.verification.effect.pictures_of",
        lambda *given: next(made, None) or decoded_pictures(*given),
    )
    plain = replace(demo.judges(), alignment=None)
    result = verified(demo.planted()[CAPTION], judged=plain, steps=MANY)
    assert said(result) == [True, False]
    assert result.values["steps"] == 6
    assert result.values["evaluations"] < NOISE + 8 * QUICK + 8 * 2 * MANY


@pytest.mark.slow
def test_without_neurons_images_are_made_once(verified):
    result = verified(EMPTY)
    assert said(result) == [True, True]
    assert [i.tobytes() for i in result.after] == [i.tobytes() for i in result.before]
    assert result.values["evaluations"] == NOISE + 4 * QUICK + WHOLE


@pytest.mark.slow
def test_without_neurons_doubt_is_of_untouched_images(verified, monkeypatch):
    monkeypatch.setattr("findnemo.verification.effect.DOUBT", (-1.0, 1.01))
    monkeypatch.setattr("findnemo.verification.effect.WHOLE_DOUBT", (0.69, 0.71))
    result = verified(EMPTY)
    assert said(result) == [True, True]
    assert {when for when, _ in result.looked.whole} == {"before"}


@pytest.mark.slow
def test_one_image_and_few_steps_are_made_as_they_are(verified, demo_model, judges):
    alone = verified(EMPTY, images=1)
    assert "steps" not in alone.values
    (image,) = generate(demo_model, CAPTION, [FRESH], ImageSettings(STEPS, 2.0))
    assert alone.before[0].tobytes() == image.tobytes()
    few = verify(
        demo_model, CAPTION, EMPTY, demo.calibration().settings, 2, ImageSettings(3, 2.0), judges
    )
    assert "steps" not in few.values


@pytest.mark.parametrize(
    ("before", "after", "doubt"),
    [
        ([1, 1, 1, 1], [0, 0, 0.54, 0], None),
        ([1, 1, 1, 1], [0, 0.7, 0.6, 0], ("after", 1)),
        ([1, 1, 1, 1], [0, 0.7, 0.95, 0], None),  # one copy is certain
        ([1, 0.95, 0.6, 0.7], [0, 0, 0, 0], None),  # half of them are copies, whatever the rest is
        ([1, 0.8, 0.6, 0.1], [0, 0, 0, 0], ("before", 1)),
        ([0.1, 0.1, 0.1, 0.8], [0, 0.7, 0, 0], None),  # not copies before: those after are chance
    ],
)
def test_what_is_in_doubt(before, after, doubt):
    alike = {"copies_before": torch.tensor(before), "copies_after": torch.tensor(after)}
    alike = {name: values.float() for name, values in alike.items()}
    assert in_doubt(alike) == doubt
    if doubt is not None:
        assert in_doubt(alike, {doubt}) != doubt


def test_the_training_image_is_in_doubt_by_the_median():
    clear = {"copies_before": torch.ones(3), "copies_after": torch.zeros(3)}
    assert in_doubt(clear | {"sscd_orig_after": torch.tensor([0.1, 0.2, 0.8])}) is None
    assert in_doubt(clear | {"sscd_orig_after": torch.tensor([0.1, 0.6, 0.95])}) == ("after", 1)
