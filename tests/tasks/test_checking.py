"""Checks of edited models: what is refused before any work, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from findnemo import demo, tasks
from findnemo.errors import InputError
from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.tasks import Hardened, Trying
from findnemo.tasks.checking import starts_of, steps_of


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "0,,5", "100001", "\u00b2"])
def test_what_are_no_steps_is_named(text):
    with pytest.raises(InputError, match="are not attack steps: give numbers with commas"):
        steps_of(text)


def test_steps_come_in_order_once_each_and_starts_as_they_are_given():
    assert steps_of("50, 0,5,50") == (0, 5, 50)
    assert starts_of("random,caption,random") == ("random", "caption")
    with pytest.raises(InputError, match=r"attack start 'noise' is not known: use one .*random"):
        starts_of("caption,noise")


def test_a_run_whose_neurons_were_not_searched_cannot_be_verified(finished_run, tmp_path):
    """No model is opened for that."""
    with Run.open(finished_run) as run:
        settings = run.meta("settings")
    with Run.create(tmp_path / "run", settings) as run:
        (number,) = run.add([Prompt("a red fox", 1)])
        run.record(number, "detect", {"memorized": True, "score": 0.9, "tau": 0.4}, 1.0)
    demo.calibration().save(tmp_path / "run" / "calibration")
    with pytest.raises(InputError, match=r"1 caption over the threshold and no search .*audit"):
        tasks.verify(tmp_path / "run", "no such model")
    with pytest.raises(InputError, match="'soon' are not attack steps"):
        tasks.verify(tmp_path / "run", trying=Trying(attack_steps="soon"))


def test_a_hardened_model_tells_its_checks_beside_its_place():
    assert Hardened(Path("out"), 3, None).to_json() == {"out": "out", "captions": 3}
    checked = Hardened(Path("out"), 3, {"quality": {}}).to_json()
    assert checked == {"out": "out", "captions": 3, "quality": {}}
