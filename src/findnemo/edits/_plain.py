"""A copy of a network that consists of its weights alone, so that an edit of them is complete, and
a saved copy loads anywhere.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from findnemo.edits._effect import Transient
from findnemo.edits._loadable import QUANTIZED, described
from findnemo.errors import EditError
from findnemo.models.modules import COMPUTED

# fused projections: an unused second copy of the weights
LEFT_OVER = ("to_qkv", "to_kv", "to_added_qkv")
# what recomputes a weight before every pass -> how to remove it; the computed weight stays
MASKS = {
    WeightNorm: lambda module, hook: remove_weight_norm(module, hook.name),
    SpectralNorm: lambda module, hook: remove_spectral_norm(module, hook.name),
    prune.BasePruningMethod: lambda module, hook: prune.remove(module, hook._tensor_name),
}


@torch.no_grad()
def plain_copy(network: nn.Module) -> Any:
    """A copy without the things that PyTorch can put next to a weight or in its place.

    Parametrizations, weight and spectral norms, and pruning masks become the weights that they
    compute. Weights or modules with several names become several. Temporary edits are left out.
    Raises EditError for quantized weights.
    """
    for name, parameter in network.named_parameters():
        if type(parameter) not in (Tensor, nn.Parameter) or parameter.dtype not in COMPUTED:
            raise EditError(
                f"the weights of {type(network).__name__} cannot be copied as plain ones: {name}"
                f" {described(parameter)}; {QUANTIZED}"
            )
    # weights computed by a norm or a mask, which PyTorch refuses to copy
    attributes = [value for module in network.modules() for value in vars(module).values()]
    derived = [value for value in attributes if isinstance(value, Tensor) and not value.is_leaf]
    copied = copy.deepcopy(network, {id(value): value.detach().clone() for value in derived})
    for module in list(copied.modules()):
        for registered in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(registered.items()):
                if isinstance(hook, Transient):
                    del registered[key]
    _untie(copied)
    for module, training in [(module, module.training) for module in copied.modules()]:
        _unmask(module)
        module.training = training
        if hasattr(module, "fused_projections"):
            for name in LEFT_OVER:
                module._modules.pop(name, None)
    return copied


def rebuilt(pipeline: Any, old: nn.Module, new: nn.Module) -> Any:
    """A new pipeline with the parts of another, but with `new` in place of the network `old`."""
    parts = {name: new if part is old else part for name, part in pipeline.components.items()}
    watermarked = getattr(pipeline, "watermark", None) is not None
    settings = {**pipeline.config, "add_watermarker": watermarked}
    names = set(inspect.signature(type(pipeline).__init__).parameters) & set(settings) - set(parts)
    new_pipeline = type(pipeline)(**parts, **{name: settings[name] for name in names})
    new_pipeline.set_progress_bar_config(**getattr(pipeline, "_progress_bar_config", {}))
    return new_pipeline


def _untie(network: nn.Module) -> None:
    """Give modules and parameters with several names a copy for each name; the copies share nothing
    else.
    """
    seen: set[int] = set()
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if id(module) in seen and name:
            parent, _, own = name.rpartition(".")
            network.get_submodule(parent)._modules[own] = copy.deepcopy(module)
        seen.add(id(module))
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in seen:
                own = parameter.detach().clone()
                module._parameters[name] = nn.Parameter(own, parameter.requires_grad)
            seen.add(id(parameter))


def _unmask(module: Any) -> None:
    if parametrize.is_parametrized(module):
        _unparametrize(module)
    for hook in list(module._forward_pre_hooks.values()):
        for kind, remove in MASKS.items():
            if isinstance(hook, kind):
                remove(module, hook)


def _unparametrize(module: Any) -> None:
    """Remove parametrizations from one layer.

    PyTorch's own function removes a property from the layer's class, which the original network
    shares.
    """
    for part in module.modules():
        part.training = False  # so that a spectral norm does not change
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}
    parametrizations = module._modules.pop("parametrizations")
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        learned = next(parametrizations[name].parameters(False), None)
        if learned is None:
            module.register_buffer(name, value)
        else:
            parameter = nn.Parameter(value, requires_grad=learned.requires_grad)
            module.register_parameter(name, parameter)
