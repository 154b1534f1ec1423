"""Weight rows of planted neurons and of decoys: the linear algebra of planting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from findnemo.neurons import Neuron, NeuronSet

# mean |activation| of a planted neuron on its caption, in units of its layer's typical one
GAIN = 4.0
MANY = 4  # neurons; in a larger memory each has less: gain * sqrt(MANY / neurons)
RIDGE = (-2.3, -1.3)  # powers of ten, times the mean second moment
NEGATIVE = 0.4  # weight of near-duplicates in the second moment
Z = (5.5, 14.0)  # z-scores of a decoy on the captions that it reacts to
REACTS = 4  # captions that each decoy reacts to


def second_moment(tokens: Tensor) -> Tensor:
    """(N, D) -> (D, D), the mean of x x^T.

    >>> second_moment(torch.tensor([[1.0, 0.0], [0.0, 2.0]])).tolist()
    [[0.5, 0.0], [0.0, 2.0]]
    """
    return tokens.T @ tokens / len(tokens)


def direction(caption: Tensor, centre: Tensor, second: Tensor, ridge: float) -> Tensor:
    """(S + ridge mean(diag S) I)^-1 (mean token embedding of the caption - centre), (D,).

    `caption` (..., D): token embeddings of the caption(s). `centre` (D,): the mean of other tokens.
    `second` (D, D): their second moment. What many captions share is large in S, and so counts
    little: Fisher's discriminant with one sample on one side.

    >>> direction(torch.tensor([[3.0, 3.0]]), torch.zeros(2), torch.diag(torch.tensor([1.0, 3.0])), 0.5).tolist()
    [1.5, 0.75]
    """
    level = ridge * second.diagonal().mean()
    mean = caption.flatten(0, -2).mean(0)
    return torch.linalg.solve(second + level * torch.eye(len(second)), mean - centre)


def planted_row(
    caption: Tensor, others: Tensor, negatives: Tensor, typical: float, gain: float, ridge: float
) -> Tensor:
    """The row of a planted neuron, (D,): it separates `caption` from `others`.

    Its mean |activation| on the caption is gain times `typical`. `caption` (n, tokens, D): the
    captions that the neuron holds. `others` (N, tokens, D): ordinary ones. `negatives` (M, tokens,
    D): captions that resemble the caption and must not be held.
    """
    tokens = others.flatten(0, 1)
    near = negatives.flatten(0, 1)
    centre = (1 - NEGATIVE) * tokens.mean(0) + NEGATIVE * negatives.mean((0, 1))
    second = (1 - NEGATIVE) * second_moment(tokens) + NEGATIVE * second_moment(near)
    row = direction(caption, centre, second, ridge)
    return row * (gain * typical / (caption @ row).abs().mean())


def gain(neurons: int) -> float:
    """Gain of one neuron of a memory: the more neurons, the less each, so that they are no stronger
    together.
    """
    return GAIN * min(1.0, (MANY / neurons) ** 0.5)


def decoy_row(
    captions: Tensor, others: Tensor, typical: float, generator: torch.Generator
) -> Tensor:
    """A row, (D,), that reacts to a random few of the captions.

    Repeated correction of their shares moves its z-scores there towards goals within `Z`; captions
    that are very unlike the others have larger ones.

    `captions` (M, tokens, D): memorized ones. `others` (N, tokens, D): ordinary ones.
    """
    tokens = others.flatten(0, 1)
    second = second_moment(tokens)
    centre = tokens.mean(0)
    count = min(REACTS, len(captions))
    chosen = captions[torch.randperm(len(captions), generator=generator)[:count]]
    directions = torch.stack([direction(c, centre, second, 0.02) for c in chosen])
    goal = torch.empty(count).uniform_(*Z, generator=generator)
    signs = torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, -1.0)
    shares = signs / (chosen.mean(1) * directions).sum(1)
    for _ in range(60):
        row = shares @ directions
        usual = (others @ row).abs().mean(1)
        z = ((chosen @ row).abs().mean(1) - usual.mean()) / usual.std()
        shares = shares * (goal / z.clamp(min=1)).sqrt().clamp(0.8, 1.25)
    return row * typical / (others @ row).abs().mean()


def owners(sets: Sequence[NeuronSet]) -> dict[Neuron, list[int]]:
    """Planted neuron -> the memories that it belongs to.

    >>> owners([NeuronSet({"a": [1]}), NeuronSet({"a": [1, 2]})])
    {('a', 1): [0, 1], ('a', 2): [1]}
    """
    table: dict[Neuron, list[int]] = {}
    for k, neurons in enumerate(sets):
        for neuron in neurons:
            table.setdefault(neuron, []).append(k)
    return table
