"""The identity read from a live pipeline: what is saved and loaded again, or computes the same, is
the same model, and each family tells its own parts.
"""

from __future__ import annotations

from typing import Any

import diffusers
import peft
import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_flux, tiny_sd3
from _tiny_unets import tiny_sdxl
from diffusers import LCMScheduler, PNDMScheduler

import findnemo
from findnemo import Settings
from findnemo.errors import MismatchError
from findnemo.models.content import digests

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


def test_a_schedule_of_a_distillation_makes_another_model():
    plain = findnemo.load(tiny_sdxl())
    swapped = tiny_sdxl()
    swapped.scheduler = LCMScheduler.from_config(swapped.scheduler.config)
    assert findnemo.load(swapped).fingerprint != plain.fingerprint


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_the_fingerprint_changes_with_one_weight(part):
    before = findnemo.load(tiny_pipeline()).fingerprint
    pipeline = tiny_pipeline()
    with torch.no_grad():
        next(getattr(pipeline, part).parameters()).view(-1)[0] += 0.01
    assert findnemo.load(pipeline).fingerprint != before


def test_the_fingerprint_tells_prediction_types_apart_but_not_samplers(tiny):
    assert findnemo.load(tiny_pipeline("v_prediction")).fingerprint != tiny.fingerprint
    other_sampler = tiny_pipeline()
    other_sampler.scheduler = PNDMScheduler.from_config(other_sampler.scheduler.config)
    assert findnemo.load(other_sampler).fingerprint == tiny.fingerprint


def test_the_method_of_findnemo_is_part_of_it(tiny, calibration, monkeypatch):
    monkeypatch.setattr("findnemo.models.identified.METHOD", 99)
    with pytest.raises(MismatchError, match="findnemo: method 99 instead of"):
        calibration.check(tiny)


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("make", "change", "told"),
    [
        (tiny_sdxl, lambda p: p.register_to_config(force_zeros_for_empty_prompt=False), "pipeline: force_zeros_for_empty_prompt False"),
        (tiny_sdxl, lambda p: setattr(p, "vae_scale_factor", 16), "pipeline: vae_scale_factor 16 instead of"),
        (tiny_sdxl, lambda p: setattr(p.tokenizer_2, "pad_token", "$"), "tokenizer_2: pad_token '$'"),
        (tiny_sd3, lambda p: setattr(p, "text_encoder_3", None), "text_encoder_3 is missing, was there"),
        (tiny_sd3, lambda p: p.scheduler.register_to_config(use_karras_sigmas=True), "scheduler: use_karras_sigmas True"),
        (tiny_sd3, lambda p: p.scheduler.register_to_config(shift=2.0), "scheduler: shift 2.0 instead of"),
        (tiny_flux, lambda p: setattr(p, "default_sample_size", 128), "size: default_sample_size 128 instead of 16"),
        (tiny_flux, lambda p: p.transformer.transformer_blocks[0].attn.add_v_proj.bias.data.add_(1), "the weights of transformer differ"),
    ],
)  # fmt: skip
def test_other_families_tell_their_own_parts(make, change, told):
    model = findnemo.load(make())
    before = model.identity
    assert model.identity == before
    change(model.pipeline)
    assert any(told in line for line in model.identity.differences(before, pictures=False)), (
        model.identity.differences(before)
    )


def test_a_pipeline_whose_padding_became_an_added_token_in_its_file_is_the_same(tmp_path):
    model = findnemo.load(tiny_sdxl())
    model.pipeline.save_pretrained(tmp_path)
    assert findnemo.load(tmp_path).identity.differences(model.identity) == []


def test_a_shift_that_is_set_beside_the_configuration_changes_pictures_only():
    model = findnemo.load(tiny_sd3())
    before = model.identity
    model.pipeline.scheduler.set_shift(7.0)
    assert model.identity.differences(before) == ["sampler: shift 7.0 instead of nothing"]
    assert model.identity.differences(before, pictures=False) == []


def test_only_what_changed_is_hashed_again(tiny, monkeypatch):
    hashed: list[int] = []

    def counted(tensors: Any) -> Any:
        hashed.append(len(tensors))
        return digests(tensors)

    monkeypatch.setattr("findnemo.models.identified.digests", counted)
    first = tiny.identity
    assert len(hashed) == 3  # denoiser, text encoder, autoencoder
    assert tiny.identity == first
    assert len(hashed) == 3
    tiny.pipeline.vae.decoder.conv_out.bias.data[1] += 0.1
    assert tiny.identity != first
    assert len(hashed) == 4
