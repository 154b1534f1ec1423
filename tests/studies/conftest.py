"""A small audited run whose captions are memorized by decree: enough for every study
to have something to say.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from _tiny import SMALL, made_loud, tiny_pipeline
from _workshop import Brightness, Pixels

import findnemo
from findnemo.images import ImageSettings
from findnemo.metrics import Judges
from findnemo.prompts import Prompt
from findnemo.runs import Plan, Work, audit, start
from findnemo.settings import Settings
from findnemo.studies import Bench
from findnemo.training.drawing import drawn

TEXTS = ("a red fox", "a grey owl", "the old sea", "a tree", "the moon", "a small house")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Three captions are memorized, two VM and one TM; the others have no type."""
    model = made_loud(findnemo.load(tiny_pipeline(**SMALL)))
    settings = Settings(samples=4)
    plan = Plan("gradient", images=2, image_settings=ImageSettings(steps=2, guidance=2.0))
    made = findnemo.calibrate(model, ["hold out a", "hold out b", "hold out c"], settings=settings)
    scores = {text: findnemo.score(model, text, settings=settings) for text in TEXTS}
    order = sorted(TEXTS, key=lambda text: -scores[text])
    calibration = replace(made, tau=(scores[order[2]] + scores[order[3]]) / 2)
    kinds = {order[0]: "VM", order[1]: "VM", order[2]: "TM"}
    prompts = [
        Prompt(text, row, kinds.get(text), f"{row}.png" if text in kinds else None)
        for row, text in enumerate(TEXTS, 1)
    ]
    with start(tmp_path_factory.mktemp("studies") / "run", model, calibration, plan) as run:
        pictures = {text: drawn([k], 64) for k, text in enumerate(kinds)}
        work = Work(
            run,
            model,
            calibration,
            plan,
            Judges(Pixels(), Brightness()),
            lambda caption: pictures.get(caption.text),
        )
        audit(work, prompts)
        yield work


@pytest.fixture
def bench(work):
    clean = [c.text for c in work.run.captions() if not c.type]
    return Bench(work, clean, limit=1)
