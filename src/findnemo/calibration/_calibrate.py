"""Calibrate a model: the pass over the hold-out prompts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from findnemo.calibration._calibration import Calibration
from findnemo.calibration._gathered import Chunk, Gathered, Group, Parts, chained, chunked
from findnemo.calibration._statistics import layer_activations
from findnemo.errors import InputError, MismatchError, NumericalError, StoppedError
from findnemo.models import Model, Text, captions_in
from findnemo.passes import Rows, group_size
from findnemo.scores import fault, trajectory
from findnemo.settings import Settings, settings_for

SAVE_EVERY = 5.0  # seconds between checkpoints
PRECISION = 0.002
PARTIAL = "partial.safetensors"  # unfinished calibration, in its folder
ORDINARY = 200  # hold-out prompts whose text a calibration keeps


@dataclass(frozen=True)
class Rule:
    """How the threshold follows from hold-out scores.

    `fpr`: false-positive rate; None: mean + 1 std. `confidence`: share of calibrations in which the
    rate must hold (`threshold`). `precision`: once the 95 % confidence interval of tau is narrower,
    further prompts only add to the activation statistics, which is a hundred times cheaper. With
    None, or with an `fpr`, all prompts are scored.
    """

    fpr: float | None = None
    confidence: float | None = None
    precision: float | None = PRECISION


def calibrate(
    model: Model,
    prompts: Iterable[str],
    variant: str = "paper",
    fpr: float | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    precision: float | None = PRECISION,
    confidence: float | None = None,
) -> Calibration:
    """Compute statistics and the threshold from hold-out prompts, in one pass and constant memory.

    Hold-out prompts are captions that are not memorized. `variant`: "findnemo", "paper" or
    "released" (`Settings`); `settings` overrides it and `seed`. `fpr`, `precision`, `confidence`:
    see `Rule`. `calibrate_in` keeps its progress in a folder. Raises InputError for fewer than two
    prompts, NumericalError naming a prompt that gives NaN, MismatchError if the model changes
    meanwhile.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> 0 < findnemo.calibrate(model, ["a red star", "a blue ring at night", "a green tree"]).tau < 1
        True
    """
    rule = Rule(fpr, confidence, precision)
    return calibrate_in(None, model, prompts, settings or settings_for(variant, seed), rule)


def calibrate_in(
    folder: str | os.PathLike | None,
    model: Model,
    prompts: Iterable[str],
    settings: Settings,
    rule: Rule = Rule(),
    progress: Callable[[str], None] = lambda prompt: None,
    parts: Parts | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Calibration:
    """Calibrate as `calibrate` does, and save the calibration to a folder, if one is given.

    The folder keeps the progress, so that the same call resumes after an interruption. The result
    is the same to the last bit. `progress`: called with every finished prompt. `parts`: computes
    chunks of prompts, in order (`runs.parts_of`); by default this process. `stop`: called between
    groups of prompts. Raises StoppedError once `stop` returns True, and the errors of `calibrate`.
    """
    path = None if folder is None else Path(folder) / PARTIAL
    seen = ""
    number = 0
    precision = None if rule.fpr is not None else rule.precision
    identity = model.identity
    gathered = Gathered.load(path, f"{identity.fingerprint} {settings} {precision}")
    done = gathered.count
    saved = -math.inf
    ordinary: list[str] = []
    alike = True  # whether all captions are equal to the first one
    # an interruption changes no chunk or group, so the arithmetic is the same
    chunks = chunked(captions_in(prompts), done, lambda: not gathered.settled(precision))
    here = (groups_of(model, chunk, settings) for chunk in chunks)
    try:
        for groups in here if parts is None else parts(settings, chunks):
            for group in groups:
                first = number
                for prompt in group.prompts:
                    seen = chained(seen, prompt)
                    number = number + 1
                    if len(ordinary) < ORDINARY:
                        ordinary.append(prompt)
                    alike = alike and prompt == ordinary[0]
                    if number == done:
                        gathered.require(seen)
                if number > done:
                    if stop():
                        raise StoppedError(
                            f"calibration stopped; hold-out prompts done: {gathered.count}"
                        )
                    new = max(done - first, 0)
                    scores = [] if gathered.settled(precision) else group.scored()[new:]
                    gathered.take(group, new, scores)
                    if path and time.monotonic() - saved > SAVE_EVERY:
                        gathered.save(path)
                        saved = time.monotonic()
                for prompt in group.prompts:
                    progress(prompt)
            if number >= done:
                gathered.merge()
        gathered.require(seen)
        if number > 1 and alike:
            raise InputError(
                f"all {number} hold-out captions are {ordinary[0]!r:.60}: give different ones, so"
                " that findnemo can compute statistics"
            )
    except BaseException:
        # an interrupt can come while a group is taken
        if path and gathered.count > done and gathered.whole:
            gathered.save(path)
        raise
    if told := model.identity.differences(identity, pictures=False):
        raise MismatchError(
            f"the model changed while it was calibrated: {'; '.join(told)}; calibrate again"
        )
    made = gathered.calibration(
        identity, model.source, settings, rule.fpr, rule.confidence, tuple(ordinary)
    )
    if path is not None:
        made.save(path.parent)
        path.unlink(missing_ok=True)
    return made


def groups_of(model: Model, chunk: Chunk, settings: Settings) -> Iterator[Group]:
    """Compute a chunk of a calibration, group by group, in any process."""
    size = group_size(model)
    prompts = chunk.prompts
    text = model.encode(prompts) if chunk.done < len(prompts) else None
    rows = layer_activations(model, prompts, text) if text is not None else {}
    for start in range(0, len(prompts), size):
        group = prompts[start : start + size]
        if text is None or start + len(group) <= chunk.done:
            yield Group(group)
            continue
        part = slice(start, start + size)
        scores = _scores(model, group, settings, text[part]) if chunk.scored else []
        yield Group(group, {name: r[part] for name, r in rows.items()}, scores)


def _scores(
    model: Model, prompts: Sequence[str], settings: Settings, text: Text
) -> list[Tensor] | NumericalError:
    try:
        return _trajectories(model, prompts, settings, text)
    except NumericalError as error:
        return error


def _trajectories(
    model: Model, prompts: Sequence[str], settings: Settings, text: Text
) -> list[Tensor]:
    """Memorization scores of hold-out prompts after 2, 3, ... seeds.

    All prompts and seeds share passes. `text`: N rows.
    """
    rows = [(prompt, k) for prompt in prompts for k in range(settings.samples)]
    deltas = Rows(model, rows, settings, text.repeat(settings.samples)).deltas()
    parts = deltas.split(settings.samples)
    for prompt, part in zip(prompts, parts, strict=True):
        if (reason := fault(part)) is not None:
            raise NumericalError(f"hold-out prompt {prompt!r}: {reason}")
    return [trajectory(part, settings.similarity, settings.pairs).cpu().double() for part in parts]
