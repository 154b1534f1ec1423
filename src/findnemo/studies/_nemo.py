"""Algorithms 1 to 4 as published, with what the ablations change in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from findnemo.calibration import Calibration, activations
from findnemo.errors import InputError
from findnemo.localization import initial_selection, out_of_distribution_neurons, refine
from findnemo.localization.candidates import THETA
from findnemo.localization.replication import Replication
from findnemo.models import Model
from findnemo.neurons import EMPTY
from findnemo.passes import Probe, spending

T = TypeVar("T")
NO_SCORES = (
    "the calibration has no hold-out scores (imported statistics): make one with `findnemo"
    " calibrate --prompts`"
)


def listing(
    model: Model, prompt: str, calibration: Calibration, top_k: bool = True
) -> dict[str, Any]:
    """Algorithms 1 to 4 on a prompt:

    `candidates`, `refined` (as JSON), and `seconds` of each algorithm, in the paper's names.

    `top_k`: whether the k strongest neurons of every layer are candidates too.
    """
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - began
        return result

    tau = calibration.tau
    candidates = refined = EMPTY
    with spending() as spent:
        probe = Probe(model, prompt, calibration.settings, reuse=True)
        replication = timed("Alg. 1, noise differences", lambda: Replication(probe, tau))
        absolute = activations(model, prompt, probe.text)
        z = calibration.z_scores(absolute)
        timed(
            "Alg. 2, out-of-distribution neurons",
            lambda: out_of_distribution_neurons(z, absolute, THETA, 0),
        )
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


def with_tau(calibration: Calibration, deviations: float) -> Calibration:
    """The same calibration with tau = mean + `deviations` standard deviations of the hold-out
    scores. Raises InputError where it has none.
    """
    scores = calibration.scores.double()
    if len(scores) < 2:
        raise InputError(NO_SCORES)
    return replace(calibration, tau=float(scores.mean() + deviations * scores.std()))
