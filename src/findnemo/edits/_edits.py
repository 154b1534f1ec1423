"""The one intervention: scale the outputs of neurons, by a temporary hook, in the weights or as a
LoRA, all with the same images.

    with deactivate(model, neurons):
        image = model.pipeline("a caption").images[0]
    prune(model, neurons).save_pretrained("clean")
    save_lora(model, neurons, "clean-lora")
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.edits._effect import (
    Effect,
    Transient,
    check_called,
    layer_weights,
    never_called,
    refuse_offloaded,
)
from findnemo.edits._loadable import unfit
from findnemo.edits._plain import plain_copy, rebuilt
from findnemo.edits._probing import scale_of, times
from findnemo.edits._targets import check_factor, everywhere, layer_of, once, widths_of
from findnemo.errors import EditError, InputError
from findnemo.files.tensors import write
from findnemo.files.writing import atomic_write
from findnemo.models import Model
from findnemo.models.modules import width_of
from findnemo.neurons import NeuronSet

LORA_FILE = "pytorch_lora_weights.safetensors"
LIMITS = "acts at strength 1 only, for the model it was made for; anyone can leave it out"


class _Scale(Transient):
    """Forward hook: multiply a value layer's output (B, tokens, width) by a scale, and count its
    calls.

    `scale`: (width,), or (B, width) with a mask for each sample.
    """

    def __init__(self, name: str, scale: Tensor):
        self.name = name
        self.scale = scale

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Tensor:
        self.calls += 1
        *counts, width = self.scale.shape
        if not isinstance(output, Tensor) or output.shape[-1:] != (width,):
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise EditError(
                f"{self.name} gives {what}, not one tensor with {width} neurons in its last"
                " dimension: it cannot be edited"
            )
        if not counts:
            return times(output, self.scale)
        if counts != [1] and (output.dim() != 3 or len(output) != counts[0]):
            raise EditError(
                f"{counts[0]} masks do not fit {self.name}, which gives {tuple(output.shape)}: one"
                " mask a sample"
            )
        return times(output, self.scale[:, None, :])


class _Mute(Transient):
    """Forward hook: replace a module's output by zeros, and count its calls."""

    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        self.calls += 1
        return torch.zeros_like(output)


class _Runs(Transient):
    """Forward pre-hook of the denoiser: count its calls, and check the edited layers."""

    def __init__(self, layers: Mapping[str, nn.Module]):
        self.layers = layers

    def __call__(self, module: nn.Module, args: tuple) -> None:
        self.calls += 1
        for name, layer in self.layers.items():
            if module.get_submodule(name) is not layer:
                raise EditError(
                    f"{name} was replaced during the edit (a LoRA was loaded?), so the edit"
                    " has no effect on it: replace it before the edit begins"
                )


@contextmanager
def scaled(model: Model, scales: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply the outputs of value layers while the context lasts.

    `scales`: layer name -> (width,), equal for all samples, or (B, width), one mask for each sample
    of a batch, so that one batch can test many sets. Contexts nest: their factors multiply. All
    names are resolved before anything is changed. Raises EditError for a layer that does not exist,
    for a wrong width, and if the model ran and an edit did not take effect.
    """
    layers = {name: _resolve(model, name, scale.shape[-1]) for name, scale in scales.items()}
    with _hooked(model, layers, {name: _Scale(name, scale) for name, scale in scales.items()}):
        yield


@contextmanager
def muted(model: Model, names: Iterable[str]) -> Iterator[None]:
    """Replace the outputs of modules of the denoiser, each one tensor, by zeros while the context
    lasts.

    The modules may be value layers or others. This probes their effect, and cannot be exported.
    Raises EditError for a module that does not exist, and if the model ran and one of them did not.
    """
    modules = dict(model.denoiser.named_modules())
    if absent := [name for name in names if name not in modules]:
        raise EditError(f"no module {absent[0]!r} in the {model.component} of this model")
    with _hooked(model, {name: modules[name] for name in names}, {name: _Mute() for name in names}):
        yield


@contextmanager
def _hooked(
    model: Model, layers: Mapping[str, nn.Module], hooks: Mapping[str, _Scale | _Mute]
) -> Iterator[None]:
    """Forward hooks on layers while the context lasts; they are always removed.

    Raises EditError if the model ran and one of them did not.
    """
    denoiser = model.denoiser
    runs = _Runs(layers)
    with ExitStack() as stack:
        stack.enter_context(denoiser.register_forward_pre_hook(runs))
        for name, hook in hooks.items():
            stack.enter_context(layers[name].register_forward_hook(hook))
        yield
    if model.denoiser is not denoiser:
        raise EditError(
            f"the {model.component} of the pipeline was replaced during the edit: replace it before"
            " the edit begins"
        )
    silent = [name for name, hook in hooks.items() if not hook.calls]
    if runs.calls and silent:
        raise EditError(never_called(silent[0]))


@contextmanager
def deactivate(model: Model, neurons: NeuronSet, factor: float = 0.0) -> Iterator[None]:
    """Scale the outputs of `neurons` by `factor` (0: switched off) in every pass of the model while
    the context lasts.

    It works around a whole pipeline call, with guidance and any number of images. On leaving, also
    by an exception, the model is restored bit for bit. Finding NeMo, section 3.3 (deactivation) and
    appendix (other factors).
    """
    model.check_editable()
    check_factor(model, factor)
    widths = widths_of(model, neurons)
    layers = once(model, neurons).layers
    with scaled(model, {n: scale_of(widths[n], rows, factor) for n, rows in layers.items()}):
        yield


def masks(model: Model, sets: Sequence[NeuronSet]) -> dict[str, Tensor]:
    """Scales that switch off one set for each sample: layer -> (len(sets), width) of 0 and 1, for
    the layers of any set.
    """
    widths: dict[str, int] = {}
    for neurons in sets:
        widths |= widths_of(model, neurons)
    scales = {n: torch.ones(len(sets), width, device=model.device) for n, width in widths.items()}
    for row, neurons in enumerate(sets):
        for name, indices in neurons.layers.items():
            scales[name][row, list(indices)] = 0
    return scales


def _resolve(model: Model, name: str, width: int) -> nn.Module:
    layer: nn.Module = layer_of(model, name)
    if width_of(name, layer) != width:
        raise EditError(
            f"a scale of {width} values does not fit {name} with {layer.out_features} neurons"
        )
    return layer


def effects(model: Model, neurons: NeuronSet, factor: float = 0.0) -> dict[str, Effect]:
    """What an edit of weights must do: layer -> Effect, under each name of a layer that appears in
    several places.

    Raises EditError if a layer is more than its weights: an edit of these would not be an edit of
    its outputs.
    """
    model.check_editable()
    check_factor(model, factor)
    widths_of(model, neurons)
    refuse_offloaded(model.denoiser)
    edited = {}
    for name, indices in everywhere(model, neurons).layers.items():
        weight, bias = layer_weights(name, model.denoiser.get_submodule(name))
        edited[name] = Effect(name, weight, bias, indices, factor)
    return edited


def prune(model: Model, neurons: NeuronSet, factor: float = 0.0) -> Any:
    """A new pipeline whose weights carry the edit permanently; its `save_pretrained` writes an
    ordinary checkpoint.

    The rows of `to_v` that produce the neurons, and their biases, are multiplied by `factor`. The
    old pipeline does not change: the denoiser is copied, the other parts are shared. Weights have
    the dtype in which the model was loaded; `findnemo.export.write` keeps that of its source.
    Parametrizations, weight norms and pruning masks become plain weights in the copy. Before the
    copy is returned, the outputs of its layers are compared with those under the hook. Raises
    EditError if weights cannot carry the edit (quantized layers, a LoRA, layers of another kind),
    or if a checkpoint of the copy would not load.
    """
    wanted = effects(model, neurons, factor)
    denoiser = plain_copy(model.denoiser)
    obstacle, _ = unfit(model.component, denoiser, denoiser.state_dict())
    if obstacle:
        raise EditError(obstacle)
    with torch.no_grad():
        for name, effect in wanted.items():
            layer = denoiser.get_submodule(name)
            rows = list(effect.rows)
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    parameter[rows] = times(parameter[rows], torch.tensor(factor))
            effect.check_weights(layer.weight, layer.bias, "the copy")
            effect.check_layer(layer, "the copy")
    pruned = rebuilt(model.pipeline, model.denoiser, denoiser)
    for name, part in pruned.components.items():
        reasons = unfit(name, part, part.state_dict()) if isinstance(part, nn.Module) else ()
        for reason in filter(None, reasons):
            warnings.warn(reason, stacklevel=2)
    check_called(type(model)(pruned, model.source), wanted)
    return pruned


def lora_weights(model: Model, neurons: NeuronSet, factor: float = 0.0) -> dict[str, Tensor]:
    """The edit as a LoRA in diffusers' form: dW = (factor - 1) sum_i e_i w_i^T, exact, one rank for
    each neuron.

    All layers get the same rank (the largest needed, padded with zeros), which every loader reads.
    A bias is edited too, db = (factor - 1) sum_i b_i e_i, as `lora_B.bias`, which peft calls
    `lora_bias`. W + dW is compared with the effect of the hook. Raises EditError for a pipeline
    that loads no LoRA, and if weights cannot carry the edit, as `prune` does.
    """
    return _lora(model, neurons, factor)[1]


def _lora(
    model: Model, neurons: NeuronSet, factor: float
) -> tuple[dict[str, Effect], dict[str, Tensor]]:
    wanted = effects(model, neurons, factor)
    if not hasattr(model.pipeline, "load_lora_weights"):
        raise EditError(
            f"{type(model.pipeline).__name__} has no load_lora_weights, so it cannot use a LoRA"
            " file: write a checkpoint instead, prune(model, neurons).save_pretrained(FOLDER)"
        )
    if not wanted:
        raise InputError("no neurons: there is nothing to write as a LoRA")
    _refuse_shared(model, wanted)
    check_called(model, wanted)
    rank = max(len(effect.rows) for effect in wanted.values())
    biased = any(effect.bias is not None for effect in wanted.values())
    tensors: dict[str, Tensor] = {}
    for name, effect in wanted.items():
        weight = effect.weight.float().cpu()
        down = torch.zeros(rank, weight.shape[1])
        up = torch.zeros(weight.shape[0], rank)
        for r, i in enumerate(effect.rows):
            down[r] = (factor - 1) * weight[i]
            up[i, r] = 1.0
        prefix = f"{model.component}.{name}"
        tensors |= {f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}
        if biased:  # if one layer has a bias, all in the file need one: loaders expect it
            bias = torch.zeros(len(weight)) if effect.bias is None else effect.bias.float().cpu()
            tensors[f"{prefix}.lora_B.bias"] = (effect.scale - 1) * bias
    check_lora(wanted, tensors, f"{model.component}.")
    return wanted, tensors


def _refuse_shared(model: Model, names: Iterable[str]) -> None:
    names_of: dict[int, str] = {}
    for name in names:
        first = names_of.setdefault(id(model.denoiser.get_submodule(name)), name)
        if first != name:
            raise EditError(
                f"{first} and {name} are one module, of which LoRA loaders change the first place"
                " only: put a copy of it into one of them, copy.deepcopy(layer), or write a"
                " checkpoint instead, prune(model, neurons).save_pretrained(FOLDER)"
            )


def check_lora(wanted: Mapping[str, Effect], tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Raises EditError unless a LoRA in diffusers' form has the effect of the hook on each
    layer.
    """
    for name, effect in wanted.items():
        down = tensors.get(f"{prefix}{name}.lora_A.weight")
        up = tensors.get(f"{prefix}{name}.lora_B.weight")
        change = None if down is None or up is None else up.double() @ down.double()
        effect.check_change(change, tensors.get(f"{prefix}{name}.lora_B.bias"), "the LoRA")


def save_lora(
    model: Model, neurons: NeuronSet, folder: str | os.PathLike, factor: float = 0.0
) -> Path:
    """Write `pytorch_lora_weights.safetensors` to a folder; load it with
    `pipeline.load_lora_weights(folder)`, at strength 1.
    """
    from safetensors.torch import load_file

    path = Path(folder) / LORA_FILE
    wanted, tensors = _lora(model, neurons, factor)
    about = {"format": "pt", "made_by": "findnemo", "neurons": str(len(neurons)), "limits": LIMITS}
    with atomic_write(path) as part:
        write(part, tensors, about)  # the same bytes each time
        check_lora(wanted, load_file(part), f"{model.component}.")
    return path
