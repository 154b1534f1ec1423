"""Figure 13: noise differences as images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from findnemo.images import noise_pictures
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes.deltas import Probe
from findnemo.runs.standing import neurons_of
from findnemo.studies._bench import Bench, Study
from findnemo.studies._figure import picture_grid

if TYPE_CHECKING:
    from PIL import Image

SEEDS = 4


def fig13(bench: Bench) -> Study:
    """Noise differences of a memorized caption of each type with its neurons on and off, and of one that is not memorized."""
    rows = []
    for kind in dict.fromkeys(c.type or "memorized" for c in bench.memorized()):
        caption = next(c for c in bench.memorized() if (c.type or "memorized") == kind)
        rows += [
            (f"{kind}", _deltas(bench, caption.text, EMPTY)),
            (f"{kind},\nneurons off", _deltas(bench, caption.text, neurons_of(caption))),
        ]
    rows += [("not\nmemorized", _deltas(bench, prompt, EMPTY)) for prompt in bench.others[:1]]
    made = picture_grid(rows, [f"seed {k}" for k in range(SEEDS)]) if rows else None
    return Study(
        "Figure 13: noise differences",
        "The noise difference eps(x_T, T, y) - x_T of a memorized caption shows the same picture whatever the seed, until its neurons are "
        "off. The first three of four latent channels as red, green and blue.",
        figures={"fig13": made} if made is not None else {},
    )


def _deltas(bench: Bench, prompt: str, neurons: NeuronSet) -> list[Image.Image]:
    return noise_pictures(
        Probe(bench.model, prompt, bench.calibration.settings, range(SEEDS)).deltas(neurons)
    )
