"""Latent updates against their formula, written with plain calls of diffusers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from _plain_detectors import CAPTION, KINDS, SETTINGS, Plain, mean, noise, tiny
from torch import Tensor

import findnemo
from findnemo.detection.latent_updates import latent_updates, updates
from findnemo.errors import InputError


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", KINDS)
def test_latent_updates_are_held_against_those_of_ordinary_captions(kind):
    plain = Plain(kind)
    model = tiny(kind)
    usual = [updates(model, caption, SETTINGS) for caption in ("snow", "a tree", "two dogs")]

    def norms(x: Tensor) -> Tensor:
        states = plain.steps(x)
        return torch.stack([(b - a).norm() for a, b in pairwise(states)])

    assert updates(model, CAPTION, SETTINGS) == pytest.approx(norms(noise(0)).tolist(), rel=1e-4)
    scores = []
    for k in range(2):
        deviations = []
        for t, norm in enumerate(norms(noise(k))):
            known = torch.tensor([row[t] for row in usual], dtype=torch.float64)
            sigma = ((known - known.mean()) ** 2).sum().div(2).sqrt()
            deviations.append(abs(norm - known.mean()) / sigma)
        scores.append(max(deviations))
    found = latent_updates(model, CAPTION, SETTINGS, images=2, reference=usual)
    assert found.value == pytest.approx(mean(scores), rel=1e-2)
    assert found.evaluations == 2 * 2 * 6


@pytest.mark.slow
def test_latent_updates_refuse_a_reference_of_another_run_and_make_their_own(monkeypatch):
    model = tiny("epsilon")
    row = updates(model, "snow", SETTINGS)
    for reference in ([], [row], [row[:3]] * 2):
        with pytest.raises(InputError, match=r"give a row of `updates` for each of two ordinary"):
            latent_updates(model, CAPTION, SETTINGS, reference=reference)
    monkeypatch.setattr("findnemo.detection.latent_updates.CAPTIONS", 2)
    own = latent_updates(model, CAPTION, SETTINGS, images=1)
    rows = [updates(model, c, SETTINGS) for c in findnemo.prompts.ordinary(2)]
    given = latent_updates(model, CAPTION, SETTINGS, images=1, reference=rows)
    assert own.value == given.value
    assert (own.evaluations, given.evaluations) == (36, 12)
