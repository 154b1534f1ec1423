"""The layers and neurons that an edit names: whether the model has them, and their other names."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch

from findnemo.errors import EditError, InputError, MismatchError
from findnemo.models import Model
from findnemo.models.modules import width_of
from findnemo.neurons import NeuronSet


def layer_of(model: Model, name: str) -> Any:
    """A value layer by its name."""
    try:
        module = model.denoiser.get_submodule(name)
    except AttributeError:
        module = None
    if module is None or not model.is_value_layer(name, module):
        raise EditError(
            f"no value layer {name!r} in this model; it has {', '.join(model.value_layers)}"
        )
    return module


def widths_of(model: Model, neurons: NeuronSet) -> dict[str, int]:
    """Widths of the layers of `neurons`, after checking that every neuron exists."""
    if not isinstance(neurons, NeuronSet):
        raise InputError(
            f"neurons must be a NeuronSet, not {type(neurons).__name__}: NeuronSet({{layer: [index,"
            " ...]})"
        )
    if neurons.model is not None and neurons.model != model.fingerprint:
        raise MismatchError(
            f"these neurons were found in another model, {neurons.model[:12]}, and {model.source}"
            f" is {model.fingerprint[:12]}: in another model the same places hold other things (if"
            " it is the same one in another precision, load it in that of the run or in float32;"
            " if you mean it: NeuronSet(neurons.layers))"
        )
    widths = {name: width_of(name, layer_of(model, name)) for name in neurons.layers}
    for name, indices in neurons.layers.items():
        if indices[-1] >= widths[name]:
            raise EditError(
                f"no neuron {indices[-1]} in {name}: it has {widths[name]} (0 to"
                f" {widths[name] - 1})"
            )
    return widths


def check_factor(model: Model, factor: float) -> None:
    """Raises InputError for a factor that is no finite number, or beyond the range of the model's
    dtype.
    """
    most = torch.finfo(model.dtype).max
    if not isinstance(factor, Real) or not abs(factor) <= most:
        raise InputError(
            f"{factor!r} is not a factor for neurons: give a finite number (0 switches off), at"
            f" most {most:.3g} for this model"
        )


def once(model: Model, neurons: NeuronSet) -> NeuronSet:
    """Neurons with each module under one of its names."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(layer_of(model, name)), name) for name in neurons.layers}
    return NeuronSet.of((names[name], i) for name, i in neurons)


def everywhere(model: Model, neurons: NeuronSet) -> NeuronSet:
    """Neurons under every name of their modules: an edit of a module applies in all its places."""
    indices = {id(layer_of(model, name)): idx for name, idx in once(model, neurons).layers.items()}
    named = model.denoiser.named_modules(remove_duplicate=False)
    return NeuronSet({name: indices[id(module)] for name, module in named if id(module) in indices})
