"""kill -9 at any moment: after the same audit again nothing is lost, nothing there twice, nothing different, nothing left over."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import _killing as killing
import pytest
import torch
from _tiny import tiny_pipeline

import findnemo
from findnemo import demo
from findnemo.images import ImageSettings
from findnemo.prompts import Prompt
from findnemo.runs import Plan, Work, audit, start
from findnemo.settings import Settings

SMALL = {
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
TEXTS = ("a red fox", "a grey owl", "a tree", "the sea")


@pytest.fixture(scope="module")
def small() -> killing.Audit:
    """An audit of four captions, one of them memorized, on 16 loud neurons."""
    model = findnemo.load(tiny_pipeline(**SMALL))
    with torch.no_grad():
        model.denoiser.conv_out.weight *= 100
        for layer in model.value_layers.values():
            layer.weight *= 1000
    settings = Settings(samples=3)
    made = findnemo.calibrate(model, ["hold out a", "hold out b"], settings=settings)
    scores = sorted(findnemo.score(model, text, settings=settings) for text in TEXTS)
    calibration = replace(made, tau=(scores[2] + scores[3]) / 2)
    plan = Plan(images=1, image_settings=ImageSettings(steps=1), quality_prompts=1)
    prompts = [Prompt(text, row, "VM") for row, text in enumerate(TEXTS, 1)]

    def work(out: Path) -> None:
        with start(out, model, calibration, plan) as run:
            audit(Work(run, model, calibration, plan), prompts)
        killing.finish(out)

    return work


def told(counts: Counter[str], capsys) -> None:
    with capsys.disabled():
        kills = counts.total() - counts["runs compared"]
        print(f"\n{kills} kills, {counts['runs compared']} runs compared with an undisturbed one, nothing lost: {dict(counts)}")


def test_an_audit_killed_ten_times_and_more_ends_as_if_nothing_had_happened(tmp_path, small, capsys):
    counts = killing.kill_often(small, tmp_path, kills=12, seed=7)
    told(counts, capsys)
    assert counts["at a moment"] >= 3
    assert counts.total() - counts["runs compared"] == 12


@pytest.mark.slow
def test_an_audit_of_the_demo_model_killed_a_hundred_times(tmp_path, demo_model, capsys):
    prompts = [demo.memorized()[k] for k in (0, 5, 20)] + [Prompt(text, 100 + k) for k, text in enumerate(demo.unrelated()[:3])]
    plan = Plan(images=2, image_settings=ImageSettings(steps=3, guidance=2.0), quality_prompts=2)

    def work(out: Path) -> None:
        with start(out, demo_model, demo.calibration(), plan) as run:
            audit(Work(run, demo_model, demo.calibration(), plan, demo.judges()), prompts)
        killing.finish(out)

    counts = killing.kill_often(work, tmp_path, kills=100, seed=11)
    told(counts, capsys)
    assert counts.total() - counts["runs compared"] == 100
