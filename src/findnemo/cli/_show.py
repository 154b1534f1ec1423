"""How results look in a terminal."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from findnemo.cli._common import plain, stdout

if TYPE_CHECKING:
    from findnemo.runs import Caption, Run

COLOURS = {"good": "green", "open": "yellow", "bad": "red", "": "dim"}  # of a standing's tone
MOST_LAYERS = 8  # that are counted one by one


def coloured(stands: str, text: str | None = None) -> str:
    """A text, by default the word itself, in the colour of how a caption stands."""
    from findnemo.runs.standing import WORDS

    return f"[{COLOURS[WORDS[stands].tone]}]{stands if text is None else text}[/]"


def summary_table(captions: Sequence[Caption], layers: Sequence[str]) -> Table:
    """One line a caption: type, scores before and after, neurons per layer in forward order (of more than eight layers: those of the down blocks, the
    mid block and the up blocks), how it stands."""
    from findnemo.runs import standing

    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(
        "caption", overflow="ellipsis", no_wrap=True, max_width=max(18, stdout.width - 62)
    )
    where = "neurons per layer" if len(layers) <= MOST_LAYERS else "down, mid, up"
    for name, width in (("type", 4), ("before", 6), ("after", 6), (where, 17), ("standing", 14)):
        table.add_column(
            name,
            justify="left" if name in ("type", "standing") else "right",
            no_wrap=True,
            min_width=width,
        )
    for caption in captions:
        stands = standing(caption)
        table.add_row(
            plain(caption.text),
            plain(caption.type or ""),
            *_cells(caption, layers),
            coloured(stands),
        )
    return table


def _cells(caption: Caption, layers: Sequence[str]) -> tuple[str, str, str]:
    from findnemo.runs import neurons_of

    before = "" if caption.score is None else f"{caption.score:.3f}"
    if caption.localized is None:
        return before, "", ""
    counts = [len(neurons_of(caption).layers.get(name, ())) for name in layers]
    if len(layers) > MOST_LAYERS:  # more than a line has room for: the parts of the network
        parts = [name.partition("_blocks")[0].partition("_block")[0] for name in layers]
        counts = [
            sum(c for c, part in zip(counts, parts, strict=True) if part == one)
            for one in dict.fromkeys(parts)
        ]
    return (
        before,
        f"{caption.localized.score_after:.3f}",
        " ".join(str(c) if c else "·" for c in counts),
    )


def _count(neurons: int) -> str:
    return f"{neurons} neuron{'s' * (neurons != 1)}"


def show_run(
    run: Run, layers: Sequence[str], captions: Sequence[Caption], total: int | None = None
) -> None:
    """The table and a verdict in a few sentences. `captions`: all, or of `total` those that there is something to tell of (`runs.told`)."""
    from findnemo.runs import state

    total = len(captions) if total is None else total
    told = {
        c.id: ("memorized", "suspected", "not memorized", None).index(state(c)) for c in captions
    }
    first = sum(place < 2 for place in told.values())
    stdout.print(
        summary_table(sorted(captions, key=lambda c: (told[c.id], c.id))[: first + 8], layers)
    )
    if total - first > 8:
        stdout.print(f"[dim]… and {total - first - 8} more captions[/]")
    for line in verdict(run, captions, total):
        stdout.print(line, soft_wrap=True)


def verdict(run: Run, captions: Sequence[Caption], total: int) -> list[str]:
    """Plain sentences: how many memorized, how many gone, at what price, how many failed."""
    from findnemo.runs import BAD, STANDINGS, list_of, list_told, settings_of, standing, state

    tau, quality = settings_of(run)["tau"], run.meta("quality")
    stand = Counter(standing(c) for c in captions)
    states = Counter(state(c) for c in captions)
    lines = [
        f"\n{states['memorized']} of {total} captions are memorized (score at or above tau = {tau:.3f})."
    ]
    if (suspected := states["suspected"]) > 0:
        lines.append(
            f"{suspected} more {'is' if suspected == 1 else 'are'} over tau and only suspected: {_its(suspected)} untouched images are no "
            f"copies, nothing is switched off for {_it(suspected)}."
        )
    if (made := list_of(run)) is not None:
        lines.append(list_told(made))
    lines += [*_size_lines(captions), *_impact_lines(captions)]
    if checked := sum(stand[kind] for kind in ("gone", *BAD)):
        lines.append(f"[bold]{stand['gone']} of {checked} memories are gone.[/]")
    lines += [
        f"{coloured(kind, f'{stand[kind]} {kind}')}: {STANDINGS[kind]}."
        for kind in (*BAD, "not replicated", "not verified", "no neurons")
        if stand[kind]
    ]
    return [*lines, *_carried_lines(captions), *_quality_lines(quality), *_failed_lines(captions)]


def _it(number: int) -> str:
    return "it" if number == 1 else "them"


def _its(number: int) -> str:
    return "its" if number == 1 else "their"


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
        f"{len(sizes)} of {len(sought)} memories have a set that removes them in the search: {off} off in all{median}."
    ]


def _quality_lines(quality: Mapping[str, Any] | None) -> list[str]:
    """What switching off costs other captions."""
    lines = []
    if quality and quality["prompts"]:
        extra = (
            ""
            if "a_clip_before" not in quality
            else f"; alignment {quality['a_clip_before']:.3f} before, {quality['a_clip_after']:.3f} after"
        )
        lines.append(
            f"{quality['prompts']} other captions with all of them off: pixels change by {quality['pixel_change']:.3f} of 1{extra}."
        )
    if quality and quality["failed"]:
        lines.append(
            f"[red]failed:[/] the quality check on {quality['failed']} captions, whose images hold NaN."
        )
    return lines


def _carried_lines(captions: Sequence[Caption]) -> list[str]:
    """What carries memories that are out of reach of value neurons."""
    known = [(c, told) for c in captions if (told := c.localized and c.localized.diagnosis)]
    return [f"row {caption.row}: {plain(told['sentence'])}" for caption, told in known[:5]]


def _failed_lines(captions: Sequence[Caption]) -> list[str]:
    from findnemo.runs import failures

    failed = [(c.row, reasons) for c in captions if (reasons := failures(c))]
    return [
        f"[red]failed:[/] row {row}: {plain('; '.join(reasons.values()))}"
        for row, reasons in failed[:5]
    ]


def _impact_lines(captions: Sequence[Caption]) -> list[str]:
    """How gentle the chosen sets are, where that was asked for."""
    from findnemo.runs.standing import impact_of

    asked = [
        (c.localized.max_impact, impact)
        for c in captions
        if c.localized is not None
        and c.localized.max_impact is not None
        and (impact := impact_of(c)) is not None
    ]
    over = [impact for most, impact in asked if impact > most]
    if not asked:
        return []
    line = f"{len(asked) - len(over)} of {len(asked)} sets change unrelated captions by no more than {asked[0][0]:g} (impact, 1 - SSIM)."
    if over:
        line += f" [red]{len(over)} change them more[/], up to {max(over):.3f}: no gentler set that removes the memory was found."
    return [line]
