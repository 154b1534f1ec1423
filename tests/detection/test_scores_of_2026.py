"""The detectors of 2025 and 2026 against their formulas, written with plain calls of diffusers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from _tiny import tiny_pipeline
from diffusers import DDIMScheduler
from torch import Tensor

import findnemo
from findnemo import ImageSettings
from findnemo.detection import DETECTORS
from findnemo.detection.anisotropy import ENTRIES, anisotropy
from findnemo.detection.curvature import curvature
from findnemo.detection.dsm import dsm
from findnemo.detection.latent_updates import latent_updates, updates
from findnemo.detection.sharpness import sharpness
from findnemo.errors import InputError
from findnemo.models import Model
from findnemo.seeds import sample_seed

SETTINGS = ImageSettings(steps=6, guidance=3.0, seed=2)
CAPTION = "a cat"
KINDS = ["epsilon", "v_prediction"]


class Plain:
    """The tiny pipeline as a paper has it: eps of one latent (1, 4, 16, 16), in double precision so
    that finite differences can be taken.
    """

    def __init__(self, kind: str, seed: int = 0):
        pipeline = tiny_pipeline(kind, seed=seed)
        self.kind = kind
        self.unet = pipeline.unet.double()
        options = {"set_alpha_to_one": True}  # the last step goes to x_0
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **options)
        self.scheduler.set_timesteps(SETTINGS.steps)
        tokens = pipeline.tokenizer(
            [CAPTION, ""], padding="max_length", max_length=77, return_tensors="pt"
        )
        with torch.no_grad():
            self.prompt, self.empty = pipeline.text_encoder(tokens.input_ids)[0].double().split(1)

    def raw(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        return self.unet(x, t, encoder_hidden_states=text).sample

    def eps(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        output = self.raw(x, t, text)
        a = self.scheduler.alphas_cumprod[t].double()
        return output if self.kind == "epsilon" else a.sqrt() * output + (1 - a).sqrt() * x

    def score(self, x: Tensor, t: int) -> Tensor:
        """s = -(eps(y) - eps(empty)) / sqrt(1 - a)."""
        a = self.scheduler.alphas_cumprod[t].double()
        return (self.eps(x, t, self.empty) - self.eps(x, t, self.prompt)) / (1 - a).sqrt()

    def steps(self, x: Tensor) -> list[Tensor]:
        """z_T, ..., z_0 of the guided run."""
        states = [x]
        for t in self.scheduler.timesteps:
            with torch.no_grad():
                empty, prompt = (self.raw(x, t, text) for text in (self.empty, self.prompt))
            guided = empty + SETTINGS.guidance * (prompt - empty)
            x = self.scheduler.step(guided, t, x).prev_sample
            states.append(x)
        return states


def noise(image: int) -> Tensor:
    generator = torch.Generator().manual_seed(sample_seed(SETTINGS.seed, CAPTION, image))
    return torch.randn(1, 4, 16, 16, generator=generator).double()


def first(plain: Plain) -> int:
    return int(plain.scheduler.timesteps[0])


def mean(values: Any) -> float:
    found = [float(v) for v in values]
    return sum(found) / len(found)


@cache
def tiny(kind: str) -> Model:
    return findnemo.load(tiny_pipeline(kind))


@pytest.mark.first(1)
@torch.no_grad()
@pytest.mark.parametrize("pixelwise", [False, True])
@pytest.mark.parametrize(("kind", "weights"), [("epsilon", (1, 2)), ("v_prediction", (1, 0.1))])
def test_anisotropy(kind, weights, pixelwise):
    plain = Plain(kind)

    def metric(x: Tensor) -> float:
        early, late = (
            plain.eps(x, t, plain.prompt) - plain.eps(x, t, plain.empty) for t in (first(plain), 41)
        )
        base = plain.eps(x, 41, plain.empty)
        if pixelwise:
            cosines = (late * base).sum(1) / late.norm(dim=1) / base.norm(dim=1)
            cosine = cosines.mean()
        else:
            cosine = (late * base).sum() / late.norm() / base.norm()
        return weights[0] * early.norm() * (16384 / 1024) ** 0.5 + weights[1] * cosine

    expected = mean(metric(noise(k)) for k in range(3))
    found = anisotropy(tiny(kind), CAPTION, SETTINGS, images=3, pixelwise=pixelwise)
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert ENTRIES == 16384
    norm, angle = (
        anisotropy(tiny(kind), CAPTION, SETTINGS, images=3, pixelwise=pixelwise, weights=w).value
        for w in ((1, 0), (0, 1))
    )
    assert weights[0] * norm + weights[1] * angle == pytest.approx(found.value, rel=1e-5)
    assert abs(angle) <= 1


@pytest.mark.first(1)
@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_sharpness_is_the_change_of_the_score_along_itself(kind):
    plain = Plain(kind)

    def metric(x: Tensor) -> Tensor:
        """By central differences in double precision."""
        s = plain.score(x, first(plain))
        step = 1e-4 * s / s.norm()
        change = plain.score(x + step, first(plain)) - plain.score(x - step, first(plain))
        return (change / 2e-4 * s.norm()).square().sum()

    expected = mean(metric(noise(k)) for k in range(3))
    found = sharpness(tiny(kind), CAPTION, SETTINGS, images=3)
    assert found.value == pytest.approx(expected, rel=1e-3)
    assert found.evaluations == 18


@pytest.mark.parametrize("kind", KINDS)
def test_curvature_is_the_difference_of_the_gradients_of_both_energies(kind):
    plain = Plain(kind)

    def metric(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        energies = [
            (plain.eps(x, first(plain), text) ** 2).sum() / 2
            for text in (plain.prompt, plain.empty)
        ]
        prompted, empty = (torch.autograd.grad(e, x)[0] for e in energies)
        return ((prompted - empty) ** 2).sum()

    expected = mean(metric(noise(k)) for k in range(3))
    model = tiny(kind)
    found = curvature(model, CAPTION, SETTINGS, images=3)
    assert found.value == pytest.approx(expected, rel=2e-3)
    assert all(p.grad is None and p.requires_grad for p in model.denoiser.parameters())


@pytest.mark.first(1)
@torch.no_grad()
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_dsm_is_the_move_of_the_prompted_prediction_in_a_guided_step(kind, step):
    plain = Plain(kind)

    def metric(x: Tensor) -> Tensor:
        states = plain.steps(x)
        before, after = (
            plain.eps(states[k], int(plain.scheduler.timesteps[k]), plain.prompt)
            for k in (step, step + 1)
        )
        return ((after - before) ** 2).sum()

    expected = mean(metric(noise(k)) for k in range(2))
    found = dsm(tiny(kind), CAPTION, SETTINGS, images=2, step=step)
    assert found.value == pytest.approx(expected, rel=1e-3)
    assert found.evaluations == 2 * 2 * (step + 2)


@pytest.mark.parametrize(("steps", "step"), [(1, 0), (6, 5), (6, -1)])
def test_dsm_needs_a_step_and_one_after_it(steps, step):
    with pytest.raises(InputError, match=f"a run of {steps} steps does not go from step {step} "):
        dsm(tiny("epsilon"), CAPTION, ImageSettings(steps, 3.0), step=step)


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


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["anisotropy", "sharpness", "curvature", "dsm", "latent-updates"])
def test_a_score_is_the_mean_of_its_images_whatever_the_batch(name):
    model = tiny("v_prediction")
    known = {}
    if name == "latent-updates":
        known = {"reference": [updates(model, c, SETTINGS) for c in ("snow", "a tree", "a sea")]}

    def value(images: int) -> float:
        return DETECTORS[name](model, CAPTION, SETTINGS, images=images, **known).value

    # the second image alone is what two have beside the first
    one, two, three = (value(n) for n in (1, 2, 3))
    second, third = 2 * two - one, 3 * three - 2 * two
    alone = []
    shifted = findnemo.load(tiny_pipeline("v_prediction"))
    for k in (1, 2):
        own = model.noise(CAPTION, [k], SETTINGS.seed)
        shifted.noise = lambda *args, own=own: own
        alone.append(DETECTORS[name](shifted, CAPTION, SETTINGS, images=1, **known).value)
    assert [second, third] == pytest.approx(alone, rel=5e-3)
    assert (
        DETECTORS[name](model, CAPTION, replace(SETTINGS, seed=3), images=1, **known).value != one
    )


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["anisotropy", "sharpness", "curvature"])
def test_the_empty_prompt_adds_nothing(name):
    assert DETECTORS[name](tiny("epsilon"), "", SETTINGS, images=1).value == 0
