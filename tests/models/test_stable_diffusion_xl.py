"""Stable Diffusion XL: the pooled embedding and the sizes that its U-Net is told, and an
autoencoder that is scaled by channel or needs float32.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from _odd_pipelines import clip, with_parts
from _passes import call, passes
from _published_unets import SDXL
from _tiny_unets import tiny_sdxl
from diffusers import UNet2DConditionModel

import findnemo
from findnemo import ImageSettings
from findnemo.errors import ModelError
from findnemo.models import StableDiffusionXL, Text
from findnemo.seeds import sample_seed


def test_sdxls_sizes_are_those_of_a_call():
    model = findnemo.load(tiny_sdxl(sample_size=(16, 24)))
    assert model.conditions(model.encode(["a"]))["added_cond_kwargs"]["time_ids"].tolist() == [
        [32, 48, 0, 0, 32, 48]
    ]


@pytest.mark.parametrize("zeros", [True, False])
def test_no_prompt_in_sdxl_is_zeros_where_the_pipeline_has_it_so(zeros):
    model = findnemo.load(tiny_sdxl())
    model.pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    (_, _, kwargs, _), *_ = passes(model, lambda: call(model.pipeline, ["a cat"], 1, steps=1))
    torch.testing.assert_close(model.unconditional().tensors, model.text_of(kwargs)[:1].tensors)
    assert bool(model.unconditional().tokens.any()) is not zeros
    assert bool(model.unconditional().pooled.any()) is not zeros


def test_a_half_precision_vae_that_overflows_decodes_in_full():
    model = findnemo.load(tiny_sdxl())
    latents = model.noise("a", [0])
    expected = model.decode(latents)
    model.pipeline.vae.to(torch.float16)
    model.pipeline.vae.register_to_config(force_upcast=True)
    torch.testing.assert_close(model.decode(latents.half()), expected, atol=2e-2, rtol=2e-2)
    assert model.pipeline.vae.dtype == torch.float16


def test_an_inpainting_unet_is_refused():
    with pytest.raises(ModelError, match="takes 9 channels and returns 4"):
        findnemo.load(tiny_sdxl(in_channels=9))


def test_an_autoencoder_that_normalizes_its_latents_is_heeded():
    model = findnemo.load(tiny_sdxl())
    before = findnemo.generate(model, "a cat", [0], ImageSettings(2, 3.0))[0]
    model.pipeline.vae.register_to_config(
        latents_mean=[0.5, -0.5, 1.0, 0.0], latents_std=[2.0, 1.0, 0.5, 3.0]
    )
    mine = findnemo.generate(model, "a cat", [0], ImageSettings(2, 3.0))[0]
    generator = torch.Generator().manual_seed(sample_seed(0, "a cat", 0))
    theirs = model.pipeline(
        "a cat", num_inference_steps=2, guidance_scale=3.0, generator=generator
    ).images[0]
    pixels = [
        torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8).int()
        for i in (mine, theirs, before)
    ]
    assert (pixels[0] - pixels[1]).abs().max() <= 1 < (pixels[0] - pixels[2]).abs().max()


def test_layer_names_of_sdxl() -> None:
    with torch.device("meta"):
        model = StableDiffusionXL(SimpleNamespace(unet=UNet2DConditionModel(**SDXL)))
    names = list(model.value_layers)
    assert names[0] == "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    assert names[4] == "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_v"
    assert names[24:] == [
        f"mid_block.attentions.0.transformer_blocks.{k}.attn2.to_v" for k in range(10)
    ]
    assert len(names) == 34
    assert len(model.cross_attentions) == 34 + 3 * 10 + 3 * 2
    assert sum(model.widths().values()) == 4 * 640 + 30 * 1280


def test_sdxl_goes_without_its_first_text_encoder_as_its_pipeline_does():
    pipeline = with_parts(
        lambda: tiny_sdxl(cross_attention_dim=32), text_encoder=None, tokenizer=None
    )()
    model = findnemo.load(pipeline)
    tokens, _, pooled, _ = pipeline.encode_prompt("a cat", do_classifier_free_guidance=False)
    found = model.conditions(model.encode(["a cat"]))
    torch.testing.assert_close(found["encoder_hidden_states"], tokens)
    torch.testing.assert_close(found["added_cond_kwargs"]["text_embeds"], pooled)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_pooled_embedding_may_be_wider_than_those_of_tokens(guidance):
    """120 values beside embeddings of 48: the U-Net is told what the pipeline tells it, and
    predicts what it predicts there.
    """
    wide = lambda: tiny_sdxl(projection_class_embeddings_input_dim=6 * 8 + 120)  # noqa: E731
    model = findnemo.load(with_parts(wide, text_encoder_2=lambda p: clip(32, 120))())
    seen: list[tuple[Any, ...]] = []
    handle = model.denoiser.register_forward_hook(
        lambda m, args, kwargs, output: seen.append((*args, kwargs, output[0])), with_kwargs=True
    )
    model.pipeline("a cat", num_inference_steps=1, guidance_scale=guidance, output_type="latent")
    handle.remove()
    text = model.encode(["a cat"])
    found = model.conditions(text)
    latents, timestep, told, noise = seen[0]
    torch.testing.assert_close(
        found["added_cond_kwargs"]["text_embeds"], told["added_cond_kwargs"]["text_embeds"][-1:]
    )
    torch.testing.assert_close(found["encoder_hidden_states"], told["encoder_hidden_states"][-1:])
    torch.testing.assert_close(model.text_of(told)[-1:].tensors, text.tensors)
    rows = text
    if guidance > 1:
        rows = Text.cat([model.unconditional(), text])
        torch.testing.assert_close(model.text_of(told).tensors, rows.tensors)
    with torch.no_grad():
        assert torch.equal(model.predict_noise(latents, int(timestep), rows), noise)
    layer = next(iter(model.value_layers))
    assert torch.equal(model.value_inputs(text)[layer], found["encoder_hidden_states"])
