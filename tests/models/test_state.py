"""What a live pipeline was left in changes no result, and is what it was afterwards; what would
change results is refused by name.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from _tiny import tiny_pipeline
from _tiny_transformers import tiny_flux, tiny_pixart, tiny_sd3
from _tiny_unets import tiny_if, tiny_lcm, tiny_sdxl
from peft import LoraConfig
from torch import nn

import findnemo
from findnemo import ImageSettings, Model, NeuronSet, Settings, demo
from findnemo.detection import DETECTORS
from findnemo.metrics import Descriptor
from findnemo.models.samplers import explicit
from findnemo.robustness import attack, subject
from findnemo.robustness.attack import diffusion_loss
from findnemo.robustness.attempts import image_to_image
from findnemo.scores import pairwise

PAIR = Settings(samples=2)
IMAGES = ImageSettings(steps=2, guidance=2.0)


def restless(pipeline: Any) -> Any:
    """Every dropout of every network drops half of what it sees in training mode, and the
    network starts out in it, but for some parts.
    """
    for network in pipeline.components.values():
        if isinstance(network, nn.Module):
            network.train()
            for k, module in enumerate(network.modules()):
                if isinstance(module, nn.Dropout):
                    module.p = 0.5
                elif k % 7 == 3:
                    module.training = False  # one by one, as a half-frozen network has it
    return pipeline


def modes(pipeline: Any) -> list[bool]:
    return [
        m.training
        for network in pipeline.components.values()
        if isinstance(network, nn.Module)
        for m in network.modules()
    ]


def pixels(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


MAKERS = {
    "sd": tiny_pipeline,
    "sdxl": tiny_sdxl,
    "lcm": tiny_lcm,
    "if": tiny_if,
    "pixart": tiny_pixart,
    "sd3": tiny_sd3,
}
SLOW = {"flux": tiny_flux}


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "make",
    [*MAKERS.values(), pytest.param(tiny_flux, marks=pytest.mark.slow)],
    ids=[*MAKERS, *SLOW],
)
def test_a_pipeline_in_training_mode_gives_what_it_gives_in_evaluation_mode(make):
    calm = findnemo.load(make())
    model = findnemo.load(restless(make()))
    before = modes(model.pipeline)
    layers = list(model.value_layers)
    assert True in before
    assert False in before
    off = NeuronSet({layers[0]: [1, 2]})
    asks = (
        lambda m: findnemo.score(m, "a cat", settings=PAIR),
        lambda m: findnemo.score(m, "a cat", off, settings=PAIR),
        lambda m: findnemo.activations(m, "a cat")[layers[-1]].tolist(),
        lambda m: pixels(findnemo.generate(m, "a cat", [0, 1], IMAGES)).tolist(),
    )
    for ask in asks:
        torch.manual_seed(1)
        expected = ask(calm)
        first = ask(model)
        torch.manual_seed(2)
        assert ask(model) == first == expected
        assert modes(model.pipeline) == before


@pytest.mark.slow
def test_every_other_pass_is_made_in_evaluation_mode_too():
    calm = findnemo.load(tiny_pipeline())
    model = findnemo.load(restless(tiny_pipeline()))
    before = modes(model.pipeline)
    calibrations = [
        findnemo.calibrate(m, ["snow", "two dogs", "a tree"], settings=PAIR) for m in (calm, model)
    ]
    assert torch.equal(calibrations[0].trajectories, calibrations[1].trajectories)
    seen = subject(calm, "a cat", IMAGES)
    asks = {
        "localize": lambda m: findnemo.localize(m, "a cat", calibrations[0]).to_json(),
        "verify": lambda m: findnemo.verify(m, "a cat", NeuronSet(), PAIR, 2, IMAGES).values,
        "attack": lambda m: attack(m, seen, IMAGES, (0, 1), ("caption",), 1),
        "image to image": lambda m: pixels(image_to_image(m, seen, [0], IMAGES, 0.5)).tolist(),
        "pruning": (
            lambda m: findnemo.mitigation.pruning.norms(m, ["a cat"], steps=2)[
                "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2"
            ].tolist()
        ),
    } | {
        name: lambda m, d=d: d(m, "a cat", ImageSettings(3, 2.0), images=2).value
        for name, d in DETECTORS.items()
    }
    for name, ask in asks.items():
        assert ask(model) == ask(calm), name
        assert modes(model.pipeline) == before, name


def test_modes_are_put_back_after_an_exception():
    model = findnemo.load(restless(tiny_pipeline()))
    before = modes(model.pipeline)

    def broken(*args: Any) -> None:
        raise RuntimeError("no")

    handle = model.denoiser.register_forward_pre_hook(broken)
    for ask in (
        lambda: findnemo.score(model, "a cat"),
        lambda: findnemo.generate(model, "a cat", [0], IMAGES),
    ):
        with pytest.raises(RuntimeError, match="no"):
            ask()
        assert modes(model.pipeline) == before
    handle.remove()
    assert findnemo.score(model, "a cat", settings=PAIR) == findnemo.score(
        findnemo.load(tiny_pipeline()), "a cat", settings=PAIR
    )


def test_the_dropout_of_a_lora_is_out_of_the_way():
    def adapted(mode: bool) -> Model:
        pipeline = tiny_pipeline()
        torch.manual_seed(5)
        config = LoraConfig(r=2, target_modules=["to_v"], init_lora_weights=False, lora_dropout=0.5)
        pipeline.unet.add_adapter(config)
        pipeline.unet.train(mode)
        return findnemo.load(pipeline)

    calm = adapted(False)
    trained = adapted(True)
    expected = findnemo.score(calm, "a cat", settings=PAIR)
    assert [findnemo.score(trained, "a cat", settings=PAIR) for _ in range(2)] == [expected] * 2
    assert trained.denoiser.training


def test_judges_left_in_training_mode_say_the_same():
    judges = demo.judges()
    descriptor = Descriptor(demo.DESCRIPTOR)
    alignment = judges.alignment
    image = demo.training_image(demo.memorized()[0].text)
    caption = demo.memorized()[0].text
    expected = descriptor([image]), alignment([image], [caption])
    descriptor.network.train()
    alignment.model.train()
    for module in alignment.model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.5
    for _ in range(2):
        assert torch.equal(descriptor([image]), expected[0])
        assert torch.equal(alignment([image], [caption]), expected[1])
    assert descriptor.network.training
    assert alignment.model.training


def test_a_training_state_does_not_reach_the_gradient_of_a_search():
    """Checkpointing would run a part of the network again in the backward pass, without the
    edits and in training mode.
    """
    calm = findnemo.load(tiny_pipeline())
    model = findnemo.load(restless(tiny_pipeline()))
    model.denoiser.enable_gradient_checkpointing()
    gradients = []
    for m in (calm, model):
        text = m.encode(["a cat"])
        text.tokens.requires_grad_()
        clean = m.noise("c", [0])
        noise = m.noise("n", [0])
        loss = diffusion_loss(m, clean, noise, torch.tensor([500]), text)
        gradients += torch.autograd.grad(loss, text.tokens)
    assert torch.equal(*gradients)
    assert model.denoiser.is_gradient_checkpointing


# the state of PyTorch -----------------------------------------------------------------------------


CIRCUMSTANCES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "default device": lambda: torch.device("cpu"),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("circumstance", CIRCUMSTANCES.values(), ids=CIRCUMSTANCES)
def test_what_the_caller_has_under_way_changes_nothing(circumstance):
    model = findnemo.load(tiny_pipeline())
    holdout = ["snow", "two dogs", "a tree"]
    judges = demo.judges()

    def everything() -> list[Any]:
        calibration = findnemo.calibrate(model, holdout, settings=PAIR)
        images = findnemo.generate(model, "a cat", [0, 1], IMAGES)
        return [
            calibration.tau,
            findnemo.localize(model, "a cat", calibration).to_json(),
            pixels(images).tolist(),
            judges.descriptor(images).tolist(),
            judges.alignment(images, ["a cat"] * 2).tolist(),
            DETECTORS["entropy-e"](model, "a cat", IMAGES).value,
            findnemo.detection.magnitude.saliency(model, "cat", IMAGES, images=1),
        ]

    expected = everything()
    with circumstance():
        assert everything() == expected


def test_similarities_are_not_computed_in_the_callers_autocast():
    x = torch.rand(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = pairwise(x)
    assert torch.equal(found, pairwise(x))


# the state of the pipeline ------------------------------------------------------------------------


SAMPLERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "DEISMultistepScheduler",
]


@pytest.mark.first(1)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_scheduler_in_the_midst_of_a_run_changes_no_picture_and_stays_where_it_was(sampler):
    def made() -> Model:
        pipeline = tiny_pipeline()
        pipeline.scheduler = getattr(diffusers, sampler).from_config(
            explicit(pipeline.scheduler.config), skip_prk_steps=True
        )
        return findnemo.load(pipeline)

    fresh = made()
    used = made()
    scheduler = used.pipeline.scheduler
    x = used.noise("x", [0])
    scheduler.set_timesteps(7)
    for t in scheduler.timesteps[:3]:
        x = scheduler.step(0.1 * x, t, x, return_dict=False)[0]
    steps = scheduler.timesteps.clone()
    index = getattr(scheduler, "step_index", None)
    expected = pixels(findnemo.generate(fresh, "a cat", [0], ImageSettings(steps=3, guidance=2.0)))
    found = pixels(findnemo.generate(used, "a cat", [0], ImageSettings(steps=3, guidance=2.0)))
    assert np.array_equal(found, expected)
    assert used.pipeline.scheduler is scheduler
    assert torch.equal(scheduler.timesteps, steps)
    assert getattr(scheduler, "step_index", None) == index


@pytest.mark.parametrize(
    ("part", "dtype"),
    [("text_encoder", torch.float16), ("vae", torch.float16), ("unet", torch.float64)],
)
def test_parts_in_different_dtypes_work_together(part, dtype):
    expected = findnemo.score(findnemo.load(tiny_pipeline()), "a cat", settings=PAIR)
    pipeline = tiny_pipeline()
    getattr(pipeline, part).to(dtype)
    model = findnemo.load(pipeline)
    assert findnemo.score(model, "a cat", settings=PAIR) == pytest.approx(expected, abs=1e-2)
    assert len(findnemo.generate(model, "a cat", [0], IMAGES)) == 1
    assert getattr(pipeline, part).dtype == dtype


def test_weights_stored_in_float8_are_not_the_dtype_of_latents():
    pipeline = tiny_pipeline()
    expected = findnemo.score(findnemo.load(pipeline), "a cat", settings=PAIR)
    pipeline.unet.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    model = findnemo.load(pipeline)
    assert model.dtype == torch.float32
    assert findnemo.score(model, "a cat", settings=PAIR) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    "enable",
    [
        lambda p: p.enable_attention_slicing(1),
        lambda p: p.vae.enable_slicing(),
        lambda p: nullcontext(),
    ],
)
def test_what_saves_memory_changes_nothing_but_rounding(enable):
    expected = findnemo.score(findnemo.load(tiny_pipeline()), "a cat", settings=PAIR)
    pipeline = tiny_pipeline()
    enable(pipeline)
    assert findnemo.score(findnemo.load(pipeline), "a cat", settings=PAIR) == pytest.approx(
        expected, abs=1e-4
    )
