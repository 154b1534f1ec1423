"""Adapters (LoRA and other layers of peft): a module without them, and which of them are active at
which strength.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from findnemo.models._structure import FUSED, adapts, paths, short
from findnemo.models.content import weights_of

# levels of names that depend on adapters or on the version of transformers
WRAPPERS = {"base_layer", "text_model"}


def adapted(module: nn.Module) -> dict[str, Any]:
    """Path -> layer of a module that carries adapters."""
    return {path: part for path, part in paths(module) if adapts(part)}


def parted(
    module: nn.Module, layers: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """A module's own tensors, named as if it had no adapters (`layers`), and those of each."""
    tensors: dict[str, Tensor] = {}
    adapters: dict[str, dict[str, Tensor]] = {}
    for key, value in weights_of(module).items():
        names = key.split(".")
        if not FUSED.isdisjoint(names):
            continue
        if adapter := _owner(layers, names):
            adapters.setdefault(adapter, {})[key] = value
        else:
            tensors[".".join(name for name in names if name not in WRAPPERS)] = value
    return tensors, adapters


def _owner(layers: Mapping[str, Any], names: list[str]) -> str | None:
    """The adapter that a tensor belongs to, by the levels of its name; None for the module's own
    tensors.
    """
    for depth in range(len(names) if layers else 0):
        layer = layers.get(".".join(names[:depth]))
        if layer is not None:
            own = names[max(depth, 1) :]
            adapters = _names(layer)
            if own[:1] == ["base_layer"]:
                return None
            return next((name for name in own if name in adapters), None)
    return None


def fused_in(layers: Mapping[str, Any]) -> list[str]:
    """Adapters added to the weights that can still be removed."""
    return sorted(
        {name for layer in layers.values() for name in getattr(layer, "merged_adapters", ())}
    )


def _names(layer: Any) -> set[str]:
    """All adapters that a layer carries."""
    attributes = layer.adapter_layer_names
    return {name for attribute in attributes for name in getattr(layer, attribute, {})}


def acting(layers: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The adapters of layers that change the output now, with their settings; none that is off, at
    0 or fused.
    """
    strengths: dict[str, dict[str, tuple[float, float]]] = {}
    for path, layer in layers.items():
        for adapter, pair in _strengths(layer).items():
            strengths.setdefault(adapter, {})[path] = pair
    for adapter, of_layers in strengths.items():
        dora = any(getattr(layer, "use_dora", {}).get(adapter) for layer in layers.values())
        settings = {"strength": _one(of_layers, 0), "alpha / rank": _one(of_layers, 1)}
        yield adapter, settings | ({"dora": True} if dora else {})


def _strengths(layer: Any) -> dict[str, tuple[float, float]]:
    """Adapter -> its strength in a layer, and the factor alpha / rank; without adapters that do
    nothing.
    """
    merged = list(getattr(layer, "merged_adapters", ()))
    # a layer that is fused and off restores its weights in the next pass
    if layer.disable_adapters or merged:
        return {name: (-1.0, 0.0) for name in merged if layer.disable_adapters}
    names = _names(layer)
    pairs = {name: _strength(layer, name) for name in layer.active_adapters if name in names}
    return {name: pair for name, pair in pairs.items() if pair[0]}


def _strength(layer: Any, adapter: str) -> tuple[float, float]:
    scaling = float(getattr(layer, "scaling", {}).get(adapter, 1.0))
    alpha = getattr(layer, "lora_alpha", getattr(layer, "alpha", {})).get(adapter)
    rank = getattr(layer, "r", {}).get(adapter)
    unit = float(alpha / rank) if alpha and rank else 1.0
    return round(scaling / unit, 6), round(unit, 6)


def _one(of_layers: Mapping[str, tuple[float, float]], position: int) -> Any:
    """The common value of all layers, or their range if it differs."""
    values = {path: pair[position] for path, pair in of_layers.items()}
    low, high = min(values.values()), max(values.values())
    return low if low == high else f"{low} to {high} ({short(values)})"
