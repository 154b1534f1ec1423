"""Pictures that are there are judged again, and not made again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from PIL import Image

from findnemo.images import save_png
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Run, Serial
from findnemo.runs.changing import PICTURED
from findnemo.runs.judging import judge_anew, stored_look
from findnemo.runs.stages import no_progress
from findnemo.runs.workers import never
from findnemo.verification import Look

PLAN = AuditPlan(images=2)
EARLIER = {"score_before": 0.9, "score_after": 0.2, "evaluations": 30, "steps": 3}
EARLIER |= {"copies_before": 1.0, "copies_after": 0.0}
QUICK = ("quick-before-00", "quick-before-01", "quick-after-00", "quick-after-01")


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        (number,) = run.add([Prompt("a red fox", 1)])
        run.record(number, PICTURED, EARLIER, 1.0)
        yield run


def drawn(run, folder, *names):
    """Keep a picture under each name."""
    (caption,) = run.captions()
    for k, name in enumerate(names):
        grey = Image.new("RGB", (8, 8), (k, k, k))
        save_png(grey, run.path / folder / caption.slug / f"{name}.png")
    return caption


def test_quick_pictures_serve_again_with_those_in_all_steps(run):
    caption = drawn(run, "images", *QUICK, "after-01", "before-07", "original")
    look = stored_look(run, caption, PLAN)
    assert {when: len(pictures) for when, pictures in look.quick.items()} == {
        "before": 2,
        "after": 2,
    }
    assert look.steps == 3
    assert set(look.whole) == {("after", 1)}  # the seventh is of no seed of this plan
    assert look.values == {"evaluations": 30}  # noise differences are not there


def test_figures_of_noise_differences_stand_where_their_pictures_are(run):
    drawn(run, "noise", "before-00", "before-01")
    caption = drawn(run, "images", *QUICK)
    assert stored_look(run, caption, PLAN).values == {
        "score_before": 0.9,
        "score_after": 0.2,
        "evaluations": 30,
    }


def test_of_damaged_quick_pictures_all_are_made_again(run):
    caption = drawn(run, "images", *QUICK, "before-00")
    file = run.path / "images" / caption.slug / "quick-after-01.png"
    file.write_bytes(file.read_bytes()[:-9])
    look = stored_look(run, caption, PLAN)
    assert look.quick == {}
    assert set(look.whole) == {("before", 0)}


def test_a_caption_that_was_judged_since_does_not_wait(run):
    (caption,) = run.captions()
    run.record(caption.id, "verify", EARLIER, 1.0)
    judge_anew(SimpleNamespace(run=run), Serial(None), no_progress, never)
    (caption,) = run.captions()
    assert list(caption.results) == ["verify"]
    assert stored_look(run, caption, PLAN) == Look()
