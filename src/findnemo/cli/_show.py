"""How results look in a terminal."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from findnemo.cli._common import EDGELESS, LOOSE, plain, stdout

if TYPE_CHECKING:
    from pathlib import Path

    from findnemo.runs import Caption, Run

COLOURS = {"good": "green", "open": "yellow", "bad": "red", "": "dim"}  # of a standing's tone
MOST_LAYERS = 8  # that are counted one by one
OTHERS = 8  # captions that are not memorized, in the table


def coloured(stands: str, text: str | None = None) -> str:
    """A text, by default the word itself, in the colour of how a caption stands."""
    from findnemo.runs.standing import WORDS

    return f"[{COLOURS[WORDS[stands].tone]}]{stands if text is None else text}[/]"


def summary_table(captions: Sequence[Caption], layers: Sequence[str]) -> Table:
    """One line a caption: type, scores before and after, neurons per layer in forward
    order (of more than eight layers: those of the down blocks, the mid block and the
    up blocks), how it stands.
    """
    from findnemo.runs import standing

    where = "neurons per layer" if len(layers) <= MOST_LAYERS else "down, mid, up"
    table = Table(
        Column("caption", no_wrap=True, max_width=max(18, stdout.width - 62)),
        Column("type", no_wrap=True, min_width=4),
        Column("before", no_wrap=True, min_width=6, justify="right"),
        Column("after", no_wrap=True, min_width=6, justify="right"),
        Column(where, no_wrap=True, min_width=17, justify="right"),
        Column("standing", no_wrap=True, min_width=14),
        **EDGELESS,
    )
    for caption in captions:
        cells = (plain(caption.text), plain(caption.type or ""), *_cells(caption, layers))
        table.add_row(*cells, coloured(standing(caption)))
    return table


def _cells(caption: Caption, layers: Sequence[str]) -> tuple[str, str, str]:
    """Score, similarity with the neurons off, and neurons of each layer."""
    from findnemo.runs import neurons_of

    before = "" if caption.score is None else f"{caption.score:.3f}"
    if caption.localized is None:
        return before, "", ""
    found = neurons_of(caption).layers
    counts = {name: len(found.get(name, ())) for name in layers}
    if len(layers) > MOST_LAYERS:  # more than a line has room for: the parts of the network
        parts: Counter[str] = Counter()
        for name, n in counts.items():
            parts[name.partition("_blocks")[0].partition("_block")[0]] += n
        counts = parts
    after = f"{caption.localized.score_after:.3f}"
    return before, after, " ".join(str(n) if n else "·" for n in counts.values())


def _count(neurons: int) -> str:
    return f"{neurons} neuron{'s' * (neurons != 1)}"


def show_run(run: Run, captions: Sequence[Caption], total: int | None = None) -> None:
    """The table and a verdict in a few sentences.

    `captions`: all, or of `total` those that there is something to tell of (`runs.told`).
    """
    from findnemo.runs import state
    from findnemo.runs.overview import value_layers

    total = len(captions) if total is None else total
    states = ("memorized", "suspected", "not memorized", None)
    ordered = sorted(captions, key=lambda c: (states.index(state(c)), c.id))
    first = sum(state(c) in ("memorized", "suspected") for c in captions)
    layers = list(value_layers(run, captions))
    stdout.print(summary_table(ordered[: first + OTHERS], layers))
    if total - first > OTHERS:
        stdout.print(f"[dim]… and {total - first - OTHERS} more captions[/]")
    for line in verdict(run, captions, total):
        stdout.print(line, soft_wrap=True)


def show_training(run: Run) -> None:
    """What a fine-tune audit found: its sentence, the models that were looked at, the pictures
    that are copied. Nothing for other runs.
    """
    from findnemo.runs.fine_tunes import GRID, canaries_told, training_of, worst

    if (about := training_of(run)) is None:
        return
    stdout.print(f"\n[bold]{plain(about['sentence'])}[/]", soft_wrap=True)
    stdout.print(variants_table(about["variants"]))
    if canaries := canaries_told(about):
        stdout.print(plain(canaries), soft_wrap=True)
    pictures = [about["pictures"][k] for k in worst(about)]
    if seen := [one for one in pictures if one["state"] != "not seen"]:
        stdout.print(training_table(seen))
    if (run.path / GRID).is_file():
        stdout.print(plain(f"pictures in {run.path / GRID}"), soft_wrap=True)
    stdout.print(f"\nCaptions and neurons of {plain(about['main'])}:", soft_wrap=True)


VERDICTS = {"copies": "red", "does not copy": "green", "cannot be said": "yellow"}


COSTS = {"subject": "subject", "diversity": "diversity", "a_clip": "A_CLIP"}
WIDE = 100  # columns of a terminal that has room for all costs


def variants_table(variants: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each model of a fine-tune audit: copies, and what is left of the subject."""
    from findnemo.runs.fine_tunes import BASE

    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    measured = [name for name in COSTS if any(name in one for one in variants)]
    costs = measured if stdout.width >= WIDE else measured[:1]
    table = Table(
        Column("model", no_wrap=True, max_width=26),
        Column("", no_wrap=True),
        *(Column(name, **right) for name in ("copied", "nearly", "copies", "95 %", "controls")),
        *(Column(COSTS[name], **right) for name in costs),
        **LOOSE,
    )
    for one in variants:
        verdict = "" if one["name"] == BASE else one["verdict"]
        said = f"[{VERDICTS.get(verdict, 'dim')}]{plain(verdict)}[/]"
        ends = "{:.0f} to {:.0f} %".format(100 * one["low"], 100 * one["high"])
        controls = "{} of {}".format(*one["controls"]) if one["controls"][1] else ""
        counts = (str(one["copied"]), str(one["nearly"]), f"{one['copies']} of {one['of']}", ends)
        kept = (f"{one[name]:.2f}" if name in one else "" for name in costs)
        table.add_row(plain(one["name"]), said, *counts, controls, *kept)
    return table


def training_table(pictures: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each training picture: its state, and by which prompts it is copied."""
    table = Table(
        Column("training picture", no_wrap=True, max_width=30),
        Column("", no_wrap=True),
        Column("similarity", justify="right", no_wrap=True),
        Column("copies by prompt"),
        Column("begins at"),
        **LOOSE,
    )
    for one in pictures:
        ways = ", ".join(
            f"{way} {copies} of {of}" for way, (copies, of) in one["ways"].items() if copies
        )
        cells = (one["state"], f"{one['similarity']:.2f}", ways, one["begins"] or "")
        table.add_row(*map(plain, (one["file"], *cells)))
    return table


def say_report(path: Path) -> None:
    """Where the report of a run lies."""
    stdout.print(plain(f"report in {path}: open it in a browser"), soft_wrap=True)


def failed(run: Run, numbers: Mapping[str, int]) -> bool:
    """Whether a caption of `numbers` (`runs.counts`) or the quality check of a run failed."""
    return bool(numbers["failed"] or (run.meta("quality") or {}).get("failed"))


def verdict(run: Run, captions: Sequence[Caption], total: int) -> list[str]:
    """Plain sentences: how many memorized, how many gone, at what price, how many failed."""
    from findnemo.runs import BAD, STANDINGS, list_of, list_told, settings_of, standing, state
    from findnemo.runs.union import told

    tau = settings_of(run)["tau"]
    stand = Counter(map(standing, captions))
    states = Counter(map(state, captions))
    lines = [
        f"\n{states['memorized']} of {total} captions are memorized (score at or above tau ="
        f" {tau:.3f})."
    ]
    if (suspected := states["suspected"]) > 0:
        is_, its, it = ("is", "its", "it") if suspected == 1 else ("are", "their", "them")
        lines.append(
            f"{suspected} more {is_} over tau and only suspected: {its} untouched images are no"
            f" copies, nothing is switched off for {it}."
        )
    if (listed := list_of(run)) is not None:
        lines.append(list_told(listed))
    lines += [*_size_lines(captions), *_impact_lines(captions)]
    if checked := sum(stand[kind] for kind in ("gone", *BAD)):
        lines.append(f"[bold]{stand['gone']} of {checked} memories are gone.[/] {told(captions)}")
    lines += [
        f"{coloured(kind, f'{stand[kind]} {kind}')}: {STANDINGS[kind]}."
        for kind in (*BAD, "not replicated", "not verified", "no neurons")
        if stand[kind]
    ]
    lines += [*_carried_lines(captions), *_quality_lines(run.meta("quality"))]
    return lines + _failed_lines(captions)


def _size_lines(captions: Sequence[Caption]) -> list[str]:
    """How many memories fall, and with how many neurons."""
    from findnemo.runs import all_neurons, neurons_of, state, switched_off

    sought = [c for c in captions if c.localized is not None and state(c) == "memorized"]
    sizes = sorted(len(neurons_of(c)) for c in sought if len(switched_off(c)))
    if not sought:
        return []
    off = _count(len(all_neurons(captions)))
    median = f", median {statistics.median(sizes):g} a caption" if sizes else ""
    return [
        f"{len(sizes)} of {len(sought)} memories have a set that removes them in the search: {off}"
        f" off in all{median}."
    ]


def _quality_lines(quality: Mapping[str, Any] | None) -> list[str]:
    """What switching off costs other captions."""
    if not quality:
        return []
    lines = []
    if quality["prompts"]:
        line = (
            f"{quality['prompts']} other captions with all of them off: pixels change by"
            f" {quality['pixel_change']:.3f} of 1"
        )
        if "a_clip_before" in quality:
            line += (
                f"; alignment {quality['a_clip_before']:.3f} before, {quality['a_clip_after']:.3f}"
                " after"
            )
        lines.append(f"{line}.")
    if quality["failed"]:
        lines.append(
            f"[red]failed:[/] the quality check on {quality['failed']} captions, whose images hold"
            " NaN."
        )
    return lines


def _carried_lines(captions: Sequence[Caption]) -> list[str]:
    """What carries memories that are out of reach of value neurons."""
    carriers = [
        (c.row, found) for c in captions if (found := c.localized and c.localized.diagnosis)
    ]
    return [f"row {row}: {plain(found['sentence'])}" for row, found in carriers[:5]]


def _failed_lines(captions: Sequence[Caption]) -> list[str]:
    from findnemo.runs import failures

    broken = [(c.row, "; ".join(failures(c).values())) for c in captions if failures(c)]
    return [f"[red]failed:[/] row {row}: {plain(reasons)}" for row, reasons in broken[:5]]


def _impact_lines(captions: Sequence[Caption]) -> list[str]:
    """How gentle the chosen sets are, where that was asked for."""
    asked = [
        (found.max_impact, found.impact)
        for c in captions
        if (found := c.localized) and found.max_impact is not None and found.impact is not None
    ]
    if not asked:
        return []
    over = [impact for most, impact in asked if impact > most]
    line = (
        f"{len(asked) - len(over)} of {len(asked)} sets change unrelated captions by no more than"
        f" {asked[0][0]:g} (impact, 1 - SSIM)."
    )
    if over:
        line += (
            f" [red]{len(over)} change them more[/], up to {max(over):.3f}: no gentler set that"
            " removes the memory was found."
        )
    return [line]
