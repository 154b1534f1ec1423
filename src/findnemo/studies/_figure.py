"""How figures look: one style, PNG and SVG, in the size of a column of a paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

BLUE, RED, GREY, GREEN = "#2d6a9f", "#c8553d", "#8a8f98", "#5b8c5a"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "findnemo",  # the same figure is the same file
}


@contextmanager
def figure(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 2.8) -> Iterator[tuple[Figure, list[Any]]]:
    """A figure with `columns` x `rows` axes in a flat list; `width` and `height` of one of them in inches."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        made = Figure(figsize=(width * columns, height * rows), dpi=160)
        FigureCanvasAgg(made)
        axes = made.subplots(rows, columns, squeeze=False)
        yield made, list(axes.flat)


def write_figure(made: Figure, path: Path) -> None:
    """Write `path`.png and `path`.svg."""
    made.savefig(path.with_suffix(".png"))
    made.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def picture_grid(rows: Sequence[tuple[str, Sequence[Image.Image]]], heads: Sequence[str] = (), tile: float = 1.0) -> Figure:
    """Pictures in rows with a label at the left of each and heads above the columns; `tile` in inches."""
    import numpy as np

    columns = max(len(images) for _, images in rows)
    with figure(columns, len(rows), tile * 1.05, tile * 1.12) as (made, axes):
        for k, axis in enumerate(axes):
            axis.set_axis_off()
            label, images = rows[k // columns]
            if k % columns < len(images):
                axis.imshow(np.asarray(images[k % columns]), interpolation="nearest")
            if k < len(heads):
                axis.set_title(heads[k], fontsize=8)
            if k % columns == 0:
                axis.text(-0.08, 0.5, label, transform=axis.transAxes, ha="right", va="center", fontsize=8)
    return made
