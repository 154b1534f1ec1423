"""The hook's outputs: a factor times what a layer gives, in any dtype and whatever it gives."""

import pytest
import torch
from _edited import alike, edited, noise
from _tiny_files import as_model, loud, tiny_family

import findnemo
from findnemo import deactivate, prune, save_lora
from findnemo.edits import scaled, times


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_factor_zero_is_off_whatever_the_neuron_gives(model, neurons, value):
    name = next(iter(neurons.layers))
    seen = []
    layer = model.value_layers[name]
    with torch.no_grad():
        layer.weight[1] = value
    with deactivate(model, neurons), deactivate(model, neurons, 0.0):
        handle = layer.register_forward_hook(lambda m, a, output: seen.append(output))
        assert noise(model).isfinite().all()
        handle.remove()
    assert not seen[0][..., 1:4].any()
    assert noise(findnemo.load(prune(model, neurons))).isfinite().all()


def test_in_half_precision_a_neuron_that_overflows_is_off(neurons):
    model = as_model(loud(tiny_family("sd1"))[0].to(dtype=torch.float16))
    with torch.no_grad():
        for name in neurons.layers:
            weight = model.value_layers[name].weight
            weight[1:4] = 6e4 * weight[1:4].sign()
    assert not noise(model).isfinite().all()
    off = edited(model, neurons)
    assert off.isfinite().all()
    assert alike(off.float(), noise(findnemo.load(prune(model, neurons))).float())


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("factor", [0.0, 0.3, -1.7])
def test_every_dtype_is_edited_within_its_rounding(neurons, dtype, factor, tmp_path):
    model = as_model(loud(tiny_family("sd1"))[0].to(dtype=dtype))
    wanted = edited(model, neurons, factor)
    plain = noise(model)
    assert wanted.dtype == dtype
    gap = (noise(findnemo.load(prune(model, neurons, factor))) - wanted).abs().max()
    assert gap <= 0.1 * (plain - wanted).abs().max()
    save_lora(model, neurons, tmp_path, factor)
    model.pipeline.load_lora_weights(tmp_path)
    assert (noise(model) - wanted).abs().max() <= 0.1 * (plain - wanted).abs().max()


def test_a_factor_is_not_rounded_to_the_layers_dtype():
    scale = torch.tensor([0.3, 1.0])
    model = as_model(loud(tiny_family("sd1"))[0].to(dtype=torch.bfloat16))
    name, layer = next(iter(model.value_layers.items()))
    x = torch.randn(1, 5, layer.in_features).to(torch.bfloat16)
    with scaled(model, {name: scale.repeat(8)}):
        output = layer(x)
    assert torch.equal(output, (layer(x).double() * scale.repeat(8)).to(torch.bfloat16))


def test_an_output_times_nothing_is_zero_even_where_there_is_no_number():
    output = torch.tensor([[torch.nan, torch.inf, 2.0], [-torch.inf, 1.0, torch.nan]])
    scaled = times(output, torch.tensor([0.0, 0.0, 0.5]))
    assert torch.equal(scaled[:, :2], torch.zeros(2, 2))
    assert scaled[0, 2] == 1
    assert scaled[1, 2].isnan()


def test_a_scale_that_is_learned_has_the_gradient_of_a_product():
    output = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    scale = torch.tensor([0.0, 1.0], requires_grad=True)
    times(output, scale).sum().backward()
    assert scale.grad.tolist() == [4.0, 7.0]
