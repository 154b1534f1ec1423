"""Algorithm 4 of Finding NeMo: drop what is not needed, layer by layer, then neuron by neuron."""

from __future__ import annotations

from collections.abc import Iterable

from findnemo.localization.replication import Replication
from findnemo.neurons import NeuronSet


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
