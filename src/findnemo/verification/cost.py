"""What a set of neurons costs captions that are not memorized: how much each of their images
changes, and sets of images.
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
from findnemo.images import ImageSettings, finished, generate_many
from findnemo.metrics import Judges, frechet_distance, kernel_distance
from findnemo.metrics.copies import pixel_changes
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import Denoising, fine_steps, side_by_side
from findnemo.seeds import FRESH

if TYPE_CHECKING:
    from PIL import Image

RANDOM = 5  # draws of random neurons that a set is compared with (Finding NeMo, section 4)
# distances of two sets of images: the judge, the features of it that are compared, and how
DISTANCES: dict[str, tuple[str, str, Callable[[Tensor, Tensor], float]]] = {
    "fid": ("descriptor", "descriptors", frechet_distance),
    "kid": ("descriptor", "descriptors", kernel_distance),
    "clip_fid": ("alignment", "embeddings", frechet_distance),
}


@dataclass(frozen=True)
class Pictures:
    """Finished images, the caption of each, and what judges see in them, which is
    computed once it is asked for.
    """

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
        """CLIP embeddings (N, D), not normalised; needs a CLIP."""
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
    """`each` images of every prompt, of sample numbers `first`, `first` + 1, ..., with `neurons`
    off. The images of a prompt follow each other.
    """
    rows = [(prompt, first + k) for prompt in prompts for k in range(each)]
    with deactivate(model, neurons):
        images = generate_many(model, rows, settings)
    return Pictures(images, [prompt for prompt, _ in rows], judges)


def changes(before: Pictures, after: Pictures) -> dict[str, Tensor]:
    """How much each image differs from the one before of the same caption and seed: figure -> (N,).

    `pixel_change`: mean absolute difference, 0 to 1. With a descriptor `sscd_gen`, the similarity
    of the two; with a CLIP `a_clip_before` and `a_clip_after`, the fit of each with its caption.
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
    """The names of DISTANCES that can be measured with these judges."""
    return [name for name, (judge, *_) in DISTANCES.items() if getattr(judges, judge) is not None]


def distance(name: str, one: Pictures, other: Pictures, at: Tensor | slice = slice(None)) -> float:
    """One of DISTANCES between two sets of images, of those at the positions `at` of each.

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
    """What switching off `neurons` does to prompts that are not memorized: one fresh image
    each, with against without.

    Unless `thorough`, all of these images are made in fine steps, which stand for those of the
    settings (`passes.fine_steps`), if they are fewer; `steps`, how many, is then among the figures.

    Medians over prompts: `pixel_change` (mean absolute difference, 0 to 1), and with judges
    `sscd_gen`, `a_clip_before`, `a_clip_after`; `each`: the same for every prompt, the smallest
    changes first. `failed` counts the prompts for which the model gave NaN; they are left out.
    `draws`: also with as many random neurons off instead, `random_sets`, one of so many draws a
    prompt in turn; their figures are called `random_pixel_change`, and so on. Where a layer has too
    few others, there are none.
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
    rows = _of_those_that_work(partial(make, model, image_settings), prompts, sets, judges)
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
    """Draws of as many other neurons of the same layers, none of `neurons` (the baseline of
    Finding NeMo, section 4).

    Raises EditError for a layer with too few others.
    """
    from findnemo.mitigation import Case
    from findnemo.mitigation.neurons import drawn

    return [drawn(model, Case("", neurons, seed), repeat) for repeat in range(1, draws + 1)]


Sets = Sequence[NeuronSet]
# images of each prompt, one for each of the sets that are off in turn
Make = Callable[[Sequence[str], Sequence[Sets]], "list[list[Image.Image]]"]


def _of_those_that_work(
    make: Make, prompts: Sequence[str], sets: Sequence[Sets], judges: Judges
) -> list[dict[str, float]]:
    """`_changed` of all prompts together; one by one where the model gave NaN, without those for
    which it does.
    """
    try:
        return _changed(make, prompts, sets, judges) if prompts else []
    except NumericalError:
        if len(prompts) == 1:
            return []
    each = zip(prompts, sets, strict=True)
    return [row for p, s in each for row in _of_those_that_work(make, [p], [s], judges)]


def _changed(
    make: Make, prompts: Sequence[str], sets: Sequence[Sets], judges: Judges
) -> list[dict[str, float]]:
    """`changes` of one fresh image of every prompt with the second of its sets off against the
    first; and with the third, which is random.
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
    """By the pipeline, all prompts with the same neurons off together."""
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
    """In few steps, those of a prompt in one batch, and prompts in passes that they share."""

    def images(prompt: str, off: Sets) -> list[Image.Image]:
        denoising = Denoising(model, prompt, 1, settings.guidance, settings.seed, FRESH)
        path = denoising.run([0] * len(off), steps, masks(model, off), settings.steps)
        return finished(model, path.image.to(model.dtype))

    return side_by_side(model, [partial(images, *one) for one in zip(prompts, sets, strict=True)])
