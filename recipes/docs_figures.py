"""Makes the figures of the documentation, docs/images/*.png, from a run of the demo model, each
for light pages and, as *-dark.png, for dark ones.

    findnemo demo --out findnemo-demo
    findnemo verify findnemo-demo
    python recipes/docs_figures.py findnemo-demo

They are figures of `findnemo study`, in fewer colours; and the curves of the attack, where the run
was verified.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from findnemo.cli._studies import study
from findnemo.runs import Run
from findnemo.runs.evidence import labelled
from findnemo.studies.figure import BLUE, GREEN, GREY, RED, figure, ink, page, write_figure

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FIGURES = {  # study -> file, without suffix
    "fig13": "noise-differences",
    "fig2a": "scores",
    "fig2b": "z-scores",
    "fig4": "neurons-per-prompt",
    "fig10": "shared-neurons",
}
COLORS = 256
SUFFIXES = {"light": "", "dark": "-dark"}  # page -> end of the file names
LINES = (RED, BLUE, GREEN, GREY)  # curves of the attack, in the order in which a run keeps them


def shrink(source: Path, target: Path) -> None:
    """A picture in few colours, which is what makes the file small; its size in pixels stays."""
    Image.open(source).convert("RGB").quantize(COLORS).save(target, optimize=True)


def draw_attack(attack: dict[str, Any], path: Path) -> None:
    """The curves of the attack with their bands; beside them the gaps between
    the wanted pictures and controls.
    """
    with figure(columns=2, height=3.0) as (made, (left, right)):
        for (name, line), color in zip(attack["curves"].items(), LINES, strict=False):
            left.plot(*zip(*line, strict=True), color=color, marker="o", markersize=3, label=name)
            if band := attack["bands"][name]:
                left.fill_between(*zip(*band, strict=True), color=color, alpha=0.15, linewidth=0)
        left.set(xlabel=attack["x"], ylabel=attack["y"])
        for k, (name, points) in enumerate(attack["gaps"].items()):
            color = GREY if name.endswith("mirrored") else BLUE  # as the control's curve
            for place, (_, value, low, high) in enumerate(points):
                at = place + 0.2 * k - 0.1
                right.plot(
                    [at],
                    [value],
                    "o",
                    color=color,
                    markersize=4,
                    label=name.partition(": ")[2] if place == 0 else None,
                )
                if low is not None:
                    right.plot([at, at], [low, high], color=color)
            right.set_xticks(range(len(points)), [f"{point[0]:g}" for point in points])
        right.axhline(0, color=ink(), linewidth=0.8, linestyle="--")
        right.set(xlabel=attack["x"], ylabel="gap, neurons off")
        for axes in (left, right):
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2 if axes is left else 1
            )
        write_figure(made, path)


def draw(run: Path, suffix: str) -> None:
    """All figures, each in a file with the suffix."""
    with tempfile.TemporaryDirectory() as folder:
        study(name=",".join(FIGURES), run=run, out=Path(folder), quiet=True)
        for name, file in FIGURES.items():
            shrink(Path(folder) / f"{name}.png", IMAGES / f"{file}{suffix}.png")
        with Run.open(run) as opened:
            attack = opened.meta("attack")
        if attack:
            draw_attack(labelled(attack), Path(folder) / "attack")
            shrink(Path(folder) / "attack.png", IMAGES / f"attack-curves{suffix}.png")


def main(run: Path) -> None:
    for name, suffix in SUFFIXES.items():
        with page(name):
            draw(run, suffix)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
