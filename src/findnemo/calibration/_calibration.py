"""A calibration, as a value and as two files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from findnemo.calibration._early import MISS, early_bounds
from findnemo.calibration._statistics import threshold
from findnemo.errors import DamageError, InputError, MismatchError
from findnemo.files.html import bars, block, facts
from findnemo.files.shapes import as_type
from findnemo.files.sizes import JSON_BYTES, TENSOR_BYTES, within_size
from findnemo.files.writing import atomic_write
from findnemo.models import Model
from findnemo.models.identity import Identity, identity_difference
from findnemo.settings import Settings
from findnemo.stats.rates import CONFIDENCE, p_value, rank, rate_bound

FORMAT = 3
BINS = 10  # bins of scores in a notebook


class _CalibrationFile(TypedDict):
    """calibration.json; `Calibration.require_whole` looks at the values."""

    model: Any
    source: Any
    settings: Any
    tau: Any
    layers: list[str]
    count: Any
    fpr: Any
    prompts: NotRequired[Any]
    confidence: NotRequired[Any]
    identity: NotRequired[Any]
    ordinary: NotRequired[list[Any]]


@dataclass(frozen=True)
class Calibration:
    """Statistics of non-memorized prompts for one model under one set of settings.

    `tau`: threshold of the memorization score. `mean`, `std`: layer name -> (width,) activation
    statistics of `count` prompts. `trajectories`: (n, samples - 1) hold-out scores after 2, 3, ...
    seeds, of the prompts that determined tau; empty for imported statistics. `fpr`: the requested
    false-positive rate, or None; `confidence`: the requested confidence in it, or None. `prompts`:
    digest of the hold-out prompts. `identity`: everything that scores of the model depend on;
    `model` is its fingerprint. None in files of an earlier findnemo. `ordinary`: the first hold-out
    prompts, at most 200, on which a search measures what neurons do to other captions; empty for
    imported statistics.
    """

    model: str
    source: str
    settings: Settings
    tau: float
    mean: Mapping[str, Tensor] = field(repr=False)
    std: Mapping[str, Tensor] = field(repr=False)
    count: int
    trajectories: Tensor = field(repr=False)
    fpr: float | None = None
    prompts: str = ""
    confidence: float | None = None
    identity: Identity | None = field(default=None, repr=False, compare=False)
    ordinary: tuple[str, ...] = field(default=(), repr=False)

    @property
    def scores(self) -> Tensor:
        """Memorization scores of the hold-out prompts, (n,)."""
        return self.trajectories[:, -1]

    def p_value(self, score: float) -> float | None:
        """p-value of a score: (1 + number of the n hold-out scores as large) / (n + 1), see
        `rates.p_value`.

        None for imported statistics, which have no scores.
        """
        return p_value(score, self.scores) if len(self.trajectories) else None

    def at(self, fpr: float, confidence: float | None = None) -> Calibration:
        """The calibration with a threshold for another false-positive rate (`threshold`), from its
        hold-out scores.

        Raises InputError if these are too few, with the number needed.

        >>> from findnemo import demo
        >>> made = demo.calibration()
        >>> made.at(0.05).tau > made.at(0.2).tau
        True
        """
        if not len(self.trajectories):
            raise InputError(
                "this calibration keeps no hold-out scores (imported statistics), so it has no"
                f" threshold for a false-positive rate of {fpr}: make one with `findnemo calibrate"
                " --prompts`"
            )
        tau = threshold(self.scores, fpr, confidence)
        return replace(self, tau=tau, fpr=fpr, confidence=confidence)

    def rate_bound(self, confidence: float = CONFIDENCE) -> float | None:
        """Upper bound of the false-alarm rate of this threshold, at a confidence; None if tau is
        not made for a rate.
        """
        if self.fpr is None:
            return None
        n = len(self.trajectories)
        return rate_bound(n, rank(n, self.fpr, self.confidence), confidence)

    def early_bounds(self, miss: float = MISS) -> dict[int, float]:
        """Seeds seen -> the score under which a caption is not memorized (`early_bounds`).

        Of the captions that all seeds would find, at most a share `miss` is lost.
        """
        return early_bounds(self.trajectories, self.tau, self.settings, miss)

    def z_scores(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(a - mu) / sigma per neuron; a neuron without variance has 0 at its mean, else
        infinity.
        """
        result = {}
        for name, a in values.items():
            gap = a.double() - self.mean[name].double()
            result[name] = torch.where(
                gap == 0, torch.zeros_like(gap), gap / self.std[name].double()
            )
        return result

    def check(self, model: Model, settings: Settings | None = None) -> None:
        """Raises MismatchError naming the difference, for another model or other settings."""
        if self.model and (
            told := identity_difference(model, self.model, self.identity, pictures=False)
        ):
            raise MismatchError(
                f"this calibration was made for another model: {self.source} ({self.model[:12]}),"
                f" not {model.source} ({model.fingerprint[:12]}): {told}; calibrate again"
                " with this model (findnemo calibrate MODEL): a threshold holds only for the model on"
                " which it was measured, and an edited copy is another model (findnemo export RUN"
                " --check COPY compares a copy with its run)"
            )
        widths = {name: len(mean) for name, mean in self.mean.items()}
        if widths != model.widths():
            raise MismatchError(
                f"this calibration knows layers {widths}, the model has {model.widths()}"
            )
        if settings is not None and settings != self.settings:
            raise MismatchError(
                "this calibration was made with other settings:"
                f" {self.settings.differences(settings)}; calibrate again"
            )

    def differences(self, other: Calibration) -> str:
        """The differences of another calibration in words: in model, settings, hold-out captions or
        rule for the threshold; empty if there are none.
        """
        said = [
            self.model != other.model and f"model {self.source}, now {other.source}",
            self.settings.differences(other.settings),
            self.count != other.count and f"{self.count} captions, now {other.count}",
            self.count == other.count and self.prompts != other.prompts and "other captions",
            self.fpr != other.fpr and f"fpr {self.fpr}, now {other.fpr}",
            self.confidence != other.confidence
            and f"confidence {self.confidence}, now {other.confidence}",
        ]
        return ", ".join(text for text in said if text)

    def same(self, other: Calibration) -> bool:
        """Whether two calibrations are equal in model, settings, threshold, captions and
        statistics.
        """
        mine, theirs = (
            (c.model, c.settings, c.tau, c.count, c.prompts, c.fpr, list(c.mean))
            for c in (self, other)
        )
        tensors = ((self.mean[n], other.mean[n]) for n in self.mean) if mine == theirs else ()
        return mine == theirs and all(torch.equal(a, b) for a, b in tensors)

    def _repr_html_(self) -> str:
        """The calibration in a notebook: the threshold, and the hold-out scores behind it."""
        rate = "not asked for" if self.fpr is None else f"{100 * self.fpr:.2g} %"
        known = [
            ("model", self.source),
            ("threshold tau", f"{self.tau:.3f}"),
            ("false-alarm rate", rate),
            ("hold-out captions", f"{self.count:,}, {len(self.trajectories):,} of them scored"),
            ("score", self.settings.variant),
        ]
        return block("Calibration", facts(known), bars("Scores of hold-out captions", self._bins()))

    def _bins(self) -> list[tuple[str, float, str]]:
        """The distribution of the hold-out scores: start and count of each bin."""
        if not len(self.trajectories):
            return []
        counts, edges = torch.histogram(self.scores.double().cpu(), BINS)
        pairs = zip(edges.tolist(), counts.tolist(), strict=False)
        return [(f"from {edge:.3f}", count, f"{count:.0f}") for edge, count in pairs]

    def save(self, folder: str | os.PathLike) -> Path:
        """Write `calibration.json` and `calibration.safetensors` to a folder.

        The JSON file comes last and makes the calibration valid.
        """
        from safetensors.torch import save

        path = Path(folder)
        tensors = {f"mean.{name}": values.float() for name, values in self.mean.items()}
        tensors |= {f"std.{name}": values.float() for name, values in self.std.items()}
        tensors["trajectories"] = self.trajectories
        data = save({name: values.contiguous() for name, values in tensors.items()})
        about = {
            "format": FORMAT,
            "model": self.model,
            "identity": None if self.identity is None else self.identity.to_json(pictures=False),
            "source": self.source,
            "settings": self.settings.to_json(),
            "tau": self.tau,
            "fpr": self.fpr,
            "confidence": self.confidence,
            "count": self.count,
            "prompts": self.prompts,
            "layers": list(self.mean),
            "ordinary": list(self.ordinary),
        }
        with atomic_write(path / "calibration.safetensors") as part:
            part.write_bytes(data)
        about["digest"] = digest_of(about, data)
        with atomic_write(path / "calibration.json") as part:
            part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Calibration:
        """Read a calibration that `save` wrote. Raises InputError for anything else."""

        path = Path(folder)
        for name in ("calibration.json", "calibration.safetensors"):
            if not (path / name).is_file():
                raise InputError(
                    f"{path} is not a calibration: it holds no {name}; make one with `findnemo"
                    " calibrate`"
                )
        about, tensors = _read(path)
        try:
            kept: _CalibrationFile = as_type(_CalibrationFile, about)
        except ValueError as error:
            name = str(error).partition(":")[0].partition(".")[0]
            raise _damaged(path, f"its {name} cannot be those of a calibration") from error
        layers = kept["layers"]
        wanted = [f"{part}.{n}" for part in ("mean", "std") for n in layers]
        for name in (*wanted, "trajectories"):
            if name not in tensors:
                raise _damaged(path, f"it lacks {name}")
        try:
            identity = Identity.from_json(kept["identity"]) if kept.get("identity") else None
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        made = cls(
            kept["model"],
            kept["source"],
            Settings.from_json(kept["settings"]),
            kept["tau"],
            {n: tensors[f"mean.{n}"] for n in layers},
            {n: tensors[f"std.{n}"] for n in layers},
            kept["count"],
            tensors["trajectories"],
            kept["fpr"],
            kept.get("prompts", ""),
            kept.get("confidence"),
            identity,
            tuple(kept.get("ordinary", ())),
        )
        try:
            made.require_whole()
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        return made

    def require_whole(self) -> None:
        """Raises ValueError for values that no calibration has: files can come from anywhere."""
        texts = (self.model, self.source, self.prompts, *self.mean, *self.ordinary)
        rate = 0.5 if self.fpr is None else self.fpr
        shapes = [
            (m.shape, s.shape) for m, s in zip(self.mean.values(), self.std.values(), strict=True)
        ]
        scores = self.trajectories
        values = [*self.mean.values(), *self.std.values()]
        known = {
            "texts": all(
                isinstance(text, str) and text.encode(errors="ignore").decode() == text
                for text in texts
            ),
            "tau": type(self.tau) in (int, float) and abs(self.tau) <= 2,  # a similarity
            "count": type(self.count) is int and self.count >= 0,
            "fpr": type(rate) is float and 0 < rate < 1,
            "layers": bool(self.mean) and all(len(m) == 1 and m == s and m[0] for m, s in shapes),
            "statistics": all(v.is_floating_point() and bool(v.isfinite().all()) for v in values),
            "deviations": all(bool((s >= 0).all()) for s in self.std.values()),
            "scores": (
                scores.is_floating_point() and scores.shape[1:] == (self.settings.samples - 1,)
            ),
        }
        wrong = [name for name, right in known.items() if not right]
        if (
            wrong
            or not bool(scores.isfinite().all())
            or len(scores) > self.count
            or bool((scores.abs() > 2).any())
        ):
            raise ValueError(
                f"its {wrong[0] if wrong else 'scores'} cannot be those of a calibration"
            )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What the two files of a calibration hold, once they fit their digest.

    Raises DamageError, and InputError for the format of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        about = json.loads(
            within_size(path / "calibration.json", JSON_BYTES).read_text(encoding="utf-8")
        )
        if not isinstance(about, dict):
            raise ValueError("calibration.json is not a JSON object")
        data = within_size(path / "calibration.safetensors", TENSOR_BYTES).read_bytes()
        if (kind := about.get("format")) != FORMAT:
            if kind is None:
                raise ValueError("calibration.json names no format")
            raise InputError(
                f"{path} has calibration format {kind!r:.40}, this version of findnemo reads"
                f" {FORMAT}"
            )
        if about.pop("digest", None) != digest_of(about, data):
            raise ValueError("it does not fit its digest")
        return about, load(data)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise _damaged(path, f"{error!s:.300}") from error


def _damaged(path: Path, why: str) -> DamageError:
    return DamageError(
        f"{path} is damaged or not a calibration: {why}; make it again with `findnemo calibrate`"
    )


def are_names(layers: object) -> bool:
    """Whether a parsed JSON value is a list of names of layers."""
    return isinstance(layers, list) and all(isinstance(name, str) for name in layers)


def digest_of(about: Mapping[str, object], data: bytes) -> str:
    """SHA-256 of a calibration's JSON and tensors, which detects a flipped byte."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode() + data).hexdigest()
