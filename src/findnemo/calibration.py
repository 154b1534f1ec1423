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
from findnemo.deltas import Probe, group_size
from findnemo.errors import InputError, MismatchError, NumericalError
from findnemo.models import Model
from findnemo.scores import NOT_FINITE, trajectory
from findnemo.settings import RELEASED, Settings, settings_for

FORMAT = 2
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
    statistics. `fpr`: the false-positive rate asked for, or None. `prompts`: identity of the hold-out prompts.
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

    @property
    def scores(self) -> Tensor:
        """Memorization scores of the hold-out prompts, (n,)."""
        return self.trajectories[:, -1]

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
        from safetensors.torch import save_file

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        tensors = {f"mean.{n}": t for n, t in self.mean.items()} | {f"std.{n}": t for n, t in self.std.items()}
        save_file({n: t.float().contiguous() for n, t in tensors.items()} | {"trajectories": self.trajectories}, path / "part")
        about = {
            "format": FORMAT,
            "model": self.model,
            "source": self.source,
            "settings": self.settings.to_json(),
            "tau": self.tau,
            "fpr": self.fpr,
            "count": self.count,
            "prompts": self.prompts,
            "layers": list(self.mean),
        }
        (path / "part.json").write_text(json.dumps(about, indent=1) + "\n")
        (path / "part").replace(path / "calibration.safetensors")
        (path / "part.json").replace(path / "calibration.json")
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Calibration:
        """Read what `save` wrote. Raises InputError for anything else."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(folder)
        for name in ("calibration.json", "calibration.safetensors"):
            if not (path / name).is_file():
                raise InputError(f"{path} is not a calibration: it holds no {name}; make one with `findnemo calibrate`")
        try:
            about = json.loads(checked(path / "calibration.json", JSON_BYTES).read_text(encoding="utf-8"))
            tensors = load_file(checked(path / "calibration.safetensors", TENSOR_BYTES))
            if about["format"] != FORMAT:
                raise InputError(f"{path} has calibration format {about['format']!r:.40}, this findnemo reads {FORMAT}")
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
            )
            made._require_whole()
            return made
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, SafetensorError) as error:
            raise InputError(f"{path} is damaged or not a calibration: {error!s:.300}") from error

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


def threshold(scores: Tensor, fpr: float | None = None) -> float:
    """tau of hold-out scores (n,): mean + 1 std (Finding NeMo, section 4), or for a false-positive rate the conformal quantile.

    The conformal threshold is the ceil((n + 1)(1 - fpr))-th smallest score: a new exchangeable prompt exceeds it with
    probability at most fpr. Raises InputError if there are too few scores for the rate.

    >>> round(threshold(torch.tensor([0.2, 0.3, 0.4])), 3)
    0.4
    """
    n = len(scores)
    if fpr is None:
        if n < 2:
            raise InputError(f"a threshold of mean + 1 std needs at least two hold-out prompts, not {n}")
        return float(scores.double().mean() + scores.double().std())
    if not 0 < fpr < 1:
        raise InputError(f"fpr {fpr} is not a rate between 0 and 1")
    rank = math.ceil((n + 1) * (1 - fpr))
    if rank > n:
        raise InputError(
            f"{n} hold-out prompts are too few for a false-positive rate of {fpr}: it takes {math.ceil(1 / fpr) - 1}"
        )
    return float(scores.double().sort().values[rank - 1])


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
) -> Calibration:
    """Statistics and threshold from hold-out prompts (captions that are not memorized), in one pass and constant memory.

    `variant`: "paper" or "released"; `settings` overrides it. `fpr`: conformal threshold instead of mean + 1 std. `precision`: once
    the 95 % confidence interval of tau is narrower, further prompts only add to the activation statistics, which is a hundred times
    cheaper; None, or an `fpr`, scores all. `progress` is called with every prompt done. `checkpoint`: a file that keeps what is done,
    so that an interrupted calibration goes on from there; it is removed at the end. Raises InputError for fewer than two prompts,
    NumericalError naming a prompt that gives NaN.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> 0 < findnemo.calibrate(model, ["a red star", "a blue ring at night", "a green tree"]).tau < 1
        True
    """
    settings = settings or settings_for(variant, seed)
    precision = None if fpr is not None else precision
    path, seen, number, size = Path(checkpoint) if checkpoint else None, "", 0, group_size(model)
    gathered = _Progress.load(path, f"{model.fingerprint} {settings} {precision}") if path else _Progress("")
    done, saved = gathered.count, -math.inf
    try:
        for chunk in _chunks(prompts, CHUNK):  # the same chunks and groups after an interruption, so the same arithmetic
            text = model.encode(chunk) if number + len(chunk) > done else None
            rows = layer_activations(model, chunk, text) if text is not None else {}
            for start in range(0, len(chunk), size):
                group, first = chunk[start : start + size], number
                for prompt in group:
                    seen, number = _chained(seen, prompt), number + 1
                    if number == done:
                        gathered.require(seen)
                if text is not None and number > done:
                    new = max(done - first, 0)
                    if not gathered.settled(precision):
                        gathered.trajectories += _trajectories(model, group, settings, text[start : start + size])[new:]
                    for k, prompt in enumerate(group[new:], start + new):
                        gathered.add({name: r[k] for name, r in rows.items()}, prompt)
                    if path and time.monotonic() - saved > SAVE_EVERY:
                        gathered.save(path)
                        saved = time.monotonic()
                if progress is not None:
                    for prompt in group:
                        progress(prompt)
            if number >= done:
                gathered.merge()
        gathered.require(seen)
    except BaseException:
        if path and gathered.count > done:
            gathered.save(path)
        raise
    made = gathered.calibration(model, settings, fpr)
    if path:
        path.unlink(missing_ok=True)
    return made


def _chunks(prompts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(prompts)
    while chunk := list(islice(iterator, size)):
        yield chunk


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

    def calibration(self, model: Model, settings: Settings, fpr: float | None) -> Calibration:
        if self.count < 2:
            raise InputError(f"a calibration needs at least two hold-out prompts, not {self.count}")
        trajectories = torch.stack(self.trajectories)
        tau = threshold(trajectories[:, -1], fpr)
        mean, std = ({n: getattr(m, part).float() for n, m in self.moments.items()} for part in ("mean", "std"))
        return Calibration(
            model.fingerprint, model.source, settings, tau, mean, std, self.count, trajectories.float(), fpr, self.prompts
        )

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        tensors = {f"{part}.{n}": getattr(m, part) for n, m in self.moments.items() for part in ("mean", "squares")}
        if self.pending:
            tensors |= {f"pending.{n}": torch.stack([row[n] for row in self.pending]) for n in self.pending[0]}
        layers = list(self.moments or self.pending[0])
        about = {"key": self.key, "prompts": self.prompts, "count": str(self.count), "layers": json.dumps(layers)}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        save_file(tensors | {"trajectories": torch.stack(self.trajectories)}, part, metadata=about)
        part.replace(path)

    @classmethod
    def load(cls, path: Path, key: str) -> _Progress:
        """What `save` wrote for the same model and settings; else a fresh start."""
        from safetensors import SafetensorError, safe_open

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
            rows = zip(*(tensors.get(f"pending.{n}", ()) for n in layers), strict=True)
            pending: list[Mapping[str, Tensor]] = [dict(zip(layers, row, strict=True)) for row in rows]
            merged = count - len(pending)
            moments = {n: Moments(merged, tensors[f"mean.{n}"], tensors[f"squares.{n}"]) for n in layers} if merged else {}
            return cls(key, about["prompts"], count, trajectories, moments, pending)
        except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, SafetensorError) as error:
            raise InputError(f"{path} is not an interrupted calibration ({error!s:.300}): remove it to start afresh") from error


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
