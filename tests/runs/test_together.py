"""Images with the neurons of all captions off, and searches for what came back, on the demo model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from _pool import FakePool

from findnemo import demo
from findnemo.images import ImageSettings
from findnemo.metrics import Judges
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Run, Work, standing, start
from findnemo.runs.standing import joined_neurons
from findnemo.runs.together import check_union
from findnemo.seeds import AGAIN, FRESH
from findnemo.verification import Look, verify
from findnemo.verification import effect as effect_of

TAU = 0.4
OVER = {"memorized": True, "score": 0.9, "tau": TAU}
GONE = {"same_seed": 0.3, "copies_before": 1.0, "copies_after": 0.0}
QUICK = ImageSettings(4, 2.0)  # three steps stand for four
PLAN = AuditPlan(images=2, image_settings=QUICK)


def found(**neurons):
    return {"score_before": 0.9, "score_after": 0.2, "reached": True, "neurons": neurons}


@pytest.fixture(scope="module")
def calibration():
    made = demo.calibration()
    few = replace(made.settings, samples=4)
    return replace(made, ordinary=(), settings=few)  # nothing is dear


def begun(path, model, calibration):
    """A run of two planted memories, of which one has wrong neurons that pass for its own."""
    right, wrong = list(demo.planted())[:2]
    with start(path, model, calibration, PLAN) as run:
        for number, text in zip(
            run.add([Prompt(right, 1), Prompt(wrong, 2)]), (right, wrong), strict=True
        ):
            neurons = demo.planted()[right].to_json()
            if text == wrong:
                neurons = {name: [(k + 1) % 8 for k in ks] for name, ks in neurons.items()}
            run.record(number, "detect", OVER | {"tau": calibration.tau}, 1.0)
            run.record(number, "localize", found(**{}) | {"neurons": neurons}, 1.0)
            run.record(number, "verify", GONE | {"steps": 3}, 1.0)
        run.set_meta("scan", {"scope": "paper", "left": {}})
    return Run.open(path)


def union_of(path, model, calibration, **options):
    with start(path, model, calibration, PLAN) as run:
        done = check_union(Work(run, model, calibration, PLAN, Judges()), **options)
        results = {c.text: c.results for c in run.captions()}
        pictures = {
            str(file.relative_to(path)): file.read_bytes()
            for file in path.rglob("cleaned/**/*.png")
        }
    return done, json.dumps(results, sort_keys=True), pictures


@pytest.mark.slow
def test_the_search_goes_on_by_itself(tmp_path, demo_model, calibration):
    """A real model: pictures are made, the copy is seen, its planted neuron found."""
    right, wrong = list(demo.planted())[:2]
    begun(tmp_path / "run", demo_model, calibration).close()
    done, _, pictures = union_of(tmp_path / "run", demo_model, calibration)
    assert done
    with Run.open(tmp_path / "run") as run:
        captions = {c.text: c for c in run.captions()}
        assert [standing(c) for c in captions.values()] == ["gone", "gone"]
        assert joined_neurons(captions[wrong]) & demo.planted()[wrong]
        assert not joined_neurons(captions[right])
        assert captions[wrong].together.first == AGAIN
        assert captions[right].together.first == FRESH
        assert captions[right].together.confirmed is not None
        folders = {name.split("/")[1] for name in pictures}
        assert folders == set(run.meta("union")["digests"])


@pytest.mark.slow
def test_workers_give_the_same_bits(tmp_path, demo_model, calibration):
    for name in ("alone", "others"):
        begun(tmp_path / name, demo_model, calibration).close()
    pool = FakePool(demo_model, size=2)
    alone = union_of(tmp_path / "alone", demo_model, calibration)
    assert union_of(tmp_path / "others", demo_model, calibration, pool=pool) == alone


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_killed_between_commits_it_ends_with_the_same_bits(
    tmp_path, demo_model, calibration, monkeypatch, after
):
    begun(tmp_path / "whole", demo_model, calibration).close()
    want = union_of(tmp_path / "whole", demo_model, calibration)
    begun(tmp_path / "run", demo_model, calibration).close()
    record = Run.record_all
    left = [after]

    def killed(self, results):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        record(self, results)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "record_all", killed)
        with pytest.raises(KeyboardInterrupt):
            union_of(tmp_path / "run", demo_model, calibration)
    assert union_of(tmp_path / "run", demo_model, calibration) == want


@pytest.mark.slow
def test_pictures_that_are_there_are_not_made_again(demo_model, calibration, monkeypatch):
    """Untouched ones of verification serve for all sets; without a confirmation none with the
    neurons off is made in all steps.
    """
    caption, neurons = next(iter(demo.planted().items()))
    about = (demo_model, caption, neurons, calibration.settings, 3, QUICK, None)
    look = Look(tau=calibration.tau)
    noise = 2 * calibration.settings.samples
    alone = verify(*about, replace(look, confirm=False))
    quick = 2 * 3
    whole = 2 * QUICK.steps
    assert alone.values["evaluations"] == noise + 6 * quick
    assert "confirmed" not in alone.values
    again = verify(*about, replace(look, quick={"before": alone.before}, steps=3))
    assert again.values["evaluations"] == noise + 3 * quick + whole
    assert all(one is other for one, other in zip(again.before, alone.before, strict=True))
    quick_ones = {"before": alone.before, "after": alone.after}
    both = verify(*about, replace(look, quick=quick_ones, steps=3))
    assert both.values["evaluations"] == noise + whole
    glance = verify(*about, replace(look, glance=True, quick={"before": alone.before}, steps=3))
    assert glance.values["evaluations"] == 3 * quick
    assert not {"confirmed", "score_before"} & glance.values.keys()
    spent = {"evaluations": 3 * quick}
    rest = verify(*about, replace(look, quick=quick_ones, steps=3, values=spent))
    assert rest.values == again.values  # a glance and the rest are a full look
    fresh = verify(*about, replace(look, first=AGAIN))
    assert fresh.before[0].tobytes() != alone.before[0].tobytes()
    thorough = verify(*about, replace(look, thorough=True))
    untouched = {("before", k): image for k, image in enumerate(thorough.before)}
    third = verify(*about, replace(look, thorough=True, whole=untouched))
    assert third.values["evaluations"] == noise + 3 * whole
    assert third.values["copies_after"] == thorough.values["copies_after"]
    monkeypatch.setattr(effect_of, "quick_look", None)  # quick ones were not enough before
    doubted = verify(*about, replace(look, whole=untouched))
    assert "steps" not in doubted.values
