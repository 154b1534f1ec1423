"""Table 3: cosines of attention outputs against outputs taken from a pruned copy, by hand."""

import pytest
import torch

from findnemo import NeuronSet, prune
from findnemo.errors import EditError, InputError, NumericalError
from findnemo.models import Model
from findnemo.verification import attention_cosine

DOWN = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_v"
MID = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
NEURONS = NeuronSet({DOWN: [2, 7, 8], MID: [0, 3, 5]})
PROMPTS = ["a cat", "two dogs"]


def outputs(
    unet: torch.nn.Module, model: Model, prompt: str, sample: int, seed: int
) -> dict[str, torch.Tensor]:
    """What the last linear layer of each block gives for one latent."""
    found = {}
    for name in model.value_layers:
        last = unet.get_submodule(name.replace("to_v", "to_out.0"))
        last.register_forward_hook(
            lambda m, i, o, name=name: found.__setitem__(name, o[0].double())
        )
    with torch.no_grad():
        unet(
            model.noise(prompt, [sample], seed),
            981,
            encoder_hidden_states=model.encode([prompt]).tokens,
        )
    return found


def by_hand(model: Model, prompts: list[str], samples: int, seed: int) -> dict[str, float]:
    pruned = prune(model, NEURONS).unet
    cosines = {name: [] for name in model.value_layers}
    for prompt in prompts:
        for k in range(samples):
            on = outputs(model.denoiser, model, prompt, k, seed)
            off = outputs(pruned, model, prompt, k, seed)
            for name in on:
                cosines[name].append(
                    float((on[name] * off[name]).sum() / (on[name].norm() * off[name].norm()))
                )
    return {name: sum(values) / len(values) for name, values in cosines.items()}


def test_cosines_are_those_of_a_pruned_model(tiny):
    with torch.no_grad():
        for name, indices in NEURONS.layers.items():
            tiny.value_layers[name].weight[list(indices)] *= 20
    found = attention_cosine(tiny, PROMPTS, NEURONS, samples=2, seed=5)
    assert list(found) == list(tiny.value_layers)
    assert found == pytest.approx(by_hand(tiny, PROMPTS, 2, 5), abs=1e-5)
    assert found[next(iter(found))] == pytest.approx(
        1
    )  # before the first edited layer nothing changes
    assert found[DOWN] < 0.9
    assert found[MID] < 0.9
    assert found[list(found)[3]] < 1 - 1e-6  # not edited itself, but after one that is


def test_the_figure_does_not_depend_on_what_shares_it(tiny):
    both = attention_cosine(tiny, PROMPTS, NEURONS)
    alone = [attention_cosine(tiny, [p], NEURONS) for p in PROMPTS]
    assert both == pytest.approx({n: (alone[0][n] + alone[1][n]) / 2 for n in both}, abs=1e-9)
    assert attention_cosine(tiny, PROMPTS[::-1], NEURONS) == pytest.approx(both, abs=1e-9)


def test_nothing_is_left_on_the_model(tiny):
    before = sum(len(m._forward_hooks) for m in tiny.denoiser.modules())
    attention_cosine(tiny, PROMPTS, NEURONS)
    assert sum(len(m._forward_hooks) for m in tiny.denoiser.modules()) == before
    with pytest.raises(EditError, match="no neuron 99"):
        attention_cosine(tiny, PROMPTS, NeuronSet({MID: [99]}))
    assert sum(len(m._forward_hooks) for m in tiny.denoiser.modules()) == before


def test_without_neurons_nothing_changes(tiny):
    assert attention_cosine(tiny, PROMPTS, NeuronSet()) == pytest.approx(
        dict.fromkeys(tiny.value_layers, 1.0)
    )


@pytest.mark.parametrize(("prompts", "samples"), [([], 1), ("a cat", 1), (PROMPTS, 0)])
def test_bad_input_is_refused(tiny, prompts, samples):
    with pytest.raises(InputError, match="give a list of prompts"):
        attention_cosine(tiny, prompts, NEURONS, samples)


def test_nan_is_no_cosine(tiny):
    tiny.value_layers[MID].weight.data.fill_(torch.nan)
    with pytest.raises(NumericalError, match="NaN"):
        attention_cosine(tiny, PROMPTS, NEURONS)
