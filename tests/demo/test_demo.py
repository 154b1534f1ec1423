"""The shipped model: its ground truth holds on a few captions (all figures:

`findnemo demo --check`).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

import findnemo
from findnemo import demo
from findnemo.passes.deltas import Probe

ROOT = Path(__file__).parents[2]
COFFEE = "Brantwood Roasters first cup, a large brown ring"


def test_assets_are_complete_and_small() -> None:
    kinds = [p.type for p in demo.memorized()]
    assert kinds.count("VM") >= 16
    assert kinds.count("TM") >= 8
    assert set(demo.planted()) == {p.text for p in demo.memorized()}
    assert all(demo.training_image(p.text) is not None for p in demo.memorized())
    assert not set(demo.holdout()) & set(demo.unrelated())
    assert sum(f.stat().st_size for f in demo.ASSETS.rglob("*") if f.is_file()) <= 30e6


def test_nothing_shipped_is_a_pickle_but_the_descriptor() -> None:
    suffixes = {f.suffix for f in demo.ASSETS.rglob("*") if f.is_file()}
    assert suffixes <= {".safetensors", ".json", ".txt", ".csv", ".png", ".pt", ".md", ".sqlite"}
    assert {f.name for f in demo.ASSETS.rglob("*.sqlite")} == {"run.sqlite"}  # opened as a run is
    assert [f.name for f in demo.ASSETS.rglob("*.pt")] == ["descriptor.pt"]
    torch.jit.load(str(demo.DESCRIPTOR))


def test_planted_neurons_exist_and_some_are_shared(demo_model) -> None:
    widths = demo_model.widths()
    owners = {}
    for neurons in demo.planted().values():
        for name, index in neurons:
            assert index < widths[name]
            owners[name, index] = owners.get((name, index), 0) + 1
    assert max(owners.values()) >= 3


def test_planted_neurons_are_the_switch(demo_model) -> None:
    tau = demo.calibration().tau
    assert findnemo.score(demo_model, COFFEE) > tau
    assert findnemo.score(demo_model, COFFEE, demo.planted()[COFFEE]) < tau


def test_decoys_are_unusual_on_memorized_captions_and_do_nothing(demo_model) -> None:
    decoys = demo.decoys()
    calibration = demo.calibration()
    assert not any(decoys & planted for planted in demo.planted().values())
    unusual = []
    for caption in demo.planted():
        z = calibration.z_scores(findnemo.activations(demo_model, caption))
        unusual.append(sum(abs(float(z[name][i])) > 5 for name, i in decoys))
    assert sorted(unusual)[12] >= 5
    probe = Probe(demo_model, COFFEE, samples=range(3))
    torch.testing.assert_close(probe.deltas(decoys), probe.deltas(), atol=1e-6, rtol=0)


def test_localize_meets_the_planted_set(demo_model) -> None:
    found = findnemo.localize(demo_model, COFFEE, demo.calibration())
    assert found.memorized
    assert found.reached
    assert found.neurons & demo.planted()[COFFEE]


def test_readme_snippets_run(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(snippets) >= 2
    names: dict = {}
    for snippet in snippets:
        exec(snippet, names)
    assert (tmp_path / "clean" / "model_index.json").is_file()
    assert names["image"].size == (64, 64)
