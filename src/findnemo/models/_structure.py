"""What makes a network besides its weights: its configuration, and what somebody changed in its
modules.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

# settings about a model's origin, its training, or outputs other than the main one
SILENT = {
    *("name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures"),
    *("model_type", "return_dict", "use_cache", "output_attentions", "output_hidden_states"),
    *("torchscript", "id2label", "label2id", "problem_type", "task_specific_params"),
    *("dropout", "attention_dropout", "dropout_rate", "classifier_dropout"),
    *("initializer_range", "initializer_factor", "training", "gradient_checkpointing"),
    *("inplace", "name", "p", "fused_projections", "use_slicing", "tokenizer_class"),
    # known from embedding and tokenizer; diffusers forgets to restore it
    "vocab_size",
    "lora_scale",  # left by a fused adapter, never read
}
SHAPES = {  # attributes of modules that follow from the shapes of their weights
    *("in_features", "out_features", "in_channels", "out_channels", "num_channels", "channels"),
    *("num_embeddings", "embedding_dim", "normalized_shape", "sparse", "scale_grad_by_freq"),
}
UNTELLING = SILENT | SHAPES
# attributes that every module has, none of them a setting or a method
EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}
# parts of the names of equivalent attention processors
SAME_WAYS = re.compile("XFormers|Sliced|Fused|Flash|2_0|NPU|XLA")
USUAL_WAYS = {f"{kind}Processor" for kind in ("Attn", "AttnAddedKV", "JointAttn", "FluxAttn")}
# copies of projections: fused models are refused, others do not use them
FUSED = {"to_qkv", "to_kv", "to_added_qkv"}
LONG = 32  # longest list of numbers that is kept in full


def settings_of(module: nn.Module) -> dict[str, Any]:
    """The configuration of a module, and what somebody changed in its modules."""
    config: Any = getattr(module, "config", {})
    # configurations of transformers have many settings that most models do not use
    of_transformers = hasattr(config, "to_diff_dict")
    values = config.to_dict() if of_transformers else dict(config)
    usual = _usual() if of_transformers else {}
    telling = {
        name: value
        for name, value in values.items()
        if name not in SILENT and name[0] != "_" and (name not in usual or usual[name] != value)
    }
    return {"class": type(module).__name__} | plain(telling) | _by_hand(module, values)


@lru_cache(maxsize=1)
def _usual() -> dict[str, Any]:
    from transformers import PretrainedConfig

    return dict(PretrainedConfig().to_dict())


def _by_hand(module: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody changed in a module's modules.

    Class.attribute -> present value, if it is not the configuration's (heads, an activation,
    FreeU). Class.modules -> number of modules of a class that are missing, or that should not be
    there.
    """
    public = {name: value for name, value in config.items() if name[0] != "_"}
    kind: Any = type(module)
    usual = _configured(kind, json.dumps(public, sort_keys=True, default=str))
    if usual is None:
        return {}
    now = _structure(module)
    changes: dict[str, dict[str, Any]] = {}
    for path in {**usual, **now}:
        usual_kind, then = usual.get(path, ("", {}))
        kind, attributes = now.get(path, ("", {}))
        if usual_kind != kind:
            changes.setdefault(f"{kind or usual_kind}.modules", {})[path] = bool(kind)
            continue
        for name in {**then, **attributes}:
            if then.get(name) != attributes.get(name):
                changes.setdefault(f"{kind}.{name}", {})[path] = attributes.get(name)
    return {name: _summary(values) for name, values in changes.items()}


Structure = dict[str, tuple[str, dict[str, Any]]]  # path -> class and attributes of a module


@lru_cache(maxsize=16)
def _configured(kind: Any, config: str) -> Structure | None:
    """The structure of a module by its configuration, without weights; None if its class cannot be
    made from that alone.
    """
    values = json.loads(config)
    try:
        with torch.device("meta"):
            if hasattr(kind, "from_config"):
                return _structure(kind.from_config(values))
            return _structure(kind(kind.config_class.from_dict(values)))
    # unknown classes, quantized models: if anything fails, weights and configuration must
    # suffice
    except Exception:
        return None


def _structure(module: nn.Module) -> Structure:
    """The structure of a network without adapters."""
    return {
        path: (type(part).__name__, _attributes(part)) for path, part in paths(module, bare=True)
    }


def _attributes(module: nn.Module) -> dict[str, Any]:
    own = {name: value for name, value in vars(module).items() if name not in EVERY_MODULE}
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in own.items()
        if value is not None and name[0] != "_" and name not in UNTELLING and _simple(value)
    }
    if processor := _processor(module):
        settings["processor"] = processor
    return settings | replaced(module)


def replaced(thing: Any) -> dict[str, str]:
    """Methods that somebody replaced on this object alone: name -> by what.

    Replacements by findnemo and by libraries that move weights or compile do not count: they give
    the same results.
    """
    own = vars(thing)
    if "_hf_hook" in own or "_diffusers_hook" in own or own.get("_compiled_call_impl") is not None:
        return {}
    return {
        name: f"replaced by {getattr(value, '__qualname__', type(value).__name__)}"
        for name, value in own.items()
        if name not in EVERY_MODULE
        and callable(value)
        and callable(getattr(type(thing), name, None))
        and _foreign(value)
    }


def _foreign(method: Any) -> bool:
    maker = getattr(method, "__module__", None) or ""
    return not maker.startswith(("findnemo", "torch.", "accelerate", "peft"))


def _summary(values: Mapping[str, Any]) -> Any:
    """The common value of a setting of modules, with their number and names."""
    different = {json.dumps(value): value for value in values.values()}
    first = next(iter(different.values())) if len(different) == 1 else "several values"
    return f"{first!r} in {len(values)} modules ({short(values)})"


def paths(module: nn.Module, bare: bool = False) -> Iterator[tuple[str, nn.Module]]:
    """A module and all modules in it with their paths, in half the time of `named_modules`.

    `bare`: as if it had no adapters, and without copies of projections (FUSED).
    """
    ahead: list[tuple[str, Any]] = [("", module)]
    while ahead:
        path, part = ahead.pop()
        while bare and adapts(part):
            part = part.base_layer
        yield path, part
        for name, child in reversed(part._modules.items()):
            if child is not None and not (bare and name in FUSED):
                ahead.append((f"{path}.{name}" if path else name, child))


def _processor(module: nn.Module) -> str:
    """How an attention computes, unless it is one of the usual, equivalent ways."""
    kind = type(getattr(module, "processor", None))
    usual = (
        kind is type(None)
        or SAME_WAYS.sub("", kind.__name__) in USUAL_WAYS
        or kind.__module__.startswith("findnemo.")
    )
    return "" if usual else kind.__name__


def _simple(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_simple(part) for part in value)
    return isinstance(value, (bool, int, float, str)) or value is None


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON values, without empty ones."""
    return {name: _value(value) for name, value in values.items() if value is not None}


def _value(value: Any) -> Any:
    """A setting as a JSON value; a long list as its length and digest."""
    value = json.loads(json.dumps(value, default=_encoded))
    if isinstance(value, list) and len(value) > LONG:
        return f"{len(value)} values ({short(value)})"
    return value


def _encoded(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def short(value: Any) -> str:
    """16 digits of the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def adapts(module: Any) -> bool:
    """Whether a module is a layer of peft around another one."""
    return hasattr(type(module), "active_adapters") and hasattr(module, "base_layer")
