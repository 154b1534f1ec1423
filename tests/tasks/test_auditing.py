"""Audits in Python: those of the command, with the same results and the same resume."""

from __future__ import annotations

import pytest
from _command import cli
from _tiny import tiny_pipeline

import findnemo
from findnemo import demo, tasks
from findnemo.errors import InputError
from findnemo.runs import captions_of

TEXTS = ["a red fox", "a grey owl", "a tree"]
HOLDOUT = [f"hold out {letter}" for letter in "abcde"]
PICTURES = tasks.Pictures(images=2, image_steps=2)


def results(run):
    return {c.text: c.results for c in captions_of(run)}


@pytest.mark.slow
def test_an_audit_in_python_has_the_results_of_the_command_and_goes_on(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model", safe_serialization=True)
    for name, texts in (("captions", TEXTS), ("holdout", HOLDOUT)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")
    tables = ("--prompts", tmp_path / "captions.txt", "--holdout", tmp_path / "holdout.txt")
    options = ("--images", 2, "--image-steps", 2, "--search", "gradient", "--quiet")
    assert (
        cli("audit", tmp_path / "model", *tables, *options, "--out", tmp_path / "one").status == 0
    )
    given = (tasks.Detecting(holdout=HOLDOUT), tasks.Localizing("gradient"), PICTURES)
    first = tasks.Captions(TEXTS, limit=2)
    with findnemo.audit(tmp_path / "model", first, tmp_path / "two", *given) as run:
        assert set(results(run)) == set(TEXTS[:2])
    with findnemo.audit(tmp_path / "model", TEXTS, tmp_path / "two", *given) as run:
        made = results(run)
    with findnemo.runs.Run.open(tmp_path / "one") as run:
        assert made == results(run)
    assert (tmp_path / "two" / "report.html").exists()


def test_options_that_do_not_fit_are_refused_before_a_model_is_opened(tmp_path):
    both = tasks.Detecting(holdout=HOLDOUT, calibration=tmp_path)
    with pytest.raises(InputError, match="not both"):
        findnemo.audit("no such model", TEXTS, tmp_path / "run", both)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model", ["demo", "demo-natural"])
def test_a_shipped_model_is_audited_with_its_own_calibration(model, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("findnemo.tasks.auditing.audit", lambda *given, **_: asked.append(given))
    tasks.audit_demo(model, tasks.Captions(limit=2), tmp_path)
    ((place, captions, out, detecting),) = asked
    assert (place, captions.limit, out) == (model, 2, tmp_path)
    assert detecting.calibration.same(demo.calibration(model, "findnemo"))
    assert detecting.calibration.fpr == 0.05
    with pytest.raises(InputError, match="no shipped model: use one of demo, demo-natural"):
        tasks.audit_demo("sd", out=tmp_path)


def test_options_of_a_table_beside_those_of_a_fine_tune():
    table = tasks.Captions("further.csv", column="text", limit=3)
    assert tasks.audited_of(tasks.FineTune(), table) is table
    both = tasks.audited_of(tasks.FineTune("photos"), table)
    assert (both.train_images, both.column, both.limit) == ("photos", "text", 3)
    assert both.prompts == tasks.Captions("further.csv", column="text")  # all of them
    with pytest.raises(InputError, match="--tuned goes with --train-images"):
        tasks.audited_of(tasks.FineTune(tuned="model"), table)
    with pytest.raises(InputError, match="--shard does nothing with --train-images"):
        tasks.audited_of(tasks.FineTune("photos"), tasks.Captions(shard="1/2"))
