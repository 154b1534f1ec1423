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
from findnemo.localization.candidates import THETA, Candidates
from findnemo.localization.replication import Replication
from findnemo.models import Model
from findnemo.neurons import EMPTY
from findnemo.passes import Probe, spending

T = TypeVar("T")
NO_SCORES = "the calibration has no hold-out scores (imported statistics): make one with `findnemo calibrate --prompts`"


def listing(
    model: Model, prompt: str, calibration: Calibration, top_k: bool = True
) -> dict[str, Any]:
    """Algorithms 1 to 4 on a prompt: `candidates`, `refined` (as JSON), and `seconds` of each algorithm, in the paper's names."""
    seconds: dict[str, float] = {}
    first: Candidates | None = None
    refined = EMPTY
    with spending() as spent:
        probe = Probe(model, prompt, calibration.settings, reuse=True)
        replication = _timed(
            seconds, "Alg. 1, noise differences", lambda: Replication(probe, calibration.tau)
        )
        absolute = activations(model, prompt, probe.text)
        z = calibration.z_scores(absolute)
        strongest = absolute if top_k else {name: values[:0] for name, values in absolute.items()}
        _timed(
            seconds,
            "Alg. 2, out-of-distribution neurons",
            lambda: out_of_distribution_neurons(z, absolute, THETA, 0),
        )
        if replication.kept:
            first = _timed(
                seconds,
                "Alg. 3, initial selection",
                lambda: initial_selection(replication, z, strongest),
            )
            refined = _timed(
                seconds,
                "Alg. 4, refinement",
                lambda: refine(replication, first.neurons, max(calibration.tau, first.similarity)),
            )
            seconds["total"] = sum(seconds.values())
    return {
        "memorized": first is not None,
        "candidates": {} if first is None else first.neurons.to_json(),
        "refined": refined.to_json(),
        "seconds": seconds,
        "evaluations": spent.evaluations,
    }


def _timed(seconds: dict[str, float], name: str, call: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[name] = time.perf_counter() - began
    return result


def with_tau(calibration: Calibration, deviations: float) -> Calibration:
    """The same calibration with tau = mean + `deviations` standard deviations of the hold-out scores. Raises InputError where it has none."""
    scores = calibration.scores.double()
    if len(scores) < 2:
        raise InputError(NO_SCORES)
    return replace(calibration, tau=float(scores.mean() + deviations * scores.std()))
