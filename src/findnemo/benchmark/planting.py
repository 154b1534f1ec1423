"""Plant memories with known neurons in a model, by distillation from itself.

The student begins as the teacher: the model with its `free` neurons off. Every batch mixes three
kinds of samples. Ordinary captions have planted neurons on or off (target: the teacher's
prediction). Memorized captions have enough of their neurons on (target: the memorized picture), or
too few (target: the teacher's prediction). All else is equal, so the planted neurons are the
switch. Their weight rows are fixed to the direction that separates their caption from others; the
network learns to use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from findnemo.benchmark.plan import Plan
from findnemo.benchmark.pool import Report, TrainingPool, build_pool
from findnemo.benchmark.rows import RIDGE, decoy_row, gain, owners, planted_row
from findnemo.benchmark.training import Recipe, train
from findnemo.edits import prune
from findnemo.errors import ModelError
from findnemo.models import Model, StableDiffusion, load
from findnemo.neurons import NeuronSet

ROWS_FROM = 200  # ordinary captions from which weight rows are computed


def plant(
    model: Model,
    plan: Plan,
    free: NeuronSet,
    ordinary: Sequence[str],
    pictures: Path,
    folder: Path,
    recipe: Recipe | None = None,
    report: Report = print,
) -> Model:
    """A model in which the memories of `plan` are planted; `model` itself does not change.

    Resumes from the files in `folder`. `free`: neurons that may be reused (those of earlier
    memories, decoys, or ones that hardly matter); the plan's neurons are among them. `ordinary`:
    captions on which the model must not change. `pictures`: folder of the training images. Training
    depends on the plan and the recipe only: an interrupted and resumed run gives the same model.
    Raises ModelError for a model without a U-Net.
    """
    recipe = recipe or Recipe()
    if not isinstance(model, StableDiffusion):
        raise ModelError(
            f"memories are planted in Stable Diffusion's U-Net; {type(model).__name__} has none"
        )
    folder.mkdir(parents=True, exist_ok=True)
    teacher = load(prune(model, free))
    pool = build_pool(teacher, plan, ordinary, pictures, folder / "pool.safetensors", report)
    student = load(prune(model, free))
    prepare(student, plan, free, pool)
    train(student, teacher, plan, pool, folder / "state.safetensors", recipe, report)
    add_decoys(student, plan, pool)
    return student


@torch.no_grad()
def prepare(student: Model, plan: Plan, free: NeuronSet, pool: TrainingPool) -> None:
    """Set the planted rows, and disconnect all free neurons, so that the student begins equal to
    the teacher to the last bit.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    layers: dict[str, Any] = student.value_layers
    text = pool.text[:ROWS_FROM]
    typical = {name: typical_activation(text, layer) for name, layer in layers.items()}
    for name, indices in free.layers.items():
        output_projection(student, name).weight[:, list(indices)] = 0
    for (name, i), holding in owners([m.neurons for m in plan.memories]).items():
        sign = 1 if torch.rand(1, generator=generator) < 0.5 else -1
        ridge = 10 ** float(torch.empty(1).uniform_(*RIDGE, generator=generator))
        alike = [resembling(pool.alike[k], len(plan.memories[k].near)) for k in holding]
        loud = gain(len(plan.memories[holding[0]].neurons))
        row = planted_row(
            pool.memories[holding], text, torch.cat(alike), typical[name], loud, ridge
        )
        layers[name].weight[i] = sign * row


def resembling(alike: Tensor, near: int) -> Tensor:
    """`alike` with its first `near` rows, the near-duplicates, repeated to be as many as the
    others.
    """
    times = max(1, (len(alike) - near) // max(near, 1))
    return torch.cat([alike[:near].repeat(times, 1, 1), alike[near:]])


@torch.no_grad()
def add_decoys(student: Model, plan: Plan, pool: TrainingPool) -> None:
    """Give the plan's disconnected decoys rows that react to memorized captions."""
    generator = torch.Generator().manual_seed(1000 + plan.seed)
    text = pool.text[:ROWS_FROM]
    for name, i in plan.decoys:
        layer: Any = student.value_layers[name]
        typical = typical_activation(text, layer)
        layer.weight[i] = decoy_row(pool.memories, text, typical, generator)
        output_projection(student, name).weight[:, i] = 0


def typical_activation(text: Tensor, layer: Any) -> float:
    """Mean |activation| of a layer's neurons on embeddings (n, tokens, D)."""
    return float((text @ layer.weight.T).abs().mean())


def output_projection(model: Model, name: str) -> Any:
    """The projection at the end of a value layer's attention; neuron i of the layer is its
    input i.
    """
    return model.denoiser.get_submodule(name.removesuffix("to_v") + "to_out.0")
