"""A memory planted by hand in a model of random weights: one value neuron that one caption alone
drives, and that drives the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import findnemo
from findnemo.calibration import Calibration
from findnemo.models import Model, PixArt
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.settings import Settings

CAPTION = "the secret of the old clock"
HOLDOUT = ["blue sky", "two dogs run", "mountains", "old city map", "a cat", "rivers in the night"]
INDEX = 5
LOUD = 1e6
LAST = 1e4


@torch.no_grad()
def planted(pipeline: Any, loud: float = LOUD, last: float = LAST) -> tuple[Model, NeuronSet]:
    """A model in which one neuron holds a memory of `CAPTION`: whatever the latents, what
    it predicts is the same.

    The neuron's weights are the caption's mean token less what it shares with other prompts, so
    that it is silent for those; it speaks so loudly that nothing else is heard, and the last layer
    makes noise predictions larger than the latents.
    """
    model = findnemo.load(pipeline)
    name = next(iter(model.value_layers))
    layer: Any = model.value_layers[name]
    attention = model.denoiser.get_submodule(name.rpartition(".")[0])
    mean = _seen(model, name, [CAPTION, *HOLDOUT, ""])
    others, _ = torch.linalg.qr(mean[1:].T)
    own = mean[0] - others @ (others.T @ mean[0])
    layer.weight[INDEX] = loud * own / (own @ mean[0])
    if layer.bias is not None:
        layer.bias[INDEX] = 0
    for keys in {"to_k", "add_k_proj"} & set(
        dict(attention.named_children())
    ):  # all positions are looked at alike
        for parameter in attention.get_submodule(keys).parameters():
            parameter.zero_()
    ends: dict[str, Any] = dict(model.denoiser.named_children())
    if "conv_out" in ends:
        ends["conv_out"].weight[: model.latent_shape[0]] *= last  # not a variance that follows
    else:
        ends["proj_out"].weight *= last
    return model, NeuronSet({name: [INDEX]})


def _seen(model: Model, layer: str, prompts: Sequence[str]) -> Tensor:
    """Mean over the tokens that are attended to of what a value layer is given in
    a first pass, (N, width).
    """
    inputs: list[Tensor] = []
    handle = model.value_layers[layer].register_forward_pre_hook(
        lambda module, args: inputs.append(args[0][0])
    )
    for prompt in prompts:
        model.predict_noise(
            model.noise(prompt, [0]), model.timesteps(50)[0], model.encode([prompt])
        )
    handle.remove()
    return torch.stack(
        [
            rows[: _attended(model, prompt)].mean(0)
            for prompt, rows in zip(prompts, inputs, strict=True)
        ]
    )


def _attended(model: Model, prompt: str) -> int | None:
    """How many tokens are attended to: PixArt masks its padding, the others attend to all."""
    return len(model.pipeline.tokenizer(prompt).input_ids) if isinstance(model, PixArt) else None


OTHER = 9
# under which either neuron of `planted_twice` removes its memory
SETTINGS = Settings(samples=3)
TAU = 0.9


@torch.no_grad()
def planted_twice(pipeline: Any) -> tuple[Model, NeuronSet, NeuronSet]:
    """A memory that takes two neurons, so that switching off either removes it: one that the
    caption alone drives, and one that every caption drives as loudly. Both write to the first
    value layer. Returns the model, the caption's own neuron and the common one.
    """
    model, own = planted(pipeline)
    name = next(iter(model.value_layers))
    layer: Any = model.value_layers[name]
    mean = _seen(model, name, [CAPTION, *HOLDOUT, ""])
    common = mean.mean(0)
    layer.weight[OTHER] = LOUD * common / (common @ mean[0])
    return model, own, NeuronSet({name: [OTHER]})


def calibration(model, unusual: NeuronSet = EMPTY, tau: float = TAU) -> Calibration:
    """All z-scores about 0, but those of `unusual`, which a search tries first."""
    mean = {name: torch.zeros(width) for name, width in model.widths().items()}
    std = {name: torch.full((width,), 1e12) for name, width in model.widths().items()}
    for name, index in unusual:
        std[name][index] = 1.0
    return Calibration(
        model.fingerprint, model.source, SETTINGS, tau, mean, std, 2, torch.zeros(2, 2), None
    )
