"""Finished images: the same in every batch, never NaN, never half a file, and
sheets that bear any caption.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from findnemo import ImageSettings, generate
from findnemo.errors import DeviceError, NumericalError
from findnemo.images import generate_many, save_png, sheet
from findnemo.models import Model
from findnemo.seeds import sample_seed

LIGHT = ImageSettings(steps=2)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def distance(a: Image.Image, b: Image.Image) -> int:
    return abs(pixels(a) - pixels(b)).max()


# generate -----------------------------------------------------------------------------------------


def test_a_sample_looks_the_same_in_every_batch_and_order(model):
    together = generate(model, "a cat", [0, 1, 2], LIGHT)
    (alone,) = generate(model, "a cat", [2], LIGHT)
    turned = generate(model, "a cat", [1, 0], LIGHT)
    assert distance(alone, together[2]) <= 1
    assert distance(turned[0], together[1]) <= 1
    assert distance(turned[1], together[0]) <= 1
    assert distance(together[0], together[1]) > 20


def test_images_are_those_of_the_plain_pipeline(model):
    plain = model.pipeline(
        "a cat",
        num_inference_steps=2,
        guidance_scale=7.0,
        generator=torch.Generator().manual_seed(sample_seed(0, "a cat", 4)),
    ).images[0]
    (image,) = generate(model, "a cat", [4], LIGHT)
    assert image.mode == "RGB"
    assert image.size == plain.size == (32, 32)
    assert distance(image, plain) <= 1


def test_images_depend_on_prompt_and_seed(model):
    (image,) = generate(model, "a cat", [0], LIGHT)
    for prompt, settings in (("a dog", LIGHT), ("a cat", ImageSettings(steps=2, seed=1))):
        assert distance(generate(model, prompt, [0], settings)[0], image) > 20


@pytest.mark.parametrize(
    ("part", "message"), [("vae", "decoded images"), ("unet", "finished latents")]
)
def test_nan_is_an_error_and_no_picture(tiny, part, message):
    layer = {"vae": tiny.pipeline.vae.post_quant_conv, "unet": tiny.pipeline.unet.conv_out}[part]
    with torch.no_grad():
        layer.bias[0] = float("nan")
    with pytest.raises(NumericalError, match=rf"{message}.* hold NaN or infinity.*float32"):
        generate(tiny, "a cat", [0], LIGHT)


# files --------------------------------------------------------------------------------------------


def coloured(colour: str, width: int = 32, height: int = 32) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


@pytest.mark.first(1)
@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("where", ["sample", "decode"])
def test_what_does_not_fit_the_device_is_made_in_parts(model, monkeypatch, room, where):
    rows = [("a fox", 0), ("the sea", 1), ("a fox", 2), ("a fox", 3), ("an owl", 0)]
    settings = ImageSettings(steps=2)
    want = generate_many(model, rows, settings), generate(model, "a fox", range(5), settings)
    plain = getattr(Model, where)
    asked = []

    def small(self, first, *rest):
        count = len(first) if where == "decode" or isinstance(first, list) else rest[0]
        if count > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        asked.append(count)
        return plain(self, first, *rest)

    monkeypatch.setattr(Model, where, small)
    made = generate_many(model, rows, settings), generate(model, "a fox", range(5), settings)
    assert max(asked) <= room
    for some, others in zip(made, want, strict=True):
        assert len(some) == len(others)
        assert (
            max(
                np.abs(np.asarray(a, int) - np.asarray(b, int)).max()
                for a, b in zip(some, others, strict=True)
            )
            <= 1
        )


def test_a_device_without_room_for_one_image_is_named(model, monkeypatch):
    def full(self, *rest):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Model, "decode", full)
    with pytest.raises(DeviceError, match=r"out of memory on cpu with a single image.*float16"):
        generate(model, "a fox", range(3), ImageSettings(steps=1))


def test_a_png_is_written_whole_and_without_loss(model, tmp_path):
    (image,) = generate(model, "a cat", [0], LIGHT)
    path = save_png(image, tmp_path / "new" / "folder" / "0.png")
    with Image.open(path) as read:
        assert read.format == "PNG"
        assert distance(read, image) == 0
    assert [p.name for p in path.parent.iterdir()] == ["0.png"]


class Interrupted:
    """An image whose writing breaks off half-way."""

    def save(self, path, format):
        path.write_bytes(b"half a picture")
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_old_picture_or_none(tmp_path):
    save_png(coloured("red"), tmp_path / "old.png")
    for name in ("old.png", "new.png"):
        with pytest.raises(KeyboardInterrupt):
            save_png(Interrupted(), tmp_path / name)
    assert not list(tmp_path.glob("new.png"))
    with Image.open(tmp_path / "old.png") as read:
        assert distance(read, coloured("red")) == 0


# sheets -------------------------------------------------------------------------------------------


def share(image: Image.Image, colour: tuple[int, int, int]) -> float:
    """How many pixels have this colour, in tiles of 64 x 64."""
    return float((pixels(image) == colour).all(-1).sum() / 64**2)


def test_a_sheet_shows_every_image_and_the_original():
    rows = [("before", [coloured("red")] * 3), ("after", [coloured("lime", 200, 100)] * 2)]
    made = sheet("a caption", rows, coloured("blue"), tile=64)
    assert share(made, (255, 0, 0)) == 3
    assert share(made, (0, 255, 0)) == 2
    assert share(made, (0, 0, 255)) == 1
    assert 4 * 64 <= made.width <= 4 * 64 + 100
    assert 2 * 64 <= made.height <= 2 * 64 + 150


def test_a_sheet_labels_each_image_within_its_width():
    def shown(*names):
        return np.asarray(sheet("a", [(names, [coloured("red")] * 2)], tile=64))[46:70]

    assert (shown("first", "second")[:, :84] == shown("first", "other")[:, :84]).all()
    assert (shown("first", "second") != shown("first", "other"))[:, 84:].any()
    assert (shown("w" * 50, "x")[:, 84:] == shown("first", "x")[:, 84:]).all()


def test_a_sheet_grows_with_rows_columns_and_the_original():
    one = sheet("a", [("row", [coloured("red")])], tile=64)
    assert sheet("a", [("row", [coloured("red")] * 2)], tile=64).width >= one.width + 64
    assert sheet("a", [("row", [coloured("red")])] * 2, tile=64).height >= one.height + 64
    assert (
        sheet("a", [("row", [coloured("red")])], coloured("blue"), tile=64).width >= one.width + 64
    )


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "word " * 2000,
        "x" * 5000,
        "🗼 🎉 東京 עברית",
        "first\nsecond\r\nthird\u2028fourth",
        "tab\tand \x00 and \x07",
        "\ud800",
    ],
    ids=["empty", "many words", "one long word", "emoji", "lines", "control", "surrogate"],
)
def test_any_caption_fits_a_sheet(caption):
    rows = [("before", [coloured("red")] * 2)]
    made = sheet(caption, rows, tile=64)
    plain = sheet("a", rows, tile=64)
    assert made.size == plain.size
    assert share(made, (255, 0, 0)) == 2
    assert (pixels(made)[:, -8:] == 255).all()  # nothing runs over the right margin
