"""The identity of a model: everything that can change a score or a picture, as values that can be
kept and compared.

`Model.identity` reads it from the live pipeline (`identified`). Small settings are kept in full,
weights as digests (`content`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

from findnemo.errors import MismatchError
from findnemo.files.shapes import as_type
from findnemo.models.content import rounded_apart, same_weights

# incremented whenever findnemo gives other scores or pictures for the same model, prompt, seeds and
# settings
METHOD = 1
PICTURES = ("vae", "sampler")  # parts that finished images depend on, but noise differences do not
# the size at which the pipeline is used: it changes scores, but not the model
SIZE = "size"
EARLIER = "was made by an earlier findnemo, which did not keep all that identifies a model"
ADAPTER = "LoRA "  # prefix of the names of adapters' parts
# settings of a tokenizer; some kinds do not have them
RULES = ("normalizer", "pre_tokenizer", "post_processor", "added_tokens", "model")
LISTED = 4  # settings of a part to list


@dataclass(frozen=True)
class Part:
    """One part of a pipeline.

    `settings`: everything but weights that changes its results. `weights`: their
    `content.digests`.
    """

    settings: Mapping[str, Any]
    weights: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        weights = {} if self.weights is None else {"weights": dict(self.weights)}
        return {"settings": dict(self.settings), **weights}

    @property
    def token(self) -> str:
        """Its contribution to a fingerprint: the weights as float16, or as bfloat16 if only that is
        known.
        """
        weights = None
        if self.weights is not None:
            weights = self.weights[
                "bfloat16" if self.weights["held"] == ["bfloat16"] else "float16"
            ]
        return json.dumps([dict(self.settings), weights], sort_keys=True)


class _Weights(TypedDict):
    """`content.digests`, as JSON."""

    float16: str
    bfloat16: str
    float32: NotRequired[str]
    held: list[Literal["float16", "bfloat16"]]


class _Stored(TypedDict):
    """A `Part`, as JSON."""

    settings: dict[str, Any]
    weights: NotRequired[_Weights | None]


@dataclass(frozen=True)
class Identity:
    """The parts of a model by their names.

    `fused`: adapters that are part of the weights, for messages only.

    Parts: pipeline, size (where the pipeline has one of its own), scheduler (the noise schedule),
    sampler, findnemo (its method), tokenizers, text encoders, denoiser, vae, and each adapter that
    acts ("LoRA 'x' of unet").
    """

    parts: Mapping[str, Part]
    fused: tuple[str, ...] = field(default=(), compare=False)

    @property
    def fingerprint(self) -> str:
        """32 digits over everything that scores depend on, except the size.

        Loads in float32 and float16 have the same.
        """
        return self._digest([name for name in self.parts if name not in (*PICTURES, SIZE)])

    @property
    def whole(self) -> str:
        """32 digits over all parts, including those that only pictures depend on."""
        return self._digest(self.parts)

    def _digest(self, names: Collection[str]) -> str:
        tokens = [(name, self.parts[name].token) for name in sorted(names)]
        return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:32]

    def to_json(self, pictures: bool = True) -> dict[str, Any]:
        """The identity as kept with results; without `pictures`, for results that are only
        scores.
        """
        return {
            name: part.to_json()
            for name, part in self.parts.items()
            if pictures or name not in PICTURES
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Identity:
        """The identity from the output of `to_json`.

        Raises ValueError for anything else: files can come from anywhere.
        """
        wrong = "its identity is not that of a model"
        try:
            stored = as_type(dict[str, _Stored], values)
        except ValueError as error:
            raise ValueError(f"{wrong} ({error!s:.100})") from None
        texts = [*stored, *(text for part in stored.values() for text in part["settings"])]
        if not all(text.isprintable() for text in texts):
            raise ValueError(f"{wrong} (a name that cannot be shown)")
        return cls({n: Part(part["settings"], part.get("weights")) for n, part in stored.items()})

    def differences(self, kept: Identity, pictures: bool = True) -> list[str]:
        """How this model differs from the `kept` one, in words; empty if it does not.

        `pictures`: include differences that only change pictures.

        >>> old, new = (Identity({"scheduler": Part({"rescale_betas_zero_snr": value})}) for value in (True, False))
        >>> new.differences(old)
        ['scheduler: rescale_betas_zero_snr False instead of True']
        """
        names = [n for n in {**kept.parts, **self.parts} if pictures or n not in PICTURES]
        return [change for name in names for change in self._part_differs(name, kept)]

    def _part_differs(self, name: str, kept: Identity) -> Iterator[str]:
        now = self.parts.get(name)
        then = kept.parts.get(name)
        if name.startswith(ADAPTER):
            yield from _adapter_differs(name, now, then)
        elif now is None or then is None:
            yield f"{name} is {'missing, was there' if now is None else 'there, was missing'}"
        else:
            if change := _settings_differ(now.settings, then.settings):
                yield f"{name}: {change}"
            if change := _weights_differ(name, now, then, self.fused):
                yield change


def _settings_differ(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """The settings that differ, those of the configuration before those of modules, which follow
    from them.
    """
    pairs = {key: (now.get(key), then.get(key)) for key in {**then, **now}}
    changed = {
        key: pair
        for key, pair in pairs.items()
        if pair[0] != pair[1] and not (key in RULES and None in pair)
    }
    changed = {key: pair for key, pair in changed.items() if "." not in key} or changed
    listed = [_setting_differs(key, *pair) for key, pair in [*changed.items()][:LISTED]]
    more = f" and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
    return ", ".join(listed) + more


def _setting_differs(key: str, now: Any, then: Any) -> str:
    if "." not in key:
        now, then = ("nothing" if value is None else f"{value!r:.80}" for value in (now, then))
        return f"{key} {now} instead of {then}"
    # values of modules, without their digests
    now, then = (ascii(value or "")[1:-1].rpartition(" (")[0] for value in (now, then))
    if not now:
        return f"{key} no longer {then}"
    return f"{key} set to {now}" + (f", was {then}" if then else "")


def _weights_differ(name: str, now: Part, then: Part, fused: Collection[str]) -> str:
    if now.weights is None or then.weights is None:
        return "" if now.weights == then.weights else f"the weights of {name} cannot be compared"
    if same_weights(now.weights, then.weights):
        return ""
    adapters = [adapter for adapter in fused if adapter.endswith(f" of {name}")]
    if adapters:
        return f"the weights of {name} differ: the {', '.join(adapters)} is fused into them"
    if rounded_apart(now.weights, then.weights):
        kind = now.weights["held"][0]
        kept_kind = then.weights["held"][0]
        return (
            f"the weights of {name} are rounded to {kind}, were rounded to {kept_kind}, so that it"
            f" cannot be told whether they are the same: load the model as {kept_kind} or float32"
        )
    return f"the weights of {name} differ"


def _adapter_differs(name: str, now: Part | None, then: Part | None) -> Iterator[str]:
    strength = now and now.settings.get("strength")
    kept_strength = then and then.settings.get("strength")
    if now is None:
        yield f"the {name} is not active, was at strength {kept_strength}"
    elif then is None:
        yield f"the {name} is active at strength {strength}, was not"
    else:
        if strength != kept_strength:
            yield f"the {name} is at strength {strength}, was {kept_strength}"
        elif change := _settings_differ(now.settings, then.settings):
            yield f"the {name}: {change}"
        if _weights_differ(name, now, then, ()):
            yield f"the {name} has other weights"


# refusals -----------------------------------------------------------------------------------------


def kept_identity(values: Any) -> Identity | None:
    """The identity in the settings of a run or a calibration; None if missing or invalid."""
    try:
        return Identity.from_json(values) if values else None
    except ValueError:
        return None


def identity_difference(
    model: Any, fingerprint: str, kept: Identity | None, pictures: bool = True
) -> str:
    """How a model differs from the one behind a result, in words; empty if it does not.

    `fingerprint` and `kept`: the known facts about that one. If `kept` is missing (an earlier
    findnemo) or does not fit, only the fingerprint is compared. `pictures`: include differences
    that only change pictures, as far as kept.
    """
    now = model.identity
    if kept is None or kept.fingerprint != fingerprint:
        return "" if fingerprint == now.fingerprint else f"it is another one, or this {EARLIER}"
    return "; ".join(now.differences(kept, pictures and PICTURES[1] in kept.parts))


def refuse_other(
    model: Any, fingerprint: str, kept: Identity | None, what: str, way_out: str
) -> None:
    """Raises MismatchError saying that a model is not that of `what`, how it differs, and the way
    out.
    """
    if changes := identity_difference(model, fingerprint, kept):
        own = model.fingerprint
        numbers = f"its fingerprint is {own[:12]}, not {fingerprint[:12]}; "
        if own == fingerprint:
            numbers = ""
        raise MismatchError(
            f"{model.source} is not the model of {what}: {numbers}{changes}; {way_out}"
        )
