"""Pipelines that carry more than their weights: adapters for images, LoRAs, offloading, fused
and compiled modules. Handled, or refused with the way out.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _tiny_unets import PIPELINES, tiny_if, tiny_lcm, tiny_sdxl, tiny_turbo
from accelerate import cpu_offload, cpu_offload_with_hook
from peft import LoraConfig
from torch import Tensor

import findnemo
from findnemo import ImageSettings, NeuronSet, Settings
from findnemo.errors import EditError, ModelError
from findnemo.models import Model

PROMPT = "a cat"
STEPS = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}

slow_lcm = pytest.param(tiny_lcm, marks=pytest.mark.slow)
every = pytest.mark.parametrize("make", [tiny_turbo, tiny_sdxl, slow_lcm, tiny_if])
of_clip = pytest.mark.parametrize("make", [tiny_turbo, tiny_sdxl, slow_lcm])


def some(model: Model) -> NeuronSet:
    layers = list(model.value_layers)
    return NeuronSet({layers[0]: [0, 3], layers[-1]: [1, 2, 11]})


def noise(model: Model) -> Tensor:
    with torch.no_grad():
        return model.predict_noise(model.noise(PROMPT, [0, 1]), 501, model.encode([PROMPT, "dogs"]))


def call(pipeline: Any, **options: Any) -> Tensor:
    return pipeline(PROMPT, generator=torch.Generator().manual_seed(0), **STEPS | options).images


# IP-Adapters --------------------------------------------------------------------------------------


def with_ip_adapter(pipeline: Any) -> Any:
    """The pipeline with random weights of an IP-Adapter's form, loaded as `load_ip_adapter`
    does; images as embeddings of 8 values.
    """
    unet = pipeline.unet
    width = pipeline.unet.config.cross_attention_dim
    generator = torch.Generator().manual_seed(0)
    weights = {}
    key = 1
    for name in unet.attn_processors:
        if "attn2" in name:
            inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
            for kind in ("k", "v"):
                weights[f"{key}.to_{kind}_ip.weight"] = torch.randn(
                    inner, width, generator=generator
                )
            key += 2
    projection = {
        "proj.weight": torch.randn(4 * width, 8, generator=generator),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    adapter = {"image_proj": projection, "ip_adapter": weights}
    pipeline.load_ip_adapter(adapter, subfolder="", weight_name="", image_encoder_folder=None)
    return pipeline


def image_of(pipeline: Any) -> dict[str, Any]:
    count = 1 if pipeline.unet.config.time_cond_proj_dim is not None else 2
    return {
        "ip_adapter_image_embeds": [
            torch.randn(count, 1, 8, generator=torch.Generator().manual_seed(1))
        ]
    }


@of_clip
def test_a_question_without_an_image_is_refused_while_an_ip_adapter_is_loaded(make):
    model = findnemo.load(make())
    expected = noise(model)
    layers = list(model.value_layers)
    with_ip_adapter(model.pipeline)
    for ask in (
        lambda: findnemo.score(model, PROMPT),
        lambda: findnemo.calibrate(model, [PROMPT, "dogs"], settings=Settings(samples=2)),
        lambda: findnemo.generate(model, PROMPT, [0], ImageSettings(1)),
    ):
        with pytest.raises(
            ModelError, match=r"IP-Adapter.*call pipeline\.unload_ip_adapter\(\) first"
        ):
            ask()
    assert list(model.value_layers) == layers  # to_v_ip is none of them
    model.pipeline.unload_ip_adapter()
    assert torch.equal(noise(model), expected)


@pytest.mark.first(1)
@of_clip
def test_neurons_are_switched_off_and_pruned_beside_an_ip_adapter(make):
    """Around a call with an image, as the same neurons in the weights do; the image's
    own values are not touched.
    """
    model = findnemo.load(with_ip_adapter(make()))
    options = image_of(model.pipeline)
    plain = call(model.pipeline, **options)
    with findnemo.deactivate(model, some(model)):
        edited = call(model.pipeline, **options)
    assert not torch.allclose(edited, plain, atol=1e-3)
    torch.testing.assert_close(
        call(findnemo.prune(model, some(model)), **options), edited, atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(
        call(
            model.pipeline,
            ip_adapter_image_embeds=[torch.zeros_like(options["ip_adapter_image_embeds"][0])],
        ),
        plain,
    )


# LoRAs --------------------------------------------------------------------------------------------


def with_lora(pipeline: Any) -> Any:
    """A LoRA on all queries and values of the denoiser, not zero."""
    values = ["add_v_proj"] if type(pipeline).__name__ == "IFPipeline" else ["to_v"]
    pipeline.unet.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", *values], init_lora_weights=False)
    )
    with torch.no_grad():
        for name, parameter in pipeline.unet.named_parameters():
            if "lora_" in name:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
                )
    return pipeline.unet.eval()


@pytest.mark.first(1)
@every
def test_layers_with_a_lora_are_the_same_ones_and_an_edit_is_of_the_sum(make):
    model = findnemo.load(make())
    layers = list(model.value_layers)
    widths = model.widths()
    before = noise(model)
    with_lora(model.pipeline)
    assert list(model.value_layers) == layers
    assert model.widths() == widths
    adapted = noise(model)
    assert not torch.allclose(adapted, before, atol=1e-3)
    neurons = some(model)
    seen = {}
    for name in neurons.layers:
        model.value_layers[name].register_forward_hook(
            lambda m, args, out, name=name: seen.update({name: out})
        )
    with findnemo.deactivate(model, neurons):
        edited = noise(model)
    assert not torch.allclose(edited, adapted, atol=1e-3)
    activations = findnemo.activations(model, PROMPT)
    with torch.no_grad():  # by hand: the weights merged, then zeroed
        for name, indices in neurons.layers.items():
            layer: Any = model.value_layers[name]
            delta = (
                layer.scaling["default"]
                * layer.lora_B["default"].weight
                @ layer.lora_A["default"].weight
            )
            inputs = model.value_inputs(model.encode([PROMPT]))[name][0]
            bias = 0 if layer.base_layer.bias is None else layer.base_layer.bias
            merged = inputs @ (layer.base_layer.weight + delta).T + bias
            torch.testing.assert_close(
                activations[name], merged.abs().mean(0), atol=1e-4, rtol=1e-4
            )
            for part in (
                layer.base_layer.weight,
                layer.base_layer.bias,
                layer.lora_B["default"].weight,
            ):
                if part is not None:
                    part[list(indices)] = 0
    torch.testing.assert_close(noise(model), edited, atol=1e-4, rtol=1e-4)


@every
def test_weights_under_a_lora_are_not_edited(make, tmp_path):
    model = findnemo.load(make())
    with_lora(model.pipeline)
    for edit in (findnemo.prune, lambda *args: findnemo.save_lora(*args, tmp_path)):
        with pytest.raises(
            EditError, match=r"carries a LoRA.*merge it first with pipeline\.fuse_lora\(\)"
        ):
            edit(model, some(model))


# offloading ---------------------------------------------------------------------------------------


def offload_layers(pipeline: Any) -> None:
    """As `enable_sequential_cpu_offload`, which wants an accelerator: weights are
    nowhere until a layer runs.
    """
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)


def offload_models(pipeline: Any) -> None:
    """As `enable_model_cpu_offload`."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            cpu_offload_with_hook(part, torch.device("cpu"))


def offload_groups(pipeline: Any) -> None:
    """As `enable_group_offload`, of diffusers itself."""
    cpu = torch.device("cpu")
    pipeline.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


offloading = pytest.mark.parametrize("offload", [offload_layers, offload_models, offload_groups])


@pytest.mark.slow
@every
@offloading
def test_an_offloaded_model_answers_as_ever(make, offload, monkeypatch):
    plain = findnemo.load(make())
    model = findnemo.load(make())
    offload(model.pipeline)
    assert any(p.is_meta for p in model.denoiser.parameters()) is (offload is offload_layers)
    with monkeypatch.context() as patch:  # as if there were another device
        patch.setattr(type(model.pipeline), "_execution_device", "meta")
        assert model.device == torch.device("meta")
        assert plain.device == torch.device("cpu")
    assert model.device == torch.device("cpu")
    assert model.fingerprint == plain.fingerprint
    assert findnemo.score(model, PROMPT) == findnemo.score(plain, PROMPT)
    a, b = (findnemo.activations(m, PROMPT) for m in (model, plain))
    assert all(torch.equal(a[name], b[name]) for name in b)
    neurons = some(plain)
    with findnemo.deactivate(model, neurons), findnemo.deactivate(plain, neurons):
        images = [
            findnemo.generate(m, PROMPT, [0], ImageSettings(2, 3.0))[0].tobytes()
            for m in (model, plain)
        ]
    assert images[0] == images[1]


@pytest.mark.slow
@offloading
def test_a_search_on_an_offloaded_model_finds_the_same(offload):
    from _planting import CAPTION, HOLDOUT, planted

    model, neurons = planted(tiny_sdxl())
    calibration = findnemo.calibrate(model, HOLDOUT, settings=Settings(samples=4))
    offload(model.pipeline)
    assert findnemo.localize(model, CAPTION, calibration).neurons == neurons


@pytest.mark.slow
@every
@offloading
def test_offloaded_weights_are_not_edited_until_they_are_back(make, offload, tmp_path):
    model = findnemo.load(make())
    neurons = some(model)
    expected = findnemo.generate(
        findnemo.load(findnemo.prune(model, neurons)), PROMPT, [0], ImageSettings(2, 3.0)
    )
    offload(model.pipeline)
    for edit in (findnemo.prune, lambda *args: findnemo.save_lora(*args, tmp_path)):
        with pytest.raises(
            EditError, match=r"are offloaded.*call pipeline\.remove_all_hooks\(\) first"
        ):
            edit(model, neurons)
    if offload is offload_groups:  # which cannot be taken back
        return
    model.pipeline.remove_all_hooks()
    pruned = findnemo.load(findnemo.prune(model, neurons))
    assert (
        findnemo.generate(pruned, PROMPT, [0], ImageSettings(2, 3.0))[0].tobytes()
        == expected[0].tobytes()
    )


# fused and compiled -------------------------------------------------------------------------------


@of_clip
def test_fused_projections_are_refused_and_unfused_ones_taken(make):
    pipeline = make()
    model = findnemo.load(pipeline)
    expected = noise(model)
    pipeline.unet.fuse_qkv_projections()
    for ask in (
        lambda: findnemo.load(pipeline),
        lambda: findnemo.score(model, PROMPT),
        lambda: findnemo.prune(model, some(model)),
    ):
        with pytest.raises(EditError, match=r"are fused.*unfuse_qkv_projections\(\) first"):
            ask()
    pipeline.unet.unfuse_qkv_projections()
    torch.testing.assert_close(noise(findnemo.load(pipeline)), expected)


@every
@pytest.mark.parametrize("how", ["module", "in place", "a block"])
def test_a_compiled_denoiser_is_refused(make, how):
    pipeline = make()
    if how == "module":
        pipeline.unet = torch.compile(pipeline.unet)
    else:
        (pipeline.unet if how == "in place" else pipeline.unet.mid_block).compile()
    with pytest.raises(EditError, match=r"is compiled.*before torch\.compile"):
        findnemo.load(pipeline)


def test_every_pipeline_of_the_family_is_tried_here():
    kinds = {type(make()) for make in (tiny_turbo, tiny_sdxl, tiny_lcm, tiny_if)}
    assert kinds == {type(make()) for make in PIPELINES.values()}
