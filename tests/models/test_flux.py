"""FLUX.1: latents as tokens of 2 x 2, guidance as an input, and neurons of the double blocks."""

from __future__ import annotations

import pytest
import torch
from _passes import inputs, predicted
from _tiny_transformers import tiny_flux

import findnemo
from findnemo.models import Flux


@pytest.mark.parametrize("guided", [True, False], ids=["dev", "schnell"])
def test_noise_is_predicted_without_guidance(guided):
    """A distilled network is told a scale of 1, which means none."""
    model = findnemo.load(tiny_flux(guidance_embeds=guided))
    seen = inputs(model, lambda: predicted(model))
    assert seen["guidance"].tolist() == [1.0, 1.0] if guided else "guidance" not in seen
    assert isinstance(model, Flux)
    assert model.distilled


def test_the_transformer_sees_patches_of_2_x_2_and_gives_latents_back():
    model = findnemo.load(tiny_flux())
    seen = []

    def unchanged(tokens: torch.Tensor, **options: object) -> tuple[torch.Tensor]:
        seen.append((tokens, options["timestep"]))
        return (tokens,)

    model.denoiser.forward = unchanged
    latents = model.noise("a cat", [0, 1])[..., :6]  # 16 high, 6 wide
    output = model.output(latents, 250.0, model.encode(["a cat"] * 2))
    assert torch.equal(output, latents)
    ((tokens, timestep),) = seen
    assert tokens.shape == (2, 8 * 3, 4 * model.latent_shape[0])
    assert torch.equal(tokens[1, 4], latents[1, :, 2:4, 2:4].flatten())  # second row, second patch
    assert timestep.tolist() == [0.25, 0.25]


def test_single_blocks_have_no_neurons_of_the_text_alone():
    model = findnemo.load(tiny_flux())
    values = [name for name, _ in model.denoiser.named_modules() if name.endswith(".to_v")]
    assert any(name.startswith("single_transformer_blocks.") for name in values)
    assert list(model.layers_of("all")) == [
        f"transformer_blocks.{k}.attn.add_v_proj" for k in range(2)
    ]


def test_timesteps_of_schnell_are_evenly_spaced_and_those_of_dev_lie_later():
    even = findnemo.load(tiny_flux(guidance_embeds=False)).timesteps(4)
    assert even == pytest.approx([1000, 750, 500, 250])
    shifted = findnemo.load(tiny_flux()).timesteps(4)
    assert shifted[0] == 1000
    assert all(late > early for late, early in zip(shifted[1:], even[1:], strict=True))
