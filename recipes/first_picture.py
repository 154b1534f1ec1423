"""Makes the first picture of README and docs, docs/images/example.png, and an animation of the
second caption in it, docs/images/dissolve.gif, in which its neurons go off.

    findnemo demo --out findnemo-demo
    findnemo demo --natural --out findnemo-natural
    python recipes/first_picture.py findnemo-demo findnemo-natural

A planted memory, and one that fine-tuning made: the training image, ten seeds before, and the
same ten with the caption's neurons off. The two captions are chosen by hand (CHOSEN): a
planted one whose images afterwards are plainly what the caption says, and a natural one whose copy
is plain; afterwards its images are of nothing, as those of most natural memories here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import findnemo
from findnemo import demo
from findnemo.images import generate, sheet
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs import Caption, Run, neurons_of

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHOSEN = ("Commander Ilse Varga", "Wrexling Quarter")  # how they begin: planted, natural
SEEDS = range(1000, 1010)  # sample numbers: those of an audit's finished images, and the next
TILE = 84
COLOURS = 256
FRAMES = 24
PAUSE = 180  # milliseconds a frame; the first and the last stay ten times as long


def caption_of(run: Run, begins: str) -> Caption:
    """The caption of a run that begins so. Raises StopIteration where there is none."""
    return next(c for c in run.captions() if c.text.startswith(begins))


def images(
    model: Model, caption: Caption, neurons: NeuronSet, seeds: Sequence[int]
) -> list[Image.Image]:
    """Finished images of a caption with `neurons` off, in all steps."""
    with findnemo.deactivate(model, neurons):
        return generate(model, caption.text, seeds, demo.image_settings())


def example(run: Run, begins: str) -> Image.Image:
    """The sheet of one caption."""
    source = run.meta("source")
    model = findnemo.load(source)
    caption = caption_of(run, begins)
    neurons = neurons_of(caption)
    all_of_them = sum(run.meta("widths").values())
    off = f"{len(neurons)} of {all_of_them} neurons off"
    rows = [
        ("before, ten seeds", images(model, caption, EMPTY, SEEDS)),
        (f"after, the same seeds: {off}", images(model, caption, neurons, SEEDS)),
    ]
    return sheet(caption.text, rows, demo.training_image(caption.text, source), TILE)


def dissolving(run: Run, begins: str) -> list[Image.Image]:
    """Images of a caption while the neurons of its ranking go off, one frame after the other."""
    source = run.meta("source")
    model = findnemo.load(source)
    caption = caption_of(run, begins)
    assert caption.localized is not None
    order = caption.localized.order
    steps = sorted({round(k * len(order) / (FRAMES - 1)) for k in range(FRAMES)})
    original = demo.training_image(caption.text, source)
    frames = []
    for count in steps:
        made = images(model, caption, NeuronSet.of(order[:count]), SEEDS[:4])
        name = f"{count} neuron{'s' * (count != 1)} off"
        frames.append(sheet(caption.text, [(name, made)], original, TILE + 12))
    return frames


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """Pictures under each other."""
    size = (max(one.width for one in sheets), sum(one.height for one in sheets))
    canvas = Image.new("RGB", size, "white")
    top = 0
    for one in sheets:
        canvas.paste(one, (0, top))
        top += one.height
    return canvas


def main(planted: Path, natural: Path) -> None:
    sheets = []
    for place, begins in zip((planted, natural), CHOSEN, strict=True):
        with Run.open(place) as run:
            sheets.append(example(run, begins))
    picture = stacked(sheets).quantize(COLOURS)
    picture.save(IMAGES / "example.png", optimize=True)
    with Run.open(natural) as run:
        frames = dissolving(run, CHOSEN[1])
    pauses = [10 * PAUSE, *[PAUSE] * (len(frames) - 2), 10 * PAUSE]
    few = [frame.quantize(64) for frame in frames]
    few[0].save(
        IMAGES / "dissolve.gif", save_all=True, append_images=few[1:], duration=pauses, loop=0
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
