"""LoRAs that are `acting` on a live pipeline are part of the model's identity, others are not."""

from __future__ import annotations

import pytest
import torch
from _identified import PROMPTS, SETTINGS, lora
from _tiny import tiny_pipeline
from peft.tuners.tuners_utils import BaseTunerLayer

import findnemo
from findnemo.calibration import Calibration
from findnemo.errors import MismatchError
from findnemo.models import Model


@pytest.fixture(scope="module")
def adapted() -> Calibration:
    """A calibration of the tiny pipeline with a LoRA."""
    return findnemo.calibrate(with_lora(), PROMPTS, settings=SETTINGS)


def with_lora() -> Model:
    pipeline = tiny_pipeline()
    lora(pipeline.unet)
    return findnemo.load(pipeline)


def scale(model: Model, value: float) -> None:
    model.pipeline.unet.set_adapters(["toy"], [value])


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: scale(m, 0.6), "the LoRA 'toy' of unet is at strength 0.6, was 1.0"),
        (lambda m: scale(m, 0.0), "the LoRA 'toy' of unet is not active, was at strength 1.0"),
        (
            lambda m: m.pipeline.unet.disable_adapters(),
            "the LoRA 'toy' of unet is not active, was at strength 1.0",
        ),
        (
            lambda m: m.pipeline.unet.unload_lora(),
            "the LoRA 'toy' of unet is not active, was at strength 1.0",
        ),
        (
            lambda m: m.pipeline.unet.fuse_lora(),
            "the weights of unet differ: the LoRA 'toy' of unet is fused into them",
        ),
        (
            lambda m: lora(m.pipeline.unet, "other"),
            "the LoRA 'other' of unet is active at strength 1.0, was not",
        ),
        (lambda m: one_adapter_weight(m).mul_(2), "the LoRA 'toy' of unet has other weights"),
        (
            lambda m: [s.update(toy=s["toy"] * 2) for s in scalings(m)[:1]],
            "the LoRA 'toy' of unet is at strength 1.0 to 2.0",
        ),
    ],
)
def test_what_a_lora_does_is_told(change, told, adapted):
    model = with_lora()
    adapted.check(model)
    change(model)
    with pytest.raises(MismatchError, match=told):
        adapted.check(model)


def scalings(model: Model) -> list[dict[str, float]]:
    return [m.scaling for m in model.pipeline.unet.modules() if isinstance(m, BaseTunerLayer)]


def one_adapter_weight(model: Model) -> torch.Tensor:
    return next(
        p.data for name, p in model.pipeline.unet.named_parameters() if "lora_B.toy" in name
    )


def test_another_alpha_is_another_model(adapted):
    pipeline = tiny_pipeline()
    lora(pipeline.unet, lora_alpha=4)
    with pytest.raises(
        MismatchError, match=r"the LoRA 'toy' of unet: alpha / rank 2.0 instead of 1.0"
    ):
        adapted.check(findnemo.load(pipeline))


@pytest.mark.first(1)
@pytest.mark.parametrize("off", ["scale", "disable", "unload"])
def test_a_lora_that_does_nothing_is_none(off, calibration):
    model = with_lora()
    before = findnemo.score(findnemo.load(tiny_pipeline()), PROMPTS[0], settings=SETTINGS)
    with pytest.raises(MismatchError, match=r"is active at strength 1.0, was not"):
        calibration.check(model)
    {
        "scale": lambda: scale(model, 0.0),
        "disable": model.pipeline.unet.disable_adapters,
        "unload": model.pipeline.unet.unload_lora,
    }[off]()
    calibration.check(model)
    assert findnemo.score(model, PROMPTS[0], settings=SETTINGS) == pytest.approx(before, abs=1e-6)


def test_a_fused_lora_is_the_same_with_and_without_its_layers(calibration):
    model = with_lora()
    model.pipeline.unet.fuse_lora()
    fused = model.identity
    assert fused.fused == ("LoRA 'toy' of unet",)
    model.pipeline.unet.unload_lora()
    assert model.identity.differences(fused) == []
    with pytest.raises(MismatchError, match="the weights of unet differ"):
        calibration.check(model)


def test_a_lora_that_is_fused_and_off_is_told_for_the_next_pass_takes_it_out():
    model = with_lora()
    model.pipeline.unet.fuse_lora()
    fused = model.identity
    model.pipeline.unet.disable_adapters()
    assert any(
        "the LoRA 'toy' of unet is active" in line for line in model.identity.differences(fused)
    )
