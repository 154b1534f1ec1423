"""The U-Net family:

SDXL, Turbo, latent consistency and DeepFloyd IF go the whole path, and what findnemo asks of each
is what its pipeline does.
"""

from __future__ import annotations

import copy

import pytest
import torch
from _passes import PROMPTS, call, passes
from _texts import assert_equal
from _tiny_unets import PIPELINES, USUAL, tiny_lcm, tiny_sdxl, tiny_turbo
from diffusers import DDIMScheduler

import findnemo
from findnemo import ImageSettings, NeuronSet
from findnemo.edits import scaled
from findnemo.models import Model
from findnemo.passes.conditioning import following

DISTILLED = ("lcm",)

every = pytest.mark.parametrize("name", USUAL)


def loaded(name: str) -> Model:
    return findnemo.load(PIPELINES[name]())


def some(model: Model) -> NeuronSet:
    """A few neurons of the first, a middle and the last value layer."""
    layers = list(model.value_layers)
    return NeuronSet({layers[0]: [0, 3], layers[len(layers) // 2]: [7], layers[-1]: [1, 2, 11]})


# what a model is asked ----------------------------------------------------------------------------


@pytest.mark.first(1)
@every
def test_value_layers_are_found_in_forward_order(name):
    model = loaded(name)
    called = []
    kind = ".add_v_proj" if name == "if" else ".attn2.to_v"
    for layer, module in model.denoiser.named_modules():
        if layer.endswith(kind):
            module.register_forward_hook(lambda *_, layer=layer: called.append(layer))
    with torch.no_grad():
        model.predict_noise(model.noise("a", [0]), 981, model.encode(["a"]))
    assert list(model.value_layers) == [n for n in called if not n.startswith("up_blocks.")]
    assert 2 < len(model.value_layers) < len(called)
    assert list(model.cross_attentions) == (
        [] if name == "if" else [n.removesuffix(".to_v") for n in called]
    )


@pytest.mark.first(1)
@every
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_noise_is_what_the_pipeline_computes_at_its_first_step(name, guidance):
    """Same text, same added conditions, same noise, from nothing but the latents that
    the pipeline begins with.
    """
    model = loaded(name)
    latents, t, kwargs, output = passes(
        model, lambda: call(model.pipeline, guidance=guidance, steps=3)
    )[0]
    guided = guidance > 1 and name not in DISTILLED
    assert len(latents) == (8 if guided else 4)
    assert int(t) == model.timesteps(3)[0]
    own = slice(4, 8) if guided else slice(0, 4)
    text = model.encode(PROMPTS).repeat(2)
    if name in DISTILLED:  # the call's guidance is told, findnemo's is the pipeline's default
        text = model.text_of(kwargs)
        assert torch.equal(
            model.value_inputs(text)[next(iter(model.value_layers))],
            model.encode(PROMPTS).repeat(2).tokens,
        )
    torch.testing.assert_close(model.text_of(kwargs)[own].tensors, text.tensors)
    if guided:
        torch.testing.assert_close(
            model.text_of(kwargs)[:4].tensors, model.unconditional().expand(4).tensors
        )
    with torch.no_grad():
        eps = model.predict_noise(latents[own], int(t), text)
    expected = output[own][:, : latents.shape[1]]
    if name == "sdxl-v":  # Salimans and Ho (2022): eps = sqrt(1 - a) x + sqrt(a) v
        a = DDIMScheduler.from_config(model.pipeline.scheduler.config).alphas_cumprod[int(t)]
        expected = (1 - a).sqrt() * latents[own] + a.sqrt() * expected
    torch.testing.assert_close(eps, expected, atol=1e-4, rtol=1e-4)


@every
def test_what_a_prompt_brings_survives_the_way_through_the_denoisers_arguments(name):
    model = loaded(name)
    text = model.encode(PROMPTS)
    assert_equal(model.text_of(model.conditions(text)), text)
    assert text.tokens.shape[1] == 77
    beside = ["pooled", "sizes"] if name.startswith("sdxl") else []
    assert list(text.tensors) == ["tokens", *beside, *["guidance"] * (name in DISTILLED)]


@every
def test_statistics_are_what_the_layers_give_in_a_real_pass(name):
    model = loaded(name)
    seen = {}
    text = model.encode(PROMPTS)
    with torch.no_grad():
        for layer, module in model.value_layers.items():
            module.register_forward_hook(
                lambda m, args, out, layer=layer: seen.update({layer: out})
            )
        model.predict_noise(model.noise("a", [0, 1]), 501, text)
    given = model.value_activations(PROMPTS, text)
    assert all(rows.shape[1] == 77 for rows in seen.values())
    for layer, rows in seen.items():
        torch.testing.assert_close(given[layer], rows.abs().mean(1), atol=1e-5, rtol=1e-4)


@every
def test_timesteps_are_those_of_the_models_own_scheduler(name):
    model = loaded(name)
    for steps in (4, 20, 50):
        model.pipeline.scheduler.set_timesteps(steps)
        assert model.timesteps(steps) == [int(t) for t in model.pipeline.scheduler.timesteps]


def test_published_first_timesteps():
    """SDXL counts from 981, IF from 980, Turbo and latent consistency models from 999."""
    first = {
        name: loaded(name).timesteps(50)[:2]
        for name in ("sdxl", "if", "sd-turbo", "sdxl-turbo", "lcm")
    }
    assert first == {
        "sdxl": [981, 961],
        "if": [980, 960],
        "sd-turbo": [999, 979],
        "sdxl-turbo": [999, 979],
        "lcm": [999, 979],
    }


# edits --------------------------------------------------------------------------------------------


@pytest.mark.first(4)
@every
@pytest.mark.parametrize("factor", [0.0, 0.25])
def test_scaling_is_what_scaled_weights_and_biases_compute(name, factor):
    model = loaded(name)
    neurons = some(model)
    by_hand = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        for layer, indices in neurons.layers.items():
            for parameter in by_hand.get_submodule(layer).parameters():
                parameter[list(indices)] *= factor
        latents = model.noise("a", [0, 1])
        text = model.encode(PROMPTS)
        with findnemo.deactivate(model, neurons, factor):
            edited = model.predict_noise(latents, 501, text)
        plain = model.predict_noise(latents, 501, text)
        model.pipeline.unet = by_hand
        expected = model.predict_noise(latents, 501, text)
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(edited, plain, atol=1e-3)


@every
def test_masks_of_a_batch_are_those_of_passes_of_their_own(name):
    model = loaded(name)
    latents = model.noise("a", [0, 1])
    text = model.encode(PROMPTS)
    layer = list(model.value_layers)[-1]
    scales = torch.rand(2, model.widths()[layer], generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), scaled(model, {layer: scales}):
        together = model.predict_noise(latents, 501, text)
    for k in range(2):
        with torch.no_grad(), scaled(model, {layer: scales[k]}):
            alone = model.predict_noise(latents[k : k + 1], 501, text[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.first(1)
@every
def test_hook_weights_and_saved_checkpoint_give_the_same_images(name, tmp_path):
    """Whole calls with guidance, two images for each of two prompts."""
    model = loaded(name)
    plain = call(model.pipeline)
    with findnemo.deactivate(model, some(model)):
        edited = call(model.pipeline)
    assert torch.equal(call(model.pipeline), plain)
    assert (edited - plain).abs().flatten(1).amax(1).min() > 1e-3
    pruned = findnemo.prune(model, some(model))
    torch.testing.assert_close(call(pruned), edited, atol=1e-4, rtol=1e-4)
    pruned.save_pretrained(tmp_path)
    again = findnemo.load(tmp_path, device="cpu")
    assert type(again) is type(model)
    torch.testing.assert_close(call(again.pipeline), edited, atol=1e-4, rtol=1e-4)
    assert torch.equal(call(model.pipeline), plain)


@pytest.mark.first(1)
@every
def test_a_lora_gives_the_same_images(name, tmp_path):
    model = loaded(name)
    with findnemo.deactivate(model, some(model)):
        edited = call(model.pipeline)
    findnemo.save_lora(model, some(model), tmp_path)
    other = PIPELINES[name]()
    other.load_lora_weights(tmp_path)
    torch.testing.assert_close(call(other), edited, atol=1e-3, rtol=1e-3)


def test_pruning_adds_no_watermark(monkeypatch):
    model = findnemo.load(tiny_sdxl())
    module = "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl"
    monkeypatch.setattr(f"{module}.is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(f"{module}.StableDiffusionXLWatermarker", lambda: "a marker", raising=False)
    assert findnemo.prune(model, some(model)).watermark is None
    model.pipeline.watermark = "its own"
    assert findnemo.prune(model, some(model)).watermark == "a marker"


@pytest.mark.first(1)
@every
def test_what_is_computed_once_and_given_back_changes_nothing(name):
    """Reuse of parts and text projections between the passes of a search."""
    from findnemo.passes.deltas import Probe

    model = loaded(name)
    fast = Probe(model, "a cat", reuse=True)
    plain = Probe(model, "a cat")
    torch.testing.assert_close(fast.deltas(), plain.deltas(), atol=1e-4, rtol=0)
    for layer in list(model.value_layers)[::3]:
        neurons = NeuronSet({layer: [0, 5]})
        torch.testing.assert_close(
            fast.deltas(neurons, [4, 1]), plain.deltas(neurons, [4, 1]), atol=1e-4, rtol=0
        )


@every
def test_images_are_the_pipelines_own(name):
    """`generate` decodes what the pipeline would have decoded, one seed an image."""
    model = loaded(name)
    ours = findnemo.generate(model, "a cat", [0, 1], ImageSettings(2, 3.0))
    generators = [
        torch.Generator().manual_seed(findnemo.seeds.sample_seed(0, "a cat", k)) for k in (0, 1)
    ]
    theirs = model.pipeline(
        "a cat",
        num_images_per_prompt=2,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=generators,
    ).images
    for a, b in zip(ours, theirs, strict=True):
        assert a.size == b.size
        difference = torch.frombuffer(bytearray(a.tobytes()), dtype=torch.uint8).int()
        difference -= torch.frombuffer(bytearray(b.tobytes()), dtype=torch.uint8).int()
        assert difference.abs().max() <= 1


# which rows carry the prompt ----------------------------------------------------------------------


@pytest.mark.first(2)
@every
@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_rows_with_the_prompt_are_known_through_a_call(name, guidance):
    model = loaded(name)
    seen = []
    with following(model) as under_way:
        handle = model.denoiser.register_forward_pre_hook(
            lambda module, args: seen.append(
                (under_way.step, under_way.rows(len(args[0])), under_way.count)
            )
        )
        call(model.pipeline, guidance=guidance, steps=3)
        handle.remove()
        assert under_way.step == -1
    half = guidance > 1 and name not in DISTILLED
    assert seen == [
        (step, slice(4, 8) if half else slice(0, 4), 4 if half else None) for step in range(3)
    ]


@pytest.mark.first(1)
@pytest.mark.parametrize("guidance", [0.0, 3.0])
@pytest.mark.parametrize("make", [tiny_sdxl, tiny_turbo, tiny_lcm])
def test_attention_is_recorded_for_every_image_with_and_without_a_guidance_half(make, guidance):
    from findnemo.passes.attention import recorded

    model = findnemo.load(make())
    seen = {}
    with recorded(model, lambda layer, step, p: seen.setdefault((layer, step), p)):
        call(model.pipeline, guidance=guidance)
    assert len(seen) == 2 * len(model.cross_attentions)
    for p in seen.values():
        assert p.shape[0] == 4
        assert p.shape[2] == 77
        torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:2]))
