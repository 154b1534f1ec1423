"""`findnemo inspect`: a run at a glance, and everything it knows about one caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import takewhile
from typing import TYPE_CHECKING

from rich.table import Column, Table

from findnemo.cli._closing import show_closing
from findnemo.cli._common import EDGELESS, plain, stdout, tell
from findnemo.cli._robustness import show_robustness
from findnemo.cli._show import coloured, show_run, show_training
from findnemo.cli._streams import displayable

if TYPE_CHECKING:
    from findnemo.neurons import Neuron
    from findnemo.runs import Caption, Discoveries, Run
    from findnemo.runs.overview import Bin

WIDTH = 32  # longest bar, in characters
LEAST = 4  # longest bar in a narrow terminal
LISTED = 40  # captions of a list to show


def show_overview(
    run: Run, captions: Sequence[Caption], listed: Discoveries | None, q: Mapping[int, float]
) -> None:
    """Show the captions, the distribution of scores, neurons per layer and shared neurons, attempts
    and attacks, the list, and the verdict with the five figures.

    `q`: caption id -> q-value.
    """
    from findnemo.runs import settings_of
    from findnemo.runs.overview import histogram, most_shared, per_layer, value_layers
    from findnemo.runs.verdict import ALL

    tau = settings_of(run)["tau"]
    layers = value_layers(run, captions)
    show_training(run)
    show_run(run, captions)
    _part("Scores", histogram_text(histogram(captions, tau), tau))
    tail = common_end(list(layers))
    title = f"Neurons off, per layer{f' (*{plain(tail)})' if tail else ''}"
    _part(title, layers_text(per_layer(captions, layers), tail))
    _part("Neurons that captions share", shared_text(most_shared(captions)))
    attempts = run.meta("attempts")
    attack = run.meta("attack")
    if attempts or attack:
        stdout.print("\n[bold]Is it really gone?[/]")
        show_robustness(attempts, attack)
    if listed is not None:
        title = f"Listed at a false discovery rate of {100 * listed.level:g} %"
        _part(title, list_text(listed, captions, q))
    show_closing(run, captions, ALL)


def _part(title: str, shown: Table | str) -> None:
    """Show a part with its title; nothing if it is empty."""
    if shown:
        stdout.print(f"\n[bold]{title}[/]")
        stdout.print(shown, soft_wrap=isinstance(shown, str) and not stdout.is_terminal)


def _bar(count: int, top: int, beside: int = 16) -> str:
    """A proportional bar, next to `beside` other characters on its line; at least one block unless
    `count` is 0.
    """
    most = max(min(WIDTH, stdout.width - beside), LEAST)
    return "█" * max(round(most * count / top), bool(count))


def histogram_text(bins: Sequence[Bin], tau: float) -> str:
    """A line for each bin: its start, a bar and the number of captions; and a line at tau."""
    top = max((b.captions for b in bins), default=0)
    lines = [
        f"{b.low:7.3f} [{'red' if b.low >= tau else 'cyan'}]{_bar(b.captions, top)}[/]"
        f" {b.captions or ''}"
        for b in bins
    ]
    below = sum(b.low < tau for b in bins)
    mark = f"        [bold]── tau = {tau:.3f}: suspected from here on[/]"
    return "\n".join([*lines[:below], *([mark] if bins else []), *lines[below:]])


def layers_text(counts: Mapping[str, int], tail: str = "") -> str:
    """A line for each layer: its name without the `tail`, a bar and the number of neurons; empty
    without layers.
    """
    top = max(counts.values(), default=0)
    if not top:
        return ""
    short = {name.removesuffix(tail): n for name, n in counts.items()}
    long = max(map(len, short))
    return "\n".join(
        f"{plain(name):{long}} [cyan]{_bar(n, top, long + 8)}[/] {n or displayable('·')}"
        for name, n in short.items()
    )


def common_end(names: Sequence[str]) -> str:
    """The common end of all module names, in whole parts; empty for a single name.

    >>> common_end(["down.0.attn2.to_v", "down.1.attn2.to_v", "mid.attn2.to_v"])
    '.attn2.to_v'
    """
    ends = zip(*(reversed(name.split(".")[1:]) for name in names), strict=False)
    same = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, ends)]
    return "".join(f".{part}" for part in reversed(same)) if len(names) > 1 else ""


def shared_text(shared: Sequence[tuple[Neuron, Sequence[Caption]]]) -> str:
    """A line for each neuron with the number of captions that share it, and the captions below.

    Empty if no neuron is shared.
    """
    lines = []
    for (layer, index), captions in shared:
        lines.append(f"{plain(layer)} [bold]#{index}[/]  {len(captions)} captions")
        lines += [f"    {plain(c.text)}" for c in captions[:3]]
        lines += [f"    [dim]and {len(captions) - 3} more[/]"] if len(captions) > 3 else []
    return "\n".join(lines)


def list_text(listed: Discoveries, captions: Sequence[Caption], q: Mapping[int, float]) -> str:
    """A line for every listed caption, the smallest q first, below what the list promises."""
    from findnemo.runs import list_told

    by_id = {c.id: c for c in captions}
    order = sorted(listed.listed, key=lambda i: q[i])
    lines = [f"  q = {q[i]:<8.3g} {plain(by_id[i].text)}" for i in order[:LISTED]]
    if len(order) > LISTED:
        lines.append(f"  [dim]and {len(order) - LISTED} more: q in results.csv[/]")
    return "\n".join([plain(list_told(listed)), *lines])


def show_caption(
    run: Run, captions: Sequence[Caption], caption: Caption, q: float | None = None
) -> None:
    """Show what a run knows about a caption: verdict, values before and after, neurons, picture."""
    from findnemo.report.sentences import of_caption
    from findnemo.runs.evidence import verdicts
    from findnemo.runs.overview import value_layers
    from findnemo.runs.standing import folder_of
    from findnemo.runs.why import why

    kind = f", type {plain(caption.type)}" if caption.type else ""
    tell(verdict_of(caption))
    stdout.print(f"[bold]{plain(caption.text)}[/]  row {caption.row}{kind}")
    for line in (why(caption), work_of(caption, q)):
        if line:
            tell(line)
    _show_rows(measured_table(caption))
    if caption.localized is not None and caption.localized.diagnosis is not None:
        tell(plain(caption.localized.diagnosis["sentence"]))
    _show_rows(prices_table(caption))
    numbers = {name: number for number, name in enumerate(value_layers(run, captions), 1)}
    for line in neuron_lines(caption, numbers):
        tell(line)
    for line in of_caption(verdicts(caption, run.meta("bases") or {})):
        tell(plain(line))
    for stage, reason in caption.failed.items():
        tell(f"[red]{plain(stage)} failed:[/] {plain(reason)}")
    picture = run.path / folder_of(caption) / "sheets" / f"{caption.slug}.png"
    if picture.exists():
        stdout.print(plain(f"images: {picture}"), soft_wrap=True)


def _show_rows(table: Table) -> None:
    if table.row_count:
        stdout.print(table)


def verdict_of(caption: Caption) -> str:
    """The standing of a caption, and its meaning."""
    from findnemo.runs.standing import meaning, standing, standing_text

    return f"{coloured(standing(caption), standing_text(caption))}: {meaning(caption)}"


def work_of(caption: Caption, q: float | None = None) -> str:
    """What the answer took, and which neurons were off when the caption was judged; the q-value
    where there is one.
    """
    from findnemo.runs.standing import evaluations_of, joined_neurons, whose_neurons
    from findnemo.runs.wording import count

    if caption.detected is None:
        return ""
    parts = [count(evaluations_of(caption), "U-Net evaluation")]
    if q is not None:
        parts.append(f"q = {q:.3g} (the false discovery rate of a list that ends here)")
    if off := whose_neurons(caption):
        more = len(joined_neurons(caption))
        parts.append(f"judged with {off} off")
        parts += [f"{more} of them joined since it had come back"] if more else []
    return "; ".join(parts)


def measured_table(caption: Caption) -> Table:
    """A line for every value measured with the neurons on and off."""
    from findnemo.runs.overview import BEFORE_AFTER

    heads = [Column(name, justify="right", overflow="fold") for name in ("before", "after")]
    table = Table(Column(overflow="fold"), *heads, **EDGELESS)
    for measured in BEFORE_AFTER:
        if (pair := measured.of(caption)) is not None:
            cells = ("" if value is None else f"{value:.3f}" for value in pair)
            table.add_row(measured.label, *cells)
    return table


def prices_table(caption: Caption) -> Table:
    """A line for every set that the search tried; any can be exported (`--neurons`)."""
    from findnemo.runs import points_of
    from findnemo.runs.overview import PRICES

    table = Table(*(Column(name, justify="right") for name in PRICES), **EDGELESS)
    for neurons, left, change in points_of(caption):
        table.add_row(str(neurons), f"{left:.3f}", "" if change is None else f"{change:.3f}")
    return table


def neuron_lines(caption: Caption, layers: Mapping[str, int]) -> list[str]:
    """A line a layer in forward order, with the neurons that were found for a caption and their
    z-scores; above them whether they are switched off. `layers`: name -> number.
    """
    from findnemo.runs.standing import joined_neurons, switched_off, with_joined, z_scores
    from findnemo.runs.wording import count

    neurons = with_joined(caption)
    if not len(neurons):
        return []
    z = z_scores(caption)
    later = set(joined_neurons(caption))
    state = "switched off" if len(switched_off(caption)) else "found, not switched off"
    legend = "; z: standard deviations from the mean of ordinary captions" if z else ""
    lines = [f"{count(len(neurons), 'neuron')} {state}{legend}"]
    for name, number in layers.items():
        marks = (_mark(name, i, z, later) for i in neurons.layers.get(name, ()))
        if text := ", ".join(marks):
            lines.append(f"  layer {number} ({plain(name)}): {text}")
    return lines


def _mark(layer: str, index: int, z: Mapping[str, float], later: Set[Neuron]) -> str:
    """A neuron, its z-score where the search had it, whether it joined later."""
    value = z.get(f"{layer}:{index}")
    about = [] if value is None else [f"z {value:.1f}"]
    about += ["joined"] if (layer, index) in later else []
    return f"[bold]#{index}[/]" + (f" ({', '.join(about)})" if about else "")
