"""Makes the figures of the documentation, docs/images/*.png, from a run of the demo model.

    findnemo demo --out findnemo-demo
    python recipes/docs_figures.py findnemo-demo

They are figures of `findnemo study`, in fewer colours.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from findnemo.cli._studies import study

IMAGES = Path(__file__).parents[1] / "docs" / "images"
FIGURES = {  # study -> file, without suffix
    "fig13": "noise-differences",
    "fig2a": "scores",
    "fig2b": "z-scores",
    "fig4": "neurons-per-prompt",
    "fig10": "shared-neurons",
}
COLORS = 256


def shrink(source: Path, target: Path) -> None:
    """A picture in few colours, which is what makes the file small; its size in pixels stays."""
    Image.open(source).convert("RGB").quantize(COLORS).save(target, optimize=True)


def main(run: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        study(name=",".join(FIGURES), run=run, out=Path(folder), quiet=True)
        for name, file in FIGURES.items():
            shrink(Path(folder) / f"{name}.png", IMAGES / f"{file}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
