"""The localization methods that are scored: each takes a task, and says what holds the memory and
what it spent.

A method is one function and one line in `METHODS`. Methods that only rank neurons return the
shortest prefix of their ranking that passes the task's test (`Sight.gone`). The test knows nothing
of the truth, and this is the best that such a method can do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from findnemo import demo
from findnemo.benchmark.learned_mask import learned_mask
from findnemo.calibration import Calibration, activations, calibrate
from findnemo.edits import deactivate, layer_weights
from findnemo.images import ImageSettings
from findnemo.localization import DEFAULT, TrajectorySearch, localize, out_of_distribution_neurons
from findnemo.localization.listing import THETA
from findnemo.localization.minimal import sufficient_prefix
from findnemo.localization.replication import Replication
from findnemo.localization.search import descending
from findnemo.localization.trajectory import COPIES, SAME, WHOLE, Copies, few_steps, prices
from findnemo.mitigation import Case
from findnemo.mitigation.pruning import FIRST, weights_to_zero, zeroed
from findnemo.models import Model
from findnemo.models.modules import applied
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.passes import Denoising, Probe, spend, spending
from findnemo.passes.gradients import frozen
from findnemo.scores import pairwise

ATTRIBUTION_SEEDS = 4
REFERENCE = 4  # captions with which ConceptPrune compares
HOLDOUT = 200  # captions that calibrate the detection of the default search
FPR = 0.05  # rate of false alarms of that detection
TINY = 1e-9


@dataclass(frozen=True)
class Task:
    """The input of a method: the model, a prompt, the calibration, and captions that are not
    memorized.

    `scope`: the value layers in which neurons may be ("paper", "all"). `pictures`: whether the
    memory must disappear from pictures, made with `images`, or from the noise differences of one
    step.
    """

    model: Model
    prompt: str
    calibration: Calibration
    reference: tuple[str, ...] = ()
    scope: str = "paper"
    pictures: bool = False
    images: ImageSettings = field(default_factory=demo.image_settings)


@dataclass(frozen=True)
class Answer:
    """The output of a method.

    `neurons`: those that hold the memory, none if the prompt is not memorized. `evaluations`: U-Net
    samples spent. `edit`: makes the context of an edit other than neurons switched off.

    >>> Answer(NeuronSet({"a": [1, 2]}), evaluations=20).size
    2
    """

    neurons: NeuronSet = EMPTY
    evaluations: int = 0
    edit: Callable[[], AbstractContextManager[None]] | None = None

    @property
    def size(self) -> int | None:
        """Number of neurons; None if the edit is no set of neurons."""
        return len(self.neurons) if self.edit is None else None

    def applied(self, model: Model) -> AbstractContextManager[None]:
        """The context in which the model has the answer's edit."""
        return deactivate(model, self.neurons) if self.edit is None else self.edit()


Method = Callable[[Task], Answer]


class Sight:
    """What a method may see of its task: noise differences of the seeds that replicate, and
    denoised pictures.
    """

    def __init__(self, task: Task):
        self.task = task
        probe = Probe(task.model, task.prompt, task.calibration.settings, reuse=True)
        self.replication = Replication(probe, task.calibration.tau)

    @cached_property
    def copies(self) -> Copies:
        task = self.task
        guidance = task.images.guidance
        seed = task.calibration.settings.seed
        denoising = Denoising(task.model, task.prompt, COPIES + WHOLE, guidance, seed)
        return Copies(denoising, few_steps(task.images.steps), task.images.steps)

    @property
    def memorized(self) -> bool:
        """Whether a seed replicates and, if pictures count, two pictures are similar."""
        return bool(self.replication.kept) and (not self.task.pictures or self.copies.has_copies)

    def gone(self, neurons: NeuronSet) -> bool:
        """Whether a set removes the memory: no picture is a copy (`Copies.gone`), or no replicating
        seed's same-seed similarity exceeds tau.
        """
        if self.task.pictures:
            return self.copies.gone(neurons) is None
        return self.replication.confirm(neurons, self.task.calibration.tau)


def by_search(task: Task, search: str) -> Answer:
    """One of findnemo's own searches.

    As in an audit, nothing is switched off for a caption over tau whose pictures are no copies.
    """
    model = task.model
    if search == DEFAULT:
        calibration = _as_audited(model, model.fingerprint)
        whole = TrajectorySearch(task.images, task.scope)
        found = localize(model, task.prompt, calibration, whole)
    else:
        found = localize(model, task.prompt, task.calibration, search)
    suspected = found.copy_before is not None and found.copy_before < SAME
    return Answer(EMPTY if suspected else found.neurons, found.evaluations)


@lru_cache(maxsize=2)
def _as_audited(model: Model, fingerprint: str) -> Calibration:
    """A calibration that detects as `findnemo demo` does: by the mean of pairs, at 5 % false
    alarms.
    """
    return calibrate(model, demo.holdout()[:HOLDOUT], "findnemo", FPR)


def by_z_score(task: Task) -> Answer:
    """Neurons with |z| over 5 (Algorithm 2 at its first trial), whatever they do."""
    absolute = activations(task.model, task.prompt)
    z = task.calibration.z_scores(absolute)
    return Answer(out_of_distribution_neurons(z, absolute, THETA, 0))


def by_top_k(task: Task) -> Answer:
    """The neurons of largest activation in their layer: the first of every layer, then the
    second of every layer, ...
    """
    layers = task.model.layers_of(task.scope)
    inputs = _inputs(task.model, [task.prompt], layers)
    strength = {name: applied(layers[name], x).abs().mean((0, 1)) for name, x in inputs.items()}
    orders = [
        [(name, i) for i in values.argsort(descending=True).tolist()]
        for name, values in strength.items()
    ]
    ranking = [neuron for rank in zip_longest(*orders) for neuron in rank if neuron is not None]
    return sufficient(task, lambda _: ranking)


def by_attribution(task: Task) -> Answer:
    """First-order attribution: how much the mean pairwise similarity of the seeds falls when a
    neuron is turned down, by its gradient.
    """

    def ranking(sight: Sight) -> list[Neuron]:
        replication = sight.replication
        widths = task.model.widths(task.scope)
        return descending(attribution(replication, replication.kept[:ATTRIBUTION_SEEDS], widths))

    return sufficient(task, ranking)


def by_value_wanda(task: Task) -> Answer:
    """Wanda's scores |W| * ||A||_2 (Sun et al. 2024), summed over the weights of a value neuron and
    divided by its layer's mean.
    """
    scores = wanda_scores(task.model, [task.prompt], task.scope)
    return sufficient(task, lambda _: descending({n: s / s.mean() for n, s in scores.items()}))


def by_value_conceptprune(task: Task) -> Answer:
    """Wanda's scores compared with those on reference captions, as in Chavhan et al. 2024: the
    value neurons whose score rises most.
    """
    own = wanda_scores(task.model, [task.prompt], task.scope)
    usual = wanda_scores(task.model, task.reference or [""], task.scope)
    ratio = {name: own[name] / usual[name].clamp(min=TINY) for name in own}
    return sufficient(task, lambda _: descending(ratio))


def by_pruning(task: Task, compared: bool) -> Answer:
    """Weights of the feed-forward layers set to zero, as by the authors of Wanda, or `compared`
    with reference captions as by those of ConceptPrune, at their settings (`mitigation.pruning`).
    """
    reference = task.reference[:REFERENCE] if compared else ()
    masks = weights_to_zero(task.model, Case(task.prompt, reference=reference), compared)
    others = max(len(reference), 1) if compared else 0  # where none is given, the empty one
    return Answer(evaluations=2 * FIRST * (1 + others), edit=partial(zeroed, masks))


def by_learned_mask(task: Task) -> Answer:
    """A sparse mask over all value neurons (`learned_mask`): those turned down furthest come
    first.
    """

    def ranking(sight: Sight) -> list[Neuron]:
        widths = task.model.widths(task.scope)
        ordinary = task.calibration.ordinary
        steps = few_steps(task.images.steps)
        price = prices(task.model, ordinary, widths, steps, task.images.guidance)
        return descending(learned_mask(sight.copies, price))

    return sufficient(task, ranking)


def by_chance(task: Task) -> Answer:
    """As many neurons as findnemo's default search finds, drawn from all value neurons."""
    found = by_search(task, "trajectory")
    widths = task.model.widths(task.scope)
    every = [(name, i) for name, width in widths.items() for i in range(width)]
    rng = random.Random(f"chance {task.prompt}")
    return Answer(NeuronSet.of(rng.sample(every, len(found.neurons))))


METHODS: dict[str, Method] = {
    "findnemo": partial(by_search, search="trajectory"),
    "gradient": partial(by_search, search="gradient"),
    "NeMo": partial(by_search, search="listing"),
    "z-score": by_z_score,
    "top-k": by_top_k,
    "attribution": by_attribution,
    "learned mask": by_learned_mask,
    "Wanda (value neurons)": by_value_wanda,
    "ConceptPrune (value neurons)": by_value_conceptprune,
    "Wanda": partial(by_pruning, compared=False),
    "ConceptPrune": partial(by_pruning, compared=True),
    "random": by_chance,
}


def attribution(
    replication: Replication, seeds: Sequence[int], widths: Mapping[str, int]
) -> dict[str, Tensor]:
    """Gradient of the mean pairwise similarity of some seeds' noise differences, with respect to
    the mask of every neuron in layers of `widths`, at 1; layer -> (width,).
    """
    probe = replication.probe
    if len(seeds) < 2:
        seeds = [*seeds, *(k for k in range(len(probe.samples)) if k not in seeds)][:2]
    with torch.enable_grad(), frozen(probe.model.denoiser):
        scales = {
            name: torch.ones(1, width, device=probe.model.device, requires_grad=True)
            for name, width in widths.items()
        }
        table = pairwise(probe.one_pass(scales, seeds), probe.settings.similarity)
        first, second = torch.triu_indices(len(seeds), len(seeds), 1)
        mean = table[first, second].mean()
        gradients = torch.autograd.grad(mean, list(scales.values()))
    spend(2 * len(seeds))
    return {name: g[0].float().cpu() for name, g in zip(widths, gradients, strict=True)}


@torch.no_grad()
def wanda_scores(model: Model, prompts: Sequence[str], scope: str = "paper") -> dict[str, Tensor]:
    """Sum over the weights of a value neuron of |W_ij| * ||A_j||_2, with A all tokens of the
    prompts, per prompt; layer -> (width,).
    """
    layers = model.layers_of(scope)
    scores = {}
    for name, x in _inputs(model, prompts, layers).items():
        weight, _ = layer_weights(name, layers[name])
        norms = x.square().sum((0, 1)).div(len(prompts)).sqrt()
        scores[name] = (weight.float().abs() @ norms).cpu()
    return scores


def _inputs(model: Model, prompts: Sequence[str], layers: Mapping[str, Any]) -> dict[str, Tensor]:
    """Inputs of value layers for prompts, (N, tokens, D).

    All cross-attentions of a U-Net have the same input.
    """
    inputs = model.value_inputs(model.encode(list(prompts)))
    common = next(iter(inputs.values()))
    return {name: inputs.get(name, common).float() for name in layers}


def sufficient(task: Task, ranking: Callable[[Sight], Sequence[Neuron]]) -> Answer:
    """The shortest prefix of a ranking that passes the task's test, or all of it; nothing if there
    is no memory.
    """
    with spending() as spent:
        sight = Sight(task)
        found: NeuronSet | None = EMPTY
        if sight.memorized:
            order = ranking(sight)
            found = sufficient_prefix(order, sight.gone)
    return Answer(NeuronSet.of(order) if found is None else found, spent.evaluations)
