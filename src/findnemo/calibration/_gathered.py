"""What a calibration gathers, chunk by chunk, and the file that keeps it after an interruption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from findnemo.calibration._calibration import Calibration, are_names, digest_of
from findnemo.calibration._statistics import Moments, tau_interval, threshold
from findnemo.errors import DamageError, InputError, MismatchError, NumericalError
from findnemo.files.sizes import TENSOR_BYTES, within_size
from findnemo.files.writing import atomic_write
from findnemo.models.identity import Identity
from findnemo.settings import Settings

CHUNK = 64  # prompts encoded at once; the precision of tau is checked after each


@dataclass(frozen=True)
class Chunk:
    """Hold-out prompts that are encoded at once.

    `done`: number of them already finished. `scored`: whether scores are wanted.
    """

    prompts: tuple[str, ...]
    done: int
    scored: bool


@dataclass(frozen=True)
class Group:
    """Prompts of a chunk that share passes.

    `activations`: layer -> (n, width). `scores`: a trajectory for every prompt, or the error; empty
    if not wanted.
    """

    prompts: tuple[str, ...]
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    scores: list[Tensor] | NumericalError = field(default_factory=list)

    def scored(self) -> list[Tensor]:
        """The trajectories. Raises the NumericalError that occurred instead."""
        if isinstance(self.scores, NumericalError):
            raise self.scores
        return self.scores


Parts = Callable[[Settings, Iterator[Chunk]], Iterator[Iterable[Group]]]


def chunked(prompts: Iterable[str], done: int, scored: Callable[[], bool]) -> Iterator[Chunk]:
    iterator = iter(prompts)
    while chunk := tuple(islice(iterator, CHUNK)):
        yield Chunk(chunk, min(done, len(chunk)), scored())
        done -= min(done, len(chunk))


def chained(digest: str, prompt: str) -> str:
    return hashlib.sha256(f"{digest}\0{prompt}".encode()).hexdigest()


def prompts_digest(prompts: Iterable[str]) -> str:
    """The digest of hold-out prompts in their order, which a calibration keeps in `prompts`."""
    return reduce(chained, prompts, "")


@dataclass
class Gathered:
    """What a calibration has gathered so far: scores, moments, and the digest of its prompts, to
    recognize a continuation.

    `pending`: activations that the moments do not contain yet, group by group.
    """

    key: str
    prompts: str = ""
    count: int = 0
    trajectories: list[Tensor] = field(default_factory=list)
    moments: dict[str, Moments] = field(default_factory=dict)
    pending: list[Mapping[str, Tensor]] = field(default_factory=list)
    whole: bool = True  # False during a change
    _settled: bool = False

    def take(self, group: Group, new: int, scores: list[Tensor]) -> None:
        """Take the prompts of a group from the `new`-th on, with their scores if still wanted."""
        self.whole = False
        self.trajectories += scores
        self.pending.append({name: rows[new:] for name, rows in group.activations.items()})
        self.prompts = reduce(chained, group.prompts[new:], self.prompts)
        self.count += len(group.prompts[new:])
        self.whole = True

    def waiting(self) -> dict[str, Tensor]:
        """Activations that the moments do not contain yet: layer -> (n, width)."""
        layers = self.pending[0] if self.pending else ()
        return {name: torch.cat([rows[name] for rows in self.pending]) for name in layers}

    def merge(self) -> None:
        if waiting := self.waiting():
            parts = {name: Moments.of(rows) for name, rows in waiting.items()}
            self.whole = False
            self.moments = {
                n: self.moments[n] + part if n in self.moments else part
                for n, part in parts.items()
            }
            self.pending = []
            self.whole = True

    def settled(self, precision: float | None) -> bool:
        """Whether tau is known to `precision`.

        This is checked every CHUNK scores, so that interruptions do not change where it stops.
        """
        scored = len(self.trajectories)
        if not self._settled and precision is not None and scored and scored % CHUNK == 0:
            low, high = tau_interval(torch.stack(self.trajectories)[:, -1])
            self._settled = high - low < precision
        return self._settled

    def require(self, prompts: str) -> None:
        if prompts != self.prompts:
            raise MismatchError(
                f"an interrupted calibration has done {self.count} hold-out prompts, but not those"
                " given now: give the same hold-out prompts in the same order, or a new --out"
            )

    def calibration(
        self,
        identity: Identity,
        source: str,
        settings: Settings,
        fpr: float | None,
        confidence: float | None,
        ordinary: tuple[str, ...],
    ) -> Calibration:
        if self.count < 2:
            raise InputError(f"a calibration needs at least two hold-out prompts, not {self.count}")
        trajectories = torch.stack(self.trajectories).float()  # float32, as measured
        return Calibration(
            identity.fingerprint,
            source,
            settings,
            threshold(trajectories[:, -1], fpr, confidence),
            {name: m.mean.float() for name, m in self.moments.items()},
            {name: m.std.float() for name, m in self.moments.items()},
            self.count,
            trajectories,
            fpr,
            self.prompts,
            confidence,
            identity,
            ordinary,
        )

    def save(self, path: Path) -> None:
        from safetensors.torch import save

        tensors = {
            f"{part}.{n}": getattr(m, part)
            for n, m in self.moments.items()
            for part in ("mean", "squares")
        }
        tensors |= {f"pending.{n}": rows for n, rows in self.waiting().items()}
        layers = list(self.moments or self.pending[0])
        about = {
            "key": self.key,
            "prompts": self.prompts,
            "count": str(self.count),
            "layers": json.dumps(layers),
        }
        tensors["trajectories"] = torch.stack(self.trajectories)
        about["digest"] = digest_of(about, save(tensors))
        with atomic_write(path) as part:
            part.write_bytes(save(tensors, metadata=about))

    @classmethod
    def load(cls, path: Path | None, key: str) -> Gathered:
        """Read what `save` wrote for the same model and settings; else start afresh."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import save

        if path is None or not path.exists():
            return cls(key)
        try:
            with safe_open(within_size(path, TENSOR_BYTES), "pt") as file:
                about = file.metadata() or {}
                if about["key"] != key:
                    return cls(key)
                count = int(about["count"])
                trajectories = list(file.get_tensor("trajectories"))
                layers = json.loads(about["layers"])
                if not are_names(layers):
                    raise ValueError("its layers are not a list of names")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about.pop("digest") != digest_of(about, save(tensors)):
                raise ValueError("it does not fit its digest")
            if len(trajectories) > count:
                raise ValueError("it has more scores than prompts")
            waiting = {n: tensors.get(f"pending.{n}", torch.empty(0)) for n in layers}
            rows = {len(one) for one in waiting.values()}
            if len(rows) > 1:
                raise ValueError("its layers have activations of different numbers of prompts")
            merged = count - max(rows, default=0)
            moments = (
                {n: Moments(merged, tensors[f"mean.{n}"], tensors[f"squares.{n}"]) for n in layers}
                if merged
                else {}
            )
            pending: list[Mapping[str, Tensor]] = [waiting] if merged < count else []
            return cls(key, about["prompts"], count, trajectories, moments, pending)
        except (OSError, KeyError, ValueError, RecursionError, SafetensorError) as error:
            raise DamageError(
                f"{path} is not an interrupted calibration ({error!s:.300}): remove it to start"
                " afresh"
            ) from error
