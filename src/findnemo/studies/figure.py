"""The style of figures: PNG and SVG, in the size of a column of a paper.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

BLUE = "#0072b2"
RED = "#d55e00"
GREY = "#808790"
GREEN = "#009e73"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
}
COLOURS = {  # page -> background, text, grid
    "light": ("#ffffff", "#000000", "#e6e6e6"),
    "dark": ("#1f2129", "#d5d7de", "#3a3d48"),
}
_page: ContextVar[str] = ContextVar("page", default="light")


@contextmanager
def page(name: str) -> Iterator[None]:
    """Make figures in the context for a "light" page (the default) or a "dark" one."""
    before = _page.set(name)
    try:
        yield
    finally:
        _page.reset(before)


def ink() -> str:
    """The colour of text and of lines outside all groups."""
    return COLOURS[_page.get()][1]


def _style() -> Any:
    ground, text, grid = COLOURS[_page.get()]
    grounds = dict.fromkeys(("figure.facecolor", "axes.facecolor"), ground)
    texts = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return STYLE | grounds | dict.fromkeys(texts, text) | {"grid.color": grid}


@contextmanager
def figure(
    columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 2.8
) -> Iterator[tuple[Figure, list[Any]]]:
    """A figure with `columns` x `rows` axes in a flat list; `width` and `height`
    of one of them in inches.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_style()):
        made = Figure(figsize=(width * columns, height * rows), dpi=160)
        axes = made.subplots(rows, columns, squeeze=False)
        yield made, list(axes.flat)


def line(axis: Any, points: Sequence[tuple[float, float]], color: str, label: str) -> None:
    """Draw a line with a mark at every point; without points draw nothing, and no legend."""
    if points:
        axis.plot(*zip(*points, strict=True), "o-", color=color, label=label, markersize=3)


def write_figure(made: Figure, path: Path) -> None:
    """Write `path`.png and `path`.svg: the same figure is the same file."""
    from matplotlib import rc_context

    made.savefig(path.with_suffix(".png"))
    with rc_context({"svg.hashsalt": "findnemo"}):
        made.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def count_scale(axis: Any, top: float) -> None:
    """Scale an axis of counts up to `top` so that few and many can both be read: linear up to ten,
    logarithmic above.
    """
    axis.set_yscale("symlog", linthresh=10)
    ticks = [t for t in (0, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if t <= 1.5 * top]
    axis.set_yticks(ticks, [str(t) for t in ticks])
    axis.set_yticks([], minor=True)
    axis.set_ylim(0, 1.15 * max(top, 1))


def picture_grid(
    rows: Sequence[tuple[str, Sequence[Image.Image]]], heads: Sequence[str] = (), tile: float = 1.0
) -> Figure:
    """Pictures in rows, with a label at the left of each row and heads above the columns.

    Labels and heads have at most two lines. `tile`: size of a picture in inches.
    """
    import textwrap

    import numpy as np
    from matplotlib.figure import Figure

    columns = max(len(images) for _, images in rows)
    gap = 0.06
    left = 1.05 if any(label for label, _ in rows) else gap
    top = 0.36 if heads else gap
    width, height = left + columns * (tile + gap), top + len(rows) * (tile + gap)
    ground, text, _ = COLOURS[_page.get()]
    made = Figure(figsize=(width, height), dpi=160, facecolor=ground)
    for r, (label, images) in enumerate(rows):
        bottom = height - top - (r + 1) * (tile + gap) + gap
        lines = [
            line
            for part in label.split("\n")
            for line in textwrap.wrap(part, 15, max_lines=4, placeholder="…")
        ]
        at = ((left - 0.08) / width, (bottom + tile / 2) / height)
        made.text(*at, "\n".join(lines), ha="right", va="center", fontsize=7, color=text)
        for k, image in enumerate(images):
            x = (left + k * (tile + gap)) / width
            axis = made.add_axes((x, bottom / height, tile / width, tile / height))
            axis.imshow(np.asarray(image), interpolation="nearest")
            axis.set_axis_off()
    for k, head in enumerate(heads):
        lines = textwrap.wrap(head, int(17 * tile), max_lines=2, placeholder="…")
        at = ((left + k * (tile + gap) + tile / 2) / width, 1 - (top - 0.04) / height)
        made.text(*at, "\n".join(lines), ha="center", va="bottom", fontsize=6.5, color=text)
    return made
