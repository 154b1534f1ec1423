"""What identifies a result: everything of a model that can change a score or a picture, as values that can be kept, compared and told apart.

`Model.identity` reads it from the live pipeline (`_identified`). Small settings are kept as they are, weights as digests (`_content`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from findnemo.errors import MismatchError
from findnemo.models._content import HALVES, doubtful, same_weights

METHOD = 1  # raised whenever findnemo gives other scores or pictures for the same model, prompt, seeds and settings
PICTURES = ("vae", "sampler")  # parts that finished images depend on, and noise differences do not
SIZE = "size"  # part that tells at which size the pipeline is used: scores differ, and the model is the same
EARLIER = "was made by an earlier findnemo, which did not keep all that identifies a model"
ADAPTER = "LoRA "  # how the name of an adapter's part begins
RULES = (
    "normalizer",
    "pre_tokenizer",
    "post_processor",
    "added_tokens",
    "model",
)  # of a tokenizer; not every kind tells them
LISTED = 4  # settings of a part that are named
MISSING = "nothing"


@dataclass(frozen=True)
class Part:
    """One part of a pipeline. `settings`: what else than weights changes its results. `weights`: their `_content.digests`."""

    settings: Mapping[str, Any]
    weights: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {"settings": dict(self.settings)} | (
            {} if self.weights is None else {"weights": dict(self.weights)}
        )

    @property
    def token(self) -> str:
        """What a fingerprint takes of it: the weights as float16, or as bfloat16 if that is all there is."""
        held = None if self.weights is None else self.weights["held"]
        kind = "bfloat16" if held == ["bfloat16"] else "float16"
        return json.dumps(
            [dict(self.settings), self.weights and self.weights[kind]], sort_keys=True
        )


@dataclass(frozen=True)
class Identity:
    """The parts of a model by their names. `fused`: adapters that are part of the weights, for messages only.

    Parts: pipeline, size (where the pipeline has one of its own), scheduler (the noise schedule), sampler, findnemo (its method), tokenizers, text encoders, denoiser, vae, and each
    adapter that acts ("LoRA 'x' of unet").
    """

    parts: Mapping[str, Part]
    fused: tuple[str, ...] = field(default=(), compare=False)

    @property
    def fingerprint(self) -> str:
        """32 digits over all that scores depend on but the size. Loads in float32 and float16 have the same."""
        return self._digest([name for name in self.parts if name not in (*PICTURES, SIZE)])

    @property
    def whole(self) -> str:
        """The same over all parts, those that only pictures depend on included."""
        return self._digest(self.parts)

    def _digest(self, names: Collection[str]) -> str:
        tokens = [(name, self.parts[name].token) for name in sorted(names)]
        return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:32]

    def to_json(self, pictures: bool = True) -> dict[str, Any]:
        """To be kept with results; without `pictures`, for results that are scores alone."""
        return {
            name: part.to_json()
            for name, part in self.parts.items()
            if pictures or name not in PICTURES
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Identity:
        """What `to_json` gave. Raises ValueError for anything else: files can come from anywhere."""
        try:
            parts = {
                name: Part({**part["settings"]}, _weights(part.get("weights")))
                for name, part in values.items()
            }
            texts = [*parts, *(text for part in parts.values() for text in part.settings)]
            if not all(text.isprintable() for text in texts):
                raise ValueError("a name that cannot be shown")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its identity is not that of a model ({error!r:.100})") from error
        return cls(parts)

    def differences(self, kept: Identity, pictures: bool = True) -> list[str]:
        """In what this model differs from the one that is `kept`, in words; nothing for the same. `pictures`: also where only pictures change.

        >>> old, new = (Identity({"scheduler": Part({"rescale_betas_zero_snr": value})}) for value in (True, False))
        >>> new.differences(old)
        ['scheduler: rescale_betas_zero_snr False instead of True']
        """
        names = [n for n in {**kept.parts, **self.parts} if pictures or n not in PICTURES]
        return [told for name in names for told in self._part_differs(name, kept)]

    def _part_differs(self, name: str, kept: Identity) -> Iterator[str]:
        now, then = self.parts.get(name), kept.parts.get(name)
        if name.startswith(ADAPTER):
            yield from _adapter_differs(name, now, then)
        elif now is None or then is None:
            yield f"{name} is {'missing, was there' if now is None else 'there, was missing'}"
        else:
            if told := _settings_differ(now.settings, then.settings):
                yield f"{name}: {told}"
            if told := _weights_differ(name, now, then, self.fused):
                yield told


def _weights(values: Any) -> dict[str, Any] | None:
    if values is None:
        return None
    known = {
        name: str(values[name])
        for name in (*HALVES, "float32")
        if name != "float32" or name in values
    }
    held = list(values["held"])
    if not {*held} <= {*HALVES}:
        raise ValueError(f"weights held as {held!r:.40}")
    return known | {"held": held}


def _settings_differ(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """The settings that differ, those of the configuration before those of single modules, which follow from them."""
    keys = [
        k
        for k in {**then, **now}
        if now.get(k) != then.get(k) and not (k in RULES and None in (now.get(k), then.get(k)))
    ]
    keys = [key for key in keys if "." not in key] or keys
    told = [_setting_differs(key, now.get(key), then.get(key)) for key in keys[:LISTED]]
    return ", ".join(told) + (f" and {len(keys) - LISTED} more" if len(keys) > LISTED else "")


def _setting_differs(key: str, now: Any, then: Any) -> str:
    if "." not in key:
        now, then = (MISSING if value is None else f"{value!r:.80}" for value in (now, then))
        return f"{key} {now} instead of {then}"
    now, then = (
        ascii(value or "")[1:-1].rpartition(" (")[0] for value in (now, then)
    )  # without their digests
    return (
        f"{key} set to {now}" + (f", was {then}" if then else "")
        if now
        else f"{key} no longer {then}"
    )


def _weights_differ(name: str, now: Part, then: Part, fused: Collection[str]) -> str:
    if now.weights is None or then.weights is None:
        return "" if now.weights == then.weights else f"the weights of {name} cannot be compared"
    if same_weights(now.weights, then.weights):
        return ""
    mine = [adapter for adapter in fused if adapter.endswith(f" of {name}")]
    if mine:
        return f"the weights of {name} differ: the {', '.join(mine)} is fused into them"
    if doubtful(now.weights, then.weights):
        kinds = now.weights["held"][0], then.weights["held"][0]
        return (
            f"the weights of {name} are rounded to {kinds[0]}, were rounded to {kinds[1]}, so that it cannot be told whether they are the same: "
            f"load the model as {kinds[1]} or float32"
        )
    return f"the weights of {name} differ"


def _adapter_differs(name: str, now: Part | None, then: Part | None) -> Iterator[str]:
    if now is None or then is None:
        part = now or then
        strength = part.settings.get("strength") if part else None
        yield f"the {name} is " + (
            f"not active, was at strength {strength}"
            if now is None
            else f"active at strength {strength}, was not"
        )
        return
    if now.settings.get("strength") != then.settings.get("strength"):
        yield f"the {name} is at strength {now.settings.get('strength')}, was {then.settings.get('strength')}"
    elif told := _settings_differ(now.settings, then.settings):
        yield f"the {name}: {told}"
    if _weights_differ(name, now, then, ()):
        yield f"the {name} has other weights"


# refusals -------------------------------------------------------------------------------------------------------------


def kept_identity(values: Any) -> Identity | None:
    """The identity in the settings of a run or a calibration; None where there is none, or nothing that is one."""
    try:
        return Identity.from_json(values) if values else None
    except ValueError:
        return None


def told_apart(model: Any, fingerprint: str, kept: Identity | None, pictures: bool = True) -> str:
    """In what a model differs from the one that something was made with, in words; nothing where it is that one.

    `fingerprint` and `kept`: what is known of that one; where `kept` is missing (an earlier findnemo) or does not fit, the fingerprint alone must
    do. `pictures`: also in what only pictures depend on, as far as it was kept.
    """
    now = model.identity
    if kept is None or kept.fingerprint != fingerprint:
        return "" if fingerprint == now.fingerprint else f"it is another one, or this {EARLIER}"
    return "; ".join(now.differences(kept, pictures and PICTURES[1] in kept.parts))


def refuse_other(
    model: Any, fingerprint: str, kept: Identity | None, what: str, way_out: str
) -> None:
    """Raises MismatchError saying that a model is not that of `what`, in what it differs, and the way out."""
    if told := told_apart(model, fingerprint, kept):
        mine = model.fingerprint
        numbers = (
            ""
            if mine == fingerprint
            else f"its fingerprint is {mine[:12]}, not {fingerprint[:12]}; "
        )
        raise MismatchError(
            f"{model.source} is not the model of {what}: {numbers}{told}; {way_out}"
        )
