"""Tasks for Python: what a command does, with the same results and the same resume; and how many
parameters public functions have.
"""

from __future__ import annotations

import inspect

import pytest
from _command import cli
from _tiny import tiny_pipeline

import findnemo
from findnemo import tasks
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


@pytest.mark.parametrize("name", tasks.__all__)
def test_a_task_has_eight_parameters_at_most(name):
    task = getattr(tasks, name)
    if inspect.isfunction(task):
        assert len(inspect.signature(task).parameters) <= 8
        assert task.__doc__


def test_the_training_images_of_a_shipped_model_come_with_it(tmp_path):
    """Its captions lie in no folder, from which their images would be read instead."""
    from findnemo.tasks.path import PATH, Request, ready

    asked = ready(Request("demo", None, tasks.Output(tmp_path), PATH), tasks.Listener())
    assert asked.folder is None
    table = tmp_path / "captions.csv"
    table.write_text("caption\na cat\n", encoding="utf-8")
    assert (
        ready(Request("demo", table, tasks.Output(tmp_path), PATH), tasks.Listener()).folder
        == tmp_path
    )


@pytest.mark.parametrize(
    ("limit", "types"), [(5, 3 * ["VM"] + 2 * ["TM"]), (24, 16 * ["VM"] + 8 * ["TM"])]
)
def test_a_limit_of_a_comparison_takes_the_types_of_memories_in_turn(
    limit, types, tmp_path, monkeypatch
):
    class AskedError(Exception):
        pass

    def perform(asked, *others):
        raise AskedError([prompt.type for prompt in asked.table])

    monkeypatch.setattr("findnemo.tasks.comparing.perform", perform)
    with pytest.raises(AskedError) as asked:
        findnemo.compare("demo", tasks.Captions(limit=limit), tmp_path / "run")
    assert asked.value.args == (types,)
