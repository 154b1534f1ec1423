"""PixArt: its network is given what its pipeline gives it, and padding is masked."""

from __future__ import annotations

import pytest
import torch
from _passes import PROMPT, check_inputs, predicted
from _tiny_transformers import tiny_pixart
from accelerate import cpu_offload
from diffusers import PixArtSigmaPipeline

import findnemo
from findnemo import NeuronSet, save_lora
from findnemo.errors import EditError, ModelError
from findnemo.models import PixArt


def test_the_1024_model_of_pixart_alpha_is_told_its_size():
    seen = check_inputs(findnemo.load(tiny_pixart(size=128)))
    assert seen["resolution"].tolist() == [[1024.0, 1024.0]] * 2
    assert seen["aspect_ratio"].tolist() == [[1.0]] * 2


def test_the_noise_of_pixart_is_the_first_half_of_what_the_network_gives():
    model = findnemo.load(tiny_pixart())
    given = []
    handle = model.denoiser.register_forward_hook(lambda m, args, out: given.append(out[0]))
    noise = predicted(model)
    handle.remove()
    assert given[0].shape == (2, 8, 32, 32)
    assert torch.equal(noise, given[0][:, :4])
    model.pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    with pytest.raises(ModelError, match="'v_prediction' is not supported for PixArt"):
        predicted(model)


def test_padding_is_masked_for_the_image_but_counts_in_the_statistics():
    """Published definition: the mean over all positions, padding included."""
    model = findnemo.load(tiny_pixart())
    text = model.encode([PROMPT])
    length = int(text.mask.sum())
    other = text.map(torch.clone)
    other.tokens[0, length:] = 7.0
    latents = model.noise(PROMPT, [0])
    with torch.no_grad():
        torch.testing.assert_close(
            model.predict_noise(latents, 999, other), model.predict_noise(latents, 999, text)
        )
    layer = next(iter(model.value_layers))
    assert not torch.allclose(
        *(model.value_activations([PROMPT], t)[layer] for t in (text, other)), rtol=1e-2
    )


def test_pixart_loads_no_lora():
    model = findnemo.load(tiny_pixart())
    with pytest.raises(
        EditError, match=r"PixArtAlphaPipeline has no load_lora_weights.*prune\(model, neurons\)"
    ):
        save_lora(model, NeuronSet({next(iter(model.value_layers)): [0]}), "nowhere")


def test_pixart_sigma_has_the_adapter_of_alpha():
    assert isinstance(findnemo.load(tiny_pixart(PixArtSigmaPipeline)), PixArt)


def test_an_offloaded_transformer_is_the_same_model():
    """It has a table of its own beside those of its blocks."""
    model = findnemo.load(tiny_pixart())
    before = model.identity
    cpu_offload(model.denoiser, torch.device("cpu"), offload_buffers=True)
    assert model.denoiser.scale_shift_table.is_meta
    assert model.identity.differences(before) == []
