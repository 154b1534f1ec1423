"""What captions do to value neurons, by the text encoder alone, without a pass of the denoiser.

Two scores put captions in order: `Unusual`, how unlike ordinary captions one is, and `Drives`, how
strongly it drives the neurons of known memories. Both use the tokens of the caption itself, without
padding. If a text encoder is causal (CLIP's is), tokens do not depend on what follows them, so
sequences are cut to their length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from findnemo.errors import InputError, MismatchError, ModelError
from findnemo.models import Model, Text
from findnemo.models.modules import applied
from findnemo.models.stable_diffusion import StableDiffusion
from findnemo.neurons import NeuronSet

TOKENS = 2048  # tokens in a batch
SHRINK = 0.1  # shrinkage of the covariance of activations (Ledoit and Wolf 2004)
LARGEST = 1e3  # z-scores are clipped to this
HALF = 0.5  # share of the memory's own effect from which a neuron counts as driven

Indices = Mapping[str, Sequence[int] | None]


class Activations:
    """|activation| of value neurons on the tokens of captions.

    `neurons`: layer -> indices, None for all of it. Raises ModelError for a model whose value
    layers see more than the caption, MismatchError for a layer that it does not have.

    >>> import findnemo
    >>> model = findnemo.load("demo")
    >>> layers = dict.fromkeys(model.value_layers)
    >>> Activations(model, layers)(["a red star", "a blue ring at night"], "largest").shape
    torch.Size([2, 480])
    """

    def __init__(self, model: Model, neurons: Indices):
        require_text_alone(model)
        layers = model.layers_of("all")
        for name, indices in neurons.items():
            if name not in layers or max(indices or (0,)) >= model.widths("all")[name]:
                raise MismatchError(f"the model has no neurons {name}: {list(indices or ())[-1:]}")
        self.model = model
        self.neurons = neurons
        self.layers = {name: layers[name] for name in neurons}
        self.cuts = is_causal(model)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], pool: str) -> Tensor:
        """(captions, neurons), float32 on the CPU: the "mean" over a caption's tokens, or the
        "largest" of them.
        """
        rows: dict[int, Tensor] = {}
        with self.model.steady():
            for members, text, own in self._batches(captions):
                inputs = self.model.value_inputs(text)
                same = next(iter(inputs.values()))
                parts = [
                    self._pooled(name, inputs.get(name, same), own, pool) for name in self.neurons
                ]
                rows |= dict(zip(members, torch.cat(parts, 1).cpu(), strict=True))
        return torch.stack([rows[k] for k in range(len(captions))])

    def _pooled(self, name: str, inputs: Tensor, own: Tensor, pool: str) -> Tensor:
        layer = self.layers[name]
        indices = self.neurons[name]
        if (
            type(layer) is torch.nn.Linear
            and indices is not None
            and inputs.device == layer.weight.device
        ):
            bias = None if layer.bias is None else layer.bias[list(indices)]
            values = torch.nn.functional.linear(inputs, layer.weight[list(indices)], bias)
        else:
            values = applied(layer, inputs)
            values = values if indices is None else values[..., list(indices)]
        sizes = values.float().abs() * own[..., None]
        return sizes.amax(1) if pool == "largest" else sizes.sum(1) / own.sum(1, keepdim=True)

    def _batches(self, captions: Sequence[str]) -> Iterator[tuple[list[int], Text, Tensor]]:
        """Positions of captions of similar length, their texts, and which tokens are their own (1
        or 0).
        """
        if not self.cuts:
            for first in range(0, len(captions), 32):
                text = self.model.encode(captions[first : first + 32])
                yield list(range(first, first + len(text))), text, _all_tokens(text)
            return
        ids = token_ids(self.model, captions)
        order = sorted(range(len(captions)), key=lambda k: len(ids[k]))
        while order:
            longest = len(ids[order[min(len(order), TOKENS // len(ids[order[0]])) - 1]])
            many = max(1, TOKENS // longest)
            members, order = order[:many], order[many:]
            text, own = encode_cut(self.model, [ids[k] for k in members])
            yield members, text, own


def require_text_alone(model: Model) -> None:
    """Raises ModelError for a model whose value layers see more than the caption."""
    if type(model).value_activations is not Model.value_activations:
        raise ModelError(
            f"the value layers of a {type(model.pipeline).__name__} see the image too: captions"
            " cannot be put in order by their text alone; leave --like and --budget out"
        )


def _all_tokens(text: Text) -> Tensor:
    mask = torch.ones(text.tokens.shape[:2]) if text.mask is None else text.mask
    return mask.to(text.tokens.device, torch.float32)


def token_ids(model: Model, captions: Sequence[str]) -> list[list[int]]:
    """The tokens of captions with start and end, as the pipeline reads them, without padding."""
    tokenizer: Any = model.pipeline.tokenizer
    read = [model.prepared(caption, tokenizer) for caption in captions]
    ids: list[list[int]] = tokenizer(
        read, truncation=True, max_length=tokenizer.model_max_length
    ).input_ids
    return ids


def encode_cut(model: Model, ids: Sequence[Sequence[int]]) -> tuple[Text, Tensor]:
    """Captions encoded without padding, and which tokens are their own, without the start: (N,
    length) of 1 and 0.

    The length is that of the longest caption.
    """
    encoder: Any = model.pipeline.text_encoder
    longest = max(map(len, ids))
    padded = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in ids])
    tokens = encoder(padded.to(model.device))[0].to(model.dtype)
    own = torch.arange(longest)[None] < torch.tensor([len(row) for row in ids])[:, None]
    own[:, : model.starts] = False
    return Text(tokens), own.float().to(tokens.device)


def is_causal(model: Model) -> bool:
    """Whether the padding after a caption leaves its tokens' embeddings unchanged, tried on two
    captions of different length.
    """
    if type(model) is not StableDiffusion:
        return False
    captions = ["a cat", "a painting of two dogs in the snow at night"]
    with model.steady(), torch.no_grad():
        text, own = encode_cut(model, token_ids(model, captions))
    whole = model.encode(captions).tokens[:, : own.shape[1]]
    gap = (text.tokens - whole).abs().amax(2) * own
    return bool(gap.max() <= 1e-2 * whole.abs().max())


class Unusual:
    """How unlike ordinary captions a caption is to value neurons: the squared Mahalanobis distance
    of its activations, for each neuron the largest over tokens.

    `ordinary`: captions that are not memorized, of the same kind as the table. Memories from
    training mostly have larger distances than other captions; so have all captions with rare words
    (docs/scaling.md). Raises InputError for fewer than two captions.

    >>> import findnemo
    >>> model = findnemo.load("demo")
    >>> unusual = Unusual(model, findnemo.demo.holdout()[:50])
    >>> known, other = unusual([findnemo.demo.memorized()[0].text, findnemo.demo.unrelated()[0]])
    >>> bool(known > other)
    True
    """

    def __init__(self, model: Model, ordinary: Sequence[str]):
        require_ordinary(ordinary)
        self.activations = Activations(model, dict.fromkeys(model.value_layers))
        rows = self.activations(ordinary, "largest").double()
        self.mean, self.std = rows.mean(0), rows.std(0)
        self.ordinary = self._z(rows)
        ridge = SHRINK / (1 - SHRINK) * len(rows)
        within = self.ordinary @ self.ordinary.T
        self.inverse = torch.linalg.inv(within + ridge * torch.eye(len(rows), dtype=within.dtype))

    def _z(self, rows: Tensor) -> Tensor:
        return _z_scores(rows, self.mean, self.std)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(captions,), float64."""
        z = self._z(self.activations(captions, "largest").double())
        across = z @ self.ordinary.T  # Woodbury: (1 - a) C + a I of 200 rows, inverted
        distance: Tensor = (z.square().sum(1) - ((across @ self.inverse) * across).sum(1)) / SHRINK
        return distance


class Drives:
    """How strongly captions drive the neurons of memories.

    `memories`: caption -> its neurons. `ordinary`: captions that are not memorized. The drive is 1
    - |z - m|^2 / |m|^2 over the memory's neurons, with z the z-scores of the caption's mean
    activations, and m those of the memory's own caption. It is 1 for the same effect on the
    neurons, 0 for nothing unusual, and less for another effect. Raises InputError without memories
    that have neurons.

    >>> import findnemo
    >>> from findnemo import demo
    >>> model = findnemo.load("demo")
    >>> drives = Drives(model, demo.planted(), demo.holdout()[:50])
    >>> known, other = drives([demo.memorized()[0].text, demo.unrelated()[0]])
    >>> round(float(known), 3), bool(other < 0.5)
    (1.0, True)
    """

    def __init__(self, model: Model, memories: Mapping[str, NeuronSet], ordinary: Sequence[str]):
        require_ordinary(ordinary)
        self.memories = {caption: neurons for caption, neurons in memories.items() if neurons}
        if not self.memories:
            raise InputError("there are no neurons of a memory that captions could drive")
        every = NeuronSet.of(n for neurons in self.memories.values() for n in neurons)
        self.neurons = [(name, k) for name, indices in every.layers.items() for k in indices]
        self.activations = Activations(model, every.layers)
        place = {neuron: k for k, neuron in enumerate(self.neurons)}
        self.of_memory = [torch.tensor([place[n] for n in s]) for s in self.memories.values()]
        rows = self.activations(ordinary, "mean").double()
        self.mean, self.std = rows.mean(0), rows.std(0)
        own = self.z(list(self.memories))
        self.wanted = [own[k, neurons] for k, neurons in enumerate(self.of_memory)]

    def z(self, captions: Sequence[str]) -> Tensor:
        """z-scores of the neurons of all memories, (captions, neurons)."""
        rows = self.activations(captions, "mean").double()
        return _z_scores(rows, self.mean, self.std)

    def each(self, z: Tensor) -> Tensor:
        """Drives of every memory, (captions, memories), from z-scores."""
        return torch.stack(
            [
                1 - (z[:, neurons] - wanted).square().sum(1) / wanted.square().sum().clamp(min=1e-9)
                for neurons, wanted in zip(self.of_memory, self.wanted, strict=True)
            ],
            1,
        )

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """The largest drive of any memory, (captions,), float64."""
        return self.each(self.z(captions)).amax(1)

    def largest_drives(self, captions: Sequence[str]) -> list[tuple[float, str, NeuronSet]]:
        """For each caption its largest drive, the memory, and the driven neurons of that memory.

        A neuron is driven if the caption's effect on it is at least half of the memory's own.
        """
        z = self.z(captions)
        values, which = self.each(z).max(1)
        names = list(self.memories)
        found = []
        for row, value, k in zip(z, values.tolist(), which.tolist(), strict=True):
            shares = row[self.of_memory[k]] / self.wanted[k]
            driven = (self.neurons[n] for n in self.of_memory[k][shares >= HALF].tolist())
            found.append((value, names[k], NeuronSet.of(driven)))
        return found


def require_ordinary(ordinary: Sequence[str]) -> None:
    """Raises InputError if there are too few ordinary captions."""
    if len(ordinary) < 2:
        raise InputError(
            "an order of captions needs hold-out captions, and this calibration keeps none:"
            " make one with `findnemo calibrate --prompts`"
        )


def _z_scores(rows: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(a - mean) / std; 0 for a neuron without variance, such as one that is off."""
    z = (rows - mean) / std.clamp(min=1e-12)
    return torch.where(std > 1e-9 * mean.abs(), z, 0.0).clamp(-LARGEST, LARGEST)
