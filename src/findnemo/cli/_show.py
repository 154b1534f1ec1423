"""The display of results in a terminal."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from findnemo.cli._common import LOOSE, plain, stdout, tell
from findnemo.cli._streams import displayable

if TYPE_CHECKING:
    from findnemo.runs import Caption, Run

# tone of a standing -> colour
COLOURS = {"good": "green", "open": "yellow", "bad": "red", "": "dim"}
MOST_LAYERS = 8  # layers counted one by one, at most
# alignment of the cells of a caption
SIDES: tuple[Any, ...] = ("left", "right", "right", "right", "left")
OTHERS = 8  # captions that are not memorized, in the table, at most
ROOM = 20  # least number of visible characters of a caption
GIVE_WAY = (0, 3)  # columns to omit for that, in this order
LEAST = 12  # characters of a caption in the narrowest terminal


def coloured(stands: str, text: str) -> str:
    """A text in the colour of a standing."""
    from findnemo.runs.standing import WORDS

    return f"[{COLOURS[WORDS[stands].tone]}]{text}[/]"


def summary_table(captions: Sequence[Caption], layers: Sequence[str]) -> Table:
    """One line for each caption: type, score, share of copies among its finished images before and
    after, neurons per layer, standing.

    Layers are in forward order; more than eight are summed over down blocks, mid block and up
    blocks. A narrow terminal omits the type and then the neurons.
    """
    from findnemo.runs.standing import standing, standing_text

    off = "off by layer" if len(layers) <= MOST_LAYERS else "off: down, mid, up"
    heads = ("type", "score", "copies", off, "standing")
    lines = [(standing(c), (c.type or "", *_cells(c, layers), standing_text(c))) for c in captions]
    columns = list(zip(heads, *(rest for _, rest in lines), strict=True))
    widths = {column[0]: max(map(len, map(displayable, column))) for column in columns}
    for position in GIVE_WAY:
        if stdout.width - sum(widths.values()) - len(widths) < ROOM:
            widths.pop(heads[position])
    room = max(stdout.width - sum(widths.values()) - len(widths), LEAST)
    table = Table(Column("caption", no_wrap=True, max_width=room), **LOOSE)
    for head, side in zip(heads, SIDES, strict=True):
        if head in widths:
            table.add_column(head, no_wrap=True, min_width=widths[head], justify=side)
    for caption, (stands, cells) in zip(captions, lines, strict=True):
        kept = [plain(cell) for head, cell in zip(heads, cells, strict=True) if head in widths]
        table.add_row(plain(caption.text), *kept[:-1], coloured(stands, kept[-1]))
    return table


def _cells(caption: Caption, layers: Sequence[str]) -> tuple[str, str, str]:
    """Score, copies before and in the cleaned model, and how many neurons of each layer are switched off."""
    from findnemo.runs import switched_off
    from findnemo.runs.standing import in_cleaned_model

    score = "" if caption.score is None else f"{caption.score:.3f}"
    checked = in_cleaned_model(caption)
    copies = ""
    if checked and checked.copies_before is not None and checked.copies_after is not None:
        copies = f"{100 * checked.copies_before:.0f} → {100 * checked.copies_after:.0f} %"
    if caption.localized is None:
        return score, copies, ""
    off = switched_off(caption).layers
    counts = {name: len(off.get(name, ())) for name in layers}
    if len(layers) > MOST_LAYERS:  # too many for a line: sum over the parts of the network
        parts: Counter[str] = Counter()
        for name, n in counts.items():
            parts[name.partition("_blocks")[0].partition("_block")[0]] += n
        counts = parts
    return score, copies, " ".join(map(str, counts.values()))


def show_run(run: Run, captions: Sequence[Caption], total: int | None = None) -> None:
    """Show the table of captions, and notes on them besides the verdict.

    `captions`: all, or those of `total` to show (`runs.captions_to_show`). Of a fine-tune, whose report has the
    captions, only what failed.
    """
    from findnemo.runs import state
    from findnemo.runs.overview import value_layers
    from findnemo.runs.wording import count

    if run.meta("training") is not None:
        tell("\nThe report has the captions, and the neurons that are off for each.")
        for line in (*_quality_lines(run.meta("quality")), *_failed_lines(captions)):
            tell(line)
        return
    many = len(captions) if total is None else total
    states = ("memorized", "suspected", "not memorized", None)
    ordered = sorted(captions, key=lambda c: (states.index(state(c)), c.id))
    first = sum(state(c) in ("memorized", "suspected") for c in captions)
    layers = list(value_layers(run, captions))
    stdout.print(summary_table(ordered[: first + OTHERS], layers))
    if (left := many - first - OTHERS) > 0:
        stdout.print(f"[dim]and {count(left, 'more caption')}[/]")
    stdout.print()
    for line in notes(run, captions):
        tell(line)


def show_training(run: Run) -> None:
    """Show the models and the copied pictures of a fine-tune audit; nothing for other runs."""
    from findnemo.runs.tuned import (
        CAUSES,
        OPEN,
        STATES_TOLD,
        canaries_told,
        confirmed_told,
        controls_told,
        different,
        is_beside_base,
        label,
        training_of,
        worst,
    )
    from findnemo.runs.wording import count

    if (about := training_of(run)) is None:
        return
    stdout.print(variants_table(about))
    taught = (
        "taught: more often than the base and chance explain; " if is_beside_base(about) else ""
    )
    tell(f"pictures: copied by any prompt; {taught}copies: images of the training captions only")
    if any(label(about, one).endswith(OPEN) for one in about["variants"]):
        tell("?: by the images so far; not confirmed by further ones")
    if confirmed := confirmed_told(about):
        tell(plain(confirmed))
    if any(one.get("cause") for one in about["pictures"]):
        causes = "; ".join(f"{name}: {what}" for name, what in CAUSES.items())
        tell(f"why a picture is copied: {causes}")
    if controls := controls_told(about):
        tell(controls)
    if canaries := canaries_told(about):
        tell(plain(canaries))
    pictures = [about["pictures"][k] for k in worst(about)]
    if seen := [one for one in pictures if one["state"] != "not seen"]:
        tell(f"\nTraining pictures, and copies by {plain(about['main'])}:")
        stdout.print(training_table(seen))
        if len(pictures) < different(about):
            tell(f"Shown are the {len(pictures)} most copied; training.csv has all.")
        elif others := len(pictures) - len(seen):
            tell(f"No image is nearly a copy of {count(others, 'other training picture')}.")
        tell(
            "Each picture has its own bar for a copy (level in training.csv), so an image of .70 can be a"
            " copy of one picture and not of another."
        )
        if any(one["state"] in STATES_TOLD for one in seen):
            tell("cannot be told: images of the base are as like the picture as the model's are")


VERDICTS = {"does not copy": "green", "cannot be said": "yellow", "as the base": "yellow"}


COSTS = {"subject": "subject", "diversity": "diversity", "a_clip": "A_CLIP"}
WIDE = 120  # width of a terminal that fits all costs


def variants_table(about: Mapping[str, Any]) -> Table:
    """A line for each model of a fine-tune audit: copies, how many pictures it was taught, and how
    much of the subject remains.

    A narrow terminal omits nearly copied pictures, intervals and the diversity, and folds names.
    Nothing shows the subject without A_CLIP.
    """
    from findnemo.runs.tuned import OPEN, is_beside_base, label, taught

    variants = about["variants"]
    right: dict[str, Any] = {"justify": "right", "no_wrap": True}
    measured = [name for name in COSTS if any(name in one for one in variants)]
    is_wide = stdout.width >= WIDE
    costs = [name for name in measured if name != "diversity" or is_wide]
    nearly = ["nearly"] if is_wide else []
    learned = ["taught"] if is_beside_base(about) else []
    interval = ["95 %"] if is_wide else []
    table = Table(
        Column("model", overflow="fold"),
        Column("", no_wrap=True),
        *(Column(name, **right) for name in ("pictures", *learned, *nearly)),
        *(Column(name, min_width=10, **right) for name in ("copies", *interval)),
        *(Column(COSTS[name], **right) for name in costs),
        **LOOSE,
    )
    for one in variants:
        word = label(about, one)
        said = f"[{VERDICTS.get(word.rstrip(OPEN), 'red')}]{plain(word)}[/]"
        ends = "{:.0f} to {:.0f} %".format(100 * one["low"], 100 * one["high"])
        copies = f"{one['copies']} of {one['of']}"
        kept = (_cost(one, name, is_wide) for name in costs)
        counts = (one["copied"], *(taught(one) for _ in learned), *(one[name] for name in nearly))
        shown = [copies, ends] if is_wide else [copies]
        table.add_row(plain(one["name"]), said, *map(str, counts), *shown, *kept)
    return table


def _cost(one: Mapping[str, Any], name: str, is_wide: bool) -> str:
    """A figure of a model in the table; of its similarity to the subject with the interval, if the
    terminal is wide.
    """
    if name not in one:
        return ""
    ends = f"{name}_low", f"{name}_high"
    interval = " ({:.2f} to {:.2f})".format(*(one[end] for end in ends)) if ends[0] in one else ""
    return f"{one[name]:.2f}{interval if is_wide else ''}"


def training_table(pictures: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each training picture: its state, the prompts that copy it, how many images of
    the base do, why it is copied, and, if the terminal is wide, the first model that does.
    """
    from findnemo.runs.tuned import STATES_TOLD, WAYS_TOLD

    is_wide = stdout.width >= WIDE
    begins = [Column("first copy by")] if is_wide else []
    table = Table(
        Column("training picture", no_wrap=True, max_width=30),
        Column("", no_wrap=True),
        Column("similarity", justify="right", no_wrap=True),
        Column("copies by prompt"),
        Column("base", justify="right"),
        Column("why"),
        *begins,
        **LOOSE,
    )
    for one in pictures:
        ways = ", ".join(
            f"{WAYS_TOLD[way]} {copies} of {of}"
            for way, (copies, of) in one["ways"].items()
            if copies
        )
        of_base = one.get("base")
        beside = ""
        if of_base and of_base["copies"]:
            beside = f"{of_base['copies']}" + (f" of {of_base['of']}" if "of" in of_base else "")
        state = STATES_TOLD.get(one["state"], one["state"])
        cells = [one["file"], state, f"{one['similarity']:.2f}", ways, beside]
        cells.append((one.get("cause") or "") if of_base else "")
        cells += [one["begins"] or ""] if is_wide else []
        table.add_row(*map(plain, cells))
    return table


def notes(run: Run, captions: Sequence[Caption]) -> list[str]:
    """Plain sentences: threshold, list, sizes of the sets, memories that are not gone and why."""
    from findnemo.runs import STANDINGS, list_of, list_told, settings_of, standing
    from findnemo.runs.overview import value_layers
    from findnemo.runs.truth import truth_of
    from findnemo.runs.verdict import TROUBLE

    stand = Counter(map(standing, captions))
    lines = [f"Threshold: tau = {settings_of(run)['tau']:.3f}."]
    if (truth := truth_of(run, run.captions())) is not None:
        lines += [plain(line) for line in truth.sentences[1:]]
    if (listed := list_of(run)) is not None:
        lines.append(list_told(listed))
    lines += [
        *_size_lines(captions, sum(value_layers(run, captions).values())),
        *_impact_lines(captions),
    ]
    lines += [
        f"{coloured(kind, f'{stand[kind]} {kind}')}: {STANDINGS[kind]}."
        for kind in TROUBLE
        if stand[kind] and kind != "failed"
    ]
    lines += [*_carried_lines(captions), *_quality_lines(run.meta("quality"))]
    return lines + _failed_lines(captions)


def _size_lines(captions: Sequence[Caption], every: int) -> list[str]:
    """How many captions have a set of neurons, and its sizes. `every`: neurons of shown layers."""
    from findnemo.runs import all_neurons, switched_off
    from findnemo.runs.standing import treated_as_memory
    from findnemo.runs.wording import count

    sought = [c for c in captions if c.localized is not None and treated_as_memory(c)]
    sizes = sorted(len(switched_off(c)) for c in sought if len(switched_off(c)))
    if not sizes:
        return []
    off = f"{len(all_neurons(captions)):,} of {count(every, 'neuron')}"
    return [
        f"The search found a set for {len(sizes)} of {len(sought)}: {off} off in all, median"
        f" {statistics.median(sizes):g} a caption."
    ]


def _quality_lines(quality: Mapping[str, Any] | None) -> list[str]:
    """A line if the quality check failed on some captions."""
    from findnemo.runs.wording import count

    if not quality or not quality["failed"]:
        return []
    captions = count(quality["failed"], "caption")
    return [f"[red]failed:[/] the quality check on {captions}: images hold NaN."]


def _carried_lines(captions: Sequence[Caption]) -> list[str]:
    """What carries memories that are out of reach of value neurons of their own."""
    from findnemo.runs.standing import removed_by_others

    carriers = [(c, found) for c in captions if (found := c.localized and c.localized.diagnosis)]
    others = "the neurons of other captions remove it. "
    return [
        f"row {c.row} ({plain(c.text)}): {others if removed_by_others(c) else ''}"
        f"{plain(found['sentence'])}"
        for c, found in carriers[:5]
    ]


def _failed_lines(captions: Sequence[Caption]) -> list[str]:
    from findnemo.runs import failures

    return [
        f"[red]failed:[/] row {c.row} ({plain(c.text)}): {plain('; '.join(failures(c).values()))}"
        for c in [c for c in captions if failures(c)][:5]
    ]


def _impact_lines(captions: Sequence[Caption]) -> list[str]:
    """How gentle the chosen sets are, if that was requested."""
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
