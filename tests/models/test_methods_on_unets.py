"""Detectors and mitigations on the U-Net family: they compute what they say they
do, or say why they cannot.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from _texts import assert_equal
from _tiny_unets import PIPELINES, USUAL, tiny_if, tiny_lcm, tiny_sdxl
from torch import Tensor

import findnemo
from findnemo import ImageSettings, NeuronSet
from findnemo.detection import DETECTORS
from findnemo.detection.magnitude import saliency
from findnemo.errors import InputError, ModelError
from findnemo.mitigation import (
    MITIGATIONS,
    Case,
    adjusted_embedding,
    inserted_words,
    scaled_attention,
)
from findnemo.mitigation.embedding import adjust
from findnemo.mitigation.tokens import varied
from findnemo.models import Model
from findnemo.seeds import sample_seed

PROMPT = "a cat"
SETTINGS = ImageSettings(steps=2, guidance=3.0)
# IF's attention is shared between image and prompt
NO_ATTENTION = ("entropy-d", "entropy-e", "bright-ending", "attention")
NO_FEED_FORWARD = ("wanda", "conceptprune")
KINDS = ["neurons", "random-1", "embedding", "attention", "tokens-4", "wanda", "conceptprune"]


def loaded(name: str) -> Model:
    return findnemo.load(PIPELINES[name]())


def call(model: Model, prompts: Any = PROMPT, images: int = 2, **options: Any) -> Tensor:
    count = images * (1 if isinstance(prompts, str) else len(prompts))
    generators = [torch.Generator().manual_seed(k) for k in range(count)]
    options = {
        "num_inference_steps": 2,
        "guidance_scale": 3.0,
        "output_type": "pt",
        "generator": generators,
    } | options
    return model.pipeline(prompts, num_images_per_prompt=images, **options).images


def told(model: Model, run: Any) -> list[dict[str, Any]]:
    """Keyword arguments of the denoiser's passes."""
    seen: list[dict[str, Any]] = []
    handle = model.denoiser.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    try:
        run()
    finally:
        handle.remove()
    return seen


# detectors ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", USUAL)
@pytest.mark.parametrize("detector", DETECTORS)
def test_a_detector_gives_a_score_or_says_why_it_cannot(name, detector):
    model = loaded(name)
    settings = ImageSettings(steps=3, guidance=3.0)
    rows = []
    model.denoiser.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    if name == "if" and detector in NO_ATTENTION:
        with pytest.raises(ModelError, match="no cross-attention"):
            DETECTORS[detector](model, PROMPT, settings)
        return
    score = DETECTORS[detector](model, PROMPT, settings)
    derivatives = {"sharpness": 8, "curvature": 16}
    assert score.evaluations == sum(rows) + derivatives.get(detector, 0)
    # unlike seeds agree less than by chance
    assert detector in ("edges", "agreement", "anisotropy") or score.value > 0
    assert DETECTORS[detector](model, PROMPT, settings).value == score.value


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["sdxl", "if"])
def test_the_magnitude_is_that_of_the_pipelines_own_two_halves(name):
    model = loaded(name)
    seen = []
    latents = model.noise(PROMPT, range(3))
    if name == "if":
        model.pipeline.prepare_intermediate_images = lambda *args: latents
    model.denoiser.register_forward_hook(
        lambda module, args, output: seen.append((args[0], output[0]))
    )
    call(
        model,
        images=3,
        num_inference_steps=50 if name == "if" else 2,
        **({} if name == "if" else {"latents": latents}),
    )
    sample, output = seen[0]
    torch.testing.assert_close(sample, torch.cat([latents, latents]), atol=1e-5, rtol=1e-5)
    empty, prompted = output[:, : latents.shape[1]].chunk(2)
    expected = (prompted - empty).flatten(1).norm(dim=1).mean()
    steps = 50 if name == "if" else 2
    score = DETECTORS["magnitude"](model, PROMPT, ImageSettings(steps), images=3)
    assert score.value == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["sdxl", "lcm", "if"])
def test_every_token_of_the_prompt_has_a_saliency_of_its_own(name):
    """By finite differences: the magnitude's slope along its own gradient's
    direction is the gradient's norm.
    """
    model = loaded(name)
    tokens = saliency(model, PROMPT, SETTINGS, images=1)
    assert [text.strip() for text, _ in tokens if text.strip()] == ["a", "c", "a", "t"]
    latents = model.noise(PROMPT, [0])
    t = model.timesteps(SETTINGS.steps)[0]
    empty = model.predict_noise(latents, t, model.unconditional()).detach()
    text = model.encode([PROMPT])
    text.tokens.requires_grad_()
    change = (model.predict_noise(latents, t, text) - empty).norm()
    (slope,) = torch.autograd.grad(change, text.tokens)
    position = 2
    step = 1e-3 * slope[0, position] / slope[0, position].norm()
    with torch.no_grad():
        moved = text.repeat(2)
        moved.tokens[0, position] += step
        moved.tokens[1, position] -= step
        d = (
            (model.predict_noise(latents.repeat(2, 1, 1, 1), t, moved) - empty)
            .flatten(1)
            .norm(dim=1)
        )
    assert tokens[position - model.starts][1] == pytest.approx(float(d[0] - d[1]) / 2e-3, rel=2e-2)


@pytest.mark.first(1)
@pytest.mark.parametrize(("name", "guidance"), [("sd-turbo", 0.0), ("sdxl", 0.5), ("lcm", 7.0)])
def test_a_run_without_a_guidance_half_follows_the_prompt_alone(name, guidance):
    """As a pipeline's call does for a scale of 1 or less, and for any where
    guidance is part of the network.
    """
    model = loaded(name)
    plain, other, known = (
        DETECTORS["magnitude"](model, PROMPT, ImageSettings(3, g), steps=(2,)).value
        for g in (1.0, guidance, 3.0)
    )
    assert other == plain
    assert (known == plain) is (name == "lcm")


# mitigations --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "sd-turbo", "lcm", "if"])
@pytest.mark.parametrize("mitigation", KINDS)
def test_a_mitigation_changes_every_image_and_nothing_after_it_or_says_why_it_cannot(
    name, mitigation
):
    model = loaded(name)
    layers = list(model.value_layers)
    case = Case(
        PROMPT, NeuronSet({layers[0]: [0, 3], layers[-1]: [1, 2, 11]}), reference=("a dog",)
    )
    plain = call(model)
    refused = name == "if" and mitigation in (*NO_ATTENTION, *NO_FEED_FORWARD)
    if refused:
        with (
            pytest.raises(ModelError, match=r"no cross-attention is known|no feed-forward layers"),
            MITIGATIONS[mitigation](model, case),
        ):
            call(model)
    else:
        with MITIGATIONS[mitigation](model, case):
            changed = call(model)
        assert torch.isfinite(changed).all()
        gaps = (changed - plain).abs().flatten(1).amax(1)
        assert (gaps > 1e-5).all()
    assert torch.equal(call(model), plain)


def test_adjusting_an_embedding_leaves_start_pooled_embedding_and_sizes():
    model = findnemo.load(tiny_sdxl())
    text = model.encode([PROMPT])
    empty = model.unconditional()
    with adjusted_embedding(model, Case(PROMPT), target=0.0, iterations=2):
        seen = [k for k in told(model, lambda: call(model)) if len(k["encoder_hidden_states"]) == 4]
    assert len(seen) == 2
    for kwargs in seen:
        after = model.text_of(kwargs)
        assert_equal(after[:2], empty.expand(2))
        assert torch.equal(after.tokens[2:, 0], text.tokens[:, 0].expand(2, -1))
        assert ((after.tokens[2:] - text.tokens)[:, 1:].abs().flatten(1).mean(1) > 0.01).all()
        torch.testing.assert_close(after.pooled[2:], text.pooled.expand(2, -1))
        torch.testing.assert_close(after.sizes[2:], text.sizes.expand(2, -1))


def test_adjusting_keeps_the_sizes_and_the_guidance_that_a_call_asks_for():
    """Also in the passes that the optimization makes of its own, the one
    without the prompt among them.
    """
    model = findnemo.load(tiny_sdxl())
    with adjusted_embedding(model, Case(PROMPT), target=0.0, iterations=1):
        seen = told(
            model,
            lambda: call(model, images=1, original_size=(100, 200), crops_coords_top_left=(3, 4)),
        )
    assert len(seen) == 2 + 2
    assert {tuple(row) for k in seen for row in k["added_cond_kwargs"]["time_ids"].tolist()} == {
        (100, 200, 3, 4, 32, 32)
    }
    model = findnemo.load(tiny_lcm())
    expected = told(model, lambda: call(model, guidance_scale=2.0))[0]["timestep_cond"][0]
    with adjusted_embedding(model, Case(PROMPT), target=0.0, iterations=1):
        seen = told(model, lambda: call(model, images=1, guidance_scale=2.0))
    assert all(torch.equal(row, expected) for k in seen for row in k["timestep_cond"])


def test_the_first_position_moves_where_it_is_a_token():
    moved = adjust(lambda y: y, torch.ones(1, 3, 2), torch.zeros(1, 3, 2), target=0.0, starts=0)
    assert (moved < 1).all()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("make", [tiny_sdxl, tiny_if])
def test_inserted_words_reach_every_text_encoder(make, guidance):
    """As the varied captions given by hand, one image each: token embeddings
    and pooled embedding alike.
    """
    model = findnemo.load(make())
    with inserted_words(model, Case(PROMPT, seed=5), "numbers", 2):
        result = told(
            model, lambda: call(model, [PROMPT], guidance_scale=guidance, negative_prompt=["x"])
        )[0]
    captions = [varied(model, PROMPT, "numbers", 2, sample_seed(5, PROMPT, k)) for k in range(2)]
    expected = told(
        model, lambda: call(model, captions, 1, guidance_scale=guidance, negative_prompt=["x", "x"])
    )[0]
    torch.testing.assert_close(
        model.text_of(result).tensors, model.text_of(expected).tensors, atol=1e-5, rtol=1e-5
    )


def test_words_are_inserted_into_a_second_prompt_too():
    model = findnemo.load(tiny_sdxl())
    with inserted_words(model, Case(PROMPT, seed=5), "numbers", 2):
        result = told(model, lambda: call(model, prompt_2="a dog"))[0]
    first, second = (
        [varied(model, p, "numbers", 2, sample_seed(5, p, k)) for k in range(2)]
        for p in (PROMPT, "a dog")
    )
    expected = told(model, lambda: call(model, first, 1, prompt_2=second))[0]
    torch.testing.assert_close(
        model.text_of(result).tensors, model.text_of(expected).tensors, atol=1e-5, rtol=1e-5
    )


def test_scaled_attention_sees_nothing_after_the_end_of_the_text():
    model = findnemo.load(tiny_sdxl())
    end = len(model.tokens(PROMPT))

    def disturb(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        text = kwargs["encoder_hidden_states"].clone()
        text[2:, end:] += torch.randn(
            text[2:, end:].shape, generator=torch.Generator().manual_seed(0)
        )
        return args, kwargs | {"encoder_hidden_states": text}

    with scaled_attention(model, Case(PROMPT)):
        expected = call(model)
        handle = model.denoiser.register_forward_pre_hook(disturb, with_kwargs=True)
        torch.testing.assert_close(call(model), expected, atol=1e-5, rtol=1e-5)
        end -= 1  # the end-of-text token itself is seen
        assert not torch.allclose(call(model), expected, atol=1e-3)
        handle.remove()
        with pytest.raises(InputError, match="without prompt_2"):
            call(model, prompt_2="a dog")
