"""Hardening with workers: they do its checks, with the results of one process."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
from _command import cli
from _place import IMAGES, inputs, make_place
from safetensors.torch import load_file

from findnemo.runs import Run
from findnemo.runs.robustness import Effort

pytest.importorskip("ray")
FEW = ("--captions", 1, "--epochs", 1, "--attack-steps", 1, "--updates", 1, "--threads", 1)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("place"))
    out = place / "run"
    given = (place / "model", *inputs(place), *IMAGES, "--no-report", "--out", out)
    assert cli("audit", *given).status == 0
    return out


@pytest.mark.slow
def test_workers_check_a_hardened_model_with_the_results_of_one_process(
    audited, tmp_path, monkeypatch
):
    monkeypatch.setattr("findnemo.tasks.checking.Effort", partial(Effort, steps=(0, 1)))
    shown = {}
    kept = {}
    weights = {}
    here = {}
    for name, workers in (("alone", ()), ("workers", ("--workers", 2, "--device", "cpu"))):
        made_here = []
        with monkeypatch.context() as patch:
            patch.setattr("findnemo.runs.workers.do_task", _noting(made_here))
            run = shutil.copytree(audited, tmp_path / name)
            out = tmp_path / f"hardened {name}"
            result = cli("harden", run, *FEW, *workers, "--out", out, "--json")
        assert result.status == 0, result.err
        shown[name] = {**result.json, "out": None}
        with Run.open(run) as opened:
            kept[name] = {caption.text: caption.results for caption in opened.captions()}
        weights[name] = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
        here[name] = {step for step in made_here if step != "_paced"}
    assert shown["alone"] == shown["workers"]
    assert kept["alone"] == kept["workers"]
    assert any("attack:hardened" in results for results in kept["workers"].values())
    for key, value in weights["alone"].items():
        assert value.equal(weights["workers"][key])
    assert here == {"alone": {"_tried"}, "workers": set()}


def _noting(steps):
    """`answered`, which also notes the names of what this process does."""
    from findnemo.runs.workers import do_task

    def noted(model, step, task):
        steps.append(step.keywords["do"].func.__name__)
        return do_task(model, step, task)

    return noted
