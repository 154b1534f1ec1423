"""Calibration on hold-out prompts: activation statistics of every neuron, and the threshold tau of the memorization score."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from findnemo._sizes import JSON_BYTES, TENSOR_BYTES, checked
from findnemo._writing import written
from findnemo.deltas import Probe, group_size
from findnemo.errors import DamageError, InputError, MismatchError, NumericalError, StoppedError
from findnemo.models import Model
from findnemo.rates import CONFIDENCE, p_value, rank, rate_bound
from findnemo.scores import NOT_FINITE, trajectory
from findnemo.settings import RELEASED, Settings, settings_for

FORMAT, WITHOUT_DIGEST = 3, 2  # what is written; what is read as well
CHUNK = 64  # prompts encoded at once; tau is looked at as often
SAVE_EVERY = 5.0  # seconds between checkpoints
PRECISION = 0.002
PUBLISHED_TAU = 0.428  # 50,000 LAION prompts on Stable Diffusion v1.4, released variant


def activations(model: Model, prompt: str) -> dict[str, Tensor]:
    """a_i^l(y): mean over all token positions of |activation|, one (width,) float tensor a value layer.

    Where value projections see only the prompt embedding, this needs the text encoder and one matrix product a layer, no U-Net
    pass. Source: Finding NeMo, section 3.3.
    """
    return {name: rows[0] for name, rows in layer_activations(model, [prompt], model.encode([prompt])).items()}


def layer_activations(model: Model, prompts: Sequence[str], text: Tensor) -> dict[str, Tensor]:
    """The same for N prompts and their embeddings (N, tokens, D): layer -> (N, width)."""
    return {name: rows.cpu() for name, rows in model.value_activations(prompts, text).items()}


@dataclass(frozen=True)
class Moments:
    """Running mean and squared deviation of vectors; parts merge exactly as in Chan et al. (1979). float64."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Of vectors (n, width)."""
        mean = values.double().mean(0)
        return cls(len(values), mean, (values.double() - mean).square().sum(0))

    def __add__(self, other: Moments) -> Moments:
        n, gap = self.count + other.count, other.mean - self.mean
        mean = self.mean + gap * (other.count / n)
        return Moments(n, mean, self.squares + other.squares + gap**2 * (self.count * other.count / n))

    @property
    def std(self) -> Tensor:
        """Unbiased standard deviation (NaN for one sample)."""
        return (self.squares / (self.count - 1)).sqrt() if self.count > 1 else torch.full_like(self.mean, math.nan)


@dataclass(frozen=True)
class Calibration:
    """Statistics of non-memorized prompts for one model under one set of settings.

    `tau`: threshold of the memorization score. `mean`, `std`: layer name -> (width,) activation statistics of `count` prompts.
    `trajectories`: (n, samples - 1) hold-out scores after 2, 3, ... seeds, of the prompts it took to know tau; empty for imported
    statistics. `fpr`: the false-positive rate asked for, or None; `confidence`: the one asked for with it, or None. `prompts`: identity of
    the hold-out prompts.
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

    @property
    def scores(self) -> Tensor:
        """Memorization scores of the hold-out prompts, (n,)."""
        return self.trajectories[:, -1]

    def p_value(self, score: float) -> float | None:
        """Share of ordinary captions with a score as large, (1 + those of the n hold-out captions) / (n + 1): `rates.p_value`.

        None for imported statistics, which have no scores.
        """
        return p_value(score, self.scores) if len(self.trajectories) else None

    def rate_bound(self, confidence: float = CONFIDENCE) -> float | None:
        """What the false-alarm rate of this threshold stays under with this confidence; None where tau is not made for a rate."""
        n = len(self.trajectories)
        return None if self.fpr is None else rate_bound(n, rank(n, self.fpr, self.confidence), confidence)

    def z_scores(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(a - mu) / sigma per neuron; a neuron that never varied has z = 0 where it sits at its mean, else infinity."""
        result = {}
        for name, a in values.items():
            gap = a.double() - self.mean[name].double()
            result[name] = torch.where(gap == 0, torch.zeros_like(gap), gap / self.std[name].double())
        return result

    def check(self, model: Model, settings: Settings | None = None) -> None:
        """Refuse to be used with another model or other settings. Raises MismatchError naming the difference."""
        if self.model and self.model != model.fingerprint:
            raise MismatchError(
                f"this calibration was made for another model: {self.source} ({self.model[:12]}), not {model.source} "
                f"({model.fingerprint[:12]}); calibrate again with this model"
            )
        widths = {name: len(mean) for name, mean in self.mean.items()}
        if widths != model.widths():
            raise MismatchError(f"this calibration knows layers {widths}, the model has {model.widths()}")
        if settings is not None and settings != self.settings:
            raise MismatchError(
                f"this calibration was made with other settings: {self.settings.differences(settings)}; calibrate again"
            )

    def save(self, folder: str | os.PathLike) -> Path:
        """Write `calibration.json` and `calibration.safetensors` to a folder; the JSON comes last and makes it valid."""
        from safetensors.torch import save

        path = Path(folder)
        tensors = {f"mean.{n}": t for n, t in self.mean.items()} | {f"std.{n}": t for n, t in self.std.items()}
        data = save({n: t.float().contiguous() for n, t in tensors.items()} | {"trajectories": self.trajectories.contiguous()})
        about = {
            "format": FORMAT,
            "model": self.model,
            "source": self.source,
            "settings": self.settings.to_json(),
            "tau": self.tau,
            "fpr": self.fpr,
            "confidence": self.confidence,
            "count": self.count,
            "prompts": self.prompts,
            "layers": list(self.mean),
        }
        with written(path / "calibration.safetensors") as part:
            part.write_bytes(data)
        with written(path / "calibration.json") as part:
            part.write_text(json.dumps(about | {"digest": _digest(about, data)}, indent=1) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Calibration:
        """Read what `save` wrote. Raises InputError for anything else."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = Path(folder)
        for name in ("calibration.json", "calibration.safetensors"):
            if not (path / name).is_file():
                raise InputError(f"{path} is not a calibration: it holds no {name}; make one with `findnemo calibrate`")
        try:
            about = json.loads(checked(path / "calibration.json", JSON_BYTES).read_text(encoding="utf-8"))
            data = checked(path / "calibration.safetensors", TENSOR_BYTES).read_bytes()
            if about["format"] not in (FORMAT, WITHOUT_DIGEST):
                raise InputError(f"{path} has calibration format {about['format']!r:.40}, this findnemo reads {FORMAT}")
            if about.pop("digest", None) != (_digest(about, data) if about["format"] == FORMAT else None):
                raise ValueError("it does not fit its digest")
            tensors = load(data)
            mean, std = ({n: tensors[f"{part}.{n}"] for n in about["layers"]} for part in ("mean", "std"))
            settings = Settings.from_json(about["settings"])
            made = cls(
                about["model"],
                about["source"],
                settings,
                about["tau"],
                mean,
                std,
                about["count"],
                tensors["trajectories"],
                about["fpr"],
                about.get("prompts", ""),
                about.get("confidence"),
            )
            made._require_whole()
            return made
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, SafetensorError) as error:
            raise DamageError(
                f"{path} is damaged or not a calibration: {error!s:.300}; make it again with `findnemo calibrate`"
            ) from error

    def _require_whole(self) -> None:
        """Raises ValueError for values that no calibration has: files can come from anywhere."""
        texts, rate = (self.model, self.source, self.prompts, *self.mean), 0.5 if self.fpr is None else self.fpr
        shapes = [(m.shape, s.shape) for m, s in zip(self.mean.values(), self.std.values(), strict=True)]
        scores, values = self.trajectories, [*self.mean.values(), *self.std.values()]
        known = {
            "texts": all(isinstance(text, str) and text.encode(errors="ignore").decode() == text for text in texts),
            "tau": type(self.tau) in (int, float) and abs(self.tau) <= 2,  # a similarity
            "count": type(self.count) is int and self.count >= 0,
            "fpr": type(rate) is float and 0 < rate < 1,
            "layers": bool(self.mean) and all(len(m) == 1 and m == s and m[0] for m, s in shapes),
            "statistics": all(v.is_floating_point() and bool(v.isfinite().all()) for v in values),
            "scores": scores.is_floating_point() and scores.shape[1:] == (self.settings.samples - 1,),
        }
        wrong = [name for name, right in known.items() if not right]
        if wrong or not bool(scores.isfinite().all()) or len(scores) > self.count or bool((scores.abs() > 2).any()):
            raise ValueError(f"its {wrong[0] if wrong else 'scores'} cannot be those of a calibration")


def _digest(about: Mapping[str, object], data: bytes) -> str:
    """SHA-256 of what a calibration says and of its tensors: a flipped byte would be another threshold."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode() + data).hexdigest()


def threshold(scores: Tensor, fpr: float | None = None, confidence: float | None = None) -> float:
    """tau of hold-out scores (n,): mean + 1 std (Finding NeMo, section 4), or for a false-positive rate the conformal threshold.

    That is the number next above the k-th smallest score, k = ceil((n + 1)(1 - fpr)). An ordinary caption, one exchangeable with the
    hold-out captions, reaches it with probability at most `fpr`: over the draw of both, for any n and any distribution, ties included.
    For one calibration the rate is distributed as Beta(n + 1 - k, k) (`rates.rate_bound`). With a `confidence` tau is as high as it takes
    for that rate to be at most `fpr` with this confidence. Raises InputError if there are too few scores for the rate.

    >>> round(threshold(torch.tensor([0.2, 0.3, 0.4])), 3)
    0.4
    >>> round(threshold(torch.tensor([0.2, 0.3, 0.4]), fpr=0.5), 3)
    0.3
    """
    n = len(scores)
    if fpr is None:
        if confidence is not None:
            raise InputError("a confidence goes with a false-positive rate: give fpr too")
        if n < 2:
            raise InputError(f"a threshold of mean + 1 std needs at least two hold-out prompts, not {n}")
        return float(scores.double().mean() + scores.double().std())
    kth = scores.sort().values[rank(n, fpr, confidence) - 1]
    return float(torch.nextafter(kth, torch.full_like(kth, math.inf)))  # from tau on a caption is memorized: a tie is not


def tau_interval(scores: Tensor) -> tuple[float, float]:
    """95 % confidence interval of tau = mean + 1 std over hold-out scores (n,), by the delta method.

    Every score moves tau by (x - mean) + ((x - mean)^2 - var) / (2 std) over n, whatever the distribution.

    >>> low, high = tau_interval(torch.linspace(0.2, 0.6, 400))
    >>> round(low, 2), round(high, 2)
    (0.5, 0.53)
    """
    x, tau = scores.double(), threshold(scores)
    std = x.std()
    if std == 0:
        return tau, tau
    gap = x - x.mean()
    half = 1.96 * float((gap + (gap**2 - std**2) / (2 * std)).std()) / math.sqrt(len(x))
    return tau - half, tau + half


def calibrate(
    model: Model,
    prompts: Iterable[str],
    variant: str = "paper",
    fpr: float | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    progress: Callable[[str], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
    precision: float | None = PRECISION,
    confidence: float | None = None,
    parts: Parts | None = None,
    stop: Callable[[], bool] = lambda: False,
    out: str | os.PathLike | None = None,
) -> Calibration:
    """Statistics and threshold from hold-out prompts (captions that are not memorized), in one pass and constant memory.

    `variant`: "paper" or "released"; `settings` overrides it. `fpr`: conformal threshold instead of mean + 1 std, with
    `confidence` one that keeps the rate in so many of 100 calibrations (`threshold`). `precision`: once
    the 95 % confidence interval of tau is narrower, further prompts only add to the activation statistics, which is a hundred times
    cheaper; None, or an `fpr`, scores all. `progress` is called with every prompt done. `checkpoint`: a file that keeps what is done,
    so that an interrupted calibration goes on from there; it is removed at the end, once the calibration is saved to the directory `out`, if
    one is given. `parts`: who computes chunks of prompts, in their order (`runs.calibrate_with`); by default this process. The result is
    the same to the last bit. `stop` is asked between groups of prompts. Raises InputError for fewer than two prompts, NumericalError
    naming a prompt that gives NaN, StoppedError once `stop` says so.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> 0 < findnemo.calibrate(model, ["a red star", "a blue ring at night", "a green tree"]).tau < 1
        True
    """
    settings = settings or settings_for(variant, seed)
    precision = None if fpr is not None else precision
    path, seen, number = Path(checkpoint) if checkpoint else None, "", 0
    gathered = _Progress.load(path, f"{model.fingerprint} {settings} {precision}") if path else _Progress("")
    done, saved = gathered.count, -math.inf
    chunks = _chunked(prompts, done, lambda: not gathered.settled(precision))
    computed = (parts or _parts_here(model))(settings, chunks)
    try:
        for groups in computed:  # the same chunks and groups after an interruption, so the same arithmetic
            for group in groups:
                first = number
                for prompt in group.prompts:
                    seen, number = _chained(seen, prompt), number + 1
                    if number == done:
                        gathered.require(seen)
                if number > done:
                    if stop():
                        raise StoppedError(f"calibration stopped after {gathered.count} hold-out prompts")
                    new = max(done - first, 0)
                    if not gathered.settled(precision):
                        gathered.trajectories += group.scored()[new:]
                    for k, prompt in enumerate(group.prompts[new:], new):
                        gathered.add({name: r[k] for name, r in group.activations.items()}, prompt)
                    if path and time.monotonic() - saved > SAVE_EVERY:
                        gathered.save(path)
                        saved = time.monotonic()
                if progress is not None:
                    for prompt in group.prompts:
                        progress(prompt)
            if number >= done:
                gathered.merge()
        gathered.require(seen)
    except BaseException:
        if path and gathered.count > done:
            gathered.save(path)
        raise
    made = gathered.calibration(model, settings, fpr, confidence)
    if out is not None:
        made.save(out)
    if path:
        path.unlink(missing_ok=True)
    return made


@dataclass(frozen=True)
class Chunk:
    """Hold-out prompts that are encoded at once. `done`: so many of them need nothing any more; `scored`: whether scores are wanted."""

    prompts: tuple[str, ...]
    done: int
    scored: bool


@dataclass(frozen=True)
class Group:
    """Prompts of a chunk that share passes. `activations`: layer -> (n, width). `scores`: a trajectory of every prompt, or what went wrong;
    empty where none were wanted."""

    prompts: tuple[str, ...]
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    scores: list[Tensor] | NumericalError = field(default_factory=list)

    def scored(self) -> list[Tensor]:
        """The trajectories. Raises the NumericalError that came up."""
        if isinstance(self.scores, NumericalError):
            raise self.scores
        return self.scores


Parts = Callable[[Settings, Iterator[Chunk]], Iterator[Iterable[Group]]]


def _chunked(prompts: Iterable[str], done: int, scored: Callable[[], bool]) -> Iterator[Chunk]:
    iterator = iter(prompts)
    while chunk := tuple(islice(iterator, CHUNK)):
        yield Chunk(chunk, min(done, len(chunk)), scored())
        done -= min(done, len(chunk))


def _parts_here(model: Model) -> Parts:
    return lambda settings, chunks: (groups_of(model, chunk, settings) for chunk in chunks)


def groups_of(model: Model, chunk: Chunk, settings: Settings) -> Iterator[Group]:
    """Compute a chunk, group by group: a part of a calibration, wherever it is done."""
    size, prompts = group_size(model), chunk.prompts
    text = model.encode(prompts) if chunk.done < len(prompts) else None
    rows = layer_activations(model, prompts, text) if text is not None else {}
    for start in range(0, len(prompts), size):
        group = prompts[start : start + size]
        if text is None or start + len(group) <= chunk.done:
            yield Group(group)
            continue
        activations = {name: r[start : start + size] for name, r in rows.items()}
        yield Group(group, activations, _scores(model, group, settings, text[start : start + size]) if chunk.scored else [])


def _scores(model: Model, prompts: Sequence[str], settings: Settings, text: Tensor) -> list[Tensor] | NumericalError:
    try:
        return _trajectories(model, prompts, settings, text)
    except NumericalError as error:
        return error


def _chained(digest: str, prompt: str) -> str:
    return hashlib.sha256(f"{digest}\0{prompt}".encode()).hexdigest()


def prompts_digest(prompts: Iterable[str]) -> str:
    """Identity of hold-out prompts in their order, as a calibration made from them keeps it in `prompts`."""
    return reduce(_chained, prompts, "")


def _trajectories(model: Model, prompts: Sequence[str], settings: Settings, text: Tensor) -> list[Tensor]:
    """Memorization scores of hold-out prompts after 2, 3, ... seeds; all prompts and seeds share passes. `text`: (N, tokens, D)."""
    rows = [(prompt, k) for prompt in prompts for k in range(settings.samples)]
    probe = Probe.of_many(model, rows, settings, text.repeat_interleave(settings.samples, 0))
    deltas = probe.deltas().split(settings.samples)
    for prompt, part in zip(prompts, deltas, strict=True):
        if part.isnan().any():
            raise NumericalError(f"hold-out prompt {prompt!r}: {NOT_FINITE}")
    return [trajectory(part, settings.similarity).cpu().double() for part in deltas]


@dataclass
class _Progress:
    """What a calibration has gathered so far: scores, moments, and the identity of its prompts, to tell a continuation."""

    key: str
    prompts: str = ""
    count: int = 0
    trajectories: list[Tensor] = field(default_factory=list)
    moments: dict[str, Moments] = field(default_factory=dict)
    pending: list[Mapping[str, Tensor]] = field(default_factory=list)
    _settled: bool = False

    def add(self, activations: Mapping[str, Tensor], prompt: str) -> None:
        self.pending.append(activations)
        self.prompts, self.count = _chained(self.prompts, prompt), self.count + 1

    def merge(self) -> None:
        if self.pending:
            parts = {name: Moments.of(torch.stack([row[name] for row in self.pending])) for name in self.pending[0]}
            self.moments = {n: self.moments[n] + part if n in self.moments else part for n, part in parts.items()}
            self.pending = []

    def scores(self) -> Tensor:
        return torch.stack(self.trajectories)[:, -1] if self.trajectories else torch.empty(0, dtype=torch.float64)

    def settled(self, precision: float | None) -> bool:
        """Whether tau is known to `precision`; looked at every CHUNK scores, so that where it stops does not depend on interruptions."""
        if not self._settled and precision is not None and self.trajectories and len(self.trajectories) % CHUNK == 0:
            low, high = tau_interval(self.scores())
            self._settled = high - low < precision
        return self._settled

    def require(self, prompts: str) -> None:
        if prompts != self.prompts:
            raise MismatchError(
                f"an interrupted calibration has done {self.count} hold-out prompts, but not those given now: "
                "give the same hold-out prompts in the same order, or a new --out"
            )

    def calibration(self, model: Model, settings: Settings, fpr: float | None, confidence: float | None) -> Calibration:
        if self.count < 2:
            raise InputError(f"a calibration needs at least two hold-out prompts, not {self.count}")
        trajectories = torch.stack(self.trajectories).float()  # as they were measured
        tau = threshold(trajectories[:, -1], fpr, confidence)
        mean, std = ({n: getattr(m, part).float() for n, m in self.moments.items()} for part in ("mean", "std"))
        return Calibration(
            model.fingerprint, model.source, settings, tau, mean, std, self.count, trajectories, fpr, self.prompts, confidence
        )

    def save(self, path: Path) -> None:
        from safetensors.torch import save

        tensors = {f"{part}.{n}": getattr(m, part) for n, m in self.moments.items() for part in ("mean", "squares")}
        if self.pending:
            tensors |= {f"pending.{n}": torch.stack([row[n] for row in self.pending]) for n in self.pending[0]}
        layers = list(self.moments or self.pending[0])
        about = {"key": self.key, "prompts": self.prompts, "count": str(self.count), "layers": json.dumps(layers)}
        tensors["trajectories"] = torch.stack(self.trajectories)
        about["digest"] = _digest(about, save(tensors))
        with written(path) as part:
            part.write_bytes(save(tensors, metadata=about))

    @classmethod
    def load(cls, path: Path, key: str) -> _Progress:
        """What `save` wrote for the same model and settings; else a fresh start."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import save

        if not path.exists():
            return cls(key)
        try:
            with safe_open(checked(path, TENSOR_BYTES), "pt") as file:
                about = file.metadata()
                if about["key"] != key:
                    return cls(key)
                count, trajectories = int(about["count"]), list(file.get_tensor("trajectories"))
                layers = json.loads(about["layers"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about.pop("digest") != _digest(about, save(tensors)):
                raise ValueError("it does not fit its digest")
            rows = zip(*(tensors.get(f"pending.{n}", ()) for n in layers), strict=True)
            pending: list[Mapping[str, Tensor]] = [dict(zip(layers, row, strict=True)) for row in rows]
            merged = count - len(pending)
            moments = {n: Moments(merged, tensors[f"mean.{n}"], tensors[f"squares.{n}"]) for n in layers} if merged else {}
            return cls(key, about["prompts"], count, trajectories, moments, pending)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, SafetensorError) as error:
            raise DamageError(f"{path} is not an interrupted calibration ({error!s:.300}): remove it to start afresh") from error


def import_statistics(path: str | os.PathLike, model: Model, tau: float = PUBLISHED_TAU, seed: int = 0) -> Calibration:
    """The published activation statistics (a pickled pair of lists of tensors: means, deviations) as a released-variant calibration.

    Read through PyTorch's weights-only loader, which runs no code. `model` gives the layer names; the widths must fit.
    """
    if not Path(path).exists():
        raise InputError(f"no statistics file {path}")
    try:
        mean, std = torch.load(checked(path, TENSOR_BYTES), map_location="cpu", weights_only=True)
        pairs = [(m.float(), s.float().reshape(m.shape)) for m, s in zip(mean, std, strict=True)]
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} is not a pair of lists of tensors that a weights-only loader accepts: {error!s:.300}"
        ) from error
    widths = model.widths()
    if [len(m) for m, _ in pairs] != list(widths.values()):
        raise MismatchError(f"{path} has layers of {[len(m) for m, _ in pairs]} neurons, the model has {list(widths.values())}")
    means, stds = ({n: p[k] for n, p in zip(widths, pairs, strict=True)} for k in (0, 1))
    settings = settings_for(RELEASED.variant, seed)
    return Calibration(model.fingerprint, model.source, settings, tau, means, stds, 0, torch.empty(0, settings.samples - 1), None)
