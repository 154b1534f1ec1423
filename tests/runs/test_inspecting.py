"""What a run holds is read without a model."""

from __future__ import annotations

import json

import pytest
from _command import cli

import findnemo
from findnemo.detection import Score
from findnemo.errors import InputError
from findnemo.images import ImageSettings
from findnemo.prompts import Prompt
from findnemo.runs import Run, Serial
from findnemo.runs.detectors import Detectors, run_detectors, start_detectors

TEXTS = ("a red fox", "Foxes", "a moon")


def shown(found):
    """An inspection, written as JSON and read again."""
    return json.loads(json.dumps(found.to_json()))


def test_a_run_is_inspected_whole_or_by_captions(finished_run):
    with Run.open(finished_run) as opened:
        whole = findnemo.runs.inspect(opened)
        assert whole.chosen is whole.detectors is None
        assert shown(whole) == cli("inspect", finished_run, "--json").json
        for wanted, texts in (("FOX", TEXTS[:2]), ("3", TEXTS[2:]), ("moon", TEXTS[2:])):
            some = findnemo.runs.inspect(opened, wanted)
            assert [c.text for c in some.chosen] == list(texts)
            assert shown(some) == cli("inspect", finished_run, wanted, "--json").json
        with pytest.raises(InputError, match="no caption 'sea' in"):
            findnemo.runs.inspect(opened, "sea")
        with pytest.raises(InputError, match="--fdr 2 is not a rate"):
            findnemo.runs.inspect(opened, fdr=2)


def test_a_run_of_detectors_is_inspected_as_one(tiny, tmp_path, monkeypatch):
    def detector(model, prompt, settings):
        return Score(float(len(prompt)), 3)

    monkeypatch.setitem(findnemo.detection.DETECTORS, "counted", detector)
    prompts = [Prompt(text, k, "VM" if k < 3 else None) for k, text in enumerate(TEXTS, 1)]
    settings = ImageSettings(steps=1, guidance=2.0)
    with start_detectors(tmp_path / "run", tiny, settings) as made:
        run_detectors(made, prompts, ["one", "three"], ["counted"], settings, Serial(tiny))
        found = findnemo.runs.inspect(made)
    assert isinstance(found.detectors, Detectors)
    (result,) = found.detectors.results
    assert (result.detector, result.captions, result.failed) == ("counted", 3, 0)
    assert [row["scores"] for row in found.to_json()["captions"]] == [
        {"counted": len(text)} for text in TEXTS
    ]
    assert shown(found) == cli("inspect", tmp_path / "run", "--json").json
