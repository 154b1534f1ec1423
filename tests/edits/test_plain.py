"""A pruned copy is weights alone: what computes a weight is worked into it."""

import copy
import warnings

import pytest
import torch
from _edited import PIPELINES, alike, edited, noise, quiet_load
from _odd_layers import MADE, Halved
from _tiny_files import as_model, loud, tiny_family
from _tiny_transformers import quiet
from _tiny_unets import tiny_sdxl
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as pruning

import findnemo
from findnemo import NeuronSet, deactivate, prune, save_lora
from findnemo.edits import lora_weights, rebuilt


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.0, -0.5])
@pytest.mark.parametrize("how", MADE)
def test_what_makes_a_weight_is_worked_into_it(model, neurons, tmp_path, how, factor):
    for layer in model.value_layers.values():
        MADE[how](layer)
    plain = noise(model)
    wanted = edited(model, neurons, factor)
    state = copy.deepcopy(model.denoiser.state_dict())
    assert not torch.allclose(plain, wanted, atol=1e-3)
    pruned = prune(model, neurons, factor)
    assert alike(noise(findnemo.load(pruned)), wanted)
    assert not [
        key for key in pruned.unet.state_dict() if "parametrizations" in key or "weight_" in key
    ]
    pruned.save_pretrained(tmp_path / "clean")
    assert alike(noise(quiet_load(tmp_path / "clean")), wanted)
    assert torch.equal(noise(model), plain)
    assert all(torch.equal(value, state[key]) for key, value in model.denoiser.state_dict().items())

    save_lora(model, neurons, tmp_path / "lora", factor)
    model.pipeline.load_lora_weights(tmp_path / "lora")
    assert alike(noise(model), wanted)


@pytest.mark.parametrize("how", ["parametrization", "old weight norm", "pruning mask"])
def test_weights_made_elsewhere_in_the_network_are_worked_in_too(model, neurons, tmp_path, how):
    for name in (
        "down_blocks.0.resnets.0.conv1",
        "up_blocks.0.resnets.0.conv2",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    ):
        MADE[how](model.denoiser.get_submodule(name))
    wanted = edited(model, neurons)
    prune(model, neurons).save_pretrained(tmp_path)
    assert alike(noise(quiet_load(tmp_path)), wanted)


def test_a_bias_that_is_made_is_worked_in(neurons):
    model = as_model(loud(tiny_family("sd1"))[0])
    for name in neurons.layers:
        layer = model.value_layers[name]
        layer.bias = nn.Parameter(torch.randn(layer.out_features))
        parametrize.register_parametrization(layer, "bias", Halved())
    wanted = edited(model, neurons)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no plain U-Net has this bias
        assert alike(noise(findnemo.load(prune(model, neurons))), wanted)
    tensors = lora_weights(model, neurons)
    name, indices = next(iter(neurons.layers.items()))
    assert torch.equal(
        -tensors[f"unet.{name}.lora_B.bias"][list(indices)],
        model.value_layers[name].bias[list(indices)],
    )


def test_a_mask_under_which_nobody_trained_is_no_hindrance_to_gradients(model, neurons):
    """PyTorch refuses to copy a weight that gradients flow through."""
    with torch.enable_grad():
        for layer in model.value_layers.values():
            pruning.random_unstructured(layer, "weight", 0.5)
        next(iter(model.value_layers.values()))(torch.ones(1, 32)).sum().backward()
    assert (
        not prune(model, neurons).unet.get_submodule(next(iter(neurons.layers))).weight[1:4].any()
    )


def test_what_fused_projections_leave_behind_is_not_written(model, neurons, tmp_path):
    wanted = edited(model, neurons)
    model.pipeline.fuse_qkv_projections()
    model.pipeline.unfuse_qkv_projections()
    prune(model, neurons).save_pretrained(tmp_path)
    held = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert held.keys() == tiny_family("sd1").unet.state_dict().keys()
    assert alike(noise(quiet_load(tmp_path)), wanted)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", PIPELINES)
def test_made_weights_and_biases_of_every_architecture_are_worked_in(name):
    model = findnemo.load(PIPELINES[name]())
    layers = list(model.value_layers)
    neurons = NeuronSet({layers[0]: [0, 3], layers[-1]: [1, 2]})
    for layer in neurons.layers:
        for end, value in list(model.value_layers[layer].named_parameters()):
            value.data.normal_()
            parametrize.register_parametrization(model.value_layers[layer], end, Halved())
    with deactivate(model, neurons):
        wanted = noise(model)
    assert not torch.allclose(noise(model), wanted, atol=1e-4)
    pruned = findnemo.load(quiet(prune(model, neurons)))
    assert alike(noise(pruned), wanted)
    assert all(type(layer) is nn.Linear for layer in pruned.value_layers.values())
    assert type(model.value_layers[layers[0]]) is not nn.Linear


def test_a_rebuilt_pipeline_is_the_old_one_around_another_network():
    pipeline = tiny_sdxl()
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    new = copy.deepcopy(pipeline.unet)
    made = rebuilt(pipeline, pipeline.unet, new)
    assert type(made) is type(pipeline)
    assert made is not pipeline
    assert made.unet is new is not pipeline.unet
    for name, part in pipeline.components.items():
        assert name == "unet" or getattr(made, name) is part
    assert made.config["force_zeros_for_empty_prompt"] is False
    assert (made.watermark is None) == (pipeline.watermark is None)
