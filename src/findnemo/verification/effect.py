"""The effect of a set of neurons on a prompt, on seeds that no search has seen.

It is measured on noise differences and finished images, with the neurons off and on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from findnemo.edits import masks
from findnemo.images import ImageSettings, generate, noise_pictures
from findnemo.images import decoded_pictures as pictures_of
from findnemo.metrics import Judges
from findnemo.metrics.copies import COPY, compare_images, copies_in, copying, shares, similarities
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import (
    Denoising,
    Probe,
    confirming_steps,
    pictures,
    quick_steps,
    spend,
    spending,
)
from findnemo.scores import SIMILARITIES, by_seed, memorization_score, pairwise, score_of
from findnemo.seeds import FRESH
from findnemo.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.metrics import Descriptor


# similarities of quick images to those of other seeds, or to the training image: at most the first,
# an image is no copy in all steps either; at least the second, it is one; between, it is in doubt
DOUBT = (0.55, 0.9)
# bounds for images in fine steps, and in all, compared with untouched ones in fewer
FINE_DOUBT = (0.45, 0.85)
WHOLE_DOUBT = (0.6, 0.8)

Seed = tuple[str, int]  # "before" or "after", and the position of an image


class Level(NamedTuple):
    """How quick images are made: in `steps` steps.

    Between the similarities `doubt` it is open whether one is a copy; then it is made again in
    `more` steps.
    """

    steps: int
    doubt: tuple[float, float]
    more: int


@dataclass(frozen=True)
class Looked:
    """Finished images of a prompt before and after, with their figures (`compare_images`) and
    similarities to decide about copies (`similarities`).

    For quick images, `steps` is their number of steps, and `whole` those of them that were also
    made in all steps.
    """

    before: list[Image.Image] = field(default_factory=list)
    after: list[Image.Image] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    alike: dict[str, Tensor] = field(default_factory=dict)
    steps: int | None = None
    whole: dict[Seed, Image.Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """How closely `verify` looks, and which images already exist.

    `first`: number of the first sample. `confirm`: if images with the neurons off leave it in doubt
    whether they are copies, make them in more steps, and the most suspicious one in any case.
    Without it, only untouched images in doubt are made in more steps: they decide what a caption
    is. `glance`: confirm no image that is not in doubt, and compare no noise differences; the same
    look without it goes on from there. `thorough`: make all images in all steps from the start.

    `tau`: the threshold of the memorization score. A fresh seed does not replicate if its noise
    difference resembles that of no other fresh seed by tau. Such a seed says nothing about the
    memory, so it is left out, as in Algorithm 1. Without `tau` all seeds count.

    Existing images of these samples, neurons and settings are not made again. `quick`: "before" and
    "after" -> images made in `steps` steps. `whole`: those in all steps. `values`: known values of
    noise differences, of at least as many seeds as images.
    """

    first: int = FRESH
    confirm: bool = True
    glance: bool = False
    thorough: bool = False
    tau: float | None = None
    quick: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)
    steps: int | None = None
    whole: Mapping[Seed, Image.Image] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verification:
    """The comparison before and after, on seeds that no search has seen, with the finished images.

    `values`: see `verify`. `noise_before`, `noise_after`: noise differences of the same sample
    numbers as the pictures.
    """

    values: dict[str, float]
    looked: Looked
    noise_before: list[Image.Image] = field(default_factory=list)
    noise_after: list[Image.Image] = field(default_factory=list)

    @property
    def before(self) -> list[Image.Image]:
        return self.looked.before

    @property
    def after(self) -> list[Image.Image]:
        return self.looked.after


def verify(
    model: Model,
    prompt: str,
    neurons: NeuronSet,
    settings: Settings,
    images: int,
    image_settings: ImageSettings,
    judges: Judges | None = None,
    look: Look = Look(),
) -> Verification:
    """Compare a prompt with `neurons` on and off, on fresh seeds.

    `look`: other samples than those from 1000 on, existing images of them, and how closely to look.

    Images are made in few steps, which show whether they will be copies. Images in doubt are made
    in all steps, and so is the most suspicious one in any case. If untouched images are no copies,
    two of them are made in all steps and compared with each other too. If one of these contradicts
    its quick version, all images are made in all steps. If there are many steps, fine ones replace
    all steps (`passes.confirming_steps`), except for an image that they leave in doubt too.

    `values` holds:

    - `score_before`, `score_after`: memorization score, of as many fresh seeds as the settings
      name;
    - `replicating`: how many fresh seeds replicate; `same_seed`: the largest similarity of a
      replicating seed's noise difference to its own before, missing if none replicates;
    - with a descriptor, as medians over the seeds: `sscd_gen` (image with against without the edit,
      same seed), `d_sscd_before`, `d_sscd_after` (pairwise among the images of the prompt) and, if
      the training image is known, `sscd_orig_before`, `sscd_orig_after`;
    - with a CLIP: medians `a_clip_before`, `a_clip_after` (Finding NeMo, section 4);
    - of two images or more: `copies_before`, `copies_after`, the share of images that are copies of
      the image of another seed (`copying` .7 and more), and `largest_before`, `largest_after`, the
      largest similarity of an image to an untouched one of another seed, or to the training image.

    `evaluations`: U-Net sample evaluations spent. For quick images, `steps` is their number of
    steps. `confirmed` is the largest similarity of an image in more steps to a quick untouched one
    of another seed or to the training image, and `seed` the position of that image.
    """
    judges = (judges or Judges()).remembering()
    noise: list[list[Image.Image]] = []
    values = dict(look.values)
    with spending() as spent:
        if "score_before" not in values and not look.glance:
            probe = fresh(model, prompt, settings, max(settings.samples, images), look.first)
            shown = probe.deltas(), probe.deltas(neurons)
            noise = [noise_pictures(deltas[:images]) for deltas in shown]
            values |= _noise_values(*shown, settings, look.tau)
        looked = None
        # images already made in all steps say more than quick ones would
        if images > 1 and not look.thorough and (look.quick or not look.whole):
            looked = quick_look(model, prompt, neurons, images, image_settings, judges, look)
        if images and looked is None:
            looked = _in_all_steps(model, prompt, neurons, images, image_settings, judges, look)
    values["evaluations"] = look.values.get("evaluations", 0) + spent.evaluations
    looked = looked or Looked()
    for when in ("before", "after"):
        if any(name.endswith(when) for name in looked.alike):
            values[f"largest_{when}"] = float(_highest(looked.alike, when).max())
    return Verification(
        {k: round(v, 4) for k, v in (values | looked.values).items()}, looked, *noise
    )


def _noise_values(
    unblocked: Tensor, blocked: Tensor, settings: Settings, tau: float | None
) -> dict[str, float]:
    """Values of noise differences (N, C, H, W) without and with the edit, on as many seeds as the
    settings name.
    """
    unblocked, blocked = (deltas[: settings.samples] for deltas in (unblocked, blocked))
    kept = replicating(unblocked, settings, tau)
    values = {
        "score_before": memorization_score(unblocked, settings.similarity, settings.pairs),
        "score_after": memorization_score(blocked, settings.similarity, settings.pairs),
        "replicating": len(kept),
    }
    if kept:
        values["same_seed"] = _largest(unblocked[kept], blocked[kept], settings)
    return values


def _in_all_steps(
    model: Model,
    prompt: str,
    neurons: NeuronSet,
    images: int,
    settings: ImageSettings,
    judges: Judges,
    look: Look,
) -> Looked:
    shown = []
    for when, off in (("before", EMPTY), ("after", neurons)):
        missing = [k for k in range(images) if (when, k) not in look.whole]
        made = fresh_images(model, prompt, missing, settings, off, look.first)
        new = dict(zip(missing, made, strict=True))
        shown.append([new[k] if k in new else look.whole[when, k] for k in range(images)])
    before, after = shown
    values = compare_images(prompt, before, after, judges)
    return Looked(before, after, values, similarities(before, after, judges))


def fresh_images(
    model: Model,
    prompt: str,
    seeds: Sequence[int],
    settings: ImageSettings,
    neurons: NeuronSet,
    first: int,
) -> list[Image.Image]:
    """Fresh images with `neurons` off in all steps, at positions from `first` on; counts
    evaluations.
    """
    if not seeds:
        return []
    spend(len(seeds) * settings.passes)
    return pictures(model, prompt, [first + k for k in seeds], settings, neurons)


def quick_look(
    model: Model,
    prompt: str,
    neurons: NeuronSet,
    images: int,
    settings: ImageSettings,
    judges: Judges,
    look: Look,
) -> Looked | None:
    """Images in quick steps; if in doubt, in fine steps, if these are few compared with all.

    None if only all steps will do.
    """
    guidance = 0.0 if model.distilled else settings.guidance
    quick = quick_steps(guidance)
    fine = confirming_steps(guidance, settings.steps)
    levels = [Level(quick, DOUBT, fine), Level(fine, FINE_DOUBT, settings.steps)]
    if look.quick and look.steps == fine:  # quick images were not enough
        levels = levels[1:]
    for level in levels:
        if level.steps < settings.steps:
            looked = _in_few(model, prompt, neurons, images, settings, judges, look, level)
            if looked is not None:
                return looked
    return None


def _in_few(
    model: Model,
    prompt: str,
    neurons: NeuronSet,
    images: int,
    settings: ImageSettings,
    judges: Judges,
    look: Look,
    level: Level,
) -> Looked | None:
    """Images in few steps, with and without the neurons in one batch.

    Images in doubt are made in more steps, and at least one is. If that does not settle it, they
    are made in all steps. None if doubt remains, or if an image in more steps contradicts its quick
    version.
    """
    steps, doubt, more = level
    off = {"before": EMPTY, "after": neurons} if neurons else {"before": EMPTY}
    denoising = Denoising(model, prompt, images, settings.guidance, settings.seed, look.first)

    def denoised(rows: Sequence[int], sets: Sequence[NeuronSet], count: int) -> list[Image.Image]:
        path = denoising.run(rows, count, masks(model, sets), settings.steps)
        return pictures_of(model, path.image.to(model.dtype))

    there = look.quick if look.steps == steps else {}
    quick = {when: [*there[when]] for when in off if len(there.get(when, ())) >= images}
    if missing := [when for when in off if when not in quick]:
        each = [off[when] for when in missing for _ in range(images)]
        made = denoised([*range(images)] * len(missing), each, steps)
        quick |= {when: made[k * images :][:images] for k, when in enumerate(missing)}
    quick = {when: quick.get(when, quick["before"])[:images] for when in ("before", "after")}
    shown = {when: [*quick[when]] for when in off}
    settled: set[Seed] = set()
    whole: dict[Seed, Image.Image] = {}

    def settle(one: Seed) -> dict[str, Tensor]:
        when, seed = one
        settled.add(one)
        if more < settings.steps and one not in look.whole:
            (shown[when][seed],) = denoised([seed], [off[when]], more)
            alike = _alike(quick["before"], shown, judges)
            if not FINE_DOUBT[0] < float(_highest(alike, when)[seed]) < FINE_DOUBT[1]:
                return alike
        kept = look.whole.get(one)
        if kept is None:
            (kept,) = fresh_images(model, prompt, [seed], settings, off[when], look.first)
        whole[one] = kept
        shown[when][seed] = whole[one]
        return _alike(quick["before"], shown, judges)

    def known() -> Collection[Seed]:
        return settled if neurons else {(when, k) for when in quick for _, k in settled}

    alike = _alike(quick["before"], shown, judges)
    asked = ("before", "after") if look.confirm else ("before",)
    while (one := in_doubt(alike, known(), doubt, asked)) is not None:
        alike = settle(one)
        if WHOLE_DOUBT[0] < float(_highest(alike, one[0])[one[1]]) < WHOLE_DOUBT[1]:
            return None
    when = "after" if neurons and copies_in(shares(alike), "before") else "before"
    if when in asked and not look.glance and not any(kind == when for kind, _ in settled):
        likeness, most = _highest(alike, when).max(0)
        alike = settle((when, int(most)))
        now = float(_highest(alike, when)[most])
        if not (now >= COPY if likeness >= COPY else now <= WHOLE_DOUBT[0]):
            return None
    if not copies_in(shares(alike), "before"):
        # one image in more steps, compared with those in few, shows no more than these do
        for k in _highest(alike, "before").argsort(descending=True).tolist():
            if sum(kind == "before" for kind, _ in settled) < 2 and ("before", k) not in settled:
                settle(("before", k))
        own = [shown["before"][k] for k in sorted(k for kind, k in settled if kind == "before")]
        if float(copying(own, own, judges.descriptor).max()) > WHOLE_DOUBT[0]:
            return None
    values = compare_images(prompt, quick["before"], quick["after"], judges) | shares(alike)
    values["steps"] = steps
    if sure := [(float(_highest(alike, when)[k]), k) for kind, k in settled if kind == when]:
        values["confirmed"], values["seed"] = max(sure)
    return Looked(quick["before"], quick["after"], values, alike, steps, whole)


def copying_seeds(looked: Looked) -> list[int]:
    """Positions of the images with the neurons off that are copies, the most similar first.

    There is at least one: the most similar.

    >>> copying_seeds(Looked(alike={"copies_after": torch.tensor([0.1, 0.75, 0.3, 0.9])}))
    [3, 1]
    """
    alike = _highest(looked.alike, "after")
    order = alike.argsort(descending=True, stable=True).tolist()
    return [k for n, k in enumerate(order) if n == 0 or float(alike[k]) >= COPY]


def _alike(
    untouched: Sequence[Image.Image], shown: Mapping[str, Sequence[Image.Image]], judges: Judges
) -> dict[str, Tensor]:
    """`similarities` of images "before" and "after" to quick untouched images of other seeds.

    If `shown` has none after, those before take their place.
    """
    found: dict[str, Tensor] = {}
    for when in ("before", "after"):
        each = similarities(untouched, shown.get(when, shown["before"]), judges)
        found |= {name.replace("after", when): v for name, v in each.items() if "after" in name}
    return found


def in_doubt(
    alike: Mapping[str, Tensor],
    known: Collection[Seed] = (),
    doubt: tuple[float, float] = DOUBT,
    asked: Sequence[str] = ("before", "after"),
) -> Seed | None:
    """The image in doubt that decides about all (`copies_in`): of several, the one most like a
    copy; None if there is no doubt.

    `alike`: from `similarities`. `known`: images no longer in doubt. `doubt`: the similarities
    between which an image is in doubt. `asked`: consider images "before", "after" or both.

    >>> seen = {"copies_before": torch.ones(4), "copies_after": torch.tensor([0.1, 0.6, 0.3, 0.7])}
    >>> in_doubt(seen), in_doubt(seen | {"copies_after": torch.tensor([0.1, 0.2, 0.6, 0.95])})
    (('after', 3), None)
    """
    low, high = doubt
    for when in asked:
        open_ = {
            name: torch.tensor(
                [low < float(v) < high and (when, k) not in known for k, v in enumerate(each)]
            )
            for name, each in alike.items()
            if name.endswith(when)
        }
        ends = [
            shares({n: v.masked_fill(open_[n], end) if n in open_ else v for n, v in alike.items()})
            for end in (-1.0, 1.0)
        ]
        if len({copies_in(end, when) for end in ends}) > 1:
            doubtful = [alike[name].masked_fill(~seeds, -2.0) for name, seeds in open_.items()]
            return when, int(torch.stack(doubtful).amax(0).argmax())
    return None


def _highest(alike: Mapping[str, Tensor], when: str) -> Tensor:
    """The largest similarity of each image, (N,)."""
    return torch.stack([v for name, v in alike.items() if name.endswith(when)]).amax(0)


def fresh(
    model: Model, prompt: str, settings: Settings, seeds: int | None = None, first: int = FRESH
) -> Probe:
    """Noise differences of a prompt on sample numbers from `first` on, by default 1000, 1001, ...

    `seeds`: how many, by default as many as the settings name.
    """
    count = settings.samples if seeds is None else seeds
    return Probe(model, prompt, settings, range(first, first + count))


def finished(
    model: Model,
    prompt: str,
    images: int,
    settings: ImageSettings,
    edit: AbstractContextManager[None],
) -> list[Image.Image]:
    """Finished images of a prompt with sample numbers 1000, 1001, ..., made while `edit` is in
    force.
    """
    with edit:
        return generate(model, prompt, range(FRESH, FRESH + images), settings)


def nearest(
    images: Sequence[Image.Image], pictures: Sequence[Image.Image], descriptor: Descriptor
) -> Tensor:
    """Similarity of each image to the most similar training picture, (N,), in [-1, 1]."""
    return descriptor.similarity(images, pictures).amax(1)


def replicating(deltas: Tensor, settings: Settings, tau: float | None) -> list[int]:
    """Positions of the seeds that replicate: their noise differences (N, C, H, W) resemble those of
    the others (`scores.by_seed`) by `tau` (Algorithm 1).

    There are none if their score together is under `tau`.
    """
    if tau is None:
        return list(range(len(deltas)))
    table = pairwise(deltas, settings.similarity)
    if not settings.reaches(float(score_of(table, settings.pairs)), tau):
        return []
    best = by_seed(table, settings.pairs)
    return torch.nonzero(settings.reaches(best, tau)).flatten().tolist()


def same_seed(
    unblocked: Tensor, blocked: Tensor, settings: Settings, tau: float | None = None
) -> float | None:
    """Largest similarity of a replicating seed's noise difference (N, C, H, W) with neurons off to
    its own before.

    None if no seed replicates: then these seeds show no memory that could be gone.
    """
    kept = replicating(unblocked, settings, tau)
    return _largest(unblocked[kept], blocked[kept], settings) if kept else None


def same_seed_of_memory(
    unblocked: Tensor, blocked: Tensor, settings: Settings, tau: float | None = None
) -> float:
    """`same_seed` of a caption known to be memorized; if no seed replicates, over all seeds."""
    alike = same_seed(unblocked, blocked, settings, tau)
    return _largest(unblocked, blocked, settings) if alike is None else alike


def _largest(unblocked: Tensor, blocked: Tensor, settings: Settings) -> float:
    return float(SIMILARITIES[settings.similarity](unblocked, blocked).max())
