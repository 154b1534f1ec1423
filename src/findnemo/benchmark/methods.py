"""The localization methods that are scored: each takes a task and says which neurons hold the memory, and what it spent.

A method is one function and one line in `METHODS`. Those that only rank neurons take as few of their ranking as it needs (the shortest prefix
that brings every replicating seed's same-seed similarity to tau), which knows nothing of the truth, and is the best that can be done for them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from findnemo.calibration import Calibration, activations
from findnemo.deltas import Probe
from findnemo.edits import layer_weights
from findnemo.localization import localize, out_of_distribution_neurons
from findnemo.localization.candidates import THETA
from findnemo.localization.minimal import sufficient_prefix
from findnemo.localization.replication import Replication, frozen
from findnemo.localization.search import descending
from findnemo.models import Model
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.scores import pairwise

ATTRIBUTION_SEEDS = 4
TINY = 1e-9


@dataclass(frozen=True)
class Task:
    """What a method is given: the model, a prompt, the calibration, and captions that are not memorized to compare with."""

    model: Model
    prompt: str
    calibration: Calibration
    reference: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """`neurons`: those said to hold the memory, none where the prompt is said not to be memorized. `evaluations`: U-Net samples spent."""

    neurons: NeuronSet
    evaluations: int = 0


Method = Callable[[Task], Answer]


def by_search(task: Task, search: str) -> Answer:
    """One of findnemo's own searches."""
    found = localize(task.model, task.prompt, task.calibration, search)
    return Answer(found.neurons, found.evaluations)


def by_z_score(task: Task) -> Answer:
    """Neurons with |z| over 5 (Algorithm 2 at its first trial), whatever they do."""
    absolute = activations(task.model, task.prompt)
    return Answer(out_of_distribution_neurons(task.calibration.z_scores(absolute), absolute, THETA, 0))


def by_top_k(task: Task) -> Answer:
    """The neurons of largest activation in their layer: the first of every layer, then the second of every layer, ..."""
    orders = {name: a.argsort(descending=True).tolist() for name, a in activations(task.model, task.prompt).items()}
    ranks = range(max(map(len, orders.values())))
    return _sufficient(task, [(name, order[k]) for k in ranks for name, order in orders.items() if k < len(order)])


def by_attribution(task: Task) -> Answer:
    """First-order attribution: how much the mean pairwise similarity of the seeds falls when a neuron is turned down, from its gradient."""
    return _sufficient(task, lambda replication: descending(attribution(replication, replication.kept[:ATTRIBUTION_SEEDS])))


def by_wanda(task: Task) -> Answer:
    """Wanda's scores |W| * ||A||_2 (Sun et al. 2024), summed over a neuron's weights, in units of its layer's mean."""
    scores = wanda_scores(task.model, [task.prompt])
    return _sufficient(task, descending({n: s / s.mean() for n, s in scores.items()}))


def by_conceptprune(task: Task) -> Answer:
    """The same against reference captions (Chavhan et al. 2024): the neurons whose score rises most above theirs."""
    own, usual = wanda_scores(task.model, [task.prompt]), wanda_scores(task.model, task.reference or [""])
    return _sufficient(task, descending({n: own[n] / usual[n].clamp(min=TINY) for n in own}))


def by_chance(task: Task) -> Answer:
    """As many neurons as findnemo's default search finds, drawn from all value neurons."""
    found = localize(task.model, task.prompt, task.calibration)
    every = [(name, i) for name, width in task.model.widths().items() for i in range(width)]
    return Answer(NeuronSet.of(random.Random(f"chance {task.prompt}").sample(every, len(found.neurons))))


METHODS: dict[str, Method] = {
    "findnemo": partial(by_search, search="gradient"),
    "halving": partial(by_search, search="halving"),
    "NeMo": partial(by_search, search="listing"),
    "z-score": by_z_score,
    "top-k": by_top_k,
    "attribution": by_attribution,
    "Wanda": by_wanda,
    "ConceptPrune": by_conceptprune,
    "random": by_chance,
}


def attribution(replication: Replication, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Gradient of the mean pairwise similarity of some seeds' noise differences with respect to every neuron's mask, at 1; layer -> (width,)."""
    probe = replication.probe
    if len(seeds) < 2:
        seeds = [*seeds, *(k for k in range(len(probe.samples)) if k not in seeds)][:2]
    widths = probe.model.widths()
    with torch.enable_grad(), frozen(probe.model.denoiser):
        scales = {name: torch.ones(1, width, device=probe.model.device, requires_grad=True) for name, width in widths.items()}
        table = pairwise(probe.one_pass(scales, seeds), probe.settings.similarity)
        first, second = torch.triu_indices(len(seeds), len(seeds), 1)
        mean = table[first, second].mean()
        gradients = torch.autograd.grad(mean, list(scales.values()))
    probe.evaluations += 2 * len(seeds)
    return {name: g[0].float().cpu() for name, g in zip(widths, gradients, strict=True)}


@torch.no_grad()
def wanda_scores(model: Model, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Sum over a value neuron's weights of |W_ij| * ||A_j||_2, A being all tokens of the prompts, per prompt; layer -> (width,)."""
    inputs = model.value_inputs(model.encode(list(prompts)))
    weights = {name: layer_weights(name, layer)[0] for name, layer in model.value_layers.items()}
    norms = {name: x.float().square().sum((0, 1)).div(len(prompts)).sqrt() for name, x in inputs.items()}
    return {name: (weight.float().abs() @ norms[name]).cpu() for name, weight in weights.items()}


def _sufficient(task: Task, ranking: Sequence[Neuron] | Callable[[Replication], Sequence[Neuron]]) -> Answer:
    """As few of a ranking as suffice on all replicating seeds, all of it if none do; nothing where no seed replicates."""
    tau = task.calibration.tau
    replication = Replication(Probe(task.model, task.prompt, task.calibration.settings, reuse=True), tau)
    if not replication.kept:
        return Answer(EMPTY, replication.probe.evaluations)
    order = ranking(replication) if callable(ranking) else ranking
    found = sufficient_prefix(order, lambda off: replication.confirmed(off, tau))
    return Answer(NeuronSet.of(order) if found is None else found, replication.probe.evaluations)
