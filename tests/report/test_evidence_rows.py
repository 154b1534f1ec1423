"""Each row of the evidence pack says what the run holds on its attack, and no more."""

from __future__ import annotations

import json
import shlex

import pytest
from _pack import ATTACK, SETTINGS, attacked, figure_of, is_share, made, row_of
from _place import COMMANDS
from _runs import LAYERS, TAU, Told, make_run, memorized, under

from findnemo.prompts import Prompt
from findnemo.report import evidence
from findnemo.report._evidence_rows import ROWS
from findnemo.runs import Run
from findnemo.stats import clopper_pearson

FIRST, SECOND, MID = LAYERS


def test_every_class_has_a_row_and_says_what_it_does_not_cover(pack):
    assert [row["attack"].partition(" ")[0] for row in pack["attacks"]] == [
        *("Membership", "Regurgitation", "Regurgitation", "Regurgitation,", "Exfiltration"),
        *("Inversion", "Reconstruction", "Attribute"),
    ]
    assert all(row["not_covered"] and row["measures"] for row in pack["attacks"])
    executed = [row["executed"] for row in pack["attacks"]]
    assert executed == [True, True, False, True, True, True, True, False]


def test_regurgitation_counts_captions_before_and_after(pack):
    """Of six looked at five copied; then the one that still copies and the one out of reach."""
    row = row_of(pack, "Regurgitation")
    is_share(row, "captions that give copies, untouched model", 5, 6)
    is_share(row, "captions that give copies, neurons off", 2, 6)
    is_share(row, "of type TM: captions that give copies, neurons off", 1, 1)
    is_share(row, "of type VM: captions that give copies, neurons off", 1, 4)
    is_share(row, "captions with SSCD_orig of 0.7 or more, before", 3, 3)
    is_share(row, "captions with SSCD_orig of 0.7 or more, after", 0, 3)
    middle = figure_of(row, "SSCD_orig, similarity to the training image, before")
    assert (middle["value"], middle["n"], middle["low"], middle["interval"]) == (0.9, 3, None, None)
    assert "4 images each" in row["how"][0]
    assert "no descriptor" in row["how"][1]


def test_extraction_counts_what_was_scanned(pack):
    row = row_of(pack, "Exfiltration")
    is_share(row, "score at or over tau", 6, 8)
    is_share(row, "memorized: over tau, and copies were seen or it is listed", 5, 8)
    is_share(row, "suspected: over tau, and no copy was seen", 1, 8)
    is_share(row, "copies seen in finished images of the untouched model", 5, 8)
    assert "9 captions in the table; 1 of them without a result" in row["how"][0]


def test_membership_ranks_scores_of_what_the_table_says(pack):
    """Five memories at .9 against a suspect at .9 and ordinary ones at .2 and .3."""
    row = row_of(pack, "Membership")
    area = figure_of(row, "audit score: AUROC")
    assert area["value"] == pytest.approx((2 + 0.5) / 3, abs=1e-4)
    assert area["low"] <= area["value"] <= area["high"]
    is_share(row, "audit score: true positives at 1 % false positives", 0, 5)
    is_share(row, "audit, at tau: true positives", 5, 5)
    is_share(row, "audit, at tau: false positives", 1, 3)
    assert any("1 % of 3 is less than one caption" in text for text in row["told"])


def test_a_score_that_ended_early_under_tau_is_told(tmp_path):
    early = {"detect": {"memorized": False, "score": 0.1, "tau": TAU, "samples": 3}}
    for name, caption, said in (("early", Told("b", early), True), ("whole", under("b"), False)):
        path = make_run(tmp_path / name, [memorized("a", {}), caption])
        with Run.open(path) as opened:
            row = row_of(evidence(opened, "weights", "A. Tester", "2026-01-31"), "Membership")
        assert figure_of(row, "audit score: AUROC")
        assert any("of 1 caption under tau" in text for text in row["told"]) == said


def test_a_score_that_stopped_early_is_not_ranked(tmp_path):
    early = {"detect": {"memorized": True, "score": 0.5, "tau": TAU, "samples": 2}}
    path = make_run(tmp_path / "run", [Told("a", early, "VM"), under("b")])
    with Run.open(path) as opened:
        row = row_of(evidence(opened), "Membership")
    assert [one["name"].partition(":")[0] for one in row["figures"]] == ["audit, at tau"] * 2


def test_without_known_answers_membership_is_not_executed(tmp_path):
    path = make_run(tmp_path / "run", [under("a"), under("b")])
    with Run.open(path) as opened:
        row = row_of(evidence(opened), "Membership")
    assert (row["executed"], row["figures"], row["result"]) == (False, [], [])
    assert "no caption of the table has a type" in row["why"]
    assert "findnemo detect" in row["command"]


def test_detectors_alone_give_their_figures(tmp_path):
    scores = {"a": ("VM", 0.9), "b": ("VM", 0.4), "c": (None, 0.5), "d": (None, 0.1)}
    with Run.create(tmp_path / "run", SETTINGS) as opened:
        ids = opened.add(
            Prompt(text, k, kind) for k, (text, (kind, _)) in enumerate(scores.items())
        )
        for id_, (_, value) in zip(ids, scores.values(), strict=True):
            answer = {"value": value, "evaluations": 1, "seconds": 0.1}
            opened.record(id_, "detect:ssim", answer, 0.1)
        opened.set_meta("detectors", ["ssim"])
        opened.set_meta("holdout:ssim", {"x": 0.1, "y": 0.2, "z": 0.3})
    with Run.open(tmp_path / "run") as opened:
        pack = evidence(opened)
    row = row_of(pack, "Membership")
    assert figure_of(row, "detector ssim: AUROC")["value"] == 0.75
    is_share(row, "detector ssim: true positives at 1 % false positives", 1, 2)
    # mean .2, standard deviation .1
    name = "detector ssim: at or over mean + 1 std of hold-out scores"
    is_share(row_of(pack, "Exfiltration"), name, 3, 4)
    assert not row_of(pack, "Regurgitation")["executed"]
    assert row_of(pack, "Regurgitation")["command"].startswith("findnemo audit MODEL")
    assert pack["run"]["calibration"] is None


def test_attempts_are_told_one_by_one_and_the_best_that_is_not_given_the_picture(pack):
    row = row_of(pack, "Regurgitation, other")
    assert len(row["figures"]) == 5, "what tells nothing of the edited model is no figure of it"
    is_share(row, "script: Greek; untouched", 0, 2)
    assert any("1 of 2 attempts tell nothing" in line for line in row["told"])
    is_share(row, "seeds: fresh; neurons off", 1, 2)
    is_share(row, "image to image: 0.5; neurons off", 2, 2)
    assert "untouched model, the attempt that gets most (seeds: fresh): 2 of 2" in row["result"][0]
    assert "neurons off, the attempt that gets most (seeds: fresh): 1 of 2" in row["result"][1]


def test_inversion_has_its_curves_gaps_and_positive_control(pack):
    row = row_of(pack, "Inversion")
    gap = figure_of(row, "gap, neurons off: own picture less never seen, after 50 steps")
    assert (gap["value"], gap["low"], gap["high"]) == (0.25, 0.1, 0.4)
    bare = figure_of(row, "mean similarity, own picture, untouched, at the start")
    assert (bare["value"], bare["low"], bare["interval"]) == (0.3, None, None)
    assert row["told"][0].startswith("Positive control: in the untouched model")
    assert row["told"][0].endswith("goes from 0.300 at the start to 0.900 after 50 steps.")


def test_inversion_without_a_positive_control_says_so(tmp_path):
    curves = {"memorized, neurons off": [[0, 0.1], [50, 0.5]]}
    path = made(tmp_path / "run", attack=ATTACK | {"curves": curves})
    with Run.open(path) as opened:
        assert row_of(evidence(opened), "Inversion")["told"][0].startswith("No positive control")


def test_reconstruction_counts_known_pictures_alone(pack):
    row = row_of(pack, "Reconstruction")
    is_share(row, "neurons off: as near as a copy within 50 steps", 1, 2)
    is_share(row, "untouched model: as near as a copy within 50 steps", 2, 2)
    assert "findnemo harden" in row["told"][0]


def test_a_picture_that_the_attack_gives_back_from_no_model_is_not_counted_as_safe(tmp_path):
    captions = [attacked("a", 0.1, 0.9), attacked("b", 0.1, 0.17)]
    with Run.open(made(tmp_path / "run", captions)) as opened:
        row = row_of(evidence(opened), "Reconstruction")
    is_share(row, "neurons off: as near as a copy within 50 steps", 0, 1)
    is_share(row, "untouched model: as near as a copy within 50 steps", 1, 2)
    assert row["told"][0].startswith("neurons off: of 1 picture the attack tells nothing")


def test_results_on_another_basis_are_left_out(tmp_path):
    path = made(tmp_path / "run", bases={"attack:neurons off": "c", "attack:untouched": "c"})
    with Run.open(path) as opened:
        row = row_of(evidence(opened), "Reconstruction")
    assert not row["executed"]
    assert "findnemo verify" in row["command"]


def test_an_empty_run_has_no_figure_at_all(tmp_path):
    path = make_run(tmp_path / "run", [Told("nothing yet")])
    with Run.open(path) as opened:
        pack = evidence(opened)
    assert not any(row["executed"] or row["figures"] or row["result"] for row in pack["attacks"])
    assert all(row["why"] for row in pack["attacks"])
    assert len([text for text in pack["residual"] if "not executed" in text]) == 8


def test_copies_of_training_pictures_are_counted_for_each_model(tmp_path):
    picture = {
        "file": "a.png",
        "caption": "a secret caption",
        "group": 0,
        "state": "copied",
        "similarity": 0.9,
        "level": 0.7,
        "margin": 0.4,
        "ways": {"own": [2, 4]},
        "nearest": [],
        "begins": "LoRA",
    }
    counts = {"checkpoint": None, "strength": 1.0, "verdict": "copies", "nearly": 0}
    counts |= {"failed": 0, "alike": 0}
    lora = counts | {"name": "LoRA", "copied": 1, "copies": 2, "of": 8, "low": 0.03, "high": 0.66}
    about = {
        "sentence": "1 of 1 training picture is copied.",
        "main": "LoRA",
        "rate": 0.05,
        "needed": 59,
        "descriptor": True,
        "pictures": [picture],
        "variants": [lora | {"controls": [0, 24]}],
        "notes": [],
    }
    path = make_run(tmp_path / "run", [Told("nothing yet")])
    with Run.create(path, Run.open(path).meta("settings")) as run:
        run.set_meta("training", about)
        pack = evidence(run)
    (row,) = (r for r in pack["attacks"] if r["attack"] == "Regurgitation of training pictures")
    assert row["executed"]
    shares = [(one["name"], one["hits"], one["n"]) for one in row["figures"]]
    assert shares == [
        ("LoRA: training pictures copied", 1, 1),
        ("LoRA: images that are copies", 2, 8),
        ("LoRA: controls as like a training picture", 0, 24),
    ]
    low, high = clopper_pearson(2, 8)
    assert (row["figures"][1]["low"], row["figures"][1]["high"]) == pytest.approx(
        (low, high), abs=1e-4
    )
    assert "a secret caption" not in json.dumps(pack)
    assert "a.png" not in json.dumps(pack)


def test_the_command_of_a_row_that_was_not_executed_is_one_that_findnemo_has(tmp_path):
    with Run.open(make_run(tmp_path / "run", [Told("nothing yet")])) as opened:
        rows = evidence(opened)["attacks"]
    assert len(rows) == len(ROWS)
    calls = [call for row in rows for call in row["command"].split("&&") if call]
    assert len(calls) >= len(ROWS) - 1, "all have a command but the one that findnemo cannot test"
    for call in calls:
        program, name, *words = shlex.split(call.partition("(")[0])
        options = {one for parameter in COMMANDS[name].params for one in parameter.opts}
        assert program == "findnemo"
        assert {word for word in words if word.startswith("-")} <= options, call
