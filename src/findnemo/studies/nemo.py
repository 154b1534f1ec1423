"""Algorithms 1 to 4 as published, with the changes that ablations make."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from findnemo.calibration import Calibration, activations
from findnemo.errors import InputError
from findnemo.localization import initial_selection, out_of_distribution_neurons, refine
from findnemo.localization.listing import THETA
from findnemo.localization.replication import Replication
from findnemo.models import Model
from findnemo.neurons import EMPTY
from findnemo.passes import Probe, spending

T = TypeVar("T")
ENCODER = "text encoder"
NO_SCORES = (
    "the calibration has no hold-out scores (imported statistics): make one with `findnemo"
    " calibrate --prompts`"
)


def listing(
    model: Model, prompt: str, calibration: Calibration, top_k: bool = True
) -> dict[str, Any]:
    """Run Algorithms 1 to 4 on a prompt; return `candidates`, `refined` (as JSON) and `seconds`.

    The seconds are those of the text encoder, of each algorithm under the paper's name, and their
    `total`. Algorithm 2 reads the activations from the value projections alone, and chooses at the
    first thresholds; Algorithm 3 chooses again at others. `top_k`: whether the k strongest neurons
    of every layer are candidates too.
    """
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], T]) -> T:
        result, seconds[name] = stopped(call)
        return result

    def second() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        read = activations(model, prompt, probe.text)
        scores = calibration.z_scores(read)
        out_of_distribution_neurons(scores, read, THETA, 0)
        return read, scores

    tau = calibration.tau
    candidates = refined = EMPTY
    with spending() as spent:
        text = timed(ENCODER, lambda: model.encode([prompt]))
        probe = Probe(model, prompt, calibration.settings, reuse=True, text=text)
        replication = timed("Alg. 1, noise differences", lambda: Replication(probe, tau))
        absolute, z = timed("Alg. 2, out-of-distribution neurons", second)
        if replication.kept:
            top = absolute if top_k else {name: values[:0] for name, values in absolute.items()}
            first = timed(
                "Alg. 3, initial selection", lambda: initial_selection(replication, z, top)
            )
            candidates = first.neurons
            level = max(tau, first.similarity)
            refined = timed("Alg. 4, refinement", lambda: refine(replication, candidates, level))
            seconds["total"] = sum(seconds.values())
    return {
        "memorized": bool(replication.kept),
        "candidates": candidates.to_json(),
        "refined": refined.to_json(),
        "seconds": seconds,
        "evaluations": spent.evaluations,
    }


def stopped(call: Callable[[], T]) -> tuple[T, float]:
    """The result of a call, and its seconds; a GPU finishes all pending work before and after."""

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    began = now()
    result = call()
    return result, now() - began


def with_tau(calibration: Calibration, deviations: float) -> Calibration:
    """The calibration with tau = mean + `deviations` standard deviations of the hold-out scores.

    Raises InputError if it has no hold-out scores.
    """
    scores = calibration.scores.double()
    if len(scores) < 2:
        raise InputError(NO_SCORES)
    return replace(calibration, tau=float(scores.mean() + deviations * scores.std()))
