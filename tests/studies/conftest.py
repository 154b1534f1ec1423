"""A small audited run whose captions are memorized by decree: enough for every study to have
something to say.

Runs are made once in a process, and copied for those who write to them.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import pytest
from _tiny import SMALL, made_loud, tiny_pipeline
from _workshop import OTHERS, Brightness, Made, Pixels, Sent, a_run, copied

import findnemo
from findnemo.images import ImageSettings
from findnemo.metrics import Judges
from findnemo.neurons import NeuronSet
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Run, Work, acquire, audit, start
from findnemo.runs.standing import neurons_of
from findnemo.settings import Settings
from findnemo.studies import Bench, study
from findnemo.training.drawing import drawn

TEXTS = ("a red fox", "a grey owl", "the old sea", "a tree", "the moon", "a small house")


@pytest.fixture(scope="session")
def audited(tmp_path_factory):
    """The run that `work` copies.

    Three captions are memorized, two VM and one TM; the others have no type.
    """
    model = made_loud(findnemo.load(tiny_pipeline(**SMALL)))
    settings = Settings(samples=4)
    plan = AuditPlan("gradient", images=2, image_settings=ImageSettings(steps=2, guidance=2.0))
    made = findnemo.calibrate(model, ["hold out a", "hold out b", "hold out c"], settings=settings)
    scores = {text: findnemo.score(model, text, settings=settings) for text in TEXTS}
    order = sorted(TEXTS, key=lambda text: -scores[text])
    calibration = replace(made, tau=(scores[order[2]] + scores[order[3]]) / 2)
    kinds = {order[0]: "VM", order[1]: "VM", order[2]: "TM"}
    prompts = [
        Prompt(text, row, kinds.get(text), f"{row}.png" if text in kinds else None)
        for row, text in enumerate(TEXTS, 1)
    ]
    with start(tmp_path_factory.mktemp("audited") / "run", model, calibration, plan) as run:
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
    return work


@pytest.fixture(scope="module")
def work(audited, tmp_path_factory):
    """The audited run, for each file of tests. Its model must be left as it is."""
    work = copied(audited, tmp_path_factory.mktemp("studies") / "run")
    with work.run:
        yield work


@pytest.fixture
def bench(work):
    clean = [c.text for c in work.run.captions() if not c.type]
    return Bench(work, clean, limit=1)


@pytest.fixture(scope="session")
def audited_low(audited, tmp_path_factory):
    """The run that `low` copies, the captions by falling score, and the scores."""
    scores = {
        text: findnemo.score(audited.model, text, settings=audited.calibration.settings)
        for text in OTHERS
    }
    order = sorted(OTHERS, key=lambda text: -scores[text])
    calibration = replace(audited.calibration, tau=(scores[order[1]] + scores[order[2]]) / 2)
    kinds = {order[2]: "VM", order[0]: "none"}
    mine = a_run(audited, tmp_path_factory.mktemp("audited-low") / "run", calibration)
    with mine.run:
        audit(
            mine,
            [Prompt(text, row, kinds.get(text)) for row, text in enumerate(order, 1)],
            ("detect", "localize"),
        )
    return mine, order, scores


@pytest.fixture(scope="module")
def low(audited_low, tmp_path_factory):
    """A run at a tau that two of four ordinary captions reach: one caption has the type of a
    memory and stays under it. With the captions by falling score, and the scores.
    """
    audited, order, scores = audited_low
    mine = copied(audited, tmp_path_factory.mktemp("low") / "run")
    with mine.run:
        yield mine, order, scores


@pytest.fixture(scope="session")
def audited_other(audited, tmp_path_factory):
    """The run that `other` copies."""
    with Run.open(audited.run.path) as known:
        texts = [c for c in known.captions() if c.type]
    plan = replace(audited.plan, search="gradient")
    mine = a_run(audited, tmp_path_factory.mktemp("audited-other") / "run", plan=plan)
    with mine.run as run:
        audit(mine, [Prompt(c.text, c.row, c.type) for c in texts], ("detect", "localize"))
        for caption in run.captions():
            more = neurons_of(caption) | NeuronSet(
                {name: [0, 1] for name in mine.model.value_layers}
            )
            found = caption.results["localize"] | {"neurons": more.to_json()}
            run.record(caption.id, "localize", found, 0.1)
    return mine


@pytest.fixture
def other(audited_other, tmp_path):
    """A run whose own search found two neurons more than the listing."""
    mine = copied(audited_other, tmp_path / "other")
    with mine.run:
        yield mine


@pytest.fixture(scope="session")
def made(audited, tmp_path_factory):
    """All studies by three workers, to which everything is sent; whoever asks for them has facts
    of the model and no model.

    One process of the tests makes them, and the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "all-studies"
    place.mkdir(exist_ok=True)
    answers = place / "answers.pickle"
    with acquire(place, wait=True):
        if not answers.exists():
            work = copied(audited, place / "run")
            pool = Sent(work.model)
            with work.run:
                clean = [c.text for c in work.run.captions() if not c.type]
                bench = Bench(replace(work, model=pool.model), clean, limit=1, pool=pool)
                studies = study(["all"], bench, place / "out")
            answers.write_bytes(pickle.dumps(studies))
    studies = pickle.loads(answers.read_bytes())
    with Run.open(place / "run") as run:
        yield Made(studies, place / "out", replace(audited, run=run))
