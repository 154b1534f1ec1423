"""Figure 13: noise differences as images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from findnemo.images import noise_pictures
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.passes import Probe
from findnemo.runs.standing import neurons_of
from findnemo.settings import Settings
from findnemo.studies._bench import Bench, Desk, Study, by_type
from findnemo.studies.figure import picture_grid

if TYPE_CHECKING:
    from PIL import Image

SEEDS = 4


def fig13(bench: Bench) -> Study:
    """Noise differences of a memorized caption of each type with its neurons on and off, and of a
    caption that is not memorized.
    """
    items: dict[str, tuple[str, NeuronSet]] = {}  # label -> caption, neurons that are off
    for kind, (caption, *_) in by_type(bench.memorized_captions(), none="memorized").items():
        items[kind] = (caption.text, EMPTY)
        items[f"{kind},\nneurons off"] = (caption.text, neurons_of(caption))
    for prompt in bench.others[:1]:
        items["not\nmemorized"] = (prompt, EMPTY)
    compute = partial(_deltas, settings=bench.calibration.settings)
    pictures = bench.over("fig13", compute, list(items.values()))
    rows = list(zip(items, pictures, strict=True))
    heads = [f"seed {k}" for k in range(SEEDS)]
    return Study(
        "The noise difference eps(x_T, T, y) - x_T of a memorized caption shows the same picture"
        " whatever the seed, until its neurons are off. The first three of four latent channels as"
        " red, green and blue.",
        figures={"fig13": picture_grid(rows, heads)} if rows else {},
    )


def _deltas(desk: Desk, item: tuple[str, NeuronSet], settings: Settings) -> list[Image.Image]:
    prompt, neurons = item
    return noise_pictures(Probe(desk.model, prompt, settings, range(SEEDS)).deltas(neurons))
