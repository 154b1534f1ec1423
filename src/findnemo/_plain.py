"""A copy of a network that is nothing but its weights, so that an edit of them is all there is to edit, and what is saved loads anywhere."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from findnemo._effect import MERGE, Transient
from findnemo._safetensors import Entry
from findnemo.errors import EditError
from findnemo.models._base import COMPUTED

QUANTIZED = "if it is quantized, load the model without quantization for this"
LEFT_OVER = ("to_qkv", "to_kv", "to_added_qkv")  # of fused projections: a second copy of the weights, which nothing uses
MASKS = {  # what makes a weight anew before every pass -> how it is taken off; the weight that it makes stays
    WeightNorm: lambda module, hook: remove_weight_norm(module, hook.name),
    SpectralNorm: lambda module, hook: remove_spectral_norm(module, hook.name),
    prune.BasePruningMethod: lambda module, hook: prune.remove(module, hook._tensor_name),
}


@torch.no_grad()
def plain_copy(network: nn.Module) -> Any:
    """A copy without what PyTorch can put beside a weight or in its place.

    Parametrizations, weight and spectral norms, and pruning masks become the weights that they make; weights or modules that stand under
    several names become several. Edits under way are left out. Raises EditError for quantized weights.
    """
    for name, kept in network.named_parameters():
        if type(kept) not in (Tensor, nn.Parameter) or kept.dtype not in COMPUTED:
            raise EditError(
                f"the weights of {type(network).__name__} cannot be copied as plain ones: {name} {_told(kept)}; {QUANTIZED}"
            )
    copied = copy.deepcopy(network, {id(made): made.detach().clone() for made in _made(network.modules())})
    for module in list(copied.modules()):
        for registered in (module._forward_hooks, module._forward_pre_hooks):
            for key in [k for k, hook in registered.items() if isinstance(hook, Transient)]:
                del registered[key]
    _untie(copied)
    for module, training in [(module, module.training) for module in copied.modules()]:
        _unmask(module)
        module.training = training
        if hasattr(module, "fused_projections"):
            for name in LEFT_OVER:
                module._modules.pop(name, None)
    return copied


def _made(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Weights that a norm or a mask has made, which PyTorch refuses to copy."""
    for module in modules:
        yield from (value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf)


def _untie(network: nn.Module) -> None:
    """Modules under several names become several, then parameters that lie over one another in memory."""
    seen: set[int] = set()
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if id(module) in seen and name:
            parent, _, own = name.rpartition(".")
            network.get_submodule(parent)._modules[own] = copy.deepcopy(module)
        seen.add(id(module))
    owned = [(m, n, p) for m in network.modules() for n, p in m._parameters.items() if p is not None and _lies_in_memory(p)]
    end: dict[torch.device, int] = {}
    for module, name, parameter in sorted(owned, key=lambda one: one[2].data_ptr()):
        start = parameter.data_ptr()
        if start < end.get(parameter.device, 0):
            module._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        end[parameter.device] = max(end.get(parameter.device, 0), start + parameter.numel() * parameter.element_size())


def _lies_in_memory(parameter: Tensor) -> bool:
    return type(parameter) in (Tensor, nn.Parameter) and not parameter.is_meta and parameter.numel() > 0


def _unmask(module: Any) -> None:
    if parametrize.is_parametrized(module):
        _unparametrize(module)
    for hook in list(module._forward_pre_hooks.values()):
        for kind, remove in MASKS.items():
            if isinstance(hook, kind):
                remove(module, hook)


def _unparametrize(module: Any) -> None:
    """PyTorch's own way takes a property off the module's class, which the network that was copied shares."""
    for part in module.modules():
        part.training = False  # so that a spectral norm stays what it is
    made = {
        name: (getattr(module, name).detach().clone(), list(p.parameters(False))) for name, p in module.parametrizations.items()
    }
    del module._modules["parametrizations"]
    module.__class__ = type(module).__bases__[0]
    for name, (value, learned) in made.items():
        if learned:
            module.register_parameter(name, nn.Parameter(value, requires_grad=learned[0].requires_grad))
        else:
            module.register_buffer(name, value)


# what plain diffusers can load ---------------------------------------------------------------------------------------


def check_loadable(network: Any, tensors: Mapping[str, Tensor | Entry]) -> str | None:
    """Raises EditError where a plain network of this one's class and configuration could not be loaded from such tensors; says what of them it
    would leave out, if there is anything. `tensors`: what a network or a file holds, by name."""
    from accelerate import init_empty_weights

    kind = type(network).__name__
    try:
        with init_empty_weights():
            wanted = type(network).from_config(network.config).state_dict()
    except Exception:
        return f"diffusers cannot make a {kind} from its configuration (an IP-Adapter? pipeline.unload_ip_adapter())"
    for name, value in wanted.items():
        found = tensors.get(name)
        if found is None or tuple(found.shape) != tuple(value.shape) or (value.is_floating_point() and not _floating(found)):
            raise EditError(
                f"what is written would not load: {kind} wants {name} {tuple(value.shape)}, which {_told(found)}; {_way_out(network)}"
            )
    extra = next((name for name in tensors if name not in wanted), None)
    return f"a {kind} of its configuration has no {extra}, and diffusers leaves it out" if extra else None


def _floating(found: Tensor | Entry) -> bool:
    return found.dtype in COMPUTED and type(found) is Tensor if isinstance(found, Tensor) else str(found.dtype)[:1] in "FB"


def _told(found: Tensor | Entry | None) -> str:
    if found is None:
        return "is not there"
    return f"is {type(found).__name__} {str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"


def _way_out(network: nn.Module) -> str:
    if any(hasattr(module, "base_layer") for module in network.modules()):
        return f"it carries a LoRA: {MERGE}"
    return f"put the layer back that its configuration says; {QUANTIZED}"
