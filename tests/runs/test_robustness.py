"""`findnemo verify` on a memory planted in a tiny model, through the command line: tables,
report, files; stopped, and gone on with.
"""

import csv
import json
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from unittest import mock

import pytest
import torch
from _command import cli
from _planting import CAPTION, HOLDOUT, planted
from _tiny import tiny_pipeline

import findnemo
from findnemo import demo
from findnemo.cli import main
from findnemo.errors import ModelError, StoppedError
from findnemo.metrics import copies
from findnemo.metrics.copies import COPY
from findnemo.neurons import NeuronSet
from findnemo.robustness import attack, subject
from findnemo.runs import AuditPlan, Run, Work, robustness
from findnemo.runs.robustness import Effort, attack_all, try_out
from findnemo.settings import Settings

ATTEMPTS = ("seeds: fresh", "words: capitals", "image to image: 0.5")
OPTIONS = ("--attack-captions", "1", "--attack-steps", "0,2")


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A finished run of a model that memorized one of two captions."""
    folder = tmp_path_factory.mktemp("planted")
    model, _ = planted(tiny_pipeline())
    model.pipeline.save_pretrained(folder / "model", safe_serialization=True)
    made = findnemo.calibrate(
        findnemo.load(folder / "model"), HOLDOUT, settings=Settings(samples=3)
    )
    replace(made, tau=0.5).save(folder / "calibration")
    (folder / "captions.txt").write_text(f"{CAPTION}\n{HOLDOUT[0]}\n")
    arguments = (
        "--prompts",
        folder / "captions.txt",
        "--calibration",
        folder / "calibration",
        "--out",
        folder / "run",
    )
    argv = ["findnemo", "audit", folder / "model", *arguments, "--images", 2, "--image-steps", 2]
    patched = mock.patch.object(
        copies,
        "copying",
        lambda images, before, *_: torch.full((len(images),), 0.9 if images is before else 0.1),
    )  # two steps do not show the memory
    with mock.patch.object(sys, "argv", [*map(str, argv)]), patched, suppress(SystemExit):
        main()
    return folder / "run"


@pytest.mark.slow
def test_verify_attacks_once_and_tells(audited, monkeypatch):
    attacked = []
    real = robustness.attack
    monkeypatch.setattr(robustness, "attack", lambda *a, **o: attacked.append(1) or real(*a, **o))
    monkeypatch.setattr(robustness, "ATTEMPTS", {k: robustness.ATTEMPTS[k] for k in ATTEMPTS})
    status, out, err = cli("verify", audited, *OPTIONS)
    assert status == 0, err
    told = " ".join(err.split())
    assert "U-Net evaluations; --no-attempts and --no-attack leave them out" in told
    assert all(name in out for name in ATTEMPTS)
    assert re.search(r"attempts about [\d.]+ (s|min) for [\d,]+ U-Net evaluations, attack", told)
    assert "too few captions to tell anything" not in out, "the attack works on no model: no gap"
    assert "the attack tells nothing of 1 caption of the 1 attacked" in out
    assert len(attacked) == 4  # memorized: neurons off, never seen, untouched; ordinary: mirrored

    page = (audited / "report.html").read_text()
    assert page.count("<polyline") == 4
    assert "Is it really gone?" in page
    found = json.loads((audited / "results.json").read_text())
    assert [x for x, _ in found["attack"]["curves"]["memorized, neurons off"]] == [0, 2]
    assert found["attempts"]["table"]["seeds: fresh"]["untouched"]["n"] == 1

    status, again, _ = cli("verify", audited, *OPTIONS)
    assert (status, len(attacked)) == (0, 4)
    assert again.partition("copied by")[2] == out.partition("copied by")[2]
    status, shown, _ = cli("inspect", audited)
    assert status == 0
    assert "Is it really gone?" in shown
    assert "never seen, neurons off" in shown


@pytest.mark.slow
def test_a_demo_memory_is_in_the_untouched_model_and_not_in_ordinary_use_of_the_edited(demo_model):
    caption, neurons = next((c, n) for c, n in demo.planted().items() if len(n) == 1)
    settings = demo.image_settings()
    descriptor = demo.judges().descriptor
    told = subject(demo_model, caption, settings, demo.training_image(caption))
    untouched = attack(demo_model, told, settings, (0,), ("caption",), 2, descriptor)["caption"][0]
    with findnemo.deactivate(demo_model, neurons):
        off = attack(demo_model, told, settings, (0,), ("caption",), 2, descriptor)["caption"][0]
    assert min(untouched) > COPY > max(off)


@pytest.mark.slow
def test_stopped_it_goes_on_with_what_is_left(audited, tmp_path, monkeypatch):
    model = findnemo.load(audited.parent / "model")
    copied = shutil.copytree(audited, tmp_path / "run")
    attacked = []
    real = robustness.attack
    monkeypatch.setattr(robustness, "attack", lambda *a, **o: attacked.append(1) or real(*a, **o))
    effort = Effort(1, (0, 3), images=1)
    run, work = _reopened(copied, model)
    with run:
        with pytest.raises(StoppedError, match="stopped after 2 of 4"):
            attack_all(work, effort, stop=lambda: len(attacked) > 1)
        assert len(attacked) == 2
        attack_all(work, effort)
        assert len(attacked) == 4
        assert {len(line) for line in run.meta("attack")["curves"].values()} == {2}
        with pytest.raises(StoppedError):
            try_out(work, effort, stop=lambda: True)


def _fake(untouched, off):
    """An attack that reaches so much, where it begins without the caption and elsewhere."""

    def attack(model, subject, settings, steps, starts, images, descriptor, keep):
        reached = untouched if starts == ("random",) else off
        return {start: {step: [reached * (step > 0)] for step in steps} for start in starts}

    return attack


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("untouched", "off", "word", "says"),
    [
        (0.17, 0.1, "tells nothing", "on the untouched model it gives no copy either (0.17)"),
        (0.9, 0.1, "not back", "gives a copy of 0 of the 1 caption attacked"),
        (0.9, 0.8, "back", "gives a copy of 1 of the 1 caption attacked"),
    ],
)
def test_an_attack_says_something_only_where_it_works_on_the_untouched_model(
    audited, tmp_path, monkeypatch, untouched, off, word, says
):
    monkeypatch.setattr(robustness, "attack", _fake(untouched, off))
    run = shutil.copytree(audited, tmp_path / "run")
    options = ("--no-attempts", "--attack-captions", 1, "--attack-steps", "0,1")
    status, out, err = cli("verify", run, *options)
    assert status == 0, err
    assert says in out
    assert "fail" not in out
    with (run / "results.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["memorized"] == "True"]
    assert (row["attack"], row["standing"]) == (word, "gone")
    page = " ".join((run / "report.html").read_text().split())
    assert says in page
    assert row["attack_why"] in page


def test_the_control_begins_without_the_caption_and_is_kept(audited, tmp_path, monkeypatch):
    begun = []

    def attack(model, subject, settings, steps, starts, *more):
        begun.append(starts)
        return {start: {step: [0.9] for step in steps} for start in starts}

    monkeypatch.setattr(robustness, "attack", attack)
    monkeypatch.setattr(robustness, "draw_sheets", lambda *given: None)
    model = findnemo.load(audited.parent / "model")
    run, work = _reopened(shutil.copytree(audited, tmp_path / "run"), model)
    with run:
        attack_all(work, Effort(1, (0, 1)))
        assert sorted(begun) == [("caption",)] * 3 + [("random",)]
        neurons = NeuronSet({next(iter(model.value_layers)): [0, 1]})
        monkeypatch.setattr(robustness, "all_neurons", lambda captions: neurons)
        attack_all(work, Effort(1, (0, 1)))
        assert begun.count(("random",)) == 1, "of other neurons the control is the same"
        attack_all(work, Effort(1, (0, 1), starts=("empty", "caption")))
        assert begun.count(("empty",)) == 1


def _reopened(path, model):
    with Run.open(path) as run:
        settings = run.meta("settings")
    plan = AuditPlan(images=2, image_settings=findnemo.ImageSettings(steps=2))
    run = Run.create(path, settings)
    return run, Work(run, model, None, plan)


@pytest.mark.slow
def test_an_attack_that_fails_leaves_the_captions_as_they_were_and_is_tried_again(
    audited, tmp_path, monkeypatch
):
    copied = shutil.copytree(audited, tmp_path / "run")
    monkeypatch.setattr(
        robustness, "attack", lambda *a, **o: (_ for _ in ()).throw(ModelError("no loss is known"))
    )
    arguments = ("verify", copied, "--no-attempts", "--attack-captions", 1, "--attack-steps", "0,1")
    for _ in range(2):
        status, out, err = cli(*arguments)
        assert (status, "attack failed 4 times: no loss is known" in " ".join(err.split())) == (
            1,
            True,
        )
        assert "The one memory found is gone on the fresh seeds" in out
        assert "failed" not in out
    monkeypatch.undo()
    status, out, _ = cli(*arguments)
    assert (status, "similarity after steps" in out) == (0, True)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--attack-steps", "0,many", "'0,many' are not attack steps"),
        ("--control-images", "nowhere", "nowhere"),
        ("--attack-captions", "-1", "--attack-captions"),
    ],
)
def test_options_that_make_no_sense_are_named(audited, option, value, says):
    status, out, err = cli("verify", audited, option, value)
    assert (status != 0, out) == (True, "")
    assert says in " ".join(err.split())
