"""Read the identity of a live pipeline, part by part.

Only weights that changed since the last time are hashed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.models._adapters import acting, adapted, fused_in, parted
from findnemo.models._structure import plain, replaced, settings_of, short
from findnemo.models.content import digests, stamp
from findnemo.models.identity import ADAPTER, METHOD, RULES, Identity, Part
from findnemo.models.modules import SPARE

# parts of a pipeline that affect neither scores nor findnemo's pictures
IDLE = (*SPARE, "requires_safety_checker")
# attributes of a pipeline that determine the inputs of its networks
DERIVED = ("vae_scale_factor", "tokenizer_max_length")
# settings of a flow's scheduler that matter only if it shifts by size
DYNAMIC = {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"}
# text for tokenizers, to detect different rules that no setting shows
WORDS = (
    "A  Photo of THE red fox, 1999's “best” café & naïve Straße — 3.5% \n\t hello_world <tag> I'd"
    " can't 日本語 🦊"
)

Digests = dict[str, tuple[str, Any]]  # part -> its earlier stamp, and its digests at that time


def settings(pipeline: Any, schedule: tuple[str, ...]) -> Identity:
    """The identity of a pipeline without its weights, which are not read."""
    return identity(pipeline, schedule, {}, lambda cache, name, tensors: None)


def identity(
    pipeline: Any,
    schedule: tuple[str, ...],
    cache: Digests,
    read: Callable[[Digests, str, Mapping[str, Tensor]], dict[str, Any] | None] | None = None,
) -> Identity:
    """The identity of a pipeline as it is now.

    `schedule`: settings of its scheduler that noise depends on. `cache`: earlier digests, which
    this updates. `read`: what is kept of the weights of a part; default: their digests.
    """
    read = read or _digests
    parts = {"findnemo": Part({"method": METHOD}), "pipeline": Part(_pipeline(pipeline))}
    if size := getattr(pipeline, "default_sample_size", None):
        parts["size"] = Part({"default_sample_size": size})
    fused: list[str] = []
    for name, component in pipeline.components.items():
        if name in IDLE or component is None:
            continue
        # a compiled network computes the same as its original
        component = getattr(component, "_orig_mod", component)
        if isinstance(component, nn.Module):
            layers = adapted(component)
            tensors, adapters = parted(component, layers)
            parts[name] = Part(settings_of(component), read(cache, name, tensors))
            for adapter, acts in acting(layers):
                weights = read(cache, f"{name} {adapter}", adapters.get(adapter, {}))
                parts[f"{ADAPTER}{adapter!r} of {name}"] = Part(acts, weights)
            fused += [f"{ADAPTER}{adapter!r} of {name}" for adapter in fused_in(layers)]
        elif name == "scheduler":
            parts["scheduler"] = Part(_noise(component, schedule))
            parts["sampler"] = Part(_sampler(component, schedule))
        elif hasattr(component, "get_vocab"):
            parts[name] = Part(_tokenizer(name, component, cache))
    return Identity(parts, tuple(fused))


def _digests(cache: Digests, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return _cached(cache, name, stamp(tensors), lambda: digests(tensors))


def _cached(
    cache: Digests, name: str, now: str, computed: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The digests of a part, computed again if its stamp `now` differs."""
    if name not in cache or cache[name][0] != now:
        cache[name] = now, computed()
    kept: dict[str, Any] = cache[name][1]
    return kept


def _pipeline(pipeline: Any) -> dict[str, Any]:
    other = {*pipeline.components, *IDLE}
    config = {k: v for k, v in pipeline.config.items() if k not in other and k[:1] != "_"}
    sizes = {name: getattr(pipeline, name, None) for name in DERIVED}
    return {"class": type(pipeline).__name__} | plain(config | sizes) | replaced(pipeline)


def _noise(scheduler: Any, schedule: tuple[str, ...]) -> dict[str, Any]:
    """The noise schedule; a setting that is off equals one that the scheduler does not have."""
    config = scheduler.config
    idle: set[str] = set() if config.get("use_dynamic_shifting", True) else DYNAMIC
    settings = plain(
        {name: config[name] for name in schedule if not _off(config.get(name)) and name not in idle}
    )
    # timesteps of a distillation, made by its own class
    if "original_inference_steps" in settings:
        settings["class"] = type(scheduler).__name__
    return settings | _set_by_hand(scheduler)


def _off(value: Any) -> bool:
    return value is None or (isinstance(value, (bool, int, float)) and not value)


def _set_by_hand(scheduler: Any) -> dict[str, str]:
    """A digest of the schedule in force, if somebody set one other than the configuration's."""
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(alphas, Tensor):
        return {}
    config = {k: v for k, v in scheduler.config.items() if k[0] != "_"}
    kind: Any = type(scheduler)
    usual = _alphas(kind, json.dumps(config, default=list))
    now = alphas.detach().float().cpu()
    if usual is None:
        return {}
    if usual.shape == now.shape and torch.allclose(usual, now, rtol=1e-3, atol=1e-7):
        return {}
    return {"alphas_cumprod": f"set by hand ({short(now.tolist())})"}


@lru_cache(maxsize=16)
def _alphas(kind: Any, config: str) -> Tensor | None:
    """The schedule of a scheduler's configuration; None if its class refuses the configuration,
    which was then set afterwards.
    """
    try:
        alphas = getattr(kind.from_config(json.loads(config)), "alphas_cumprod", None)
    except (TypeError, ValueError, NotImplementedError):
        return None
    return alphas.float().cpu() if isinstance(alphas, Tensor) else None


def _sampler(scheduler: Any, schedule: tuple[str, ...]) -> dict[str, Any]:
    """What turns noise predictions into pictures: the class, and all settings outside the noise
    schedule.
    """
    items = scheduler.config.items()
    config = {name: value for name, value in items if name[0] != "_" and name not in schedule}
    # for a flow: `set_shift` changes it without the configuration
    shift = getattr(scheduler, "shift", None)
    changed = {"shift": shift} if shift != scheduler.config.get("shift") else {}
    return {"class": type(scheduler).__name__} | plain(config | changed)


def _tokenizer(name: str, tokenizer: Any, cache: Digests) -> dict[str, Any]:
    """Settings of a tokenizer, digests of its vocabulary and rules, and its tokens of a few
    words.
    """
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = repr(tokenizer.get_vocab()) if backend is None else backend.to_str()
    now = f"{sorted(special.values())}{whole}".encode(errors="surrogatepass")
    return {
        "class": type(tokenizer).__name__.removesuffix("Fast"),
        "model_max_length": tokenizer.model_max_length,
        "padding_side": getattr(tokenizer, "padding_side", None),
        "truncation_side": getattr(tokenizer, "truncation_side", None),
        "split_special_tokens": getattr(tokenizer, "split_special_tokens", None),
        **special,
        "pad_token_id": tokenizer.pad_token_id,
        "words": short(tokenizer(WORDS, verbose=False).input_ids),
        **_cached(cache, name, sha256(now).hexdigest(), lambda: _rules(tokenizer)),
    }


def _rules(tokenizer: Any) -> dict[str, str]:
    """Digests of the vocabulary and, for a tokenizer of the tokenizers library, of its rules
    (RULES).
    """
    vocabulary = {"vocabulary": short(tokenizer.get_vocab())}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return vocabulary
    rules = json.loads(backend.to_str())
    # saving a tokenizer turns tokens named in settings into added ones
    special = {str(value) for value in tokenizer.special_tokens_map.values()}
    added = rules.get("added_tokens") or ()
    rules["added_tokens"] = [token for token in added if token["content"] not in special]
    return vocabulary | {key: short(rules.get(key)) for key in RULES}
