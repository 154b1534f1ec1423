"""Finished images with neurons off; captions worked on side by side share calls of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from findnemo.edits import deactivate, masks, scaled
from findnemo.images import ImageSettings, generate, generate_many
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.sharing import meets
from findnemo.runtime.meeting import ask

if TYPE_CHECKING:
    from PIL import Image

IMAGES = 8  # images in one call of the pipeline

Asked = tuple[str, Sequence[int], NeuronSet]


def pictures(
    model: Model,
    prompt: str,
    samples: Sequence[int],
    settings: ImageSettings,
    neurons: NeuronSet = EMPTY,
) -> list[Image.Image]:
    """One RGB image for each sample number with `neurons` off, as `images.generate` makes them.

    In `side_by_side` the images of all captions share the pipeline's calls, each under the mask of
    its own neurons. If a call fails because of NaN or lack of memory, each caption gets calls of
    its own. Raises what `generate` and `deactivate` raise.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> quick = findnemo.ImageSettings(steps=1, guidance=2.0)
        >>> [image.size for image in pictures(model, "a red star", [0, 1], quick)]
        [(64, 64), (64, 64)]
    """
    asked = (prompt, samples, neurons)
    if not meets(model):
        return _alone(model, settings, asked)
    return ask((model, "pictures", settings), partial(_together, model, settings), asked)


def _alone(model: Model, settings: ImageSettings, asked: Asked) -> list[Image.Image]:
    prompt, samples, neurons = asked
    with deactivate(model, neurons):
        return generate(model, prompt, samples, settings)


def _together(
    model: Model, settings: ImageSettings, asked: Sequence[Asked]
) -> list[list[Image.Image]]:
    if len(asked) == 1:
        return [_alone(model, settings, asked[0])]
    rows = [(prompt, k, neurons) for prompt, samples, neurons in asked for k in samples]
    # a pass of the pipeline holds all images without their prompts, then all with them
    halves = 2 if settings.guidance > 1 and not model.distilled else 1
    made: list[Image.Image] = []
    for start in range(0, len(rows), IMAGES):
        part = rows[start : start + IMAGES]
        off = masks(model, [neurons for _, _, neurons in part])
        scales = {name: mask.repeat(halves, 1) for name, mask in off.items()}
        with scaled(model, scales) if scales else nullcontext():
            made += generate_many(model, [(text, k) for text, k, _ in part], settings, len(part))
    images = iter(made)
    return [[next(images) for _ in samples] for _, samples, _ in asked]
