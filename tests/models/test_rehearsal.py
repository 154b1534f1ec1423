"""`rehearse`: what a model cannot do is told when it is loaded, and costs no random number."""

from __future__ import annotations

import pytest
import torch
from _tiny import tiny_pipeline

import findnemo
from findnemo.errors import ModelError


def test_loading_draws_no_random_numbers_and_changes_no_weights():
    pipeline = tiny_pipeline()
    state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    findnemo.load(pipeline)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(value, weights[name]) for name, value in pipeline.unet.state_dict().items()
    )


@pytest.mark.parametrize(
    ("part", "method", "what"),
    [
        ("vae", "decode", r"decode a latent .*, with vae AutoencoderKL \(float32 on cpu\)"),
        ("vae", "encode", r"encode an image .*, with vae AutoencoderKL"),
        (
            "unet",
            "forward",
            r"predict noise .*, with unet UNet2DConditionModel .*, tokenizer CLIP\w+, text_encoder",
        ),
    ],
)
def test_what_a_part_cannot_do_is_told_with_its_parts(part, method, what):
    pipeline = tiny_pipeline()

    def broken(*args: object, **options: object) -> None:
        raise ValueError("of another shape\nand more")

    setattr(getattr(pipeline, part), method, broken)
    with pytest.raises(ModelError, match=what) as raised:
        findnemo.load(pipeline)
    assert "(ValueError: of another shape)" in str(raised.value)


def test_a_full_device_is_no_fault_of_the_model():
    pipeline = tiny_pipeline()

    def full(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("no room")

    pipeline.vae.decode = full
    model = findnemo.load(pipeline)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        model.decode(model.noise("a cat", [0]))
