"""Pictures of several captions in shared passes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from _attempts import CAPTIONS, MODELS, attempts, neurons_of

import findnemo
from findnemo.edits import deactivate
from findnemo.errors import NumericalError
from findnemo.neurons import NeuronSet
from findnemo.passes import pictures as images_of
from findnemo.passes import side_by_side


@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["sd", "lcm", "sd3", "flux"])
def test_images_of_several_captions_are_those_of_each(kind, monkeypatch):
    model = findnemo.load(MODELS[kind]())
    settings = findnemo.ImageSettings(steps=2, guidance=3.0)
    cases = [
        (c, [k, k + 1], neurons_of(model, k) if k else NeuronSet()) for k, c in enumerate(CAPTIONS)
    ]
    expected = []
    for caption, samples, neurons in cases:
        with deactivate(model, neurons):
            expected += findnemo.generate(model, caption, samples, settings)
    calls = []
    sample = type(model).sample
    monkeypatch.setattr(type(model), "sample", lambda *args: calls.append(args[1]) or sample(*args))
    searches = [partial(images_of, model, c, samples, settings, off) for c, samples, off in cases]
    found = [image for images in side_by_side(model, searches) for image in images]
    assert calls == [[c for c in CAPTIONS for _ in range(2)]]
    for one, other in zip(found, expected, strict=True):
        gap = np.abs(np.asarray(one, int) - np.asarray(other, int))
        assert gap.max() <= 2


def test_images_that_fail_together_are_made_by_themselves(tiny, monkeypatch):
    settings = findnemo.ImageSettings(steps=1, guidance=3.0)
    sample = type(tiny).sample

    def broken(self, prompts, *args):
        latents = sample(self, prompts, *args)
        return latents * float("nan") if "a grey owl" in prompts else latents

    monkeypatch.setattr(type(tiny), "sample", broken)
    one, two, three = attempts(tiny, [partial(images_of, tiny, c, [0], settings) for c in CAPTIONS])
    assert isinstance(two, NumericalError)
    assert len(one) == len(three) == 1
