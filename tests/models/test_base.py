"""`Model`: value layers, timesteps, noise, captions and decoding, as every adapter inherits them."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from _odd_pipelines import configured
from _tiny import tiny_pipeline
from diffusers import PNDMScheduler

import findnemo
from findnemo.errors import InputError, ModelError
from findnemo.models import captions_in, require_caption
from findnemo.prompts import Prompt

SD_WIDTHS = [16, 16, 32, 32, 32, 32, 32]


def test_a_unet_without_cross_attention_in_the_places_searched_is_refused():
    down = ("DownBlock2D",) * 4
    pipeline = tiny_pipeline(down_block_types=down, mid_block_type="UNetMidBlock2D")
    with pytest.raises(
        ModelError, match=r"no value layers found in UNet2DConditionModel.*attn2\.to_v"
    ):
        findnemo.load(pipeline)


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, SD_WIDTHS),
        ({"layers_per_block": 1}, [16, 32, 32, 32]),
        ({"transformer_layers_per_block": 2}, [16] * 4 + [32] * 10),
        (
            {
                "block_out_channels": (16, 32),
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            },
            [16, 16, 32],
        ),
    ],
)
def test_value_layers_are_found_in_any_layout_and_in_forward_order(options, widths):
    model = findnemo.load(tiny_pipeline(**options))
    called = []
    assert list(model.widths().values()) == widths
    for name, module in model.denoiser.named_modules():
        if name.endswith("attn2.to_v"):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model.predict_noise(model.noise("a", [0]), 981, model.encode(["a"]))
    assert list(model.value_layers) == [
        name for name in called if not name.startswith("up_blocks.")
    ]
    assert len(called) > len(model.value_layers)


def test_timesteps_are_those_of_a_ddim_schedule(tiny):
    assert tiny.timesteps(50) == list(range(981, 0, -20))
    tiny.pipeline.scheduler = PNDMScheduler.from_config(tiny.pipeline.scheduler.config)
    assert tiny.timesteps(50) == list(range(981, 0, -20))


def test_layers_are_looked_up_anew_when_a_name_stands_for_another_module(tiny):
    name = next(iter(tiny.value_layers))
    assert tiny.value_layers[name] is tiny.denoiser.get_submodule(name)
    path, _, last = name.rpartition(".")
    setattr(tiny.denoiser.get_submodule(path), last, torch.nn.Linear(32, 7))
    assert tiny.value_layers[name] is tiny.denoiser.get_submodule(name)
    assert tiny.widths()[name] == 7
    tiny.pipeline.unet = tiny_pipeline(seed=1).unet
    assert all(layer is tiny.denoiser.get_submodule(n) for n, layer in tiny.value_layers.items())
    tiny.value_layers.clear()  # a copy: nobody's to spoil
    assert tiny.value_layers


def test_noise_of_a_sample_is_the_same_in_every_batch_and_order(tiny):
    state = torch.get_rng_state()
    together = tiny.noise("a cat", [0, 1, 2, 3])
    assert torch.equal(tiny.noise("a cat", [3, 1]), together[[3, 1]])
    assert torch.equal(torch.cat([tiny.noise("a cat", [k]) for k in range(4)]), together)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_depends_on_prompt_sample_and_seed(tiny):
    latents = torch.stack(
        [tiny.noise(*of)[0] for of in (("a", [0]), ("a", [1]), ("b", [0]), ("a", [0], 1))]
    )
    correlations = torch.corrcoef(latents.flatten(1)) - torch.eye(4)
    assert correlations.abs().max() < 0.15
    assert latents.mean().abs() < 0.1
    assert latents.std() == pytest.approx(1, abs=0.1)


def test_a_prompt_is_encoded_the_same_in_every_batch(tiny):
    prompts = ["a", "a much longer caption of a cat", ""]
    text = tiny.encode(prompts)
    assert text.tokens.shape == (3, 77, 32)
    for k, prompt in enumerate(prompts):
        torch.testing.assert_close(tiny.encode([prompt]).tokens[0], text.tokens[k])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def test_latents_do_not_depend_on_the_default_dtype():
    model = findnemo.load(tiny_pipeline())
    expected = model.noise("a cat", [0, 1])
    with default_dtype(torch.float64):
        assert torch.equal(model.noise("a cat", [0, 1]), expected)


def test_only_flows_shift_their_latents_as_their_pipelines_do():
    """StableDiffusionPipeline decodes latents / scaling_factor, whatever
    shift_factor its VAE has.
    """
    model = findnemo.load(configured(tiny_pipeline, "vae", shift_factor=0.5)())
    latents = model.noise("a cat", [0])
    expected = model.pipeline.vae.decode(latents / model.pipeline.vae.config.scaling_factor).sample
    torch.testing.assert_close(model.decode(latents), expected.detach())


def test_captions_are_taken_from_texts_and_from_rows_of_a_table():
    assert list(captions_in(["a cat", Prompt("two dogs", 2)])) == ["a cat", "two dogs"]
    with pytest.raises(InputError, match="'a cat' is one text where several captions belong"):
        list(captions_in("a cat"))


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        (3, "a caption must be text, not int: 3"),
        (None, "a caption must be text, not NoneType"),
        ("a \ud83e cat", r"the caption 'a \\ud83e cat' holds half of a surrogate pair"),
    ],
)
def test_what_is_no_caption_is_refused(caption, message):
    with pytest.raises(InputError, match=message):
        require_caption(caption)
    with pytest.raises(InputError, match=message):
        list(captions_in(["a cat", caption]))
