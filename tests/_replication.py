"""A model whose text matters, and sets of neurons of it that a search might ask about."""

from __future__ import annotations

import torch
from _tiny import tiny_pipeline

import findnemo
from findnemo import Model, NeuronSet

PROMPT = "a red apple"


def model_with_text(prediction: str) -> Model:
    """A small model whose value layers have weights of deviation 1."""
    pipeline = tiny_pipeline(prediction)
    generator = torch.Generator().manual_seed(1)
    for name, module in pipeline.unet.named_modules():
        if name.endswith("attn2.to_v"):
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator))
    return findnemo.load(pipeline)


def some_sets(model: Model) -> list[NeuronSet]:
    layers = list(model.value_layers)
    sets = [NeuronSet({name: [0, 3, 7]}) for name in layers]
    return [
        *sets,
        NeuronSet(),
        NeuronSet({layers[1]: [2], layers[5]: [4, 9]}),
        NeuronSet({n: range(w) for n, w in model.widths().items()}),
    ]
