"""Finished images in studies: make them with neurons off, and summarize how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from findnemo.images import ImageSettings
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.seeds import UNTOUCHED, WANTED
from findnemo.studies._bench import Bench, Desk
from findnemo.studies._published import COLUMNS, HEADS
from findnemo.verification import Pictures, pictured

if TYPE_CHECKING:
    from PIL import Image

EFFECTS = dict(
    zip(COLUMNS[1:], HEADS[1:], strict=True)
)  # figure of a caption's images -> head of its column


def medians(payloads: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The median over captions of every figure of EFFECTS; None if no caption has it."""
    values = {key: [p[key] for p in payloads if key in p] for key in EFFECTS}
    return {key: median(v) if v else None for key, v in values.items()}


def images_with(
    bench: Bench, name: str, prompts: Sequence[str], sets: Sequence[NeuronSet]
) -> tuple[Pictures, list[Pictures]]:
    """One image of every prompt by the untouched model on other seeds, and one with each of the
    sets off.
    """
    compute = partial(_images, prompts=prompts, settings=bench.image_settings)
    items = [(EMPTY, WANTED), *((neurons, UNTOUCHED) for neurons in sets)]
    judges = bench.work.judges
    real, *rest = [Pictures(i, prompts, judges) for i in bench.over(name, compute, items)]
    return real, rest


def _images(
    desk: Desk, item: tuple[NeuronSet, int], prompts: Sequence[str], settings: ImageSettings
) -> Sequence[Image.Image]:
    neurons, sample = item
    return pictured(desk.model, prompts, sample, settings, desk.judges, neurons).images
