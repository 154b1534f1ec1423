"""HTML of the page: captions as thumbnails, pictures side by side, and the map of the neurons.

Pictures are embedded in the HTML. All text of unknown origin is escaped (`text.escaped`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from findnemo.app.edit import Edit, Widths
from findnemo.app.text import escaped, short
from findnemo.files.html import data_uri
from findnemo.neurons import Neuron
from findnemo.runs.wording import count

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL = 128  # pixels of the longer side
LARGE = 320
QUALITY = 90
NARROW = 32  # neurons in a row of the map
WIDE = 64  # neurons in a row if a layer has more than MANY
MANY = 128
CELL = 10  # side of a neuron in the map, in units


def _picture(image: Image.Image, told: str, most: int) -> str:
    return f'<img src="{data_uri(image, most, QUALITY)}" alt="{escaped(told)}">'


# captions -----------------------------------------------------------------------------------------


class Card(NamedTuple):
    """A caption of a run as a thumbnail. `tone`: "good", "bad", "open" or ""."""

    id: int
    row: int
    text: str
    said: str
    tone: str
    beside: str
    before: Image.Image | None = None
    after: Image.Image | None = None


def grid(cards: Iterable[Card]) -> str:
    """Captions as buttons, each with a picture before and after, and its state."""
    return f'<ul class="cards">{"".join(f"<li>{_card(card)}</li>" for card in cards)}</ul>'


def _card(card: Card) -> str:
    named = (("before", card.before), ("with the neurons off", card.after))
    pair = "".join(_picture(image, told, THUMBNAIL) for told, image in named if image is not None)
    shown = pair or "<span class='none'>no picture</span>"
    return (
        f'<button type="button" data-caption="{card.id}"><span class="pair">{shown}</span>'
        f'<span class="state {card.tone}">{escaped(card.said)}</span>'
        f'<span class="words"><bdi>{card.row}: {escaped(short(card.text))}</bdi></span>'
        f'<span class="soft">{escaped(card.beside)}</span></button>'
    )


# pictures of one caption --------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of pictures, one for each seed; `alike`: the text under each."""

    label: str
    images: Sequence[Image.Image]
    alike: Sequence[float] = ()


def side_by_side(training: Image.Image | None, lines: Iterable[Line], seed: int) -> str:
    """The training image, and lines of pictures of equal seeds from `seed` on, below each other;
    empty without pictures.
    """
    drawn = [line for line in lines if line.images]
    if training is None and not drawn:
        return ""
    seeds = range(seed, seed + max((len(line.images) for line in drawn), default=0))
    head = "".join(f'<th scope="col">seed {k}</th>' for k in seeds)
    rows = "".join(_line(line, seeds) for line in drawn)
    table = f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="beside">{_training(training)}{table if drawn else ""}</div>'


def _training(image: Image.Image | None) -> str:
    if image is None:
        return ""
    picture = _picture(image, "The training image", LARGE)
    return f"<figure>{picture}<figcaption>Training image</figcaption></figure>"


def _line(line: Line, seeds: Sequence[int]) -> str:
    alike = [f"<small>{value:.2f}</small>" for value in line.alike] or [""] * len(line.images)
    cells = "".join(
        f"<td>{_picture(image, f'{line.label}, seed {seed}', LARGE)}{under}</td>"
        for image, seed, under in zip(line.images, seeds, alike, strict=False)
    )
    return f'<tr><th scope="row">{escaped(line.label)}</th>{cells}</tr>'


def meter(name: str, before: float, now: float, copy: float) -> str:
    """A similarity before and now on a scale from 0 to 1, with the value of a copy."""
    told = f"{name}: {before:.2f} before, {now:.2f} now; a copy from {copy:g}"
    marks = (("was", before), ("now", now), ("limit", copy))
    drawn = "".join(
        f'<i class="{mark}" style="left: {100 * min(max(value, 0.0), 1.0):.1f}%"></i>'
        for mark, value in marks
    )
    return (
        f'<div class="meter"><p>{escaped(told)}</p>'
        f'<div class="scale" aria-hidden="true">{drawn}</div></div>'
    )


# neurons ------------------------------------------------------------------------------------------


def state_of(edit: Edit, neuron: Neuron) -> str:
    """What an edit does to a neuron: "off", "scaled" or "on"."""
    return "off" if neuron in edit.off else "scaled" if neuron in edit.scaled else "on"


def chips(found: Iterable[tuple[str, Neuron]], edit: Edit, layers: Sequence[str]) -> str:
    """The neurons of a caption as buttons; `found`: (label, neuron) of each."""
    drawn = "".join(
        f'<button type="button" class="{(state := state_of(edit, (name, index)))}"'
        f' data-layer="{layers.index(name)}" data-index="{index}">'
        f"{escaped(label)}: {state}</button>"
        for label, (name, index) in found
        if name in layers
    )
    return f'<div class="chips">{drawn}</div>' if drawn else ""


def neuron_map(widths: Widths, edit: Edit, found: Sequence[Neuron]) -> str:
    """All value layers in forward order, with a cell for each neuron: framed if found for the
    caption, filled if off or scaled.
    """
    columns = NARROW if max(widths.values(), default=0) <= MANY else WIDE
    rows = "".join(
        _layer(k, name, width, columns, edit, found)
        for k, (name, width) in enumerate(widths.items())
    )
    return f'<div class="map">{rows}</div>'


def _layer(
    number: int, name: str, width: int, columns: int, edit: Edit, found: Sequence[Neuron]
) -> str:
    off = edit.off.layer(name)
    scaled = edit.scaled.layer(name)
    rows = -(-width // columns)
    cells = [_cell(index, columns, "off") for _, index in off]
    cells += [_cell(index, columns, "scaled") for _, index in scaled]
    cells += [_cell(index, columns, "found") for layer, index in found if layer == name]
    full = width // columns * CELL
    ground = f'<rect width="{columns * CELL}" height="{full}" fill="url(#cell)"/>'
    if rest := width % columns:
        ground += f'<rect y="{full}" width="{rest * CELL}" height="{CELL}" fill="url(#cell)"/>'
    told = f"layer {number + 1}: {count(width, 'neuron')}, {len(off)} off, {len(scaled)} scaled"
    return (
        f'<div class="layer"><button type="button" data-layer="{number}" title="{escaped(name)}"'
        f' aria-label="{told}">layer {number + 1}</button>'
        f'<svg aria-hidden="true" data-layer="{number}" data-width="{width}"'
        f' data-columns="{columns}" viewBox="0 0 {columns * CELL} {rows * CELL}">'
        f'<pattern id="cell" width="{CELL}" height="{CELL}" patternUnits="userSpaceOnUse">'
        f'<rect class="on" x="1" y="1" width="{CELL - 2}" height="{CELL - 2}"/></pattern>'
        f"{ground}{''.join(cells)}</svg></div>"
    )


def _cell(index: int, columns: int, kind: str) -> str:
    row, column = divmod(index, columns)
    place = f'x="{column * CELL + 1}" y="{row * CELL + 1}"'
    return f'<rect class="{kind}" {place} width="{CELL - 2}" height="{CELL - 2}"/>'
