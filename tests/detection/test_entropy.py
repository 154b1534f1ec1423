"""Metrics D and E against attention read off the projections, and against a case by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from _projected import projected

from findnemo import ImageSettings, generate
from findnemo.detection.entropy import attention_entropy, entropy_d, entropy_e, late_entropy
from findnemo.errors import ModelError

SETTINGS = ImageSettings(steps=6, guidance=3.0)


def entropy(p: np.ndarray) -> float:
    return float(-(p * np.log(p)).sum())


def test_the_entropy_of_a_uniform_attention_is_log_of_the_tokens_and_of_a_certain_one_zero():
    assert attention_entropy(torch.full((77,), 1 / 77)).item() == pytest.approx(
        math.log(77), rel=1e-5
    )
    assert attention_entropy(torch.eye(3)).tolist() == [0, 0, 0]


def test_metric_d_by_hand():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(7), size=(10, 3, 2))  # steps, layers, images, tokens
    for image in range(2):
        late = np.mean([entropy(p[s, layer, image]) for s in (8, 9) for layer in range(3)])
        tail = np.mean([entropy(p[s, layer, image, 5:]) for s in (8, 9) for layer in range(3)])
        first = np.mean([entropy(p[0, layer, image, 5:]) for layer in range(3)])
        assert late_entropy(torch.from_numpy(p), end=5)[image].item() == pytest.approx(
            late + tail - first
        )


@pytest.mark.parametrize(("steps", "late"), [(1, 1), (4, 1), (15, 3), (50, 10)])
def test_the_last_fifth_of_any_number_of_steps(steps, late):
    p = torch.full((steps, 1, 1, 4), 1e-9)
    p[-late:] = 0.25
    expected = math.log(4) + (0.5 * math.log(4) if steps > 1 else 0)
    assert late_entropy(p, end=2).item() == pytest.approx(expected, abs=1e-6)


def test_metric_d_is_that_of_the_conditional_rows_of_a_guided_run(tiny):
    _, maps = projected(tiny, lambda: generate(tiny, "a cat", [0, 1], SETTINGS))
    p = torch.stack([torch.stack([m[2:].mean(1) for m in steps]) for steps in maps.values()], 1)
    expected = late_entropy(p, end=5).mean()  # start-of-text, four letters, end-of-text
    assert entropy_d(tiny, "a cat", SETTINGS, images=2).value == pytest.approx(
        float(expected), rel=1e-5
    )
    released = late_entropy(p.mean(1, keepdim=True), end=5).mean()
    assert entropy_d(tiny, "a cat", SETTINGS, images=2, pooled=True).value == pytest.approx(
        float(released), rel=1e-5
    )
    assert released > expected  # an entropy is concave


@torch.no_grad()
def test_metric_e_is_the_fourth_layer_of_one_conditional_pass(tiny):
    text = tiny.encode(["a cat"])
    latents = tiny.noise("a cat", range(2))
    run = tiny.predict_noise
    t = tiny.timesteps(6)[0]
    _, maps = projected(tiny, lambda: run(latents, t, text.expand(2)))
    fourth = maps["down_blocks.1.attentions.1.transformer_blocks.0.attn2"][0].mean(1)
    expected = np.mean([entropy(row.numpy().astype(float)) for row in fourth])
    assert entropy_e(tiny, "a cat", SETTINGS, images=2).value == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ModelError, match="no cross-attention layer 16 in this model: it has 16"):
        entropy_e(tiny, "a cat", SETTINGS, layer=16)
