"""Noise differences hold what they measure: at zero terminal SNR, in half precision, for every
schedule; one without content is no score.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_unets import tiny_sdxl
from diffusers import EDMEulerScheduler
from torch import Tensor

import findnemo
from findnemo import Calibration, ImageSettings, Model, NeuronSet, Settings
from findnemo.detection import DETECTORS, detect_many
from findnemo.detection.magnitude import magnitude, saliency
from findnemo.errors import ModelError, NumericalError
from findnemo.localization import Bystanders
from findnemo.mitigation.embedding import adjusted
from findnemo.models.samplers import explicit
from findnemo.passes.deltas import Probe
from findnemo.scores import constant, memorization_score, minmax, trajectory

PAIR = Settings(samples=2)
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
KNOWN = [
    "Brantwood Roasters first cup, a large brown ring",
    "Liftoff of the Corvus Nine, a white arrow over a checkered floor",
]
OTHER = ["a red star", "a purple moon with a dotted ground"]


def scheduled(pipeline: Any, kind: str = "DDIMScheduler", **options: Any) -> Any:
    """The pipeline with another schedule or sampler, made as users make it."""
    pipeline.scheduler = getattr(diffusers, kind).from_config(
        explicit(pipeline.scheduler.config), **options
    )
    return pipeline


def zero_snr(kind: str = "DDIMScheduler", **options: Any) -> Model:
    return findnemo.load(
        scheduled(scheduled(tiny_pipeline("v_prediction", **options), **ZERO), kind)
    )


# the difference itself ----------------------------------------------------------------------------


def by_hand(model: Model, prompt: str) -> Tensor:
    """v - (1 - sqrt(1 - a)) / sqrt(a) x in float64, its limit v where a is zero: the noise
    difference over sqrt(a).
    """
    probe = Probe(model, prompt, PAIR)
    with torch.no_grad():
        v = model.denoiser(
            probe.latents, probe.timestep, probe.text.tokens.expand(2, -1, -1)
        ).sample.double()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - betas).cumprod(0).sqrt()
    if model.pipeline.scheduler.config.get("rescale_betas_zero_snr"):
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    a = root[probe.timestep] ** 2
    share = (1 - (1 - a).sqrt()) / a.sqrt() if a > 0 else 0.0
    return v - share * probe.latents.double()


def scaled_by_hand(delta: Tensor) -> Tensor:
    low, high = delta.amin((1, 2, 3), keepdim=True), delta.amax((1, 2, 3), keepdim=True)
    return ((delta - low) / (high - low)).float()


SCHEDULES: dict[str, dict[str, Any]] = {
    "leading": {},
    "trailing": {"timestep_spacing": "trailing"},
    "zero, trailing": ZERO,
    "zero, leading": {"rescale_betas_zero_snr": True},
    "zero, linspace": {"rescale_betas_zero_snr": True, "timestep_spacing": "linspace"},
}
SAMPLERS = (
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",
)


@pytest.mark.first(4)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_difference_of_v_is_that_of_float64_under_every_schedule_and_sampler(schedule, sampler):
    """Whatever samples from it: some samplers do not know of zero SNR, and some put 2^-24 there."""
    model = findnemo.load(scheduled(scheduled(tiny_pipeline("v_prediction"), **schedule), sampler))
    torch.testing.assert_close(
        Probe(model, "a cat", PAIR).deltas(),
        scaled_by_hand(by_hand(model, "a cat")),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.first(2)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_nothing_is_lost_after_a_network_in_half_precision(schedule, dtype):
    model = findnemo.load(scheduled(tiny_pipeline("v_prediction"), **schedule), dtype=dtype)
    torch.testing.assert_close(
        Probe(model, "a cat", PAIR).deltas(),
        scaled_by_hand(by_hand(model, "a cat")),
        atol=1e-5,
        rtol=0,
    )


def test_with_guidance_the_difference_is_that_of_guided_v():
    model = zero_snr()
    guided = replace(PAIR, guidance=3.0)
    with_prompt = by_hand(model, "a cat")
    without = by_hand(model, "")
    model_empty = Probe(model, "", PAIR)
    latents = Probe(model, "a cat", PAIR).latents
    with torch.no_grad():  # the empty prompt on the caption's latents
        without = model.denoiser(
            latents, 999, model_empty.text.tokens.expand(2, -1, -1)
        ).sample.double()
    expected = scaled_by_hand(without + 3 * (with_prompt - without))
    torch.testing.assert_close(Probe(model, "a cat", guided).deltas(), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_compiled_model_and_reuse_give_the_same():
    model = zero_snr()
    fast = findnemo.compiled(model, backend="aot_eager")
    off = NeuronSet({list(model.value_layers)[2]: range(9)})
    for probe in (Probe(fast, "a cat", PAIR), Probe(model, "a cat", PAIR, reuse=True)):
        for neurons in (NeuronSet(), off):
            expected = Probe(model, "a cat", PAIR).deltas(neurons)
            torch.testing.assert_close(probe.deltas(neurons), expected, atol=1e-5, rtol=0)


def test_betas_that_only_some_samplers_know_are_no_obstacle():
    options = {
        "beta_schedule": "sigmoid",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "prediction_type": "v_prediction",
    }
    pipeline = tiny_pipeline()
    pipeline.scheduler = diffusers.DDPMScheduler(**options)
    model = findnemo.load(pipeline)
    assert torch.allclose(model.alphas, pipeline.scheduler.alphas_cumprod)
    assert -1 <= findnemo.score(model, "a cat", settings=PAIR) < 1
    assert magnitude(model, "a cat", ImageSettings(steps=3), images=1, steps=(0, 2)).value > 0


# the order of captions ----------------------------------------------------------------------------


def of_noise(forward: Any, alphas: Tensor) -> Any:
    """A network of v as one that predicts eps, in the same dtype, as an eps-model would give it."""

    def predicted(latents: Tensor, timestep: Any, *args: Any, **options: Any) -> tuple[Tensor]:
        v = forward(latents, timestep, *args, **options)[0].float()
        a = alphas[int(timestep)]
        return (((1 - a).sqrt() * latents.float() + a.sqrt() * v).to(latents.dtype),)

    return predicted


def of_demo(prediction: str, sampler: str, schedule: dict[str, Any], dtype: torch.dtype) -> Model:
    model = findnemo.load("demo", device="cpu", dtype=dtype)
    scheduled(scheduled(model.pipeline, **schedule), sampler)
    if prediction == "epsilon":
        model.pipeline.unet.forward = of_noise(model.pipeline.unet.forward, model.alphas)
        scheduled(model.pipeline, sampler, prediction_type="epsilon")
    return model


@cache
def demo_scores(prediction: str, sampler: str, schedule: str, dtype: torch.dtype) -> list[float]:
    model = of_demo(prediction, sampler, SCHEDULES[schedule], dtype)
    return [
        findnemo.score(model, caption, settings=Settings(samples=3)) for caption in KNOWN + OTHER
    ]


CASES = [
    ("v_prediction", sampler, schedule) for schedule in SCHEDULES for sampler in SAMPLERS[:3]
] + [
    ("epsilon", sampler, schedule)
    for schedule in ("leading", "trailing")
    for sampler in SAMPLERS[:3]
]


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[pytest.mark.slow] * (c[1] != "DDIMScheduler")) for c in CASES],
    ids=", ".join,
)
def test_memorized_captions_come_first_as_in_float32(case, dtype):
    exact = demo_scores(*case, torch.float32)
    half = demo_scores(*case, dtype)
    assert min(exact[:2]) > max(exact[2:])
    assert sorted(range(4), key=half.__getitem__) == sorted(range(4), key=exact.__getitem__)
    assert half == pytest.approx(exact, abs=0.05)


# a difference without content ---------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
def test_what_counts_as_constant(per_channel):
    maps = torch.rand(4, 2, 8, 8)
    maps[1] = 0.3
    maps[2, 1] = 0.7
    maps[3] = 5 + 1e-6 * maps[3]  # rounding
    assert constant(maps, per_channel).tolist() == [False, True, per_channel, True]


def test_scores_of_constant_maps_are_refused():
    for maps in (torch.zeros(3, 4, 16, 16), minmax(torch.full((3, 4, 16, 16), 2.0))):
        for function in (memorization_score, trajectory):
            with pytest.raises(NumericalError, match="the same everywhere"):
                function(maps)


def silent(kind: str = "epsilon", but: str | None = None) -> Model:
    """A model that says nothing of an image, at all or for the prompt `but` alone: eps is the
    latent itself, v is one number.
    """
    model = zero_snr() if kind == "v_prediction" else findnemo.load(tiny_pipeline())
    encode = model.encode
    forward = model.denoiser.forward
    alone = None if but is None else encode([but]).tokens

    def mute(
        latents: Tensor, timestep: Any, encoder_hidden_states: Tensor, **options: Any
    ) -> tuple[Tensor]:
        (said,) = forward(latents, timestep, encoder_hidden_states=encoder_hidden_states, **options)
        nothing = latents if kind == "epsilon" else torch.full_like(latents, 0.3)
        same = (
            torch.ones(len(latents))
            if alone is None
            else (encoder_hidden_states == alone).flatten(1).all(1).float()
        )
        return (torch.where(same.view(-1, 1, 1, 1) > 0, nothing, said),)

    model.denoiser.forward = mute
    return model


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_model_that_says_nothing_has_no_score_anywhere(kind):
    model = silent(kind)
    widths = model.widths()
    zeros = {name: torch.zeros(width) for name, width in widths.items()}
    ones = {name: torch.ones(width) for name, width in widths.items()}
    calibration = Calibration("", "", PAIR, 0.5, zeros, ones, 9, torch.empty(0, 1))
    images = ImageSettings(steps=2)
    asks = {
        "score": lambda: findnemo.score(model, "a cat", settings=PAIR),
        "calibrate": lambda: findnemo.calibrate(model, ["a cat", "two dogs"], settings=PAIR),
        "detect": lambda: findnemo.detect(model, "a cat", calibration),
        "localize": lambda: findnemo.localize(model, "a cat", calibration),
        "verify": lambda: findnemo.verify(model, "a cat", NeuronSet(), PAIR, 0, images),
        "bystanders": lambda: Bystanders(model, ["a cat"], PAIR),
        "detector": lambda: DETECTORS["ssim"](model, "a cat", images),
    }
    for ask in asks.values():
        with pytest.raises(
            NumericalError,
            match=(
                r"the same everywhere.*rescale_betas_zero_snr.*float32.*'a cat'|'a cat'.*the same"
                r" everywhere"
            ),
        ):
            ask()


def test_one_caption_without_content_does_not_fail_the_others():
    model = silent(but="a cat")
    calibration = findnemo.calibrate(model, ["two dogs", "snow"], settings=PAIR)
    dog, cat, fox = detect_many(model, ["a dog", "a cat", "a fox"], calibration)
    assert isinstance(cat, NumericalError)
    assert "'a cat'" in str(cat)
    assert -1 <= dog.score < 1
    assert -1 <= fox.score < 1
    with pytest.raises(NumericalError, match=r"hold-out prompt 'a cat'.*the same everywhere"):
        findnemo.calibrate(model, ["two dogs", "a cat", "snow"], settings=PAIR)


# the detectors and mitigations of others ----------------------------------------------------------


def raw(model: Model, prompt: str, latents: Tensor) -> Tensor:
    with torch.no_grad():
        return model.denoiser(
            latents, 999, model.encode([prompt]).tokens.expand(len(latents), -1, -1)
        ).sample


def test_the_magnitude_at_zero_snr_is_that_of_v_in_units_of_stable_diffusions_last_step():
    model = zero_snr()
    latents = model.noise("a cat", [0, 1], 0)
    gap = (raw(model, "a cat", latents) - raw(model, "", latents)).flatten(1).norm(dim=1).mean()
    found = magnitude(model, "a cat", ImageSettings(steps=4), images=2)
    assert found.value == pytest.approx(0.0046**0.5 * float(gap), rel=1e-4)
    assert found.value > 0


def test_tokens_weigh_something_at_zero_snr():
    assert all(
        value > 0 for _, value in saliency(zero_snr(), "cats", ImageSettings(steps=4), images=1)
    )


def test_an_embedding_is_adjusted_at_zero_snr():
    model = zero_snr()
    text = model.encode(["a cat"])
    empty = model.unconditional()
    latents = model.noise("a cat", [0])
    moved = adjusted(model, latents, 999, text, empty, target=1e-4, iterations=2)
    assert not torch.equal(moved.tokens, text.tokens)


def test_a_guided_run_from_pure_noise_is_the_pipelines():
    """Its latents at every step, where from eps there is no step to be made: an image
    would be divided by zero.
    """
    model = zero_snr()
    seen = []
    settings = ImageSettings(steps=4, guidance=3.0, seed=1)
    handle = model.denoiser.register_forward_pre_hook(lambda m, args: seen.append(args))
    magnitude(model, "a cat", settings, images=2, steps=range(4))
    mine = seen[::2]  # with the prompt; without it, in between
    seen.clear()
    model.pipeline(
        ["a cat"] * 2,
        latents=model.noise("a cat", [0, 1], 1),
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="latent",
    )
    handle.remove()
    theirs = [latents[:2] for latents, *_ in seen]
    assert [int(timestep) for _, timestep, *_ in mine] == [999, 749, 499, 249]
    for (latents, *_), other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(latents, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_from_pure_noise_is_refused_whatever_the_sampler(sampler):
    with pytest.raises(ModelError, match="timestep 999 is pure noise"):
        DETECTORS["one-step"](zero_snr(sampler), "a cat", ImageSettings())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_of_training_has_its_target_in_float32(dtype):
    model = findnemo.load(tiny_pipeline("v_prediction"), dtype=dtype)
    clean = model.noise("clean", [0, 1])
    noise = model.noise("noise", [0, 1])
    predicted, target = model.regression(
        clean, noise, torch.tensor([999, 3]), model.encode(["a", "b"])
    )
    a = model.pipeline.scheduler.alphas_cumprod[[999, 3]].view(2, 1, 1, 1)
    assert predicted.dtype == dtype
    torch.testing.assert_close(
        target, a.sqrt() * noise.float() - (1 - a).sqrt() * clean.float(), atol=1e-6, rtol=0
    )


# schedules that are none --------------------------------------------------------------------------


REFUSED = {
    "sample": "prediction type 'sample' is not supported.*epsilon and v_prediction",
    "flow_prediction": (
        "DPMSolverMultistepScheduler that goes by a flow, and its denoiser predicts noise"
    ),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_another_prediction_type_is_refused_before_any_pass(kind):
    pipeline = tiny_pipeline()
    passes = []
    scheduled(pipeline, "DPMSolverMultistepScheduler", prediction_type=kind)
    pipeline.text_encoder.register_forward_pre_hook(lambda *_: passes.append("text"))
    pipeline.unet.register_forward_pre_hook(lambda *_: passes.append("U-Net"))
    for ask in (
        lambda: findnemo.score(findnemo.load(pipeline), "a cat"),
        lambda: findnemo.calibrate(findnemo.load(pipeline), ["a cat", "two dogs"]),
        lambda: findnemo.generate(findnemo.load(pipeline), "a cat", [0]),
    ):
        with pytest.raises(ModelError, match=REFUSED[kind]):
            ask()
    assert not passes


def test_a_schedule_of_another_family_is_named():
    pipeline = tiny_pipeline()
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ModelError, match=r"FlowMatchEulerDiscreteScheduler|prediction type"):
        findnemo.score(findnemo.load(pipeline), "a cat")


def test_edm_preconditioning_is_refused():
    model = findnemo.load(tiny_sdxl(scheduler=EDMEulerScheduler()))
    with pytest.raises(ModelError, match="'edm' is not supported"):
        findnemo.score(model, "a cat")


@torch.no_grad()
def output(model: Model, timestep: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, what the U-Net returns for them, and the noise that findnemo reads from it."""
    latents = model.noise("a", [0, 1])
    text = model.encode(["a"]).expand(2)
    return (
        latents,
        model.denoiser(latents, timestep, text.tokens).sample,
        model.predict_noise(latents, timestep, text),
    )


def test_an_epsilon_model_predicts_noise_itself(tiny):
    _, returned, eps = output(tiny, 981)
    assert torch.equal(returned, eps)


@pytest.mark.parametrize("timestep", [981, 501, 1])
def test_noise_of_a_v_prediction_is_what_ddim_derives(timestep):
    model = findnemo.load(tiny_pipeline("v_prediction"))
    latents, v, eps = output(model, timestep)
    scheduler = model.pipeline.scheduler
    scheduler.set_timesteps(50)
    alpha = scheduler.alphas_cumprod[timestep]
    x0 = scheduler.step(v, timestep, latents).pred_original_sample
    torch.testing.assert_close(x0, alpha.sqrt() * latents - (1 - alpha).sqrt() * v)
    torch.testing.assert_close(
        eps, (latents - alpha.sqrt() * x0) / (1 - alpha).sqrt(), atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(eps, v, atol=1e-2)


def test_another_prediction_type_is_refused():
    with pytest.raises(ModelError, match=r"'sample' is not supported.*epsilon and v_prediction"):
        output(findnemo.load(tiny_pipeline("sample")), 981)
