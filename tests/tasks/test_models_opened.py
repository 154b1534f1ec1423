"""The process in which a task works: its threads, and what it tells of passes."""

from __future__ import annotations

import os

import pytest
import torch
from _tiny import tiny_pipeline

import findnemo
from findnemo import tasks
from findnemo.cli import SAID, _sleep_while_waiting
from findnemo.runs import Run
from findnemo.runtime.threads import OWN
from findnemo.tasks import Listener, Workers
from findnemo.tasks.opening import at_work


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with `model`, and `calibration` made of it."""
    place = tmp_path_factory.mktemp("opening")
    tiny_pipeline().save_pretrained(place / "model", safe_serialization=True)
    holdout = [f"hold out {letter}" for letter in "abcde"]
    tasks.calibrate(place / "model", holdout, place / "calibration")
    return place


@pytest.fixture
def three(monkeypatch):
    """A process with three threads, by what it tells, of which its user has said nothing."""
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    number = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda new: number.__setitem__(0, new))


def test_a_small_model_that_is_opened_has_one_thread_meanwhile(place, three):
    with at_work(place / "model"):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_what_the_user_has_said_stands(place, three, monkeypatch):
    with at_work(place / "model", Workers(threads=2)):
        assert torch.get_num_threads() == 2
    with at_work(findnemo.load(place / "model")), at_work(tiny_pipeline()):
        assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with at_work(place / "model"):
        assert torch.get_num_threads() == 3


def test_a_run_names_its_threads_and_goes_on_with_another_number(place, three, tmp_path):
    detecting = tasks.Detecting(calibration=place / "calibration")
    for threads, captions in ((2, ["a red fox"]), (None, ["a red fox", "a tree"])):
        given = (place / "model", captions, tmp_path / "run", detecting, Workers(threads=threads))
        with tasks.detect(*given):
            pass
        with Run.open(tmp_path / "run") as run:
            assert run.meta("versions")["threads"] == str(threads or 1)
            assert len([c for c in run.captions() if "detect" in c.results]) == len(captions)


def test_a_listener_hears_of_every_pass_of_images_and_scores(place):
    heard = []
    with at_work(place / "model", listener=Listener(passed=heard.append)) as pool:
        settings = findnemo.ImageSettings(3, guidance=2.0)
        findnemo.generate(pool.model, "a red fox", [0, 1], settings)
        assert heard == [4, 4, 4]  # two images, with guidance
        findnemo.score(pool.model, "a red fox")
        assert sum(heard) == 12 + findnemo.Settings().samples
    findnemo.generate(pool.model, "a red fox", [0], settings)
    assert sum(heard) == 12 + findnemo.Settings().samples


def test_threads_of_a_command_sleep_while_they_wait_unless_something_was_said(monkeypatch):
    for name in SAID:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    _sleep_while_waiting()
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.delenv("OMP_NUM_THREADS")
    _sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    _sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
