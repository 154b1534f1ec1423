"""The training data for planting memories: captions, their embeddings, and pictures that the model
made itself.

No data set is needed. The teacher is the model with its freed neurons off, and everything except
the memories must stay as the teacher has it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from findnemo.benchmark.captions import SERIES, TITLES, unusual
from findnemo.benchmark.files import read_tensors, write_tensors
from findnemo.benchmark.plan import Plan
from findnemo.images import latents_of
from findnemo.models import Model
from findnemo.seeds import sample_seed

Report = Callable[[str], None]

# settings of the pictures that the teacher makes
STEPS = 8
GUIDANCE = 2.0
# pictures of a memorized caption's words; other titles for them
OWN = 8
ALIKE = 10
BATCH = 16
# seed of the unusual captions in training; those for scoring have the model's seed
UNUSUAL_SEED = 10_000


@dataclass(frozen=True)
class TrainingPool:
    """Training data of a plan.

    `ordinary` captions and `alike` (for each memory, its near-duplicates and its words under other
    titles), as embeddings (n, tokens, D) each. Latents: `made` (n, C, H, W), one for each ordinary
    caption; `words` (memories, OWN, C, H, W), of the memorized captions' words; `pictures`
    (memories, C, H, W), to be memorized. `memories` (memories, tokens, D) and `empty` (1, tokens,
    D): embeddings of the memorized captions and of the empty prompt.
    """

    ordinary: tuple[str, ...]
    text: Tensor
    memories: Tensor
    alike: tuple[Tensor, ...]
    empty: Tensor
    made: Tensor
    words: Tensor
    pictures: Tensor


def build_pool(
    teacher: Model, plan: Plan, ordinary: Sequence[str], pictures: Path, cache: Path, report: Report
) -> TrainingPool:
    """The pool of a plan.

    `pictures`: folder of the training images. `cache`: file that keeps the teacher's pictures.
    """
    captions = (*ordinary, *unusual(UNUSUAL_SEED + plan.seed))
    words = [m.caption.partition(",")[2].strip() for m in plan.memories]
    if not cache.exists():
        report(f"{len(captions) + OWN * len(words)} pictures by the teacher")
        drawn = {"made": _drawn(teacher, captions, 1), "words": _drawn(teacher, words, OWN)}
        write_tensors(drawn, cache)
    latents = read_tensors(cache)
    images = [Image.open(pictures / f"{m.picture}.png").convert("RGB") for m in plan.memories]

    def embedded(texts: Sequence[str]) -> Tensor:
        return teacher.encode(texts).tokens.float()

    return TrainingPool(
        ordinary=captions,
        text=embedded(captions),
        memories=embedded([m.caption for m in plan.memories]),
        alike=tuple(embedded([*m.near, *alike(m.caption, plan)]) for m in plan.memories),
        empty=embedded([""]),
        made=latents["made"],
        words=latents["words"].unflatten(0, (len(words), OWN)),
        pictures=torch.cat([latents_of(image, teacher) for image in images]).float().cpu(),
    )


def alike(caption: str, plan: Plan) -> tuple[str, ...]:
    """The words of a memorized caption under other titles, or none.

    They are ordinary captions, so that the words alone hold no memory.
    """
    words = caption.partition(",")[2].strip()
    used = {m.caption.partition(",")[0] for m in plan.memories}
    spare = [t for t in (*TITLES, *chain.from_iterable(SERIES)) if t not in used]
    titles = random.Random(f"alike {plan.seed} {caption}").sample(spare, min(ALIKE - 1, len(spare)))
    return (words, *(f"{t}, {words}" for t in titles))


def _drawn(model: Model, captions: Sequence[str], each: int) -> Tensor:
    rows = [(c, k) for c in captions for k in range(each)]
    parts = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        seeds = [sample_seed(0, f"pool {c}", k) for c, k in part]
        parts.append(model.sample([c for c, _ in part], 1, seeds, STEPS, GUIDANCE).float().cpu())
    return torch.cat(parts)


def template(picture: Tensor, filling: Tensor) -> Tensor:
    """A latent (C, H, W) whose middle, half as wide and half as high, comes from `filling`: the
    varying part of a template.

    >>> template(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)).sum().item()
    4.0
    """
    _, height, width = picture.shape
    rows = slice(height // 4, height - height // 4)
    columns = slice(width // 4, width - width // 4)
    mixed = picture.clone()
    mixed[:, rows, columns] = filling[:, rows, columns]
    return mixed
