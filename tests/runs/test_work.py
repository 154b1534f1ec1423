"""What a stage works with and answers, and how answers become part of a run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from findnemo.errors import NumericalError
from findnemo.images import ImageSettings, save_png
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Run, StageAnswer, Unit, Work
from findnemo.runs.work import attempted, done_in, keep, originals_of, pictures_of
from findnemo.runs.workers import Event
from findnemo.settings import PAPER

PLAN = AuditPlan(images=2, image_settings=ImageSettings(steps=2))
GREY = Image.new("RGB", (8, 8), (90, 90, 90))


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        run.add([Prompt("a red fox", 1), Prompt("a moon", 2)])
        yield run


def test_settings_are_those_on_which_results_depend(model):
    calibration = SimpleNamespace(settings=PAPER, tau=0.4)
    settings = PLAN.settings(model, calibration)
    assert settings["thorough"] is False
    assert settings["scope"] == "auto"
    assert "vae" in settings["identity"]
    assert not {"fdr", "miss", "training", "max_impact", "unrelated"} & settings.keys()
    bare = replace(PLAN, images=0, search="gradient", thorough=True, fdr=0.1)
    others = bare.settings(model, calibration)
    assert "vae" not in others["identity"]  # no picture is made
    assert not {"thorough", "scope"} & others.keys()
    assert others["fdr"] == 0.1
    gentle = replace(bare, max_impact=0.05, unrelated=("a tree",)).settings(model, calibration)
    assert (gentle["max_impact"], gentle["unrelated"]) == (0.05, ["a tree"])


def test_a_unit_shares_its_seconds_and_its_reason_to_be_set_aside():
    answered = Event(Unit(("a", "b")), [StageAnswer({"x": 1}), StageAnswer({"x": 2})], seconds=3.0)
    aside = Event(Unit(("c",)), aside="workers died over it")
    done = done_in([answered, aside])
    assert [(one.item, one.answer.payload, one.seconds) for one in done[:2]] == [
        ("a", {"x": 1}, 1.5),
        ("b", {"x": 2}, 1.5),
    ]
    assert (done[2].item, done[2].answer.error) == ("c", "workers died over it")


def test_answers_are_kept_with_their_files_and_failures_with_their_reason(run):
    fox, moon = run.captions()
    answers = [
        (fox, "listing", StageAnswer({"reached": True}, {"images/fox/a.png": b"picture"}), 0.5),
        (moon, "listing", StageAnswer(error="NaN"), 0.25),
    ]
    assert keep(run, answers) == 2
    fox, moon = run.captions()
    assert fox.results["listing"] == {"reached": True}
    assert (fox.seconds, moon.seconds) == (0.5, 0.25)
    assert moon.failed == {"listing": "NaN"}
    assert (run.path / "images" / "fox" / "a.png").read_bytes() == b"picture"


def test_an_error_of_a_caption_is_its_answer_and_a_fault_of_ours_shows():
    model = SimpleNamespace(device=torch.device("cpu"))

    def gives(error):
        def do():
            raise error

        return do

    found = attempted(model, gives(NumericalError("the latents hold NaN")))
    assert found == StageAnswer(error="the latents hold NaN")
    with pytest.raises(KeyError):
        attempted(model, gives(KeyError("a bug of ours")))


def test_workers_get_the_training_images_that_their_stage_looks_at(run, tmp_path):
    fox, moon = run.captions()
    file = save_png(GREY, tmp_path / "fox.png")
    plan = replace(PLAN, copied={"a red fox": (str(file),)})
    red = Image.new("RGB", (8, 8), (250, 0, 0))
    work = Work(run, None, None, plan, original=lambda caption: red if caption is fox else None)
    (copied,) = originals_of(work, "localize", fox)
    assert copied.tobytes() == GREY.tobytes()
    assert originals_of(work, "localize", moon) == originals_of(work, "verify", moon) == ()
    assert originals_of(work, "verify", fox) == (red,)
    assert originals_of(work, "detect", fox) == ()
    unseen = replace(work, plan=replace(plan, images=0))
    assert originals_of(unseen, "verify", fox) == ()


def test_the_files_of_a_verification_name_quick_pictures_and_whole_ones(run):
    fox, _ = run.captions()
    looked = SimpleNamespace(steps=3, whole={("after", 1): GREY})
    pair = [GREY, GREY]
    result = SimpleNamespace(
        before=pair, after=pair, noise_before=pair, noise_after=pair, looked=looked
    )
    files = pictures_of(fox, result, 5, None)
    images = {f"quick-{when}-{k:02d}" for when in ("before", "after") for k in range(2)}
    noise = {f"{when}-{k:02d}" for when in ("before", "after") for k in range(2)}
    assert set(files) == {
        *(f"images/{fox.slug}/{name}.png" for name in images | {"after-01"}),
        *(f"noise/{fox.slug}/{name}.png" for name in noise),
        f"sheets/{fox.slug}.png",
    }
    assert pictures_of(fox, SimpleNamespace(before=[]), 5, None) == {}
    assert f"images/{fox.slug}/original.png" in pictures_of(fox, result, 5, GREY)
