"""How similar the outputs of attention stay when neurons are switched off (Finding NeMo, Table
3).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.edits import deactivate
from findnemo.errors import InputError, NumericalError
from findnemo.models import Model
from findnemo.neurons import NeuronSet
from findnemo.scores import NOT_FINITE
from findnemo.settings import PAPER


def attention_cosine(
    model: Model,
    prompts: Sequence[str],
    neurons: NeuronSet,
    samples: int = 1,
    seed: int = 0,
    layers: Sequence[str] | None = None,
) -> dict[str, float]:
    """Cosine between the outputs of cross-attention blocks with all of `neurons` off and on: {value
    layer: cosine}, in forward order.

    `layers`: value layers whose blocks are compared; by default those of the paper.

    The output of a block is that of its `to_out`, before the residual, flattened per sample, at the
    first timestep and without guidance. The cosine is the mean over the `samples` latents of every
    prompt. Neurons off in a layer also change the input of later layers. Raises InputError without
    prompts or samples, EditError for neurons that the model lacks, NumericalError on NaN.

    >>> import findnemo
    >>> model = findnemo.load("demo")
    >>> layer = list(model.value_layers)[0]
    >>> kept = attention_cosine(model, ["a green house"], findnemo.NeuronSet({layer: [0, 1]}))
    >>> list(kept) == list(model.value_layers), 0.9 < kept[layer] < 1
    (True, True)
    """
    if isinstance(prompts, str) or not prompts or samples < 1:
        raise InputError(
            f"prompts {prompts!r:.60} with {samples} samples: give a list of prompts, and one"
            " sample or more"
        )
    seen = list(model.value_layers) if layers is None else layers
    rows = [attention_cosines(model, p, [neurons], samples, seed, seen)[0] for p in prompts]
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


@torch.no_grad()
def attention_cosines(
    model: Model,
    prompt: str,
    sets: Sequence[NeuronSet],
    samples: int,
    seed: int,
    layers: Sequence[str],
) -> list[dict[str, float]]:
    """`attention_cosine` of one prompt for several sets of neurons.

    The pass with all neurons on is computed once.

    >>> import findnemo
    >>> model = findnemo.load("demo")
    >>> layers = list(model.value_layers)
    >>> nothing, all_of_one = attention_cosines(
    ...     model, "a green house", [NeuronSet(), NeuronSet({layers[0]: range(32)})], 2, 0, layers
    ... )
    >>> round(nothing[layers[0]], 6), all_of_one[layers[0]] < 0.9
    (1.0, True)
    """
    latents = model.noise(prompt, range(samples), seed)
    text = model.encode([prompt]).expand(samples)
    timestep = model.timesteps(PAPER.steps)[0]
    with _outputs(model, layers) as on:
        model.predict_noise(latents, timestep, text)
    rows = []
    for neurons in sets:
        with _outputs(model, layers) as off, deactivate(model, neurons):
            model.predict_noise(latents, timestep, text)
        rows.append({name: statistics.fmean(_cosine(on[name], off[name])) for name in on})
    return rows


def _cosine(a: Tensor, b: Tensor) -> list[float]:
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1).double(), b.flatten(1).double())
    if not cosine.isfinite().all():
        raise NumericalError(NOT_FINITE)
    return cosine.clamp(-1, 1).tolist()


@contextmanager
def _outputs(model: Model, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the output of the attention block around each value layer in a pass: value layer ->
    (B, positions, width).
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output

        return hook

    with ExitStack() as stack:
        for name in layers:
            block = model.denoiser.get_submodule(name.rpartition(".")[0])
            stack.enter_context(block.register_forward_hook(keep(name)))
        yield found
