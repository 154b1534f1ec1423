"""The audit: detect, localize, verify; interrupted anywhere it goes on, and ends as
if nothing had happened.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _audited import PLAN, PROMPTS, SETTINGS, TEXTS, calibrated, outcome, run_audit, small_model
from _tiny import tiny_pipeline
from PIL import Image

import findnemo
from findnemo import calibrate
from findnemo.errors import DeviceError, InputError, MismatchError, NumericalError
from findnemo.files import writing
from findnemo.images import ImageSettings
from findnemo.localization import Diagnosis, Point
from findnemo.neurons import EMPTY
from findnemo.passes import Probe
from findnemo.prompts import Prompt
from findnemo.runs import (
    AuditPlan,
    Caption,
    Run,
    Work,
    all_neurons,
    audit,
    neurons_of,
    p_values,
    q_values,
    row,
    start,
    summary,
)
from findnemo.seeds import FRESH
from findnemo.verification import Look


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def calibration(model):
    return calibrated(model)


WORK = importlib.import_module("findnemo.runs.work")
MODULE = importlib.import_module("findnemo.runs.audit")  # `findnemo.runs.audit` is the function


@pytest.fixture(scope="module", autouse=True)
def memories():
    """What is over tau copies, and no more once neurons are off: a model with random weights
    has no memories of its own.
    """

    def copying(images, before, descriptor=None):
        return torch.full((len(images),), 0.9 if images is before else 0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.metrics.copies.copying", copying)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, model, calibration):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run_audit(out, model, calibration)
    return out


def pictures(out: Path) -> dict[str, bytes]:
    """Finished images and sheets by caption, without the number that the order gives."""
    return {
        re.sub(r"/\d{5}-", "/", str(p.relative_to(out))): p.read_bytes()
        for p in sorted(out.rglob("*.png"))
    }


# What an audit does


def test_nothing_is_decided_on_the_seeds_that_judge(tmp_path, model, calibration, monkeypatch):
    """Finished images of fresh seeds are made three times: untouched, with the set that the search
    found, and with the sets of all captions where those are others.
    """
    made = []
    plain = findnemo.verification.effect.pictures

    def pictures(model, prompt, samples, *rest):
        made.append((prompt, tuple(samples)))
        return plain(model, prompt, samples, *rest)

    monkeypatch.setattr("findnemo.verification.effect.pictures", pictures)
    monkeypatch.setattr(MODULE, "check_quality", lambda *_: None)
    captions = [c for c in run_audit(tmp_path / "run", model, calibration) if "verify" in c.results]
    assert captions
    fresh = tuple(range(FRESH, FRESH + PLAN.images))
    union = all_neurons(captions)
    for caption in captions:
        times = 2 if neurons_of(caption) == union else 3
        assert [samples for prompt, samples in made if prompt == caption.text] == [fresh] * times
        assert neurons_of(caption) == findnemo.NeuronSet(caption.results["localize"]["neurons"])


def test_what_is_found_for_a_memory_out_of_reach_stays_on():
    def caption(name, reached):
        detected = {"memorized": True, "score": 0.9, "tau": 0.4}
        found = {
            "neurons": {name: [1]},
            "reached": reached,
            "score_before": 0.9,
            "score_after": 0.1,
        }
        results = {"detect": detected, "localize": found}
        return Caption(1, name, 1, None, None, results, {}, 0.0)

    captions = [caption("a", True), caption("b", False)]
    assert all_neurons(captions) == findnemo.NeuronSet({"a": [1]})
    assert neurons_of(captions[1]) == findnemo.NeuronSet({"b": [1]})


@pytest.mark.parametrize(("reached", "asked"), [(True, 0), (False, 1)])
def test_what_carries_a_memory_is_asked_where_no_value_neurons_do(
    model, calibration, monkeypatch, reached, asked
):
    ordinary = replace(calibration, ordinary=("a cat",))
    found = findnemo.Localization(
        "a", True, 0.9, 0.8, 0.4, 5, reached=reached, points=(Point(3, 0.7, 0.1),)
    )
    said = Diagnosis(
        0.9,
        {"all key layers": 0.1},
        {"all key layers": 0.9},
        {"no caption": 0.0},
        "all key layers",
        "It is so.",
        7,
    )
    calls = []
    monkeypatch.setattr(MODULE, "localize", lambda *args: found)
    monkeypatch.setattr(MODULE, "diagnose", lambda *args: calls.append(args[1:3]) or said)
    caption = Caption(1, "a", 1, None, None, {}, {}, 0.0)
    plan = replace(PLAN, search="trajectory")
    tools = Work(None, model, ordinary, plan).tools
    (answer,) = MODULE.STEPS["localize"](model, [(caption, ())], **tools)
    assert calls == [("a", ("a cat",))] * asked
    assert answer.payload.get("diagnosis") == (said.to_json() if asked else None)
    tools = Work(None, model, replace(calibration, ordinary=()), plan).tools
    (answer,) = MODULE.STEPS["localize"](model, [(caption, ())], **tools)
    assert (answer.error, "diagnosis" in answer.payload) == (
        None,
        False,
    )  # nothing to tell a memory's place by


@pytest.mark.slow
def test_a_memory_out_of_reach_has_prices_and_a_diagnosis(monkeypatch):
    monkeypatch.setattr(
        "findnemo.localization.trajectory.MOST", 100
    )  # nine neurons at most: too few
    model = findnemo.load("demo-natural")
    calibration = findnemo.demo.calibration("demo-natural")
    caption = Caption(
        1, findnemo.demo.memorized("demo-natural")[0].text, 1, None, None, {}, {}, 0.0
    )
    plan = replace(
        PLAN, search="trajectory", scope="all", image_settings=findnemo.demo.image_settings()
    )
    tools = Work(None, model, calibration, plan).tools
    (answer,) = MODULE.STEPS["localize"](model, [(caption, ())], **tools)
    payload = json.loads(json.dumps(answer.payload))
    assert not payload["reached"]
    assert [count for count, _, _ in payload["points"]] == [1, 2, 4, 8, 9]
    assert payload["diagnosis"]["sentence"].startswith("What carries it: feed-forward layers")


def test_every_stage_says_what_the_api_says(undisturbed, model, calibration):
    with Run.open(undisturbed) as run:
        captions = list(run.captions())
    assert [c.text for c in captions] == list(TEXTS)
    assert sum(c.results["detect"]["memorized"] for c in captions) == 3
    for caption in captions:
        alone = findnemo.detect(model, caption.text, calibration).to_json()
        assert caption.results["detect"] == alone | {
            "score": pytest.approx(alone["score"], abs=1e-5)
        }  # shared passes: rounding
        found = findnemo.localize(model, caption.text, calibration, "gradient")
        assert found.memorized == ("localize" in caption.results) == ("verify" in caption.results)
        if found.memorized:
            told = json.loads(json.dumps(found.to_json()))
            assert rounded(caption.results["localize"]) == rounded(told)
            assert neurons_of(caption) == found.neurons != EMPTY
            checked = findnemo.verify(
                model,
                caption.text,
                neurons_of(caption),
                SETTINGS,
                2,
                PLAN.image_settings,
                look=Look(tau=calibration.tau),
            )
            assert caption.results["verify"] == pytest.approx(checked.values, abs=2e-4)


def test_every_memorized_caption_has_a_sheet_and_its_images(undisturbed):
    with Run.open(undisturbed) as run:
        memorized = [c for c in run.captions() if c.results["detect"]["memorized"]]
    names = {c.slug for c in memorized}
    assert {p.stem for p in (undisturbed / "sheets").iterdir()} == names
    assert {p.name for p in (undisturbed / "images").iterdir()} == names
    for name in names:
        with Image.open(undisturbed / "sheets" / f"{name}.png") as sheet:
            sheet.load()
            assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        images = sorted(p.name for p in (undisturbed / "images" / name).iterdir())
        assert images == ["after-00.png", "after-01.png", "before-00.png", "before-01.png"]
        assert sorted(p.name for p in (undisturbed / "noise" / name).iterdir()) == images


def test_noise_differences_are_kept_as_pictures_of_fresh_seeds(undisturbed, model):
    """The first three channels, computed here without a probe."""
    with Run.open(undisturbed) as run:
        caption = next(c for c in run.captions() if c.results["detect"]["memorized"])
    latents = model.noise(caption.text, [1000, 1001], SETTINGS.seed)
    with torch.no_grad():
        text = model.encode([caption.text])
        t = model.timesteps(SETTINGS.steps)[0]
        deltas = model.predict_noise(latents, t, text.expand(2)) - latents
    for k, delta in enumerate(deltas):
        scaled = (delta - delta.min()) / (delta.max() - delta.min())
        with Image.open(undisturbed / "noise" / caption.slug / f"before-{k:02d}.png") as picture:
            kept = torch.tensor(np.asarray(picture).copy()).permute(2, 0, 1)
        assert (kept / 255 - scaled[:3]).abs().max() < 1.5 / 255


def test_the_training_image_is_kept_no_larger_than_the_finished_ones(tmp_path, model, calibration):
    with start(tmp_path / "run", model, calibration, PLAN) as run:
        work = Work(
            run,
            model,
            calibration,
            PLAN,
            original=lambda caption: Image.new("RGB", (500, 250), "red"),
        )
        captions = audit(work, PROMPTS)
    for caption in (c for c in captions if "verify" in c.results):
        folder = tmp_path / "run" / "images" / caption.slug
        with (
            Image.open(folder / "original.png") as kept,
            Image.open(folder / "before-00.png") as finished,
        ):
            assert kept.size == (finished.width, finished.width // 2)
            assert kept.getpixel((3, 3)) == (255, 0, 0)


def test_quality_is_measured_on_captions_that_are_not_memorized(undisturbed):
    with Run.open(undisturbed) as run:
        quality = run.meta("quality")
        neurons = all_neurons(run.captions())
    assert quality["prompts"] == 3
    assert quality["failed"] == 0
    assert quality["neurons"] == len(neurons) > 0
    assert 0 < quality["pixel_change"] < 1


def test_the_run_keeps_what_it_was_made_with(undisturbed, model, calibration):
    with Run.open(undisturbed) as run:
        assert run.meta("settings") == PLAN.settings(model, calibration)
        assert run.meta("source") == model.source
        assert set(run.meta("versions")) == {
            "findnemo",
            "python",
            "torch",
            "diffusers",
            "transformers",
            "threads",
        }
    kept = findnemo.Calibration.load(undisturbed / "calibration")
    assert (kept.tau, kept.settings, kept.model) == (calibration.tau, SETTINGS, model.fingerprint)


def test_csv_and_json_agree_with_the_store(undisturbed):
    with Run.open(undisturbed) as run:
        q = q_values(p_values(run))
        whole = summary(run)
        rows = [row(c, q) for c in run.captions()]
    assert json.loads((undisturbed / "results.json").read_text(encoding="utf-8")) == whole
    assert whole["results"] == rows
    assert (whole["captions"], whole["memorized"], whole["failed"]) == (6, 3, 0)
    with (undisturbed / "results.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    for have, want in zip(read, rows, strict=True):
        inert = want | {"caption": "'=1+1" if want["caption"] == "=1+1" else want["caption"]}
        layers = [
            f"{name}: {' '.join(map(str, at))}" for name, at in (want["layers"] or {}).items()
        ]
        inert["layers"] = "; ".join(layers)
        assert have == {k: "" if v is None else str(v) for k, v in inert.items()}


def test_progress_counts_every_stage(tmp_path, model, calibration):
    calls = []
    run_audit(
        tmp_path / "run",
        model,
        calibration,
        stages=["detect"],
        progress=lambda *call: calls.append(call),
    )
    assert calls == [("detect", 0, 6), ("detect", 6, 6)]  # six captions are one group
    calls.clear()
    run_audit(
        tmp_path / "run",
        model,
        calibration,
        stages=["localize"],
        progress=lambda *call: calls.append(call),
    )
    assert calls == [("localize", 0, 3), ("localize", 3, 3)]


def test_detection_is_inclusive_and_refuses_another_model(model, calibration):
    score = findnemo.detect(model, "a red fox", calibration).score
    assert findnemo.detect(model, "a red fox", replace(calibration, tau=score)).memorized
    assert not findnemo.detect(
        model, "a red fox", replace(calibration, tau=math.nextafter(score, 2))
    ).memorized
    assert score == pytest.approx(findnemo.score(model, "a red fox", settings=SETTINGS), abs=1e-5)
    with pytest.raises(MismatchError, match="made for another model"):
        findnemo.detect(small_model(seed=1), "a red fox", calibration)


def test_a_calibration_of_another_model_starts_nothing(tmp_path, calibration):
    with pytest.raises(MismatchError, match="made for another model"):
        start(tmp_path / "run", small_model(seed=1), calibration, PLAN)
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_plan_is_refused(undisturbed, model, calibration):
    before = outcome(undisturbed)
    with pytest.raises(MismatchError, match=r"images 2, now 3.*image_settings\.steps 2, now 9"):
        start(
            undisturbed,
            model,
            calibration,
            AuditPlan("gradient", images=3, image_settings=ImageSettings(steps=9)),
        )
    with pytest.raises(MismatchError, match=r"tau .*, now 0\.9"):
        start(undisturbed, model, replace(calibration, tau=0.9), PLAN)
    assert outcome(undisturbed) == before


# Order, limits and stages make no difference


@pytest.mark.first(1)
@pytest.mark.parametrize("way", ["reversed", "limit in two steps", "stage by stage"])
def test_results_do_not_depend_on_the_way(tmp_path, undisturbed, model, calibration, way):
    parts = {
        "reversed": [(PROMPTS[::-1], MODULE.STAGES)],
        "limit in two steps": [(PROMPTS[:2], MODULE.STAGES), (PROMPTS, MODULE.STAGES)],
        "stage by stage": [(PROMPTS, [stage]) for stage in MODULE.STAGES],
    }[way]
    for prompts, stages in parts:
        captions = run_audit(tmp_path / "run", model, calibration, prompts, stages=stages)
        assert {c.text for c in captions} == {p.text for p in prompts}
    # in other company, other last digits
    assert rounded(outcome(tmp_path / "run")) == rounded(outcome(undisturbed))
    assert pictures(tmp_path / "run").keys() == pictures(undisturbed).keys()


@pytest.mark.slow
def test_a_later_limit_leaves_results_and_quality_alone(tmp_path, stages, model, calibration):
    run_audit(tmp_path / "run", model, calibration)
    before = outcome(tmp_path / "run")
    calls = asked(stages)
    assert [c.text for c in run_audit(tmp_path / "run", model, calibration, PROMPTS[:1])] == [
        TEXTS[0]
    ]
    assert outcome(tmp_path / "run") == before
    assert asked(stages) == calls
    assert stages.calls["quality",] == 1


# A caption on which the model gives NaN


def rounded(values):
    """Without the last digits of detection's scores: a caption that fails leaves the passes
    that it shared with others.
    """
    if isinstance(values, dict):
        return {k: rounded(v) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [rounded(v) for v in values]
    return round(values, 5) if isinstance(values, float) else values


@pytest.fixture
def poisoned(monkeypatch):
    """A model of its own that gives NaN for the captions in the set `bad`."""
    sick = small_model()
    bad = set()
    encode = sick.encode

    def poison(prompts):
        scale = torch.tensor([math.nan if p in bad else 1.0 for p in prompts])[:, None, None]
        return encode(prompts).map(lambda tensor: tensor * scale)

    monkeypatch.setattr(sick, "encode", poison)
    return sick, bad


@pytest.mark.slow
def test_a_caption_with_nan_is_marked_and_named_and_tried_again(
    tmp_path, undisturbed, poisoned, calibration
):
    sick, bad = poisoned
    bad.add(TEXTS[1])
    captions = run_audit(tmp_path / "run", sick, calibration)
    assert [c.text for c in captions if c.failed] == [TEXTS[1]]
    assert captions[1].results == {}
    assert "NaN" in captions[1].failed["detect"]
    whole = json.loads((tmp_path / "run" / "results.json").read_text())
    assert whole["failed"] == 1
    assert [(r["caption"], r["status"]) for r in whole["results"] if r["error"]] == [
        (TEXTS[1], "failed")
    ]
    others, want = (rounded(outcome(out))["captions"] for out in (tmp_path / "run", undisturbed))
    assert {k: v for k, v in others.items() if k != TEXTS[1]} == {
        k: v for k, v in want.items() if k != TEXTS[1]
    }

    assert run_audit(tmp_path / "run", sick, calibration)[1].failed  # still ill, still marked
    bad.clear()
    assert not any(c.failed for c in run_audit(tmp_path / "run", sick, calibration))
    assert rounded(outcome(tmp_path / "run")) == rounded(outcome(undisturbed))


@pytest.mark.parametrize("stage", ["detect_many", "localize"])
def test_a_device_without_memory_marks_captions_and_does_not_end_the_audit(
    tmp_path, model, calibration, monkeypatch, stage
):
    def full(*arguments):
        raise DeviceError("out of memory on cpu")

    monkeypatch.setattr(MODULE, stage, full)
    captions = run_audit(tmp_path / "run", model, calibration)
    failed = [c for c in captions if c.failed]
    assert len(failed) == {"detect_many": 6, "localize": 3}[stage]
    assert all("out of memory" in reason for c in failed for reason in c.failed.values())


def test_nan_in_finished_images_fails_the_caption_or_is_counted(
    tmp_path, undisturbed, stages, model, calibration
):
    memorized = {
        c for c, (results, _) in outcome(undisturbed)["captions"].items() if "localize" in results
    }
    one = min(memorized)
    clean = next(t for t in TEXTS if t not in memorized)
    stages.nan_images = {one, clean}
    captions = run_audit(tmp_path / "run", model, calibration)
    assert {c.text: list(c.failed) for c in captions if c.failed} == {one: ["verify"]}
    with Run.open(tmp_path / "run") as run:
        assert (run.meta("quality")["prompts"], run.meta("quality")["failed"]) == (2, 1)

    stages.nan_images = set()
    run_audit(tmp_path / "run", model, calibration)
    assert outcome(tmp_path / "run") == outcome(undisturbed)


@pytest.mark.first(1)
@pytest.mark.parametrize(("stage", "value"), [("localize", math.inf), ("verify", math.nan)])
def test_numbers_that_go_wrong_in_a_later_stage_mark_the_caption(
    tmp_path, undisturbed, model, calibration, monkeypatch, stage, value
):
    """What the model predicts for a caption is spoilt from the first pass of the stage to
    its last, and only there.
    """
    one = min(
        c for c, (results, _) in outcome(undisturbed)["captions"].items() if "localize" in results
    )
    module = WORK if stage == "verify" else MODULE
    whole = getattr(module, stage)
    ill = []
    eps = Probe.epsilon

    def spoilt(self, *arguments):
        return eps(self, *arguments) * (value if ill and self.prompt == one else 1.0)

    def step(model, prompt, *rest):
        ill.extend([1] * (prompt == one))
        try:
            return whole(model, prompt, *rest)
        finally:
            if prompt == one:
                ill.clear()

    with monkeypatch.context() as patch:
        patch.setattr(Probe, "epsilon", spoilt)
        patch.setattr(module, stage, step)
        captions = run_audit(tmp_path / "run", model, calibration)
    failed = {c.text: c.failed for c in captions if c.failed}
    assert list(failed) == [one]
    assert list(failed[one]) == [stage]
    assert "NaN or infinity" in failed[one][stage]
    assert all("verify" in c.results for c in captions if "localize" in c.results and c.text != one)
    run_audit(tmp_path / "run", model, calibration)
    assert rounded(outcome(tmp_path / "run")) == rounded(outcome(undisturbed))


def test_a_method_that_gives_nan_is_marked_and_the_others_are_compared(
    tmp_path, undisturbed, model, calibration, monkeypatch
):
    shutil.copytree(undisturbed, tmp_path / "run")
    module = importlib.import_module("findnemo.runs.compare")
    made = module.comparison_images
    one = []

    def spoilt(tools, caption):
        if not one:
            one.append(caption.text)
            raise NumericalError("the finished latents hold NaN or infinity")
        return made(tools, caption)

    monkeypatch.setattr(module, "comparison_images", spoilt)
    with start(tmp_path / "run", model, calibration, PLAN) as run:
        module.compare(Work(run, model, calibration, PLAN), ["neurons"])
        captions = [c for c in run.captions() if "localize" in c.results]
    assert {c.text: list(c.failed) for c in captions if c.failed} == {one[0]: ["compare:neurons"]}
    assert all(
        "compare:neurons" in c.results and "compare:none" in c.results
        for c in captions
        if c.text != one[0]
    )


def test_a_batch_that_does_not_fit_the_device_is_halved_and_the_audit_finds_the_same(
    tmp_path, undisturbed, model, calibration, monkeypatch
):
    """A device with room for three latents in a pass: no caption fails, and nothing is found
    that was not found before.
    """
    predict = type(model).predict_noise
    sizes = []

    def small_device(self, latents, *rest):
        if len(latents) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(latents))
        return predict(self, latents, *rest)

    monkeypatch.setattr(type(model), "predict_noise", small_device)
    captions = run_audit(tmp_path / "run", model, calibration)
    assert not any(c.failed for c in captions)
    assert max(sizes) <= 3
    found, want = (
        {t: r["neurons"] for t, r in outcome(out)["rows"].items()}
        for out in (tmp_path / "run", undisturbed)
    )
    assert found == want
    scores, known = (
        {t: r["score"] for t, r in outcome(out)["rows"].items()}
        for out in (tmp_path / "run", undisturbed)
    )
    assert scores == pytest.approx(known, abs=2e-4)


# Interruptions


class Stages:
    """The real stages, each computed once and then remembered; counts the calls and
    interrupts at one of them.
    """

    memory: dict = {}  # noqa: RUF012 - shared on purpose: every test asks for the same few answers

    def __init__(self):
        self.calls = Counter()
        self.left = math.inf
        self.nan_images = set()

    def tick(self, name, *about):
        """One place at which a process can stop."""
        self.calls[(name, *about)] += 1
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def wrap(self, name, function):
        def stage(model, prompt, *rest):
            self.tick(name, prompt)
            if name == "verify" and prompt in self.nan_images:
                raise NumericalError("the finished latents hold NaN or infinity")
            key = (name, prompt)
            if name == "verify":  # of these neurons, with or without images that are there
                look = rest[-1]
                made = (*sorted(look.quick), *sorted(look.whole, key=str))
                key = (*key, rest[0], look.first, look.glance, *look.values.items(), *made)
            if key not in self.memory:
                self.memory[key] = function(model, prompt, *rest)
            self.tick("answered " + name, prompt)
            return self.memory[key]

        return stage

    def wrap_group(self, name, function):
        def stage(model, prompts, *rest):
            for prompt in prompts:
                self.tick(name, prompt)
            key = (name, *prompts)
            if key not in self.memory:
                self.memory[key] = function(model, prompts, *rest)
            self.tick("answered " + name)
            return self.memory[key]

        return stage

    def wrap_plain(self, name, function):
        def step(*arguments, **options):
            self.tick(name)
            return function(*arguments, **options)

        return step


@pytest.fixture
def stages(monkeypatch):
    watch = Stages()
    for module, name in ((MODULE, "localize"), (WORK, "verify")):
        monkeypatch.setattr(module, name, watch.wrap(name, getattr(module, name)))
    monkeypatch.setattr(MODULE, "detect_many", watch.wrap_group("detect", MODULE.detect_many))
    for name in ("enter", "quality"):
        monkeypatch.setattr(MODULE, name, watch.wrap_plain(name, getattr(MODULE, name)))
    monkeypatch.setattr(
        "findnemo.files.writing.atomic_write", watch.wrap_plain("written", writing.atomic_write)
    )
    for name in ("record_all", "set_meta"):
        monkeypatch.setattr(Run, name, watch.wrap_plain(name, getattr(Run, name)))
    images = {}

    def remembered(model, prompt, samples, settings, neurons=None):
        if prompt in watch.nan_images:
            raise NumericalError("the finished latents hold NaN or infinity")
        key = (
            prompt,
            tuple(samples),
            neurons,
            bool(any(m._forward_hooks for m in model.value_layers.values())),
        )
        if key not in images:
            images[key] = findnemo.generate(model, prompt, samples, settings)
        return images[key]

    def each(model, rows, settings):
        return [remembered(model, prompt, [sample], settings)[0] for prompt, sample in rows]

    def pictured(model, prompt, samples, settings, neurons):
        with findnemo.deactivate(model, neurons):
            return remembered(model, prompt, samples, settings, neurons)

    monkeypatch.setattr("findnemo.verification.cost.generate_many", each)
    monkeypatch.setattr("findnemo.verification.effect.pictures", pictured)
    return watch


def asked(watch: Stages) -> Counter:
    return Counter({key: n for key, n in watch.calls.items() if key[0] in MODULE.STAGES})


@pytest.mark.slow
def test_interrupted_anywhere_and_started_again(tmp_path, undisturbed, stages, model, calibration):
    run_audit(tmp_path / "whole", model, calibration)
    once = asked(stages)
    points = sum(stages.calls.values())
    assert sorted(Counter(stage for stage, _ in once.elements()).items()) == [
        ("detect", 6),
        ("localize", 3),
        # each with its own neurons off, and with those of all: at a glance and in full
        ("verify", 9),
    ]
    want = outcome(undisturbed)
    images = pictures(undisturbed)
    assert outcome(tmp_path / "whole") == want
    for point in range(points):
        out = tmp_path / str(point)
        stages.calls.clear()
        stages.left = point
        with pytest.raises(KeyboardInterrupt):
            run_audit(out, model, calibration)
        stages.left = math.inf
        run_audit(out, model, calibration)
        assert outcome(out) == want, point
        assert pictures(out) == images, point
        again = (
            asked(stages) - once
            # what was under way is done again, nothing else: the group that shares passes
        )
        assert len({stage for stage, _ in again}) <= 1, point
        assert set(again.values()) <= {1}, point
        assert not once - asked(stages), point
        assert not list(out.rglob(".*.part")), point


def test_interrupted_again_and_again(tmp_path, undisturbed, stages, model, calibration):
    run_audit(tmp_path / "whole", model, calibration)  # so that answers are those of whole groups
    for attempt in range(100):
        stages.left = 45  # enough for one more stage of a group, not for all
        try:
            run_audit(tmp_path / "run", model, calibration)
            break
        except KeyboardInterrupt:
            assert attempt < 99
    assert attempt >= 1
    assert outcome(tmp_path / "run") == outcome(undisturbed)
    assert pictures(tmp_path / "run") == pictures(undisturbed)


def test_a_finished_audit_does_nothing_again(tmp_path, stages, model, calibration):
    run_audit(tmp_path / "run", model, calibration)
    before = asked(stages)
    run_audit(tmp_path / "run", model, calibration)
    assert asked(stages) == before
    assert stages.calls["quality",] == 1


def test_an_error_of_the_users_input_stops_the_audit_before_it_begins(tmp_path, model, calibration):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not a findnemo run"):
        run_audit(tmp_path, model, calibration)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_an_audit_takes_the_gentle_set_and_tells_its_impact(tmp_path):
    from _planting import CAPTION, HOLDOUT, SETTINGS, calibration, planted_twice

    from findnemo.cli._show import notes
    from findnemo.runs import row
    from findnemo.verification import verify as check

    model, own, common = planted_twice(tiny_pipeline())
    made = calibration(model, unusual=common)
    plan = AuditPlan("gradient", images=0, max_impact=0.05, unrelated=tuple(HOLDOUT))
    with start(tmp_path / "run", model, made, plan) as run:
        (caption,) = audit(Work(run, model, made, plan), [Prompt(CAPTION, 1)])
        told = " ".join(notes(run, [caption]))
    with pytest.raises(MismatchError, match="max_impact"):
        start(tmp_path / "run", model, made, replace(plan, max_impact=0.1))
    found = caption.results["localize"]
    assert neurons_of(caption) == own
    assert found["impact"] < 0.001 < found["max_impact"] == 0.05
    assert row(caption)["impact"] == found["impact"]
    assert "1 of 1 sets change unrelated captions by no more than 0.05" in told
    assert (
        caption.results["verify"]["same_seed"]
        == check(model, CAPTION, own, SETTINGS, 0, plan.image_settings).values["same_seed"]
    )
    dear = replace(caption, results=caption.results | {"localize": found | {"impact": 0.3}})
    assert "1 change them more" in " ".join(notes(Run.open(tmp_path / "run"), [dear]))


def test_a_published_search_by_another_score_is_refused_before_a_run_is_begun(model, tmp_path):
    own = calibrate(model, ["a cat", "a dog", "two boats"], "findnemo")
    with pytest.raises(InputError, match="calibrate with variant 'paper'"):
        start(tmp_path / "run", model, own, AuditPlan(search="listing", images=0))
    assert not (tmp_path / "run").exists()
