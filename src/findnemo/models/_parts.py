"""Reading the identity of a live pipeline, part by part. Only weights that have changed since are hashed again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.models._content import digests, stamp, weights_of
from findnemo.models._identity import ADAPTER, METHOD, RULES, Identity, Part

# parts of a pipeline that neither scores nor findnemo's pictures pass through
IDLE = ("safety_checker", "feature_extractor", "image_encoder", "watermarker", "requires_safety_checker")
DERIVED = ("vae_scale_factor", "default_sample_size", "tokenizer_max_length")  # attributes of a pipeline that tell sizes
# configuration that says where a model comes from, how it was trained or what else than its output is returned
SILENT = {
    *("name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "model_type", "return_dict", "use_cache"),
    *("output_attentions", "output_hidden_states", "torchscript", "id2label", "label2id", "problem_type", "task_specific_params"),
    *("dropout", "attention_dropout", "dropout_rate", "classifier_dropout", "initializer_range", "initializer_factor"),
    *("training", "gradient_checkpointing", "inplace", "name", "p", "fused_projections", "use_slicing", "tokenizer_class"),
}
SHAPES = {  # attributes of modules that the shapes of their weights tell
    *("in_features", "out_features", "in_channels", "out_channels", "num_channels", "channels"),
    *("num_embeddings", "embedding_dim", "normalized_shape", "sparse", "scale_grad_by_freq"),
}
SAME_WAYS = re.compile("XFormers|Sliced|Fused|Flash|2_0|NPU|XLA")  # of computing the same attention: what their names add
USUAL_WAYS = {f"{kind}Processor" for kind in ("Attn", "AttnAddedKV", "JointAttn", "FluxAttn")}
WRAPPERS = {"base_layer", "text_model"}  # levels of a state that come and go: with an adapter, with a version of transformers
FUSED = {"to_qkv", "to_kv", "to_added_qkv"}  # copies of projections, which a fused model is refused for and another does not use
LONG = 32  # numbers of a list that are kept as they are
WORDS = (  # what a tokenizer is asked for, to tell rules apart that no setting names
    "A  Photo of THE red fox, 1999's “best” café & naïve Straße — 3.5%! \n\t hello_world <tag> I'd can't 日本語 🦊"
)


Known = dict[str, tuple[str, Any]]  # part -> its stamp and the digests that were made then


def identity(pipeline: Any, schedule: tuple[str, ...], known: Known) -> Identity:
    """The identity of a pipeline as it is now. `schedule`: settings of its scheduler on which noise depends."""
    parts = {"findnemo": Part({"method": METHOD}), "pipeline": Part(_pipeline(pipeline))}
    fused: list[str] = []
    for name, component in pipeline.components.items():
        if name in IDLE or component is None:
            continue
        if isinstance(component, nn.Module):
            module = _Module.of(component)
            parts[name] = Part(_settings(component), _digests(name, module.tensors, known))
            parts |= {f"{ADAPTER}{a!r} of {name}": part for a, part in _acting(name, module, known)}
            fused += [f"{ADAPTER}{a!r} of {name}" for a in module.fused]
        elif name == "scheduler":
            parts["scheduler"], parts["sampler"] = Part(_noise(component, schedule)), Part(_sampler(component, schedule))
        elif hasattr(component, "get_vocab"):
            parts[name] = Part(_tokenizer(name, component, known))
    return Identity(parts, tuple(fused))


def _digests(name: str, tensors: Mapping[str, Tensor], known: Known) -> dict[str, Any]:
    now = stamp(tensors)
    if known.get(name, ("",))[0] != now:
        known[name] = now, digests(tensors)
    made: dict[str, Any] = known[name][1]
    return made


# settings -------------------------------------------------------------------------------------------------------------


def _pipeline(pipeline: Any) -> dict[str, Any]:
    config = {
        k: v for k, v in pipeline.config.items() if k not in pipeline.components and k not in IDLE and not k.startswith("_")
    }
    sizes = {name: getattr(pipeline, name, None) for name in DERIVED}
    return {"class": type(pipeline).__name__} | _plain(config | sizes)


def _settings(module: nn.Module) -> dict[str, Any]:
    """The configuration of a module, and what somebody has set in its modules beside it."""
    config: Any = getattr(module, "config", {})
    ours = hasattr(config, "to_diff_dict")  # of transformers, with settings that every model has and most do not use
    known = config.to_dict() if ours else dict(config)
    usual = _usual() if ours else {}
    heard = {n: v for n, v in known.items() if n not in SILENT and n[0] != "_" and (n not in usual or usual[n] != v)}
    return {"class": type(module).__name__} | _plain(heard) | _by_hand(module, known)


@lru_cache(maxsize=1)
def _usual() -> dict[str, Any]:
    from transformers import PretrainedConfig

    known: dict[str, Any] = PretrainedConfig().to_dict()
    return known


def _by_hand(module: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """Class.attribute -> what it is now, where that is not what the configuration gives (heads, an activation, FreeU); Class.modules -> how many
    modules of a class are there, or missing, that should not be."""
    kind: Any = type(module)
    made = _made(kind, json.dumps({n: v for n, v in config.items() if n[0] != "_"}, sort_keys=True, default=str))
    if made is None:
        return {}
    now, found = _structure(module), {}  # type: tuple[Any, dict[str, dict[str, Any]]]
    for path in {**made, **now}:
        (then_kind, then), (now_kind, attributes) = made.get(path, ("", {})), now.get(path, ("", {}))
        if then_kind != now_kind:
            found.setdefault(f"{now_kind or then_kind}.modules", {})[path] = bool(now_kind)
            continue
        for name in {**then, **attributes}:
            if then.get(name) != attributes.get(name):
                found.setdefault(f"{now_kind}.{name}", {})[path] = attributes.get(name)
    return {name: _summary(values) for name, values in found.items()}


@lru_cache(maxsize=16)
def _made(kind: Any, config: str) -> dict[str, tuple[str, dict[str, Any]]] | None:
    """The structure of a module as its configuration gives it, without weights; None where its class cannot be made from that alone."""
    try:
        with torch.device("meta"):
            values = json.loads(config)
            fresh = kind.from_config(values) if hasattr(kind, "from_config") else kind(kind.config_class.from_dict(values))
    except (
        Exception
    ):  # classes of others, quantized models: anything may go wrong, and then their weights and configuration must do
        return None
    return _structure(fresh)


def _structure(module: nn.Module) -> dict[str, tuple[str, dict[str, Any]]]:
    """Path -> class and attributes of every module, adapters left out."""
    return {path: (type(part).__name__, _attributes(part)) for path, part in _walk(module)}


def _attributes(module: nn.Module) -> dict[str, Any]:
    found = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(module).items()
        if name[0] != "_" and value is not None and name not in SILENT and name not in SHAPES and _simple(value)
    }
    return found | ({"processor": kind} if (kind := _processor(module)) else {})


def _summary(values: Mapping[str, Any]) -> Any:
    """The value of a setting that modules have in common, and how many and which they are."""
    different = {json.dumps(value): value for value in values.values()}
    first = next(iter(different.values())) if len(different) == 1 else "several values"
    return f"{first!r} in {len(values)} modules ({_short(values)})"


def _walk(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of a model as if it carried no adapters."""
    if _adapts(module):
        yield from _walk(module.base_layer, path)  # type: ignore[arg-type]
        return
    yield path, module
    for name, child in module._modules.items():
        if child is not None and name not in FUSED:
            yield from _walk(child, f"{path}.{name}" if path else name)


def _processor(module: nn.Module) -> str:
    """How an attention computes, where that is none of the usual ways, which give the same result; ours give back what was there."""
    kind = type(getattr(module, "processor", None))
    usual = kind is type(None) or SAME_WAYS.sub("", kind.__name__) in USUAL_WAYS or kind.__module__.startswith("findnemo.")
    return "" if usual else kind.__name__


def _simple(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_simple(part) for part in value)
    return isinstance(value, (bool, int, float, str)) or value is None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON knows them, without those that say nothing."""
    return {name: _value(value) for name, value in values.items() if value is not None}


def _value(value: Any) -> Any:
    """A setting as JSON knows it; a long list as its length and digest."""
    value = json.loads(json.dumps(value, default=lambda other: other.tolist() if hasattr(other, "tolist") else str(other)))
    return f"{len(value)} values ({_short(value)})" if isinstance(value, list) and len(value) > LONG else value


def _short(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


# schedulers and tokenizers --------------------------------------------------------------------------------------------


def _noise(scheduler: Any, schedule: tuple[str, ...]) -> dict[str, Any]:
    """The noise schedule; a setting that is off is the same as one that the scheduler does not have."""
    config = scheduler.config
    found = _plain({name: config[name] for name in schedule if not _off(config.get(name))})
    if "original_inference_steps" in found:  # timesteps of a distillation, which its own class makes
        found["class"] = type(scheduler).__name__
    return found | _set_by_hand(scheduler)


def _off(value: Any) -> bool:
    return value is None or (isinstance(value, (bool, int, float)) and not value)


def _set_by_hand(scheduler: Any) -> dict[str, str]:
    """A digest of the schedule that is in force, where it is not what the configuration gives: somebody has set it."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas, Tensor):
        return {}
    kind: Any = type(scheduler)
    made = _alphas(kind, json.dumps({k: v for k, v in scheduler.config.items() if k[0] != "_"}, default=list))
    now = alphas.detach().float().cpu()
    if made is None or (made.shape == now.shape and torch.allclose(made, now, rtol=1e-3, atol=1e-7)):
        return {}
    return {"alphas_cumprod": f"set by hand ({_short(now.tolist())})"}


@lru_cache(maxsize=16)
def _alphas(kind: Any, config: str) -> Tensor | None:
    try:
        made = getattr(kind.from_config(json.loads(config)), "alphas_cumprod", None)
    except (TypeError, ValueError, NotImplementedError):  # settings that the class refuses: made before they were set
        made = None
    return made.float().cpu() if isinstance(made, Tensor) else None


def _sampler(scheduler: Any, schedule: tuple[str, ...]) -> dict[str, Any]:
    """What makes pictures of noise predictions: the class and all settings that are not the noise schedule's."""
    config = {name: value for name, value in scheduler.config.items() if name[0] != "_" and name not in schedule}
    shift = getattr(scheduler, "shift", None)  # of a flow: `set_shift` changes it beside the configuration
    changed = {"shift": shift} if shift != scheduler.config.get("shift") else {}
    return {"class": type(scheduler).__name__} | _plain(config | changed)


def _tokenizer(name: str, tokenizer: Any, known: Known) -> dict[str, Any]:
    """Settings of a tokenizer, digests of its vocabulary and rules, and of what it makes of a few words."""
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    about = {"class": type(tokenizer).__name__.removesuffix("Fast"), "model_max_length": tokenizer.model_max_length}
    about |= {key: getattr(tokenizer, key, None) for key in ("padding_side", "truncation_side", "split_special_tokens")}
    ids = tokenizer(WORDS, verbose=False).input_ids
    return about | special | {"pad_token_id": tokenizer.pad_token_id, "words": _short(ids)} | _rules(name, tokenizer, known)


def _rules(name: str, tokenizer: Any, known: Known) -> dict[str, str]:
    """Digests of the vocabulary and, where the tokenizer is one of the tokenizers library, of its rules (RULES)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = repr(tokenizer.get_vocab()) if backend is None else backend.to_str()
    now = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()
    if known.get(name, ("",))[0] != now:
        rules = {} if backend is None else json.loads(whole)
        found = {key: _short(rules.get(key)) for key in RULES} if rules else {}
        known[name] = now, {"vocabulary": _short(tokenizer.get_vocab()), **found}
    made: dict[str, str] = known[name][1]
    return made


# adapters -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Module:
    """A module seen without its adapters (LoRA and other layers of peft): its own tensors, each adapter's, and the layers that carry any."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    adapters: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module) -> _Module:
        made = cls(layers={path: part for path, part in module.named_modules() if _adapts(part)})
        for key, value in weights_of(module).items():
            names = key.split(".")
            if FUSED.isdisjoint(names):
                made._put(key, names, value)
        return made

    def _put(self, key: str, names: list[str], value: Tensor) -> None:
        path = (
            next((path for k in range(len(names)) if (path := ".".join(names[:k])) in self.layers), None) if self.layers else None
        )
        own = [] if path is None else names[path.count(".") + 1 :]
        adapter = next((name for name in own if path is not None and name in _names(self.layers[path])), None)
        if own and own[0] != "base_layer" and adapter is not None:
            self.adapters.setdefault(adapter, {})[key] = value
        else:
            self.tensors[".".join(name for name in names if name not in WRAPPERS)] = value

    @property
    def fused(self) -> list[str]:
        """Adapters that were added to the weights and are still there to be taken away again."""
        return sorted({name for layer in self.layers.values() for name in getattr(layer, "merged_adapters", ())})


def _adapts(module: Any) -> bool:
    return hasattr(module, "base_layer") and hasattr(module, "active_adapters")


def _names(layer: Any) -> set[str]:
    return {name for attribute in layer.adapter_layer_names for name in getattr(layer, attribute, {})}


def _acting(name: str, module: _Module, known: Known) -> Iterator[tuple[str, Part]]:
    """The adapters of a module that change its output now, with their strengths; one that is off, at 0 or fused does not."""
    strengths: dict[str, dict[str, tuple[float, float]]] = {}
    for path, layer in module.layers.items():
        for adapter, pair in _strengths(layer).items():
            strengths.setdefault(adapter, {})[path] = pair
    for adapter, of_layers in strengths.items():
        about = {"strength": _one(of_layers, 0), "alpha / rank": _one(of_layers, 1)}
        if any(getattr(layer, "use_dora", {}).get(adapter) for layer in module.layers.values()):
            about["dora"] = True
        yield adapter, Part(about, _digests(f"{name} {adapter}", module.adapters.get(adapter, {}), known))


def _strengths(layer: Any) -> dict[str, tuple[float, float]]:
    """Adapter -> its strength in a layer and what it multiplies, alpha / rank; without those that do nothing."""
    merged = list(getattr(layer, "merged_adapters", ()))
    if layer.disable_adapters or merged:  # a layer that is fused and off takes its weights back in the next pass
        return {name: (-1.0, 0.0) for name in merged if layer.disable_adapters}
    found = {name: _strength(layer, name) for name in layer.active_adapters if name in _names(layer)}
    return {name: pair for name, pair in found.items() if pair[0]}


def _strength(layer: Any, adapter: str) -> tuple[float, float]:
    scaling = float(getattr(layer, "scaling", {}).get(adapter, 1.0))
    alpha = getattr(layer, "lora_alpha", getattr(layer, "alpha", {})).get(adapter)
    rank = getattr(layer, "r", {}).get(adapter)
    unit = float(alpha / rank) if alpha and rank else 1.0
    return round(scaling / unit, 6), round(unit, 6)


def _one(of_layers: Mapping[str, tuple[float, float]], position: int) -> Any:
    """The value of all layers, or their range where it is not one."""
    values = {path: pair[position] for path, pair in of_layers.items()}
    low, high = min(values.values()), max(values.values())
    return low if low == high else f"{low} to {high} ({_short(values)})"
