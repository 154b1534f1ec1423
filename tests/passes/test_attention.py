"""Recorded attention is what the layers compute, of the conditional rows, and recording leaves
the images as they were.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _projected import projected
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

import findnemo
from findnemo import ImageSettings, NeuronSet, deactivate, generate
from findnemo.errors import EditError, ModelError
from findnemo.models import Model
from findnemo.passes.attention import recorded

SETTINGS = ImageSettings(steps=2, guidance=3.0)
DOWN = "down_blocks.0.attentions.1.transformer_blocks.0.attn2"


def pixels(model: Model) -> np.ndarray:
    return np.stack([np.asarray(i, int) for i in generate(model, "a cat", [0, 1], SETTINGS)])


def untouched(model: Model) -> bool:
    layers = model.cross_attentions.values()
    return all(
        "get_attention_scores" not in vars(m) and type(m.processor).__name__ == "AttnProcessor2_0"
        for m in layers
    )


def test_what_is_recorded_is_the_softmax_of_queries_and_keys_of_the_conditional_rows(tiny):
    seen: dict[str, list[Tensor]] = {}
    with recorded(tiny, lambda layer, step, p: seen.setdefault(layer, []).append(p)):
        generate(tiny, "a cat", [0, 1], SETTINGS)
    order, maps = projected(tiny, lambda: generate(tiny, "a cat", [0, 1], SETTINGS))
    assert list(seen) == order[: len(seen)]
    for name, steps in maps.items():
        for mine, whole in zip(seen[name], steps, strict=True):
            assert len(whole) == 4
            torch.testing.assert_close(mine, whole[2:], atol=1e-5, rtol=1e-4)


def test_cross_attentions_come_in_forward_order(tiny):
    order, _ = projected(
        tiny, lambda: tiny.predict_noise(tiny.noise("a cat", [0]), 981, tiny.encode(["a cat"]))
    )
    assert list(tiny.cross_attentions) == order
    assert len(order) == 16


def test_steps_count_from_the_call_on_and_rows_without_guidance_are_all(tiny):
    seen = []
    with recorded(tiny, lambda layer, step, p: seen.append((step, len(p)))):
        for guidance in (3.0, 1.0):
            generate(tiny, "a cat", [0, 1, 2], ImageSettings(steps=2, guidance=guidance))
    assert seen == ([(0, 3)] * 16 + [(1, 3)] * 16) * 2


def test_the_images_are_the_same_but_for_rounding_and_edits_stay_in_force(tiny):
    neurons = NeuronSet({DOWN + ".to_v": range(16)})
    with torch.no_grad():
        tiny.value_layers[DOWN + ".to_v"].weight *= 200
    plain = pixels(tiny)
    passes = []
    with recorded(tiny, lambda layer, step, p: passes.append(step)):
        assert abs(pixels(tiny) - plain).max() <= 1
        with deactivate(tiny, neurons):
            edited = pixels(tiny)
    assert passes
    with deactivate(tiny, neurons):
        assert abs(pixels(tiny) - edited).max() <= 1
    assert abs(edited - plain).mean() > 1


def test_on_leaving_the_model_is_what_it_was_also_after_an_exception(tiny):
    before = {name: layer.processor for name, layer in tiny.cross_attentions.items()}
    with pytest.raises(RuntimeError, match="shape"), recorded(tiny, lambda layer, step, p: None):
        tiny.denoiser(torch.zeros(1, 4, 16, 16), 981, torch.zeros(1, 77, 5))
    assert untouched(tiny)
    assert all(layer.processor is before[name] for name, layer in tiny.cross_attentions.items())
    assert "encode_prompt" not in vars(tiny.pipeline)


class Halving(AttnProcessor):
    def __call__(self, *args, **options):
        return super().__call__(*args, **options) / 2


def test_what_recording_would_put_out_of_action_is_refused(tiny):
    layer = tiny.cross_attentions[DOWN]
    plain = layer.processor
    layer.set_processor(Halving())
    with (
        pytest.raises(EditError, match=f"{DOWN} uses Halving.*set_attn_processor"),
        recorded(tiny, print),
    ):
        pass
    layer.set_processor(plain)
    assert untouched(tiny)
    with (
        recorded(tiny, print),
        pytest.raises(EditError, match="is being recorded already"),
        recorded(tiny, print),
    ):
        pass
    assert untouched(tiny)


def test_a_model_without_known_cross_attention_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(type(tiny), "cross_attentions", {})
    with (
        pytest.raises(ModelError, match="no cross-attention is known in UNet2DConditionModel"),
        recorded(tiny, print),
    ):
        pass


def test_tokens_are_those_that_are_encoded():
    model = findnemo.load("demo", device="cpu")
    tokens = model.tokens("a red star")
    assert tokens == ["<|startoftext|>", "a", "red", "star", "<|endoftext|>"]
    assert len(model.tokens("star " * 100)) == model.encode([""]).tokens.shape[1] == 77
