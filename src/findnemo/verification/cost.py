"""The effect of a set of neurons on captions that are not memorized: how much each of their images
changes, and how far sets of images are apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from findnemo.edits import deactivate, masks
from findnemo.errors import EditError, NumericalError
from findnemo.images import ImageSettings, decoded_pictures, generate_many
from findnemo.metrics import Judges, frechet_distance, kernel_distance
from findnemo.metrics.copies import pixel_changes
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import Denoising, fine_steps, side_by_side
from findnemo.seeds import FRESH

if TYPE_CHECKING:
    from PIL import Image

RANDOM = 5  # random sets that a set is compared with (Finding NeMo, section 4)
# distances of two sets of images: the judge, its features to compare, and the distance
DISTANCES: dict[str, tuple[str, str, Callable[[Tensor, Tensor], float]]] = {
    "fid": ("descriptor", "descriptors", frechet_distance),
    "kid": ("descriptor", "descriptors", kernel_distance),
    "clip_fid": ("alignment", "embeddings", frechet_distance),
}


@dataclass(frozen=True)
class Pictures:
    """Finished images with their captions, and what judges see in them, computed on first use."""

    images: Sequence[Image.Image]
    captions: Sequence[str]
    judges: Judges

    @cached_property
    def descriptors(self) -> Tensor:
        """Unit descriptors (N, D); needs a descriptor."""
        assert self.judges.descriptor is not None
        return self.judges.descriptor(self.images)

    @cached_property
    def embeddings(self) -> Tensor:
        """CLIP embeddings (N, D), not normalized; needs a CLIP."""
        assert self.judges.alignment is not None
        return self.judges.alignment.embed(self.images)

    @cached_property
    def fits(self) -> Tensor:
        """Cosine of each image with its caption, (N,); needs a CLIP."""
        assert self.judges.alignment is not None
        return self.judges.alignment(self.images, self.captions)


def pictured(
    model: Model,
    prompts: Sequence[str],
    first: int,
    settings: ImageSettings,
    judges: Judges,
    neurons: NeuronSet = EMPTY,
    each: int = 1,
) -> Pictures:
    """Make `each` images of every prompt with `neurons` off.

    Sample numbers are `first`, `first` + 1, ... The images of a prompt follow each other.
    """
    rows = [(prompt, first + k) for prompt in prompts for k in range(each)]
    with deactivate(model, neurons):
        images = generate_many(model, rows, settings)
    return Pictures(images, [prompt for prompt, _ in rows], judges)


def changes(before: Pictures, after: Pictures) -> dict[str, Tensor]:
    """How each image differs from the one before of the same caption and seed: figure -> (N,).

    `pixel_change`: mean absolute difference, 0 to 1. With a descriptor `sscd_gen`, the similarity
    of both images. With a CLIP `a_clip_before` and `a_clip_after`, the fit of each with its
    caption.
    """
    found = {
        "pixel_change": torch.tensor(
            pixel_changes(before.images, after.images), dtype=torch.float64
        )
    }
    if before.judges.descriptor is not None:
        found["sscd_gen"] = (before.descriptors * after.descriptors).sum(1)
    if before.judges.alignment is not None:
        found |= {"a_clip_before": before.fits, "a_clip_after": after.fits}
    return found


def distances(judges: Judges) -> list[str]:
    """The names of DISTANCES that these judges can measure."""
    return [name for name, (judge, *_) in DISTANCES.items() if getattr(judges, judge) is not None]


def distance(name: str, one: Pictures, other: Pictures, at: Tensor | slice = slice(None)) -> float:
    """One of DISTANCES between two sets of images. `at`: positions in each set to use.

    Raises InputError for fewer than two.
    """
    _, features, measure = DISTANCES[name]
    return measure(getattr(one, features)[at], getattr(other, features)[at])


def quality(
    model: Model,
    prompts: Sequence[str],
    neurons: NeuronSet,
    image_settings: ImageSettings,
    judges: Judges | None = None,
    draws: int = 0,
    thorough: bool = True,
) -> dict[str, Any]:
    """How switching off `neurons` changes images of prompts that are not memorized, one fresh image
    each.

    Unless `thorough`, all images are made in fine steps, if these are fewer than those of the
    settings (`passes.fine_steps`); the figures then include their number, `steps`.

    Figures are medians over prompts: `pixel_change` (mean absolute difference, 0 to 1), and with
    judges `sscd_gen`, `a_clip_before`, `a_clip_after`. `each`: these figures for every prompt, the
    smallest changes first. `failed`: number of prompts for which the model gave NaN; they are left
    out.

    `draws`: compare with as many random neurons, in this many random sets (`random_sets`), which
    take turns over the prompts. Their figures begin with `random_`. There are none if a layer has
    too few other neurons.
    """
    judges = judges or Judges()
    try:
        others = random_sets(model, neurons, image_settings.seed, draws)
    except EditError:
        others = []
    sets = [(EMPTY, neurons, *others[k % max(len(others), 1) :][:1]) for k in range(len(prompts))]
    fine = fine_steps(0.0 if model.distilled else image_settings.guidance)
    few = None if thorough or fine >= image_settings.steps else fine
    make = _in_all_steps if few is None else partial(_in_few, few)
    rows = _without_nan(partial(make, model, image_settings), prompts, sets, judges)
    medians = (
        {key: round(statistics.median(r[key] for r in rows), 4) for key in rows[0]} if rows else {}
    )
    rounded = sorted(
        ({key: round(value, 4) for key, value in row.items()} for row in rows),
        key=lambda row: list(row.values()),
    )
    each = {"each": rounded} if rows else {}
    return {
        "prompts": len(rows),
        "failed": len(prompts) - len(rows),
        "neurons": len(neurons),
        **({} if few is None else {"steps": few}),
        **medians,
        **each,
    }


def random_sets(
    model: Model, neurons: NeuronSet, seed: int = 0, draws: int = RANDOM
) -> list[NeuronSet]:
    """Random sets with as many neurons in each layer, none of `neurons` (the baseline of Finding
    NeMo, section 4).

    Raises EditError for a layer with too few other neurons.
    """
    from findnemo.mitigation import Case
    from findnemo.mitigation.neurons import drawn_neurons

    return [drawn_neurons(model, Case("", neurons, seed), repeat) for repeat in range(1, draws + 1)]


Sets = Sequence[NeuronSet]
# images of each prompt, one for each of its sets
Make = Callable[[Sequence[str], Sequence[Sets]], "list[list[Image.Image]]"]


def _without_nan(
    make: Make, prompts: Sequence[str], sets: Sequence[Sets], judges: Judges
) -> list[dict[str, float]]:
    """`_changes_of` of all prompts together. If the model gives NaN, of each prompt alone, without
    those that give NaN.
    """
    try:
        return _changes_of(make, prompts, sets, judges) if prompts else []
    except NumericalError:
        if len(prompts) == 1:
            return []
    each = zip(prompts, sets, strict=True)
    return [row for p, s in each for row in _without_nan(make, [p], [s], judges)]


def _changes_of(
    make: Make, prompts: Sequence[str], sets: Sequence[Sets], judges: Judges
) -> list[dict[str, float]]:
    """`changes` of one fresh image of every prompt, with the second of its sets off compared with
    the first, and with the third, which is random.
    """
    made = make(prompts, sets)
    before, after, *random = (
        Pictures(images, prompts, judges) for images in zip(*made, strict=True)
    )
    figures = changes(before, after)
    for other in random:
        figures |= {
            f"random_{key}": values
            for key, values in changes(before, other).items()
            if not key.endswith("_before")
        }
    return [{key: float(values[k]) for key, values in figures.items()} for k in range(len(prompts))]


def _in_all_steps(
    model: Model, settings: ImageSettings, prompts: Sequence[str], sets: Sequence[Sets]
) -> list[list[Image.Image]]:
    """Images by the pipeline, for all prompts with the same neurons off at once."""
    wanted = [(prompt, off) for prompt, each in zip(prompts, sets, strict=True) for off in each]
    images: dict[tuple[str, NeuronSet], Image.Image] = {}
    for off in dict.fromkeys(off for _, off in wanted):
        these = [one for one in wanted if one[1] == off]
        with deactivate(model, off):
            made = generate_many(model, [(prompt, FRESH) for prompt, _ in these], settings)
        images |= zip(these, made, strict=True)
    return [[images[p, off] for off in each] for p, each in zip(prompts, sets, strict=True)]


def _in_few(
    steps: int, model: Model, settings: ImageSettings, prompts: Sequence[str], sets: Sequence[Sets]
) -> list[list[Image.Image]]:
    """Images in few steps: those of a prompt in one batch, and prompts in shared passes."""

    def images(prompt: str, off: Sets) -> list[Image.Image]:
        denoising = Denoising(model, prompt, 1, settings.guidance, settings.seed, FRESH)
        path = denoising.run([0] * len(off), steps, masks(model, off), settings.steps)
        return decoded_pictures(model, path.image.to(model.dtype))

    return side_by_side(model, [partial(images, *one) for one in zip(prompts, sets, strict=True)])
