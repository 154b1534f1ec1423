"""Reading the identity of a live pipeline, part by part. Only weights that have changed since are hashed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.models._adapters import Module, acting
from findnemo.models._content import digests, stamp
from findnemo.models._identity import ADAPTER, METHOD, RULES, Identity, Part
from findnemo.models._structure import plain, replaced, settings_of, short

# parts of a pipeline that neither scores nor findnemo's pictures pass through
IDLE = (
    "safety_checker",
    "feature_extractor",
    "image_encoder",
    "watermarker",
    "requires_safety_checker",
)
DERIVED = (
    "vae_scale_factor",
    "tokenizer_max_length",
)  # attributes of a pipeline that tell what its networks are given
DYNAMIC = {
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "time_shift_type",
}  # of a flow that shifts by size
WORDS = (  # what a tokenizer is asked for, to tell rules apart that no setting names
    "A  Photo of THE red fox, 1999's “best” café & naïve Straße — 3.5% \n\t hello_world <tag> I'd can't 日本語 🦊"
)


Known = dict[str, tuple[str, Any]]  # part -> its stamp and the digests that were made then


def identity(pipeline: Any, schedule: tuple[str, ...], known: Known) -> Identity:
    """The identity of a pipeline as it is now. `schedule`: settings of its scheduler on which noise depends."""
    parts = {"findnemo": Part({"method": METHOD}), "pipeline": Part(_pipeline(pipeline))}
    if size := getattr(pipeline, "default_sample_size", None):
        parts["size"] = Part({"default_sample_size": size})
    fused: list[str] = []
    for name, component in pipeline.components.items():
        if name in IDLE or component is None:
            continue
        component = getattr(
            component, "_orig_mod", component
        )  # a compiled one computes what it was compiled from
        if isinstance(component, nn.Module):
            module = Module.of(component)
            parts[name] = Part(settings_of(component), _digests(name, module.tensors, known))
            for adapter, settings in acting(module):
                weights = _digests(f"{name} {adapter}", module.adapters.get(adapter, {}), known)
                parts[f"{ADAPTER}{adapter!r} of {name}"] = Part(settings, weights)
            fused += [f"{ADAPTER}{adapter!r} of {name}" for adapter in module.fused]
        elif name == "scheduler":
            parts["scheduler"], parts["sampler"] = (
                Part(_noise(component, schedule)),
                Part(_sampler(component, schedule)),
            )
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
        k: v
        for k, v in pipeline.config.items()
        if k not in pipeline.components and k not in IDLE and not k.startswith("_")
    }
    sizes = {name: getattr(pipeline, name, None) for name in DERIVED}
    return {"class": type(pipeline).__name__} | plain(config | sizes) | replaced(pipeline)


# schedulers and tokenizers --------------------------------------------------------------------------------------------


def _noise(scheduler: Any, schedule: tuple[str, ...]) -> dict[str, Any]:
    """The noise schedule; a setting that is off is the same as one that the scheduler does not have."""
    config = scheduler.config
    idle: set[str] = set() if config.get("use_dynamic_shifting", True) else DYNAMIC
    found = plain(
        {name: config[name] for name in schedule if not _off(config.get(name)) and name not in idle}
    )
    if (
        "original_inference_steps" in found
    ):  # timesteps of a distillation, which its own class makes
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
    made = _alphas(
        kind, json.dumps({k: v for k, v in scheduler.config.items() if k[0] != "_"}, default=list)
    )
    now = alphas.detach().float().cpu()
    if made is None or (
        made.shape == now.shape and torch.allclose(made, now, rtol=1e-3, atol=1e-7)
    ):
        return {}
    return {"alphas_cumprod": f"set by hand ({short(now.tolist())})"}


@lru_cache(maxsize=16)
def _alphas(kind: Any, config: str) -> Tensor | None:
    try:
        made = getattr(kind.from_config(json.loads(config)), "alphas_cumprod", None)
    except (
        TypeError,
        ValueError,
        NotImplementedError,
    ):  # settings that the class refuses: made before they were set
        made = None
    return made.float().cpu() if isinstance(made, Tensor) else None


def _sampler(scheduler: Any, schedule: tuple[str, ...]) -> dict[str, Any]:
    """What makes pictures of noise predictions: the class and all settings that are not the noise schedule's."""
    config = {
        name: value
        for name, value in scheduler.config.items()
        if name[0] != "_" and name not in schedule
    }
    shift = getattr(
        scheduler, "shift", None
    )  # of a flow: `set_shift` changes it beside the configuration
    changed = {"shift": shift} if shift != scheduler.config.get("shift") else {}
    return {"class": type(scheduler).__name__} | plain(config | changed)


def _tokenizer(name: str, tokenizer: Any, known: Known) -> dict[str, Any]:
    """Settings of a tokenizer, digests of its vocabulary and rules, and of what it makes of a few words."""
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    about = {
        "class": type(tokenizer).__name__.removesuffix("Fast"),
        "model_max_length": tokenizer.model_max_length,
    }
    about |= {
        key: getattr(tokenizer, key, None)
        for key in ("padding_side", "truncation_side", "split_special_tokens")
    }
    ids = tokenizer(WORDS, verbose=False).input_ids
    return (
        about
        | special
        | {"pad_token_id": tokenizer.pad_token_id, "words": short(ids)}
        | _rules(name, tokenizer, known)
    )


def _rules(name: str, tokenizer: Any, known: Known) -> dict[str, str]:
    """Digests of the vocabulary and, where the tokenizer is one of the tokenizers library, of its rules (RULES)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = repr(tokenizer.get_vocab()) if backend is None else backend.to_str()
    named = sorted(str(value) for value in tokenizer.special_tokens_map.values())
    now = hashlib.sha256(f"{named}{whole}".encode(errors="surrogatepass")).hexdigest()
    if known.get(name, ("",))[0] != now:
        told = {} if backend is None else json.loads(whole)
        rules: dict[str, Any] = {key: told.get(key) for key in RULES if told}
        if (
            "added_tokens" in rules
        ):  # a token that a setting names becomes an added one when the tokenizer is saved
            rules["added_tokens"] = [
                token for token in rules["added_tokens"] or () if token["content"] not in named
            ]
        known[name] = (
            now,
            {"vocabulary": short(tokenizer.get_vocab())}
            | {key: short(rule) for key, rule in rules.items()},
        )
    made: dict[str, str] = known[name][1]
    return made
