"""Work of several captions in shared passes."""

from __future__ import annotations

from functools import partial

import torch
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_flux, tiny_pixart, tiny_sd3
from _tiny_unets import tiny_if, tiny_lcm, tiny_sdxl

from findnemo.edits import masks
from findnemo.neurons import NeuronSet
from findnemo.passes import Denoising, Probe, likeness, side_by_side
from findnemo.settings import Settings


def attempts(model, functions):
    """What each gives or raises, in company."""

    def attempt(function):
        try:
            return function()
        except Exception as problem:
            return problem

    return side_by_side(model, [partial(attempt, function) for function in functions])


CAPTIONS = ("a red fox", "a grey owl", "the sea")

SEEDS = Settings(samples=2)

MODELS = {
    "sd": tiny_pipeline,
    "sdxl": tiny_sdxl,
    "if": tiny_if,
    "lcm": tiny_lcm,
    "pixart": tiny_pixart,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
}


def neurons_of(model, k):
    layers = sorted(model.widths("all").items())
    layer, width = layers[k % len(layers)]
    return NeuronSet({layer: range(width // 2)})


def pictures(model, caption, steps, k, samples=(0, 1), guidance=3.0):
    """Untouched and edited pictures of a caption, and a gradient: what a search asks."""
    denoising = Denoising(model, caption, 3, guidance)
    path = denoising.run(samples, steps)
    off = denoising.run(samples, steps, masks(model, [neurons_of(model, k)]))
    levels = {name: torch.full((1, width), 0.8) for name, width in model.widths("all").items()}

    def value(image, rows):
        return likeness(image, path.image[rows]).diagonal()

    slopes = denoising.gradients(path.latents[-1], path.timesteps[-1], levels, value)
    delta = Probe(model, caption, SEEDS).deltas(neurons_of(model, k))
    return path.image, off.image, torch.cat(list(slopes.values())), delta
