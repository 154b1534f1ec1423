"""The whole path over every architecture: load, calibrate, detect, localize a planted neuron,
verify, switch off, prune, export, reload.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _planting import CAPTION, HOLDOUT, planted
from _tiny import tiny_pipeline
from _tiny_transformers import PIPELINES as TRANSFORMERS
from _tiny_unets import PIPELINES as UNETS

import findnemo
from findnemo import export
from findnemo.errors import EditError
from findnemo.images import ImageSettings
from findnemo.models import load
from findnemo.models.loading import ADAPTERS
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Run, Work, audit, start
from findnemo.settings import Settings

PIPELINES = {
    "sd": tiny_pipeline,
    "sd-v": lambda: tiny_pipeline("v_prediction"),
    **UNETS,
    **TRANSFORMERS,
}
# what a LoRA takes away from large weights is exact to their last digits only
SOFTER = {"loud": 1e4, "last": 1e3}
LOUDNESS = {**dict.fromkeys(TRANSFORMERS, SOFTER), "if": {"loud": 1e5, "last": 1e3}}
IMAGES = ImageSettings(steps=2, guidance=2.0)


def test_no_adapter_is_left_out():
    assert {type(make()).__name__ for make in PIPELINES.values()} == set(ADAPTERS)


# FLUX.1's 512 tokens take half a minute each; the others are a second of their kind
SLOW = (
    "flux-dev",
    "flux-schnell",
    "sd-v",
    "sdxl-v",
    "sd-turbo",
    "sdxl-turbo",
    "lcm",
    "pixart-sigma",
)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in PIPELINES]
)
def test_the_whole_path(name, tmp_path):
    live, neurons = planted(PIPELINES[name](), **LOUDNESS.get(name, {}))
    live.pipeline.save_pretrained(tmp_path / "model")
    model = load(tmp_path / "model", device="cpu")
    assert model.fingerprint == live.fingerprint

    calibration = findnemo.calibrate(model, HOLDOUT, settings=Settings(samples=4))
    plan = AuditPlan("gradient", images=2, image_settings=IMAGES, quality_prompts=1)
    with start(tmp_path / "run", model, calibration, plan) as run:
        memorized, other = audit(
            Work(run, model, calibration, plan), [Prompt(CAPTION, 1, "VM"), Prompt("a lake", 2)]
        )
    assert not memorized.failed
    assert not other.failed
    assert memorized.results["detect"]["memorized"]
    assert memorized.results["localize"]["neurons"] == neurons.to_json()
    # tau is one deviation over their mean: many an ordinary score lies above
    ordinary = (1 + float(calibration.scores.max())) / 2
    assert (
        memorized.results["verify"]["score_after"]
        < ordinary
        < memorized.results["verify"]["score_before"]
    )

    with Run.open(
        tmp_path / "run"
    ) as run:  # named, for after two steps its images are no copies yet, and it is only suspected
        chosen = export.select(run, [CAPTION])
    with findnemo.deactivate(model, neurons):
        expected = findnemo.generate(model, CAPTION, [0, 1], IMAGES)
    assert not alike(findnemo.generate(model, CAPTION, [0, 1], IMAGES), expected)
    clean = load(export.write("checkpoint", chosen, tmp_path / "clean", model), device="cpu")
    assert alike(findnemo.generate(clean, CAPTION, [0, 1], IMAGES), expected)
    assert findnemo.score(clean, CAPTION, settings=calibration.settings) < ordinary
    assert torch.equal(
        clean.value_layers[next(iter(neurons.layers))].weight[5],
        torch.zeros_like(row(clean, neurons)),
    )

    if not hasattr(model.pipeline, "load_lora_weights"):
        with pytest.raises(EditError, match="prune"):
            export.write("lora", chosen, tmp_path / "lora", model)
        return
    folder = export.write("lora", chosen, tmp_path / "lora", model)
    model.pipeline.load_lora_weights(folder)
    assert (predicted(model) - predicted(clean)).abs().max() < 0.02 * predicted(clean).abs().max()


def predicted(model):
    return model.predict_noise(
        model.noise(CAPTION, [0, 1]), model.timesteps(50)[0], model.encode([CAPTION] * 2)
    ).detach()


def row(model, neurons):
    name, (index,) = next(iter(neurons.layers.items()))
    return model.value_layers[name].weight[index]


def alike(images, others) -> bool:
    """The same pictures but for rounding: the planted neuron is far louder than the rest."""
    return all(
        np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 2
        for a, b in zip(images, others, strict=True)
    )
