"""The benchmark of a whole audit: what it counts, what it puts down to whom, and its tables."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import findnemo
from findnemo import ImageSettings, demo
from findnemo.neurons import EMPTY
from findnemo.runs import Run

sys.path.insert(0, str(Path(__file__).parents[2] / "measurements"))

import audit_cost
import audit_table
import meter
from literal import Literal


@pytest.fixture(scope="module")
def model():
    return findnemo.load("demo")


CAPTION = demo.memorized()[0].text


# the meter ----------------------------------------------------------------------------------------


def test_latents_of_a_plain_pipeline_are_counted(model):
    with meter.metered(model) as seen:
        audit_cost.script_images(model, CAPTION, EMPTY, ImageSettings(3, 2.0))
        assert seen.take()["evaluations"] == 10 * 3 * 2
        assert seen.take()["evaluations"] == 0
    findnemo.score(model, CAPTION)
    assert seen.take()["evaluations"] == 0  # it counts while the context lasts


def test_a_gradient_that_is_taken_back_counts_two_more(model):
    text = model.encode([CAPTION, CAPTION])
    latents = model.noise(CAPTION, range(2), 0)
    timestep = model.timesteps(50)[0]
    with meter.metered(model) as seen:
        scale = torch.ones((), requires_grad=True)
        noise = model.output(latents * scale, timestep, text)
        assert seen.take()["evaluations"] == 2  # nothing was taken back yet
        noise.sum().backward()
        assert seen.take()["evaluations"] == 4


def test_the_meter_agrees_with_what_a_search_says_of_itself(model):
    with meter.metered(model) as seen:
        found = findnemo.localize(model, CAPTION, demo.calibration(), "gradient")
        assert seen.take()["evaluations"] == found.evaluations > 10


def test_a_pause_costs_no_seconds(model, monkeypatch):
    now = iter([0.0, 3.0, 10.0, 11.0])
    monkeypatch.setattr(meter.time, "process_time", lambda: next(now))
    seen = meter.Meter(model)
    seen.pause()
    seen.go()
    assert seen.take()["seconds"] == 4.0


# stages -------------------------------------------------------------------------------------------


class Reported(meter.Stages):
    """Stages of a run that answers as it is told."""

    def __init__(self, *given):
        super().__init__(*given)
        self.answered = {}

    def _answered(self):
        return set(self.answered.get(self.stage, {}))

    def _shares(self, ids):
        return {self.answered[self.stage][one]: 1 / len(ids) for one in ids}


def test_what_is_spent_goes_to_the_captions_that_were_answered_meanwhile(model):
    notes = []
    counted = meter.Meter(model)
    stages = Reported(counted, Path("run"), notes.append)

    def work(evaluations, stage, **answered):
        counted.evaluations += evaluations
        stages.answered.setdefault(stage, {}).update(answered)
        stages(stage, 0, 0)

    work(0, "calibrate")
    work(400, "calibrate")
    work(0, "detect")
    work(8, "detect", one="a", two="b")
    work(5, "detect")  # a step inside a caption
    work(3, "detect", three="c")
    work(100, "localize")
    work(30, "localize", one="a")
    counted.evaluations += 7
    stages.put("quality")
    found = {(n["stage"], n["caption"]): n["evaluations"] for n in notes if n["evaluations"]}
    assert found == {
        ("calibrate", None): 400,
        ("detect", "a"): 4,
        ("detect", "b"): 4,
        ("detect", "c"): 8,
        ("scan", None): 100,
        ("localize", "a"): 30,
        ("quality", None): 7,
    }


def test_a_row_that_was_cut_off_is_left_out(tmp_path):
    file = tmp_path / "rows.jsonl"
    meter.append(file, {"a": 1})
    with file.open("a", encoding="utf-8") as opened:
        opened.write('\n{"a": 2, "b')
    meter.append(file, {"a": 3})
    assert [row["a"] for row in meter.read(file)] == [1, 3]


# the literal procedure ----------------------------------------------------------------------------


class Told(Literal):
    """The literal procedure, which tells the seeds of every score and every look at activations."""

    def __init__(self, *given):
        super().__init__(*given)
        self.scores = []
        self.looks = 0

    def _deltas(self, off, seeds):
        self.scores.append(len(seeds))
        return super()._deltas(off, seeds)

    def _activations(self):
        self.looks += 1
        return super()._activations()


@pytest.mark.slow
def test_the_literal_procedure_counts_what_passes_and_what_the_scripts_would(model):
    calibration = demo.calibration()
    settings = replace(calibration.settings, samples=2)
    literal = Told(model, CAPTION, replace(calibration, settings=settings))
    with meter.metered(model) as seen:
        literal.detect()
        assert seen.take()["evaluations"] == literal.evaluations == literal.scripted == 4
        literal.search()
        passed = 4 + seen.take()["evaluations"]
    assert passed == 2 * sum(literal.scores) + literal.looks
    assert literal.evaluations == passed - 2 * literal.scores[-1]  # the last is for the report only
    # the scripts pass all seeds for every score, and make two that they have
    assert literal.scripted == 2 * 2 * (len(literal.scores) + 2) + literal.looks


def test_an_ordinary_caption_costs_the_released_procedure_its_detection(tmp_path, subject):
    ordinary = audit_cost.Caption(demo.unrelated()[0], memorized=False)
    one = replace(subject, captions=[ordinary])
    audit_cost.released(one)
    (row,) = one.rows
    assert row["stages"] == {"detect": row["stages"]["detect"]}
    assert row["stages"]["detect"]["evaluations"] == 20
    assert not row["memorized"]
    assert row["neurons"] == {}


# subjects -----------------------------------------------------------------------------------------


def asked(out, **options):
    given = {"out": out, "steps": 2, "guidance": 2.0, "memorized": 1, "ordinary": 1, "fpr": None}
    return SimpleNamespace(**given | {"device": None, "dtype": None} | options)


@pytest.fixture
def subject(tmp_path):
    return audit_cost.shipped("demo", asked(tmp_path))


@pytest.mark.slow
def test_an_audit_end_to_end_and_what_is_measured_is_not_measured_again(
    tmp_path, subject, monkeypatch
):
    few = audit_cost.Detecting(holdout=list(demo.holdout()[:6]))
    subject = replace(subject, detecting=few)
    passed = []
    true = meter.Meter.count
    monkeypatch.setattr(meter.Meter, "count", lambda *args: (passed.append(1), true(*args))[1])

    def all_of(one):
        for procedure in (audit_cost.audited, audit_cost.released, audit_cost.searched):
            procedure(one)
        audit_cost.judged(one, 2)

    monkeypatch.setattr(audit_cost.report, "write", lambda run: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        audit_cost.audited(subject)  # stopped before its last step
    monkeypatch.undo()
    monkeypatch.setattr(meter.Meter, "count", lambda *args: (passed.append(1), true(*args))[1])
    all_of(subject)
    (subject.folder / "about.json").write_text(
        json.dumps({"chosen": "tuned on", "images": "images of 2 steps", "machine": "one"}),
        encoding="utf-8",
    )
    of = {(r["procedure"], r["caption"]): r for r in subject.rows}
    assert len(of) == len(subject.rows) == 2 + 1 + 2 + 1 + 1
    memory, ordinary = (one.text for one in subject.captions)
    with Run.open(subject.folder / "findnemo") as run:
        ids = {one.text: one for one in run.captions()}
    for caption in (memory, ordinary):
        stages = of["findnemo", caption]["stages"]
        assert stages["detect"]["evaluations"] == ids[caption].detected.evaluations
    assert stages["verify"]["evaluations"] == 0
    # the search's own count leaves out what is done once for all captions
    assert of["findnemo", memory]["stages"]["localize"]["evaluations"] >= (
        ids[memory].localized.evaluations
    )
    assert of["released", memory]["stages"]["verify"]["evaluations"] == 2 * 10 * 2 * 2
    assert of["findnemo", memory]["kind"] == "memorized"
    assert set(of["judge", memory]["copies"]) == {"untouched", "findnemo", "released", "gradient"}
    assert of["judge", memory]["copies"]["untouched"] == 1
    passed.clear()
    again = replace(subject)
    all_of(again)
    assert not passed
    shown = audit_table.tables(tmp_path)
    assert "## Tuned on, images of 2 steps" in shown
    assert "| released | verify | 80.0 | 80.0 |" in shown
    assert "1 gone" in shown


def test_held_out_subjects_stand_apart_and_are_pooled(tmp_path):
    def row(procedure, caption, kind, detect, localize, memorized, **more):
        stages = {"detect": {"evaluations": detect, "seconds": detect / 10}}
        if localize:
            stages["localize"] = {"evaluations": localize, "seconds": localize / 10}
        about = {"procedure": procedure, "caption": caption, "kind": kind, "stages": stages}
        return about | {"memorized": memorized, "neurons": {"l": [0]} if localize else {}} | more

    for name, chosen in (("one", "held out"), ("two", "held out"), ("three", "tuned on")):
        folder = tmp_path / name
        folder.mkdir()
        about = {"chosen": chosen, "images": "images of 2 steps", "machine": "m"}
        (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        for one in (
            row("findnemo", "a", "memorized", 4, 16, True, standing="gone"),
            row("findnemo", "b", "ordinary", 2, 0, False, standing="not memorized"),
            row("released", "a", "memorized", 20, 180, True, scripted=500),
            row("released", "b", "ordinary", 20, 0, False, scripted=20),
            row("gradient", "a", "memorized", 0, 20, True),
            {
                "procedure": "judge",
                "caption": "a",
                "copies": {"untouched": 1.0, "findnemo": 0.0, "released": 0.5, "gradient": 1.0},
            },
        ):
            meter.append(folder / "rows.jsonl", one)
    shown = audit_table.tables(tmp_path)
    tuned, held_out = shown.split("## Held out")
    assert "### three" in tuned
    assert "Together" not in tuned
    assert "### one" in held_out
    together = held_out.split("### Together")[1]
    assert "Per ordinary caption (n = 2)" in together
    assert "| findnemo | all | 20.0 | 20.0 | 100 % | 2.00 | 2.00 |" in together
    assert "| released | 2 of 2 | 0 of 2 | 1 | 0.50 | 0 of 2 |" in together
    assert "| search by one step | 2 | 10.0 | 10.0 | 10.0 | 10.0 | 500 |" in together
    assert "removes |" not in together  # the released procedure left copies of every memory


# whole commands -----------------------------------------------------------------------------------


def test_whole_commands_take_turns_and_go_on(tmp_path, subject, monkeypatch):
    said = []

    def timed(source, arguments):
        said.append((source, *map(str, arguments)))
        return {"seconds": 2.0 + len(said), "processor": 1.0, "evaluations": 90 // len(said)}

    monkeypatch.setattr(audit_cost, "timed", timed)
    audit_cost.paired(subject, tmp_path, 1)
    audit_cost.paired(replace(subject), tmp_path, 2)
    own = Path(findnemo.__file__).parents[1]
    assert [one[0] for one in said] == [own, tmp_path / "src", tmp_path / "src", own]
    assert len({one[1:] for one in said}) == 1
    assert said[0][1:5] == ("audit", "demo", "--prompts", str(subject.table))
    shown = audit_table.commands(subject.rows + replace(subject).rows[2:])
    # seconds 3, 4, 5, 6: ratios 4/3 and 5/6; evaluations 90, 45, 30, 22
    assert "| 2 | seconds | 4 | 4 | 1.08 | 0.83 to 1.33 |" in shown
    assert "| 2 | evaluations | 38 | 56 | 0.93 | 0.50 to 1.36 |" in shown


PROGRAM = """
import os, sys, torch
from diffusers import UNet2DConditionModel
if "fail" in sys.argv:
    raise SystemExit("no such option")
assert os.environ["OMP_NUM_THREADS"] == "1"
assert sys.argv[1:4] == ["audit", "demo", "--quiet"]
unet = UNet2DConditionModel(
    8, 1, 1, block_out_channels=(8,), layers_per_block=1, norm_num_groups=1, cross_attention_dim=8,
    down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
)
unet(torch.zeros(3, 1, 8, 8), 0, torch.zeros(3, 1, 8)).sample.sum().backward()
with torch.no_grad():
    unet(sample=torch.zeros(5, 1, 8, 8), timestep=0, encoder_hidden_states=torch.zeros(5, 1, 8))
"""


@pytest.mark.slow
def test_a_whole_command_of_another_checkout_is_timed_and_counted(tmp_path):
    package = tmp_path / "findnemo"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    row = audit_cost.timed(tmp_path, ["audit", "demo"])
    assert row["evaluations"] == 3 * 3 + 5
    assert row["processor"] > 0
    with pytest.raises(SystemExit, match="no such option"):
        audit_cost.timed(tmp_path, ["audit", "fail"])


def test_a_model_needs_its_captions(tmp_path):
    options = {"model": "demo", "prompts": None, "holdout": None, "calibration": None}
    with pytest.raises(SystemExit, match="--prompts FILE"):
        audit_cost.given(asked(tmp_path, **options))
