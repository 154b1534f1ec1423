"""Make pictures in all steps for the captions that a report shows first, in runs with quick
pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from findnemo.errors import NumericalError
from findnemo.files.writing import write_all
from findnemo.images import ImageSettings, png
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import pictures
from findnemo.runs.stages import Progress, no_progress
from findnemo.runs.standing import (
    all_neurons,
    folder_of,
    neurons_of,
    standing,
    state,
    verification_of,
    worst_first,
)
from findnemo.runs.store import Caption, Run
from findnemo.runs.workers import Pool, answer_of
from findnemo.seeds import FRESH

FIRST = 6  # memorized captions for which the report shows a finished pair

# a caption, the sample number and the neurons of an image, and its file
Wanted = tuple[str, int, NeuronSet, str]


def finish_first(
    run: Run, settings: ImageSettings, pool: Pool, progress: Progress = no_progress
) -> None:
    """For each caption that a report shows first, make a pair of images in all steps: untouched and
    edited, of the confirmed seed.

    These captions are the first whose memory is gone, then the worst ones, FIRST in all. The cost
    is at most two images in all steps a caption, and nothing if the run has them.
    """
    memorized = (c for c in run.captions(stage="verify") if state(c) == "memorized")
    together = all_neurons(run.captions(stage="localize"))
    wanted = _wanted(run.path, worst_first(memorized), together)
    if wanted:
        making = partial(_made, settings=settings)
        made = answer_of(pool, making, tuple(wanted), "images for the report", progress)
        write_all({run.path / file: data for file, data in made.items()})


def _wanted(path: Path, memorized: Sequence[Caption], together: NeuronSet) -> list[Wanted]:
    example = [caption for caption in memorized if standing(caption) == "gone"][:1]
    others = [caption for caption in memorized if caption not in example]
    wanted = []
    for caption in [*example, *others][:FIRST]:
        checked = verification_of(caption)
        if checked is None or checked.seed is None:
            continue
        first = FRESH if caption.together is None else caption.together.first
        neurons = neurons_of(caption) if caption.together is None else together
        pair = {"before": EMPTY} | ({"after": neurons} if neurons else {})
        for when, off in pair.items():
            file = f"{folder_of(caption)}/images/{caption.slug}/{when}-{checked.seed:02d}.png"
            if not (path / file).is_file():
                wanted.append((caption.text, first + checked.seed, off, file))
    return wanted


def _made(model: Model, wanted: Sequence[Wanted], settings: ImageSettings) -> dict[str, bytes]:
    """File -> content, without images for which the model returns NaN."""
    files = {}
    for text, sample, off, file in wanted:
        with suppress(NumericalError):
            (image,) = pictures(model, text, [sample], settings, off)
            files[file] = png(image)
    return files
