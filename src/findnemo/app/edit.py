"""An edit as a value: neurons that are off, and neurons that are scaled.

All functions are pure: a click, the slider or a link gives another edit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from urllib.parse import parse_qsl, quote, urlencode

from findnemo.app.text import short
from findnemo.errors import InputError
from findnemo.neurons import EMPTY, Neuron, NeuronSet
from findnemo.runs.wording import count

LONGEST = 10_000  # longest text of neurons, and of a typed caption, in characters
LONGEST_LINK = 4_000
FACTORS = (-1.0, 1.0)
FINE = 8  # for at most so many neurons, the slider also stops between two
STEPS = 4  # stops of that slider from one neuron to the next
HALF = 0.5
SEEDS = 2**31

Widths = Mapping[str, int]  # value layer -> number of its neurons, in forward order


@dataclass(frozen=True)
class Edit:
    """Neurons whose outputs are multiplied by 0, and others whose outputs are multiplied by
    `factor`.
    """

    off: NeuronSet = EMPTY
    scaled: NeuronSet = EMPTY
    factor: float = HALF

    def __bool__(self) -> bool:
        return bool(self.off or self.scaled)

    def __str__(self) -> str:
        """The edit in words: how many neurons are off, and how many scaled."""
        parts = [f"{count(len(self.off), 'neuron')} off"] if self.off or not self.scaled else []
        if self.scaled:
            parts.append(f"{count(len(self.scaled), 'neuron')} times {self.factor:g}")
        return ", ".join(parts)


NONE = Edit()


def check_factor(factor: float) -> float:
    """Raises InputError for a factor outside FACTORS."""
    if not (isinstance(factor, int | float) and FACTORS[0] <= factor <= FACTORS[1]):
        raise InputError(f"factor {factor} is outside {FACTORS[0]:g} to {FACTORS[1]:g}")
    return factor


def check_seed(seed: float) -> int:
    """Raises InputError for anything but a whole number from 0 to SEEDS - 1."""
    if not (isinstance(seed, int | float) and 0 <= seed < SEEDS and seed == int(seed)):
        raise InputError(f"seed {seed} is not a whole number from 0 to {SEEDS - 1}")
    return int(seed)


# clicks -------------------------------------------------------------------------------------------


def clicked(edit: Edit, neuron: Neuron) -> Edit:
    """The edit after a click on a neuron: on becomes off, off becomes scaled, scaled becomes on.

    >>> once = clicked(NONE, ("mid", 3))
    >>> twice = clicked(once, ("mid", 3))
    >>> once.off, twice.scaled, clicked(twice, ("mid", 3)) == NONE
    (NeuronSet({'mid': (3,)}), NeuronSet({'mid': (3,)}), True)
    """
    one = NeuronSet.of([neuron])
    if one <= edit.off:
        return replace(edit, off=edit.off - one, scaled=edit.scaled | one)
    if one <= edit.scaled:
        return replace(edit, scaled=edit.scaled - one)
    return replace(edit, off=edit.off | one)


def layer_clicked(edit: Edit, layer: str, width: int) -> Edit:
    """The edit after a click on the name of a layer: all its neurons go off, or on if they were.

    >>> layer_clicked(NONE, "mid", 2).off, layer_clicked(layer_clicked(NONE, "mid", 2), "mid", 2).off
    (NeuronSet({'mid': (0, 1)}), NeuronSet({}))
    """
    whole = NeuronSet({layer: range(width)})
    scaled = edit.scaled - whole
    off = edit.off - whole if whole <= edit.off else edit.off | whole
    return replace(edit, off=off, scaled=scaled)


# the slider ---------------------------------------------------------------------------------------


def step(order: Sequence[Neuron]) -> float:
    """The step of the slider, in neurons."""
    return 1 / STEPS if len(order) <= FINE else 1


def edit_at(order: Sequence[Neuron], position: float) -> Edit:
    """The first `position` neurons of an order off; a fraction scales the next neuron.

    >>> found = [("mid", 3), ("mid", 1)]
    >>> edit_at(found, 1.75)
    Edit(off=NeuronSet({'mid': (3,)}), scaled=NeuronSet({'mid': (1,)}), factor=0.25)
    """
    if not (isinstance(position, int | float) and 0 <= position <= len(order)):
        raise InputError(f"position {position} is not from 0 to {len(order)}")
    whole = int(position)
    part = position - whole
    scaled = NeuronSet.of(order[whole : whole + 1]) if part else EMPTY
    return Edit(NeuronSet.of(order[:whole]), scaled, 1 - part if part else HALF)


def position(order: Sequence[Neuron], edit: Edit) -> float:
    """The position of the slider for an edit: how many neurons of the order are off from the start.

    >>> found = [("mid", 3), ("mid", 1)]
    >>> position(found, edit_at(found, 1.75)), position(found, Edit(NeuronSet({"mid": [1]})))
    (1.75, 0)
    """
    whole = sum(1 for _ in takewhile(edit.off.__contains__, order))
    if whole < len(order) and order[whole] in edit.scaled:
        return whole + min(max(1 - edit.factor, 0.0), 1.0)
    return whole


# as text ------------------------------------------------------------------------------------------


def neurons_from_text(text: str, widths: Widths) -> NeuronSet:
    """The neurons in a text such as `LAYER: INDEX INDEX-INDEX; LAYER: INDEX`; a layer is given by
    its number, from 1, or its name.

    Raises InputError for any other text.

    >>> neurons_from_text("1: 3, 5-7; mid: 0", {"down": 8, "mid": 8})
    NeuronSet({'down': (3, 5, 6, 7), 'mid': (0,)})
    """
    if len(text) > LONGEST:
        raise InputError(f"{len(text)} characters name neurons: give {LONGEST} at most")
    found: dict[str, list[int]] = {}
    by_number = {str(k): name for k, name in enumerate(widths, 1)}
    for part in filter(None, (p.strip() for p in re.split(r"[;\n]", text))):
        layer, _, indices = (piece.strip() for piece in part.partition(":"))
        layer = by_number.get(layer, layer)
        ranges = [_range(piece) for piece in re.split(r"[,\s#]+", indices.strip(" ,#"))]
        if None in ranges:
            raise InputError(
                f"{short(part, 60)!r} names no neurons: write LAYER: INDEX INDEX, such as 1: 4 7;"
                " 3: 12-15"
            )
        if layer not in widths:
            raise InputError(
                f"no layer {short(layer, 60)!r}: give its number, 1 to {len(widths)}, or its whole"
                " name"
            )
        last = max(end for _, end in filter(None, ranges))
        if last >= widths[layer]:
            raise InputError(
                f"no neuron {last} in {layer}: it has {widths[layer]} (0 to {widths[layer] - 1})"
            )
        for first, end in filter(None, ranges):
            found.setdefault(layer, []).extend(range(first, end + 1))
    return NeuronSet(found)


def _range(text: str) -> tuple[int, int] | None:
    """The first and last number of `3` or `3-7`; None for anything else."""
    numbers = re.fullmatch(r"([0-9]{1,8})(?:-([0-9]{1,8}))?", text)
    if numbers is None:
        return None
    first, last = int(numbers[1]), int(numbers[2] or numbers[1])
    return (first, last) if first <= last else None


def neurons_as_text(neurons: NeuronSet, widths: Widths, between: str = " ") -> str:
    """Neurons as text that `neurons_from_text` reads.

    >>> neurons_as_text(NeuronSet({"mid": [0], "down": [5, 6, 7, 3]}), {"down": 8, "mid": 8})
    '1: 3 5-7; 2: 0'
    """
    gap = " " if between == " " else ""
    parts = [
        f"{k}:{gap}{between.join(_runs(neurons.layers[name]))}"
        for k, name in enumerate(widths, 1)
        if name in neurons.layers
    ]
    return f";{gap}".join(parts)


def _runs(indices: Sequence[int]) -> list[str]:
    """Sorted numbers as text, consecutive ones as a range."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]


# a link -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """The content of a link: a caption of a run by its id or a typed one, the edit, and the first
    seed.
    """

    id: int | None
    text: str
    edit: Edit
    seed: int


def link(view: View, widths: Widths, seed: int) -> str:
    """The query of a view; empty without a caption, or if longer than LONGEST_LINK.

    `seed`: the default seed, which the query omits.

    >>> link(View(3, "", Edit(NeuronSet({"mid": [1, 4]})), 7), {"mid": 8}, seed=1000)
    '?caption=3&off=1:1,4&seed=7'
    """
    edit = view.edit
    named = {
        "caption": view.id,
        "text": view.text if view.id is None else None,
        "off": neurons_as_text(edit.off, widths, ","),
        "scaled": neurons_as_text(edit.scaled, widths, ","),
        "factor": f"{edit.factor:g}" if edit.scaled else None,
        "seed": view.seed if view.seed != seed else None,
    }
    given = {name: value for name, value in named.items() if value not in (None, "")}
    query = f"?{urlencode(given, safe=':;,', quote_via=quote)}"
    return query if {"caption", "text"} & set(given) and len(query) <= LONGEST_LINK else ""


def view_from_query(asked: str, widths: Widths, seed: int) -> View | None:
    """The view that the query of an address requests; None without a request.

    `seed`: the default. Raises InputError for a query that `link` does not write.

    >>> view_from_query("?caption=3&off=1:1,4", {"mid": 8}, seed=1000)
    View(id=3, text='', edit=Edit(off=NeuronSet({'mid': (1, 4)}), scaled=NeuronSet({}), factor=0.5), seed=1000)
    """
    if len(asked) > LONGEST_LINK:
        raise InputError(f"the link has more than {LONGEST_LINK} characters")
    query = dict(parse_qsl(asked.removeprefix("?"), keep_blank_values=True))
    if not {"caption", "text"} & set(query):
        return None
    off = neurons_from_text(query.get("off", ""), widths)
    scaled = neurons_from_text(query.get("scaled", ""), widths) - off
    edit = Edit(off, scaled, check_factor(_number(query, "factor", HALF)))
    first = check_seed(_number(query, "seed", seed))
    if "caption" not in query:
        return View(None, query["text"], edit, first)
    number = _number(query, "caption", 0)
    if not number.is_integer():
        raise InputError(f"{number:g} in the link is no caption")
    return View(int(number), "", edit, first)


def _number(query: Mapping[str, str], name: str, default: float) -> float:
    text = query.get(name, str(default))
    if not re.fullmatch(r"-?[0-9]{0,12}(\.[0-9]{1,6})?", text, re.ASCII) or not text.strip("-"):
        raise InputError(f"{short(text, 40)!r} in the link is no {name}")
    return float(text)
