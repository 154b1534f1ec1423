"""What several studies do with finished images: make them with neurons off, and sum up how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from findnemo.images import ImageSettings
from findnemo.neurons import NeuronSet
from findnemo.studies._bench import Bench, Desk
from findnemo.studies._published import COLUMNS, HEADS
from findnemo.verification import Pictures, pictured

if TYPE_CHECKING:
    from PIL import Image

EFFECTS = dict(zip(COLUMNS[1:], HEADS[1:], strict=True))  # figure of a caption's images -> head


def medians(payloads: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The median over captions of every figure of EFFECTS; None where no caption has it."""
    values = {key: [p[key] for p in payloads if key in p] for key in EFFECTS}
    return {key: median(v) if v else None for key, v in values.items()}


def images_with(
    bench: Bench, name: str, prompts: Sequence[str], sets: Sequence[tuple[NeuronSet, int]]
) -> list[Pictures]:
    """An image of every prompt for each (neurons that are off, sample number)."""
    compute = partial(_made, prompts=prompts, settings=bench.image_settings)
    judges = bench.work.judges
    return [Pictures(images, prompts, judges) for images in bench.over(name, compute, sets)]


def _made(
    desk: Desk, item: tuple[NeuronSet, int], prompts: Sequence[str], settings: ImageSettings
) -> Sequence[Image.Image]:
    neurons, sample = item
    return pictured(desk.model, prompts, sample, settings, desk.judges, neurons).images
