"""Algorithms 2, 3 and 4 of Finding NeMo: neurons with out-of-distribution activations, the initial
selection, and its refinement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from findnemo.localization.replication import Replication
from findnemo.neurons import NeuronSet

THETA = 5.0
THETA_STEP = 0.25


@dataclass(frozen=True)
class Candidates:
    """What Algorithm 3 ends with: the neurons, the theta_act and k that gave them, and
    their same-seed similarity.
    """

    neurons: NeuronSet
    theta: float
    k: int
    similarity: float


def out_of_distribution_neurons(
    z: Mapping[str, Tensor], absolute: Mapping[str, Tensor], theta: float, k: int
) -> NeuronSet:
    """Algorithm 2: neurons with |z| > theta, and the k of every layer with the
    largest absolute activation.

    `z`, `absolute`: layer name -> (width,). Two-sided, as the main text and the released code have
    it.
    """
    chosen = {}
    for name, scores in z.items():
        unusual = torch.nonzero(scores.abs() > theta).flatten().tolist()
        strongest = absolute[name].topk(min(k, len(absolute[name]))).indices.tolist()
        chosen[name] = {*unusual, *strongest}
    return NeuronSet(chosen)


def trials(count: int) -> Iterator[tuple[float, int]]:
    """(theta_act, k) of Algorithm 3: theta from 5 down by .25, k from 0 up by 1.

    The listing makes 18 trials, the last with theta .75 and k 17; the released code stops after 16
    (theta 1.25, k 15).
    """
    return ((THETA - THETA_STEP * k, k) for k in range(count))


def initial_selection(
    replication: Replication, z: Mapping[str, Tensor], absolute: Mapping[str, Tensor]
) -> Candidates:
    """Algorithm 3: relax theta_act and k until deactivating the candidates makes every kept
    seed unlike itself (<= tau).
    """
    best: Candidates | None = None
    for theta, k in trials(replication.probe.settings.trials):
        neurons = out_of_distribution_neurons(z, absolute, theta, k)
        if best is not None and neurons == best.neurons:  # the same set has the same similarity
            best = replace(best, theta=theta, k=k)
        else:
            best = Candidates(neurons, theta, k, replication.similarity(neurons))
        if best.similarity <= replication.tau:
            break
    assert best is not None
    return best


def refine(replication: Replication, candidates: NeuronSet, tau_ref: float) -> NeuronSet:
    """Algorithm 4: greedy re-activation; whatever leaves the same-seed similarity at or
    below `tau_ref` is dropped.

    Layers run in forward order, in the released variant from last to first; and there the
    similarity has to stay below (`Settings.spared`).
    """
    order = list(replication.probe.model.value_layers)
    layers = [
        n
        for n in (reversed(order) if replication.probe.settings.reverse else order)
        if n in candidates.layers
    ]
    kept = _drop(replication, candidates, (candidates.layer(n) for n in layers), tau_ref)
    singles = (NeuronSet.of([(name, i)]) for name in layers for i in kept.layers.get(name, ()))
    return _drop(replication, kept, singles, tau_ref)


def _drop(
    replication: Replication, neurons: NeuronSet, parts: Iterable[NeuronSet], tau_ref: float
) -> NeuronSet:
    for part in list(parts):
        rest = neurons - part
        if replication.probe.settings.spared(replication.similarity(rest), tau_ref):
            neurons = rest
    return neurons
