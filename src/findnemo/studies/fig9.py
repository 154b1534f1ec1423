"""Figure 9 and appendix C.4: highly memorized captions.

The paper shows images of captions whose memory persists. We choose them by a measure of our own:
with the neurons of Algorithms 1 to 4 off, their images stay most similar to the training image.
Next to these are images with the neurons off that the run itself found.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten

from findnemo.errors import InputError
from findnemo.metrics.copies import COPY
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.studies._bench import Bench, Study, first_image
from findnemo.studies.figure import picture_grid
from findnemo.studies.table import Cell, Table

MOST = 6  # captions to show
SETS = ("all on", "Algorithms 1 to 4", "the run's own")


@dataclass(frozen=True)
class CaptionTrial:
    """A caption with each of SETS off: the sets, and SSCD_orig with each."""

    caption: Caption
    sets: tuple[NeuronSet, ...]
    similar: tuple[float, ...]


def fig9(bench: Bench) -> Study:
    """The captions whose images stay most similar to the training image (SSCD_orig) with the
    neurons of the listing off: pictures before and after, and numbers of neurons.
    """
    trials = sorted(_trials(bench), key=lambda trial: -trial.similar[1])
    rows: list[list[Cell]] = [
        [t.caption.text, t.caption.type, t.similar[0], *_pairs(t)] for t in trials
    ]
    heads = ["caption", "type", f"SSCD_orig, {SETS[0]}"]
    heads += [f"{what}, {name}" for name in SETS[1:] for what in ("neurons", "SSCD_orig")]
    note = "SSCD_orig: median over the seeds. Order: by what Algorithms 1 to 4 leave."
    left = [sum(t.similar[k] > COPY for t in trials) for k in (1, 2)]
    text = (
        f"With the neurons of Algorithms 1 to 4 off the images of {left[0]} of {len(trials)}"
        f" captions stay copies of the training image (SSCD_orig over {COPY:g}), with those that the"
        f" run has found of {left[1]}. Pictures: the captions that stay most alike, one seed."
    )
    shown = trials[:MOST]
    asked = [(t.caption.text, neurons) for t in shown for neurons in t.sets]
    pictures = iter(bench.over("fig9, pictures", first_image, asked))
    grid = [
        (_label(t), [original, *(next(pictures) for _ in SETS)])
        for t in shown
        if (original := bench.work.original(t.caption)) is not None
    ]
    figures = {"fig9": picture_grid(grid, ["training image", *SETS], tile=1.2)}
    table = Table("Highly memorized captions", heads, rows, note)
    return Study(text, [table], figures)


def _trials(bench: Bench) -> list[CaptionTrial]:
    """The captions with all values known.

    Raises InputError if there are none.
    """
    captions = [c for c in bench.sample() if bench.work.original(c) is not None]
    listed = bench.listed_neurons(captions)
    sets = [(c, (EMPTY, listed[c.id][1], neurons_of(c))) for c in captions if c.id in listed]
    cases = {(c.id, k): (c, one, 0.0) for c, three in sets for k, one in enumerate(three)}
    found = bench.off("fig9", cases)
    trials = []
    for caption, three in sets:
        payloads = [found.get((caption.id, k), {}) for k in range(len(three))]
        similar = tuple(p["sscd_orig"] for p in payloads if "sscd_orig" in p)
        if len(similar) == len(three):
            trials.append(CaptionTrial(caption, three, similar))
    if not trials:
        raise InputError(
            "no caption with neurons has an available training image: see originals/failures.jsonl"
        )
    return trials


def _pairs(trial: CaptionTrial) -> list[Cell]:
    sets = zip(trial.sets, trial.similar, strict=True)
    return [cell for neurons, similar in list(sets)[1:] for cell in (len(neurons), similar)]


def _label(trial: CaptionTrial) -> str:
    counts = " / ".join(str(len(neurons)) for neurons in trial.sets[1:])
    return f"{shorten(trial.caption.text, 40, placeholder='…')}\nneurons: {counts}"
