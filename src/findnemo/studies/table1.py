"""Table 1: mitigations compared on verbatim and template memorized captions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import mean, median
from typing import Any

from findnemo import demo
from findnemo.errors import StoppedError
from findnemo.metrics.kind import is_memory
from findnemo.mitigation import MITIGATIONS, name_and_options
from findnemo.runs.compare import (
    LISTING,
    NEMO,
    NONE,
    SWITCHED,
    compare,
    compared_captions,
    own_apart,
    stage_in,
)
from findnemo.runs.standing import evaluations_of, neurons_of
from findnemo.runs.standing import joined_neurons as later
from findnemo.runs.store import Caption, Run, each_caption, settings_of
from findnemo.runs.wording import count, word_list
from findnemo.studies._bench import Bench, Study, by_type, first_of_each
from findnemo.studies.published import TABLE1
from findnemo.studies.rows import Payloads, comparison
from findnemo.studies.table import Cell, Table

FEW = 5  # rows that a note names
EACH = ("neurons", "copies", "sscd_orig", "sscd_gen", "d_sscd", "a_clip")  # figures of a caption


def rows(names: Iterable[str]) -> dict[str, list[str]]:
    """Label -> the methods with that label, in the order of the table.

    >>> rows(["tokens-1", "random-2", "none", "random-1"])
    {'All neurons active': ['none'], 'Random neurons': ['random-1', 'random-2'], '1 random token': ['tokens-1']}
    """
    order = {name: k for k, name in enumerate((NONE, *MITIGATIONS))}
    found: dict[str, list[str]] = {}
    for name in sorted(
        set(names), key=lambda n: (order.get(name_and_options(n)[0], len(order)), n)
    ):
        found.setdefault(label(name), []).append(name)
    return found


def label(name: str) -> str:
    """The name of a method in tables, with its options if it has any.

    >>> label("none"), label("tokens-4"), label("embedding:target=3")
    ('All neurons active', '4 random tokens', 'Embedding adjustment (Wen et al.), target=3')
    """
    base, options = name_and_options(name)
    title = "All neurons active" if base == NONE else MITIGATIONS.label(base)
    return ", ".join([title, *(f"{option}={value}" for option, value in options.items())])


def table1(bench: Bench) -> Study:
    """Mitigations on the memorized captions of the run, with their costs."""
    every = compared_captions(bench.work.run.captions(stage="detect"))
    chosen = first_of_each(every, bench.limit)
    bench.untouched(chosen)
    compare(
        bench.work, progress=bench.progress, pool=bench.workers, stop=bench.stop, captions=chosen
    )
    if bench.stop():
        raise StoppedError("stopped before all mitigations were compared")
    return Study(
        "SSCD_gen compares images with and without the mitigation on the same seed, SSCD_orig with"
        " the training image, D_SSCD images of different seeds: low is good. A_CLIP is the fit with"
        " the caption: high is good. The figure of a caption is the median over its seeds.",
        [
            table(bench.work.run, clip=bench.clip, apart=bench.apart),
            costs(bench.work.run, bench.apart),
        ],
    )


def table(
    run: Run, intervals: bool = False, clip: str | None = None, apart: str | None = None
) -> Table:
    """Table 1 with the rows that a run has.

    `intervals`: with the bootstrap interval of every median over captions. `clip`: the CLIP of
    these figures, if published numbers are shown too. `apart`: the settings (`runs.compare.apart`),
    by default the run's.
    """
    stage_of = stage_in(own_apart(run) if apart is None else apart)
    captions = compared_captions(each_caption(run))
    groups = by_type(captions)
    lines: dict[str, dict[str, Payloads]] = {
        label: {kind: _payloads(group, names, stage_of) for kind, group in groups.items()}
        for label, names in rows(_methods_of(captions, stage_of)).items()
    }
    images = {p["images"] for kinds in lines.values() for row in kinds.values() for p in row}
    seeds = f"{'/'.join(map(str, sorted(images)))} seeds a caption, at which no search has looked. "
    shown = [c for c in captions if any(stage.startswith(stage_of) for stage in c.results)]
    note = seeds + _about(run, shown or captions, len(captions))
    return comparison("Mitigations", lines, TABLE1, note, intervals, clip)


def costs(run: Run, apart: str | None = None) -> Table:
    """What every mitigation costs.

    Evaluations: of the U-Net, for an image; a pass with its gradient counts three times. Seconds:
    median for an image. Once: the cost for a caption before its first image, to find neurons or
    weights. `apart`: the settings (`runs.compare.apart`), by default the run's.
    """
    stage_of = stage_in(own_apart(run) if apart is None else apart)
    captions = compared_captions(each_caption(run))
    lines: list[list[Cell]] = []
    for title, names in rows(_methods_of(captions, stage_of)).items():
        of = [c for c in captions if any(stage_of + name in c.results for name in names)]
        payloads = _payloads(of, names, stage_of)
        name = name_and_options(names[0])[0]
        method = MITIGATIONS.get(name)
        if method and name == "neurons" and settings_of(run)["search"] == LISTING:
            method = replace(method, gradients=False)
        lines.append(
            [
                title,
                len(of),
                _whole(payloads, "evaluations"),
                _middle(payloads, "image_seconds", median),
                _once(of, name) or _whole(payloads, "once") or None,
                *(_yes_or_none(method, key) for key in ("permanent", "gradients")),
            ]
        )
    heads = ["", "captions", "evaluations", "seconds", "once", "permanent", "gradients"]
    note = (
        "Evaluations and seconds are for one image; `once`: evaluations for a caption before its"
        " first image, to find neurons or weights. Permanent: it can be written into the weights."
    )
    if len({line[1] for line in lines}) > 1:
        note += " Rows with other numbers of captions are not of the same captions."
    return Table("Costs", heads, lines, note)


def each(run: Run, apart: str | None = None) -> Table:
    """The figures of every compared caption under every mitigation, a line for each.

    `apart`: the settings (`runs.compare.apart`), by default the run's.
    """
    stage_of = stage_in(own_apart(run) if apart is None else apart)
    captions = compared_captions(each_caption(run))
    names = _methods_of(captions, stage_of)
    lines: list[list[Cell]] = [
        [c.row, c.text, c.type, name, *(payload.get(key) for key in EACH)]
        for c in captions
        for name in names
        for payload in _payloads([c], [name], stage_of)
    ]
    heads = ["row", "caption", "type", "mitigation", *EACH]
    return Table(
        "Captions", heads, lines, "Medians over the images of a caption; copies: the share."
    )


def _methods_of(captions: Iterable[Caption], stage_of: str) -> list[str]:
    """The methods for which captions have a result."""
    stages = dict.fromkeys(s for c in captions for s in c.results if s.startswith(stage_of))
    return [stage.removeprefix(stage_of) for stage in stages]


def _middle(payloads: Payloads, key: str, of: Callable[[Iterable[float]], float]) -> float | None:
    values = [p[key] for p in payloads if key in p]
    return round(of(values), 3) if values else None


def _whole(payloads: Payloads, key: str) -> int | None:
    value = _middle(payloads, key, mean)
    return None if value is None else round(value)


def _once(captions: Sequence[Caption], name: str) -> float | None:
    """Mean evaluations to find the neurons of a caption, detection included; None for a method
    without neurons.

    NeMo's are the run's own if the run searches by the listing.
    """
    if name == "neurons":
        values = [evaluations_of(c) for c in captions]
    elif name == NEMO:
        values = [
            evaluations_of(c) if (found := c.typed_result(LISTING)) is None else found.evaluations
            for c in captions
        ]
    else:
        return None
    return round(mean(values)) if values else None


def _yes_or_none(method: Any, key: str) -> str | None:
    return None if method is None else "yes" if getattr(method, key, False) else "no"


def _payloads(captions: Sequence[Caption], names: Sequence[str], stage_of: str) -> Payloads:
    """The run's results of some mitigations on captions.

    If a result of a method that switches neurons off lacks their number, the run's is used.
    """
    return [
        ({"neurons": len(neurons_of(c))} if name in SWITCHED else {}) | c.results[stage_of + name]
        for c in captions
        for name in names
        if stage_of + name in c.results
    ]


def _about(run: Run, captions: list[Caption], every: int) -> str:
    """What the rows with neurons are, which captions of `every` one are in the table, and by which
    descriptor.
    """
    settings = settings_of(run)
    text = f"Compared are {_named(captions)} of {every}. " * (len(captions) < every)
    if run.meta("source") in demo.MODELS and "descriptor" not in settings["judges"]:
        text += "The descriptor is the demo's own, the paper's SSCD. "
    text += (
        "NeMo: the listing as published (Algorithms 1 to 4), nothing added; the set before its"
        " refinement is a row of Table 4 (`findnemo study table4`). Random neurons: as"
        " many of each layer as NeMo's (all others of a layer of which NeMo has more than half),"
        " each draw counted by itself. findnemo: what this run found for each caption alone (search"
        f" {settings['search']!r})."
    )
    if more := sum(len(later(c)) for c in captions):
        text += (
            f" The run added {count(more, 'neuron')} later, when copies came back with the neurons of"
            " all captions off; they are off in the export, and not here."
        )
    searched = [(c, c.typed_result(LISTING)) for c in captions]
    if unlisted := [c for c, found in searched if found and found.memorized is False]:
        text += (
            f" NeMo switches nothing off for {_named(unlisted)} under the threshold of the paper's"
            " score: its row and that of random neurons count untouched images there."
        )
    if missed := [c for c in captions if is_memory(c.type) and not neurons_of(c) and c.results]:
        text += (
            f" findnemo switches nothing off for {_named(missed)} with the type of a memory: no"
            " neurons were found, and its row counts untouched images there."
        )
    return text


def _named(captions: Sequence[Caption]) -> str:
    """How many captions, with the first rows: `1 caption (row 13)`."""
    rows = [str(c.row) for c in captions]
    some = rows if len(rows) <= FEW else [*rows[:FEW], f"{len(rows) - FEW} more"]
    return (
        f"{count(len(rows), 'caption')} ({'row' if len(rows) == 1 else 'rows'} {word_list(some)})"
    )
