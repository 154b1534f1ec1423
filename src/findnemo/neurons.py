"""`NeuronSet`: which neurons of which value layers. A value: frozen, hashable, with set algebra.

>>> a = NeuronSet({"mid_block.attn2.to_v": [3, 1]})
>>> b = a | NeuronSet({"mid_block.attn2.to_v": [1, 7]})
>>> b.layers, len(b), len(b - a)
({'mid_block.attn2.to_v': (1, 3, 7)}, 3, 1)
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from findnemo.errors import InputError
from findnemo.files.sizes import JSON_BYTES, within_size

Neuron = tuple[str, int]


class NeuronSet:
    """A set of neurons.

    `layers` maps a module name to a sorted tuple of output indices, without empty layers.

    A neuron is one output of a cross-attention value projection (Finding NeMo, section 3.1).
    `model`: the fingerprint of their model, if a file gives it; an edit of another model is
    refused. It does not count in equality; `NeuronSet(neurons.layers)` has none.
    """

    __slots__ = ("_layers", "_model")

    def __init__(self, layers: Mapping[str, Iterable[int]] | None = None, model: str | None = None):
        tidy: dict[str, tuple[int, ...]] = {}
        for name, indices in (layers or {}).items():
            unique = tuple(sorted({_index(name, i) for i in indices}))
            if unique:
                tidy[str(name)] = unique
        self._layers = tidy
        self._model = model

    @classmethod
    def of(cls, neurons: Iterable[Neuron], model: str | None = None) -> NeuronSet:
        """A set from (layer, index) pairs: `NeuronSet.of([("mid", 3), ("mid", 1)])`."""
        layers: dict[str, list[int]] = {}
        for name, index in neurons:
            layers.setdefault(name, []).append(index)
        return cls(layers, model)

    @property
    def layers(self) -> Mapping[str, tuple[int, ...]]:
        return dict(self._layers)

    @property
    def model(self) -> str | None:
        return self._model

    def __iter__(self) -> Iterator[Neuron]:
        return ((name, i) for name, indices in self._layers.items() for i in indices)

    def __len__(self) -> int:
        return sum(map(len, self._layers.values()))

    def __contains__(self, neuron: object) -> bool:
        return (
            isinstance(neuron, tuple)
            and len(neuron) == 2
            and neuron[1] in self._layers.get(neuron[0], ())
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NeuronSet) and self._layers == other._layers

    def __hash__(self) -> int:
        return hash(frozenset(self._layers.items()))

    def __repr__(self) -> str:
        return f"NeuronSet({self._layers!r})"

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet.of([*self, *other], self._shared(other))

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet.of((n for n in self if n in other), self._shared(other))

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet.of((n for n in self if n not in other), self._shared(other))

    def __le__(self, other: NeuronSet) -> bool:
        return all(n in other for n in self)

    def _shared(self, other: NeuronSet) -> str | None:
        """The common model of two sets.

        Raises InputError for sets of two models, which cannot be combined.
        """
        if self._model is not None and other._model not in (None, self._model):
            raise InputError(
                f"one set is of the model {self._model[:12]}, the other of"
                f" {str(other._model)[:12]}: they have no neurons in common"
            )
        return other._model if self._model is None else self._model

    def layer(self, name: str) -> NeuronSet:
        """The part in one layer."""
        return NeuronSet({name: self._layers.get(name, ())}, self._model)

    def to_json(self) -> dict[str, list[int]]:
        return {name: list(indices) for name, indices in self._layers.items()}

    def save(self, path: str | os.PathLike) -> None:
        """Write the set as JSON, or as safetensors (one int64 tensor a layer) if the name ends in
        that.
        """
        path = Path(path)
        about = {"format": "findnemo.neurons.1"}
        if self._model is not None:
            about["model"] = self._model
        if path.suffix == ".safetensors":
            import torch

            from findnemo.files.tensors import write

            tensors = {
                name: torch.tensor(idx, dtype=torch.int64) for name, idx in self._layers.items()
            }
            write(path, tensors, about)  # the same bytes each time
        else:
            path.write_text(
                json.dumps({**about, "layers": self.to_json()}, indent=1) + "\n", encoding="utf-8"
            )

    @classmethod
    def load(cls, path: str | os.PathLike) -> NeuronSet:
        """Read a set that `save` wrote.

        Raises `InputError` for any other file, and for more than 16 MiB.
        """
        path = within_size(path, JSON_BYTES)
        read = _read_tensors if path.suffix == ".safetensors" else _read_json
        try:
            return cls(*read(path))
        except (OSError, ValueError, RecursionError, InputError) as error:
            raise InputError(
                f"{path} is not a neuron file (JSON with a 'layers' object, or safetensors):"
                f" {error!s:.300}"
            ) from error


def _read_json(path: Path) -> tuple[dict[str, list[int]], str | None]:
    values = json.loads(path.read_text(encoding="utf-8-sig"))
    layers = values.get("layers") if isinstance(values, dict) else None
    if not isinstance(layers, dict) or not all(
        isinstance(indices, list) for indices in layers.values()
    ):
        raise ValueError("no 'layers' object of lists in it")
    return layers, _name(values.get("model"))


def _read_tensors(path: Path) -> tuple[dict[str, list[int]], str | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            model = (file.metadata() or {}).get("model")
    except SafetensorError as error:
        raise ValueError(error) from error
    if scalars := [name for name, t in tensors.items() if t.ndim != 1]:
        raise ValueError(f"{scalars[0]!r:.60} is not a list of indices")
    return {name: t.tolist() for name, t in tensors.items()}, _name(model)


def _name(model: object) -> str | None:
    if model is None or isinstance(model, str):
        return model
    raise ValueError(f"its model is {model!r:.40}, no fingerprint")


def _index(layer: str, index: object) -> int:
    try:
        value = -1 if isinstance(index, bool) else operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        value = -1
    if value < 0:
        raise InputError(
            f"{index!r} is not a neuron index (a whole number from 0) in layer {layer}"
        )
    return value


EMPTY = NeuronSet()
