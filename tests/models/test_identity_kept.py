"""What is saved and loaded again, or computes the same, is the same model; what was replaced on
a live object is another.
"""

from __future__ import annotations

import diffusers
import peft
import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_sd3

import findnemo
from findnemo.errors import MismatchError
from findnemo.settings import Settings

CAPTIONS = ["a red fox", "a grey owl", "a tree", "the sea"]


def calibrated(pipeline):
    model = findnemo.load(pipeline)
    return model, findnemo.calibrate(model, CAPTIONS, settings=Settings(samples=2))


def test_a_model_with_a_fused_lora_is_the_same_after_saving(tmp_path):
    pipeline = tiny_pipeline()
    pipeline.unet.add_adapter(
        peft.LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]), "toy"
    )
    pipeline.fuse_lora(lora_scale=0.5)
    pipeline.unload_lora_weights()
    _, calibration = calibrated(pipeline)
    pipeline.save_pretrained(tmp_path)
    calibration.check(findnemo.load(tmp_path))


def test_a_textual_inversion_is_the_same_after_saving_and_gone_when_it_is_unloaded(tmp_path):
    pipeline = tiny_pipeline()
    plain, before = calibrated(pipeline)
    pipeline.load_textual_inversion(
        torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), token="<cat>"
    )
    with pytest.raises(MismatchError, match=r"tokenizer|text_encoder"):
        before.check(plain)
    _, calibration = calibrated(pipeline)
    pipeline.save_pretrained(tmp_path)
    calibration.check(findnemo.load(tmp_path))
    pipeline.unload_textual_inversion()
    before.check(plain)


def test_settings_that_a_flow_does_not_use_make_no_other_model():
    pipeline = tiny_sd3()
    model, calibration = calibrated(pipeline)
    shift = pipeline.scheduler.config.shift
    pipeline.scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=shift)
    calibration.check(model)


def test_a_compiled_text_encoder_computes_the_same():
    pipeline = tiny_pipeline()
    model, calibration = calibrated(pipeline)
    pipeline.text_encoder = torch.compile(pipeline.text_encoder, backend="eager")
    calibration.check(model)


@pytest.mark.first(1)
@pytest.mark.parametrize("place", ["forward", "_conv_forward", "encode_prompt"])
def test_a_method_that_was_replaced_is_named(place):
    pipeline = tiny_pipeline()
    model, calibration = calibrated(pipeline)
    thing = {
        "forward": pipeline.unet.mid_block,
        "_conv_forward": pipeline.unet.conv_in,
        "encode_prompt": pipeline,
    }[place]
    own = getattr(thing, place)
    setattr(thing, place, lambda *args, **kwargs: own(*args, **kwargs))
    with pytest.raises(MismatchError, match=f"{place} .*replaced by"):
        calibration.check(model)
    delattr(thing, place)
    calibration.check(model)
