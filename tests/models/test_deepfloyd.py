"""DeepFloyd IF works on pixels: nothing decodes them, and captions are lowered."""

from __future__ import annotations

import torch
from _texts import assert_equal
from _tiny_unets import tiny_if

import findnemo
from findnemo import ImageSettings


def test_what_is_examined_of_if_is_neither_checked_nor_marked():
    model = findnemo.load(tiny_if())
    expected = findnemo.generate(model, "a cat", [0], ImageSettings(2, 3.0))[0].tobytes()

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("an image was blackened or marked")

    model.pipeline.run_safety_checker = refuse
    model.pipeline.watermarker = type("Marker", (), {"apply_watermark": refuse})()
    assert findnemo.generate(model, "a cat", [0], ImageSettings(2, 3.0))[0].tobytes() == expected


def test_captions_are_read_in_lower_case_and_without_spaces_around_them():
    model = findnemo.load(tiny_if())
    assert_equal(model.encode(["  A Red FOX "]), model.encode(["a red fox"]))
    (reader,) = model.readers
    assert reader.count("  A Red FOX ") == reader.count("a red fox")


@torch.no_grad()
def test_pixels_are_their_own_latents():
    model = findnemo.load(tiny_if())
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(model.encode_images(pixels), pixels)
    half = model.decode(pixels.half())
    assert half.dtype == torch.float32
    assert torch.equal(half, pixels.half().float())


@torch.no_grad()
def test_noise_is_what_the_u_net_returns_before_its_variance():
    model = findnemo.load(tiny_if())
    given = []
    handle = model.denoiser.register_forward_hook(lambda m, args, out: given.append(out[0]))
    noise = model.predict_noise(model.noise("a", [0]), 980, model.encode(["a"]))
    handle.remove()
    assert given[0].shape == (1, 6, 16, 16)
    assert torch.equal(noise, given[0][:, :3])
