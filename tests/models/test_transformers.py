"""Diffusion transformers: each goes the whole path, and says of its network what the
pipeline itself would see.
"""

from __future__ import annotations

import copy
import dataclasses
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from _passes import PROMPT, check_inputs, predicted
from _tiny_transformers import PIPELINES, USUAL, quiet
from diffusers import FluxTransformer2DModel, PixArtTransformer2DModel, SD3Transformer2DModel
from torch import Tensor, nn

import findnemo
from findnemo import NeuronSet, deactivate, prune, save_lora
from findnemo.detection import DETECTORS
from findnemo.detection.magnitude import saliency
from findnemo.errors import EditError, ModelError
from findnemo.images import ImageSettings, generate
from findnemo.mitigation import MITIGATIONS, Case, wanda
from findnemo.models import Flux, Model, PixArt, StableDiffusion3, Text
from findnemo.passes.conditioning import following
from findnemo.passes.deltas import Probe
from findnemo.settings import Settings

every = pytest.mark.parametrize("name", USUAL)
JOINT = ["sd3", "sd3-without-t5", "flux-dev", "flux-schnell"]
CROSS = ["pixart-alpha", "pixart-sigma"]


@pytest.fixture(scope="module")
def directories(tmp_path_factory) -> dict[str, Any]:
    """Every pipeline as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("transformers")
    for name, make in PIPELINES.items():
        make().save_pretrained(folder / name)
    return {name: folder / name for name in PIPELINES}


@pytest.fixture
def model(name, directories) -> Model:
    loaded = findnemo.load(directories[name], device="cpu")
    quiet(loaded.pipeline)
    return loaded


def some_neurons(model: Model) -> NeuronSet:
    first, *_, last = model.value_layers
    return NeuronSet({first: [0, 5], last: range(8)})


def images(pipeline: Any) -> np.ndarray:
    """A whole call, with guidance and two images per prompt: (2, H, W, 3), 0 to 255."""
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    options = {"num_images_per_prompt": 2, "num_inference_steps": 2, "guidance_scale": 5.0}
    return np.stack(
        [np.asarray(image) for image in pipeline(PROMPT, generator=generators, **options).images]
    ).astype(int)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and abs(a - b).max() <= 1


@torch.no_grad()
def outputs(model: Model, run: Any) -> dict[str, Tensor]:
    """What every value layer gives while something runs, all passes one after the other."""
    seen: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        for name, layer in model.value_layers.items():
            hook = layer.register_forward_hook(
                lambda _, args, out, name=name: seen.setdefault(name, []).append(out.clone())
            )
            stack.callback(hook.remove)
        run()
    return {name: torch.cat(rows) for name, rows in seen.items()}


# the whole path -----------------------------------------------------------------------------------


@pytest.mark.slow
@every
def test_a_saved_pipeline_goes_through_the_whole_path(name, model):
    settings = Settings(samples=3)
    calibration = findnemo.calibrate(model, ["a cat", "two dogs in the rain"], settings=settings)
    assert calibration.count == 2
    assert {n: len(m) for n, m in calibration.mean.items()} == model.widths()
    assert all((std > 0).all() for std in calibration.std.values())
    score = findnemo.score(model, PROMPT, settings=settings)
    assert -1 <= score < 1
    found = findnemo.localize(model, PROMPT, dataclasses.replace(calibration, tau=score - 1e-3))
    assert found.memorized
    assert found.score_before == pytest.approx(score, abs=1e-4)
    assert set(found.neurons.layers) <= set(model.value_layers)
    assert not findnemo.localize(
        model, PROMPT, dataclasses.replace(calibration, tau=0.999)
    ).memorized


@pytest.mark.first(1)
@every
def test_live_and_saved_are_one_model_in_either_dtype(name, directories):
    live = findnemo.load(PIPELINES[name]())
    half = findnemo.load(directories[name], device="cpu", dtype="bfloat16")
    assert findnemo.load(directories[name], device="cpu").fingerprint == live.fingerprint
    quiet(half.pipeline)
    assert half.encode([PROMPT]).tokens.dtype == predicted(half).dtype == torch.bfloat16


@every
def test_a_caption_is_encoded_the_same_in_every_batch(name, model):
    prompts = ["a", "a much longer caption of a cat", ""]
    text = model.encode(prompts)
    for k, prompt in enumerate(prompts):
        torch.testing.assert_close(model.encode([prompt]).tensors, text[k : k + 1].tensors)
    assert not torch.allclose(text.tokens[0], text.tokens[1])


@every
@torch.no_grad()
def test_a_caption_of_several_is_predicted_to_the_last_bit_as_one_repeated(name, model):
    latents = model.noise(PROMPT, range(3))
    text = model.encode([PROMPT])
    timestep = model.timesteps(50)[0]
    repeated = model.predict_noise(latents, timestep, text.expand(3))
    assert torch.equal(model.predict_noise(latents, timestep, Text.cat([text] * 3)), repeated)


@every
def test_what_is_computed_once_may_be_given_back(name, model):
    """Reuse gives the deltas of fresh passes, whichever layer is edited first, and leaves
    out the blocks before it.
    """
    first, *_, last = model.value_layers
    reusing, fresh = (
        Probe(model, PROMPT, Settings(samples=3), reuse=reuse) for reuse in (True, False)
    )
    torch.testing.assert_close(reusing.deltas(), fresh.deltas())
    for layer in (*model.value_layers, None):
        neurons = NeuronSet({layer: range(8)} if layer else {})
        torch.testing.assert_close(
            reusing.deltas(neurons, [2, 0]), fresh.deltas(neurons, [2, 0]), atol=1e-5, rtol=1e-4
        )
    for probe, ran in ((reusing, False), (fresh, True)):
        assert (
            first in outputs(model, lambda probe=probe: probe.deltas(NeuronSet({last: [0]})))
        ) is ran


# what the network sees ----------------------------------------------------------------------------


@every
def test_the_network_is_given_what_the_pipeline_gives_it(name, model):
    seen = check_inputs(model)
    if name in CROSS:
        # saved or live
        assert model.timesteps(50)[0] == findnemo.load(PIPELINES[name]()).timesteps(50)[0] == 999
    assert {"pixart-alpha": 120, "pixart-sigma": 300, "sd3": 333, "sd3-without-t5": 333}.get(
        name, 512
    ) == seen["encoder_hidden_states"].shape[1]
    assert ("guidance" in seen) == (name == "flux-dev")
    if name in CROSS:
        assert seen["encoder_attention_mask"].sum(1).tolist() == [len("▁a▁red▁fox") + 1] * 2


# neurons ------------------------------------------------------------------------------------------


@every
def test_activations_are_what_hooks_see_however_prompts_are_batched(name, model):
    prompts = ["a", "a much longer caption", PROMPT]
    together = model.value_activations(prompts, model.encode(prompts))
    for k, prompt in enumerate(prompts):
        text = model.encode([prompt])
        latents = model.noise(prompt, [0])
        seen = outputs(
            model, lambda x=latents, y=text: model.predict_noise(x, model.timesteps(50)[0], y)
        )
        assert list(seen) == list(model.value_layers)  # in forward order
        for layer, values in seen.items():
            torch.testing.assert_close(
                together[layer][k], values[0].abs().mean(0), atol=1e-5, rtol=1e-4
            )


class Without(nn.Module):
    """A projection computed by hand, neuron by neuron, in which some give nothing."""

    def __init__(self, layer: Any, off: tuple[int, ...]):
        super().__init__()
        self.layer = layer
        self.off = off

    def forward(self, x: Tensor) -> Tensor:
        rows = zip(self.layer.weight, self.layer.bias, strict=True)
        neurons = [(x * w).sum(-1) + b for w, b in rows]
        return torch.stack(
            [torch.zeros_like(v) if i in self.off else v for i, v in enumerate(neurons)], -1
        )


@every
def test_switching_neurons_off_is_what_it_is_by_hand(name, model):
    neurons = some_neurons(model)
    by_hand = copy.deepcopy(model.pipeline)
    for layer, off in neurons.layers.items():
        path, _, last = layer.rpartition(".")
        parent = by_hand.transformer.get_submodule(path)
        setattr(parent, last, Without(getattr(parent, last), off))
    before = predicted(model)
    expected = predicted(findnemo.load(quiet(by_hand)))
    with deactivate(model, neurons):
        torch.testing.assert_close(predicted(model), expected, atol=1e-5, rtol=1e-4)
    assert (expected - before).abs().max() > 1e-3
    assert torch.equal(predicted(model), before)


@every
def test_every_value_layer_matters(name, model):
    """Also the last one of Stable Diffusion 3, whose text goes nowhere else."""
    before = predicted(model, 1)
    for layer, width in model.widths().items():
        with deactivate(model, NeuronSet({layer: range(width)})):
            assert (predicted(model, 1) - before).abs().max() > 1e-4


@pytest.mark.first(1)
@every
def test_hook_weights_and_checkpoint_give_the_same_images(name, model, tmp_path):
    neurons = some_neurons(model)
    before = images(model.pipeline)
    with deactivate(model, neurons):
        expected = images(model.pipeline)
    assert abs(expected - before).mean() > 0.1
    assert (expected[0] != expected[1]).any()
    pruned = quiet(prune(model, neurons))
    assert same(images(pruned), expected)
    pruned.save_pretrained(tmp_path)
    assert same(images(quiet(findnemo.load(tmp_path, device="cpu").pipeline)), expected)
    assert np.array_equal(images(model.pipeline), before)


@pytest.mark.first(2)
@pytest.mark.parametrize("factor", [0.0, 0.5])
@pytest.mark.parametrize("name", JOINT)
def test_a_lora_carries_weights_and_biases(name, model, tmp_path, factor):
    neurons = some_neurons(model)
    with deactivate(model, neurons, factor):
        expected = images(model.pipeline)
        noise = predicted(model)
    save_lora(model, neurons, tmp_path, factor)
    fresh = copy.deepcopy(model.pipeline)
    fresh.load_lora_weights(tmp_path)
    assert same(images(quiet(fresh)), expected)
    torch.testing.assert_close(predicted(findnemo.load(fresh)), noise, atol=1e-5, rtol=1e-4)
    fresh.fuse_lora()
    fresh.unload_lora_weights()
    for layer, indices in neurons.layers.items():
        old, new = model.value_layers[layer], fresh.transformer.get_submodule(layer)
        for part in ("weight", "bias"):
            values = getattr(old, part).detach().clone()
            values[list(indices)] *= factor
            torch.testing.assert_close(getattr(new, part), values)


@every
def test_fused_projections_are_refused(name, model):
    try:
        model.denoiser.fuse_qkv_projections()
    except ValueError as error:
        pytest.skip(f"diffusers does not fuse them: {error}")
    with pytest.raises(EditError, match="are fused"):
        findnemo.load(model.pipeline)
    model.denoiser.unfuse_qkv_projections()
    assert findnemo.load(model.pipeline).value_layers


@every
def test_finished_images_do_not_depend_on_the_batch(name, model):
    settings = ImageSettings(2, 3.0)
    together = generate(model, PROMPT, [0, 1], settings)
    size = model.latent_shape[1] * model.pipeline.vae_scale_factor
    assert together[0].size == (size, size)
    assert same(
        np.asarray(generate(model, PROMPT, [1], settings)[0]).astype(int),
        np.asarray(together[1]).astype(int),
    )


@every
def test_decoding_is_that_of_the_pipeline(name, model):
    seeds = [11, 12]
    latents = model.sample(PROMPT, 2, seeds, 2, 3.0)
    assert latents.shape == (2, *model.latent_shape)
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    options = {
        "num_images_per_prompt": 2,
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "output_type": "pt",
    }
    theirs = model.pipeline(PROMPT, generator=generators, **options).images
    torch.testing.assert_close(
        (model.decode(latents) / 2 + 0.5).clamp(0, 1), theirs, atol=1e-4, rtol=1e-4
    )


# full size ----------------------------------------------------------------------------------------


def pixart_xl_2() -> nn.Module:
    return PixArtTransformer2DModel(sample_size=128, caption_channels=4096)


def sd3(heads: int, layers: int, **options: Any) -> nn.Module:
    sizes = {
        "num_attention_heads": heads,
        "num_layers": layers,
        "caption_projection_dim": 64 * heads,
    }
    return SD3Transformer2DModel(
        attention_head_dim=64, joint_attention_dim=4096, **sizes, **options
    )


FULL = {
    "PixArt-XL-2": (PixArt, pixart_xl_2, 28, 1152, "attn2.to_v"),
    "SD3-medium": (
        StableDiffusion3,
        lambda: sd3(24, 24, pos_embed_max_size=192),
        24,
        1536,
        "attn.add_v_proj",
    ),
    "SD3.5-medium": (
        StableDiffusion3,
        lambda: sd3(
            24,
            24,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        ),
        24,
        1536,
        "attn.add_v_proj",
    ),
    "SD3.5-large": (
        StableDiffusion3,
        lambda: sd3(38, 38, pos_embed_max_size=192, qk_norm="rms_norm"),
        38,
        2432,
        "attn.add_v_proj",
    ),
    "FLUX.1-dev": (
        Flux,
        lambda: FluxTransformer2DModel(guidance_embeds=True),
        19,
        3072,
        "attn.add_v_proj",
    ),
}


@pytest.mark.parametrize(
    ("adapter", "network", "layers", "width", "layer"), FULL.values(), ids=FULL
)
def test_value_layers_at_full_size(adapter, network, layers, width, layer):
    with torch.device("meta"):
        transformer = network()
    model = adapter(SimpleNamespace(transformer=transformer))
    assert model.widths() == {f"transformer_blocks.{k}.{layer}": width for k in range(layers)}
    assert all(module.bias is not None for module in model.value_layers.values())


# other methods ------------------------------------------------------------------------------------

SHORT = ImageSettings(3, 3.0)
ATTENTION = ("entropy-d", "entropy-e", "bright-ending")
NEEDS_DIFFUSION = (
    *("magnitude", "one-step", "edges", "anisotropy", "sharpness", "curvature", "dsm", "dsm-1"),
)


@pytest.mark.first(4)
@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize(
    "name", ["pixart-alpha", "sd3", pytest.param("flux-dev", marks=pytest.mark.slow)]
)
def test_a_detector_works_or_says_before_it_starts_why_not_and_what_does(name, model, detector):
    passes = []
    handle = model.denoiser.register_forward_pre_hook(lambda *_: passes.append(1))
    if detector in ATTENTION or (name != "pixart-alpha" and detector in NEEDS_DIFFUSION):
        with pytest.raises(ModelError, match="use the detector ssim"):
            DETECTORS[detector](model, PROMPT, SHORT)
        assert not passes
    else:
        assert DETECTORS[detector](model, PROMPT, SHORT).evaluations > 0
    handle.remove()


@pytest.mark.first(5)
@pytest.mark.parametrize("method", ["attention", "embedding", "tokens-1"])
@pytest.mark.parametrize("name", ["pixart-alpha", "sd3", "flux-dev"])
def test_a_method_that_changes_the_prompt_is_refused(name, model, method):
    with pytest.raises(ModelError, match="neurons"), MITIGATIONS[method](model, Case(PROMPT)):
        pass
    assert "encode_prompt" not in vars(model.pipeline)


@pytest.mark.parametrize("name", ["pixart-alpha", "sd3", "flux-dev"])
def test_single_tokens_are_not_known(name, model):
    with pytest.raises(ModelError, match="single tokens need Stable Diffusion"):
        saliency(model, PROMPT, SHORT)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", ["pixart-alpha", "sd3", "flux-dev"])
def test_calls_are_followed(name, model, guidance):
    """The conditional rows are those that the pipeline's text embeddings lie in."""
    text = model.encode([PROMPT]).tokens
    rows = []

    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen = kwargs["encoder_hidden_states"]
        carrying = [k for k in range(len(seen)) if torch.allclose(seen[k], text[0], atol=1e-5)]
        rows.append((call.step, list(range(len(seen)))[call.rows(len(seen))], carrying))

    with following(model) as call:
        handle = model.denoiser.register_forward_pre_hook(hook, with_kwargs=True)
        model.pipeline(
            [PROMPT, PROMPT],
            num_images_per_prompt=2,
            num_inference_steps=2,
            guidance_scale=guidance,
            output_type="latent",
        )
        handle.remove()
    assert [step for step, _, _ in rows] == [0, 1]
    assert all(mine == carrying and len(mine) == 4 for _, mine, carrying in rows)


@pytest.mark.parametrize("name", ["pixart-alpha", "sd3", "flux-dev"])
def test_weights_are_zeroed_as_elsewhere(name, model):
    before = images(model.pipeline)
    with wanda(model, Case(PROMPT), share=0.2, steps=2):
        zeroed = images(model.pipeline)
    assert not same(zeroed, before)
    assert np.array_equal(images(model.pipeline), before)
