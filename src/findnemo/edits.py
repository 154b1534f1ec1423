"""The one intervention: scale the outputs of neurons, as a temporary hook, as weights or as a LoRA, with the same images.

with deactivate(model, neurons):
    image = model.pipeline("a caption").images[0]
prune(model, neurons).save_pretrained("clean")
save_lora(model, neurons, "clean-lora")
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.errors import EditError, InputError, MismatchError
from findnemo.models import Model
from findnemo.models._base import offloaded
from findnemo.neurons import NeuronSet

LORA_FILE = "pytorch_lora_weights.safetensors"
LIMITS = "acts at strength 1 only, for the model it was made for; anyone can leave it out"


class _Scale:
    """Forward hook: multiply a value layer's output (B, tokens, width) by a scale, and count that it ran."""

    def __init__(self, scale: Tensor):
        self.scale, self.calls = scale, 0

    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        self.calls += 1
        return output * self.scale.to(output.device, output.dtype)


class _Runs:
    """Forward pre-hook of the denoiser: count that it ran."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, module: nn.Module, args: tuple) -> None:
        self.calls += 1


@contextmanager
def scaled(model: Model, scales: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply the outputs of value layers while the context lasts.

    `scales` maps a layer name to (width,), the same for all samples, or to (B, width), one mask per sample of a batch: so one
    batch can test many sets. Contexts nest: their factors multiply. All names are resolved before anything is changed.
    Raises EditError for a layer that does not exist, a wrong width, or when the model ran and an edit did not take effect.
    """
    layers, denoiser = {n: _resolve(model, n, s.shape[-1]) for n, s in scales.items()}, model.denoiser
    hooks = {name: _Scale(scale if scale.dim() == 1 else scale[:, None, :]) for name, scale in scales.items()}
    runs = _Runs()
    with ExitStack() as stack:
        stack.callback(denoiser.register_forward_pre_hook(runs).remove)
        for name, hook in hooks.items():
            stack.callback(layers[name].register_forward_hook(hook).remove)
        yield
    silent = [name for name, hook in hooks.items() if runs.calls and not hook.calls]
    if silent:
        raise EditError(
            f"the model ran, but {silent[0]} was never called: its attention computes values another way (fused, compiled or a "
            "custom processor), so the edit did nothing; restore it with set_attn_processor(AttnProcessor2_0())"
        )


@contextmanager
def deactivate(model: Model, neurons: NeuronSet, factor: float = 0.0) -> Iterator[None]:
    """Scale the outputs of `neurons` by `factor` (0: switched off) in every pass of the model while the context lasts.

    Works around a whole pipeline call, with guidance and any number of images. On leaving, also by an exception, the model is
    what it was, bit for bit. Finding NeMo, section 3.3 (deactivation) and appendix (other factors).
    """
    model.check_editable()
    widths = _checked(model, neurons)
    scales = {name: _vector(widths[name], indices, factor) for name, indices in neurons.layers.items()}
    with scaled(model, scales):
        yield


def _vector(width: int, indices: tuple[int, ...], factor: float) -> Tensor:
    scale = torch.ones(width)
    scale[list(indices)] = factor
    return scale


def masks(model: Model, sets: Sequence[NeuronSet]) -> dict[str, Tensor]:
    """Scales that switch off one set a sample: layer -> (len(sets), width) of 0 and 1, for the layers that any set touches."""
    widths: dict[str, int] = {}
    for neurons in sets:
        widths |= _checked(model, neurons)
    scales = {name: torch.ones(len(sets), width, device=model.device) for name, width in widths.items()}
    for row, neurons in enumerate(sets):
        for name, indices in neurons.layers.items():
            scales[name][row, list(indices)] = 0
    return scales


def _layer(model: Model, name: str) -> Any:
    """A value layer by its name."""
    try:
        module = model.denoiser.get_submodule(name)
    except AttributeError:
        module = None
    if module is None or not model.is_value_layer(name, module):
        raise EditError(f"no value layer {name!r} in this model; it has {', '.join(model.value_layers)}")
    return module


def _resolve(model: Model, name: str, width: int) -> nn.Module:
    layer = _layer(model, name)
    if layer.out_features != width:
        raise EditError(f"a scale of {width} values does not fit {name} with {layer.out_features} neurons")
    return layer


def _checked(model: Model, neurons: NeuronSet) -> dict[str, int]:
    """Widths of the layers of `neurons`, once every neuron is known to exist."""
    if not isinstance(neurons, NeuronSet):
        raise InputError(f"neurons must be a NeuronSet, not {type(neurons).__name__}: NeuronSet({{layer: [index, ...]}})")
    if neurons.model is not None and neurons.model != model.fingerprint:
        raise MismatchError(
            f"these neurons were found in another model, {neurons.model[:12]}, and {model.source} is {model.fingerprint[:12]}: in another "
            "model the same places hold other things (if you mean it: NeuronSet(neurons.layers))"
        )
    widths = {name: int(_layer(model, name).out_features) for name in neurons.layers}
    for name, indices in neurons.layers.items():
        if indices[-1] >= widths[name]:
            raise EditError(f"no neuron {indices[-1]} in {name}: it has {widths[name]} (0 to {widths[name] - 1})")
    return widths


def _check_weights(model: Model, neurons: NeuronSet) -> None:
    """Refuse to edit weights that are not all there is to a value layer."""
    model.check_editable()
    _checked(model, neurons)
    if offloaded(model.denoiser):
        raise EditError(
            f"the weights of {type(model.denoiser).__name__} are offloaded, out of an edit's reach: call pipeline.remove_all_hooks() "
            "first, or load the pipeline without offloading"
        )
    adapted = [name for name in neurons.layers if hasattr(model.value_layers[name], "base_layer")]
    if adapted:
        raise EditError(
            f"{adapted[0]} carries a LoRA, which an edit of its weights would miss: merge it first with pipeline.fuse_lora() and "
            "pipeline.unload_lora_weights()"
        )


def prune(model: Model, neurons: NeuronSet, factor: float = 0.0) -> Any:
    """A new pipeline whose weights carry the edit for good; its `save_pretrained` writes an ordinary checkpoint.

    The rows of `to_v` that produce the neurons, and their biases, are multiplied by `factor`. The old pipeline is
    untouched: the denoiser is copied, the other parts are shared. Weights are in the dtype that the model was loaded in;
    `findnemo.export.write` keeps that of its source.
    """
    _check_weights(model, neurons)
    denoiser = copy.deepcopy(model.denoiser)
    for module in denoiser.modules():  # an edit that is under way must not be copied into the weights' model
        for registered in (module._forward_hooks, module._forward_pre_hooks):
            for key in [k for k, hook in registered.items() if isinstance(hook, (_Scale, _Runs))]:
                del registered[key]
    with torch.no_grad():
        for name, indices in neurons.layers.items():
            layer: Any = denoiser.get_submodule(name)
            for parameter in (layer.weight, getattr(layer, "bias", None)):
                if parameter is not None:
                    parameter[list(indices)] *= factor
    return _rebuild(model.pipeline, model.denoiser, denoiser)


def _rebuild(pipeline: Any, old: nn.Module, new: nn.Module) -> Any:
    """The same pipeline with another denoiser."""
    parts = {name: new if part is old else part for name, part in pipeline.components.items()}
    known = {**pipeline.config, "add_watermarker": getattr(pipeline, "watermark", None) is not None}
    options = set(inspect.signature(type(pipeline).__init__).parameters) & set(known) - set(parts)
    rebuilt = type(pipeline)(**parts, **{name: known[name] for name in options})
    rebuilt.set_progress_bar_config(**getattr(pipeline, "_progress_bar_config", {}))
    return rebuilt


def lora_weights(model: Model, neurons: NeuronSet, factor: float = 0.0) -> dict[str, Tensor]:
    """The edit as a LoRA in diffusers' form: dW = (factor - 1) sum_i e_i w_i^T, exact, one rank per neuron.

    All layers get the same rank (that of the fullest one, padded with zeros), which every loader reads. A bias is edited likewise,
    db = (factor - 1) sum_i b_i e_i, as `lora_B.bias`: what peft calls `lora_bias`. Raises EditError for a pipeline that loads no LoRA.
    """
    _check_weights(model, neurons)
    if not hasattr(model.pipeline, "load_lora_weights"):
        raise EditError(
            f"{type(model.pipeline).__name__} has no load_lora_weights, so it cannot use a LoRA file: write a checkpoint instead, "
            "prune(model, neurons).save_pretrained(FOLDER)"
        )
    rank = max((len(i) for i in neurons.layers.values()), default=0)
    if rank == 0:
        raise InputError("no neurons: there is nothing to write as a LoRA")
    layers: dict[str, Any] = {name: model.value_layers[name] for name in neurons.layers}
    biased, tensors = any(getattr(layer, "bias", None) is not None for layer in layers.values()), {}
    for name, layer in layers.items():
        indices = neurons.layers[name]
        weight = layer.weight.detach().float().cpu()
        down, up = torch.zeros(rank, weight.shape[1]), torch.zeros(weight.shape[0], rank)
        for r, i in enumerate(indices):
            down[r], up[i, r] = (factor - 1) * weight[i], 1.0
        prefix = f"{model.component}.{name}"
        tensors[f"{prefix}.lora_A.weight"], tensors[f"{prefix}.lora_B.weight"] = down, up
        if biased:  # one layer, then all of the file: loaders expect it so
            bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().float().cpu()
            tensors[f"{prefix}.lora_B.bias"] = (_vector(len(weight), indices, factor) - 1) * bias
    return tensors


def save_lora(model: Model, neurons: NeuronSet, folder: str | os.PathLike, factor: float = 0.0) -> Path:
    """Write `pytorch_lora_weights.safetensors` to a folder; load it with `pipeline.load_lora_weights(folder)`, at strength 1."""
    from safetensors.torch import save_file

    path = Path(folder) / LORA_FILE
    tensors = lora_weights(model, neurons, factor)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt", "made_by": "findnemo", "neurons": str(len(neurons)), "limits": LIMITS})
    return path
