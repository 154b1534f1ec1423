"""The path from options to a run: what is checked before any work."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from findnemo import demo, tasks
from findnemo.errors import InputError, MismatchError
from findnemo.runs import Run
from findnemo.tasks.path import (
    PATH,
    Request,
    is_begun,
    output_of,
    ready,
    refuse_changed,
    refuse_unseen,
)


def test_the_training_images_of_a_shipped_model_come_with_it(tmp_path):
    """Its captions lie in no folder, from which their images would be read instead."""
    asked = ready(Request("demo", None, tasks.Output(tmp_path), PATH), tasks.Listener())
    assert asked.folder is None
    table = tmp_path / "captions.csv"
    table.write_text("caption\na cat\n", encoding="utf-8")
    assert (
        ready(Request("demo", table, tasks.Output(tmp_path), PATH), tasks.Listener()).folder
        == tmp_path
    )


def test_a_run_goes_on_with_its_own_threshold_and_judges(finished_run, tmp_path):
    path = shutil.copytree(finished_run, tmp_path / "run")
    assert not is_begun(path)
    own = demo.calibration()
    own.save(path / "calibration")
    assert is_begun(path)
    refuse_changed(path, tasks.Detecting(calibration=own), tasks.Pictures(descriptor="new.pt"))
    for other, name in (
        (tasks.Detecting(calibration=replace(own, tau=0.9)), "calibration"),
        (tasks.Detecting(holdout=["a cat"]), "threshold"),
        (tasks.Detecting(fpr=0.5), "threshold"),
    ):
        with pytest.raises(MismatchError, match=f"was made with another {name}"):
            refuse_changed(path, other, tasks.Pictures())


def test_another_descriptor_does_not_change_which_pictures_a_fine_tune_copies(
    finished_run, tmp_path
):
    with Run.open(finished_run) as run:
        settings = run.meta("settings")
    judged = settings | {"training": "0" * 32, "judges": {"descriptor": "own.pt"}}
    Run.create(tmp_path / "run", judged).close()
    refuse_unseen(tmp_path / "run", tasks.Pictures(descriptor="own.pt", clip="new"))
    with pytest.raises(MismatchError, match="is the audit of a fine-tune"):
        refuse_unseen(tmp_path / "run", tasks.Pictures(descriptor="other.pt"))


@pytest.mark.parametrize(
    ("detecting", "captions", "said"),
    [
        (tasks.Detecting(miss=1.5), tasks.Captions(), "--miss 1.5 is not a share"),
        (tasks.Detecting(fdr=2.0), tasks.Captions(), "--fdr 2.0 is not a rate"),
        (tasks.Detecting(), tasks.Captions(shard="1/2"), "--shard needs --calibration"),
        (tasks.Detecting(), tasks.Captions(shard="3/2"), "is not a shard"),
        (tasks.Detecting(budget=1), tasks.Captions(), "--budget 1"),
    ],
)
def test_options_that_cannot_be_are_refused_before_a_table_is_read(
    detecting, captions, said, tmp_path
):
    given = replace(captions, prompts=tmp_path / "no such table.csv")
    request = Request("no such model", given, tasks.Output(tmp_path / "run"), PATH, detecting)
    with pytest.raises(InputError, match=said):
        ready(request, tasks.Listener())


def test_an_output_names_a_tracker_that_can_be_used():
    assert output_of("out") == tasks.Output("out")
    given = tasks.Output("out", report=False)
    assert output_of(given) is given
    with pytest.raises(InputError, match="notebook"):
        output_of(tasks.Output("out", track="notebook=folder"))
