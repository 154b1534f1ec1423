"""Descriptors: what the network is fed under each convention, and what a run can record of it."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from findnemo import demo
from findnemo.errors import InputError
from findnemo.metrics import Descriptor
from findnemo.metrics.descriptor import CONVENTIONS

SIZES = {"sscd": 320, "half": 224}


class Pixels(nn.Module):
    """A descriptor that gives its input back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


@pytest.fixture
def path(tmp_path):
    torch.jit.script(Pixels()).save(str(tmp_path / "pixels.pt"))
    return tmp_path / "pixels.pt"


def picture(width: int, height: int) -> Image.Image:
    """A gradient to the right and one downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x + 90], 2).astype(np.uint8))


def fed(path, image: Image.Image, preprocessing: str) -> np.ndarray:
    """Pixels that reached the network, 0 to 1 for its mean and deviation undone, up to a factor:

    (3, size, size).
    """
    size = SIZES[preprocessing]
    return Descriptor(path, preprocessing=preprocessing)([image]).reshape(3, size, size).numpy()


def unit(pixels: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    normal = (pixels / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    return normal / np.linalg.norm(normal)


def test_sscd_squashes_and_takes_imagenets_mean(path):
    image = picture(400, 200)
    squashed = np.asarray(image.resize((320, 320), Image.Resampling.BILINEAR), float).transpose(
        2, 0, 1
    )
    want = unit(squashed, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    np.testing.assert_allclose(fed(path, image, "sscd"), want, atol=1e-6)


def test_half_crops_the_middle_and_takes_a_half(path):
    image = picture(400, 200)
    middle = np.asarray(
        image.resize((512, 256), Image.Resampling.BILINEAR).crop((144, 16, 368, 240)), float
    )
    want = unit(middle.transpose(2, 0, 1), [0.5] * 3, [0.5] * 3)
    np.testing.assert_allclose(fed(path, image, "half"), want, atol=1e-6)


def test_a_run_can_record_what_the_numbers_depend_on(path):
    one, other = (
        Descriptor(path).preprocessing,
        Descriptor(path, preprocessing="half").preprocessing,
    )
    assert one["file"] == "pixels.pt"
    assert one["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert one != other
    assert (other["size"], other["resize"], other["mean"], other["std"]) == (
        224,
        256,
        [0.5] * 3,
        [0.5] * 3,
    )


def test_descriptors_are_unit_vectors_and_the_same_in_every_batch():
    descriptor = Descriptor(demo.DESCRIPTOR)
    images = [demo.training_image(p.text) for p in demo.memorized()[:3]]
    rows = descriptor(images)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(
        torch.cat([descriptor([i]) for i in images]), rows, atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(descriptor.similarity(images, images[:2]), rows @ rows[:2].T)


def test_bad_input_is_refused(tmp_path, path):
    with pytest.raises(
        InputError, match=r"preprocessing 'large' is not known: use one of sscd, half"
    ):
        Descriptor(path, preprocessing="large")
    with pytest.raises(InputError, match="no descriptor file"):
        Descriptor(tmp_path)
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(InputError, match=r"text.pt is not a TorchScript descriptor"):
        Descriptor(tmp_path / "text.pt")


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000), (300, 2)])
def test_a_strip_does_not_fill_the_memory(monkeypatch, size):
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, to, *a: sizes.append(to) or resize(self, to, *a)
    )
    fed = CONVENTIONS["half"]([Image.new("RGB", size, "white")])
    assert torch.equal(fed, torch.ones(1, 3, 224, 224))
    assert [sorted(to) for to in sizes] == [[256, 1024]]
