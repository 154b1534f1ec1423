"""How results look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from findnemo.cli._common import plain, stdout

if TYPE_CHECKING:
    from findnemo.runs import Caption, Run


def summary_table(captions: Sequence[Caption], layers: Sequence[str]) -> Table:
    """One line a caption: type, scores before and after, neurons per layer in forward order, seconds."""
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    table.add_column("caption", overflow="ellipsis", no_wrap=True, max_width=max(20, stdout.width - 54))
    for name, width in (("type", 4), ("before", 6), ("after", 6), ("neurons per layer", 17), ("s", 5)):
        table.add_column(name, justify="left" if name == "type" else "right", no_wrap=True, min_width=width)
    for caption in captions:
        table.add_row(
            plain(caption.text),
            plain(caption.type or ""),
            *_cells(caption, layers),
            f"{caption.seconds:.1f}",
        )
    return table


def _cells(caption: Caption, layers: Sequence[str]) -> tuple[str, str, str]:
    from findnemo.runs import neurons_of

    if caption.failed:
        return "", "", "[red]failed[/]"
    detected, found = caption.results.get("detect"), caption.results.get("localize")
    before = "" if detected is None else f"{(found or {}).get('score_before', detected['score']):.3f}"
    if found is None:
        return before, "", "not memorized" if detected and not detected["memorized"] else ""
    after = f"{found['score_after']:.3f}" + ("" if found["reached"] else "!")
    counts = [len(neurons_of(caption).layers.get(name, ())) for name in layers]
    return (
        f"[red]{before}[/]",
        f"[green]{after}[/]" if found["reached"] else f"[red]{after}[/]",
        " ".join(str(c) if c else "·" for c in counts),
    )


def _count(neurons: int) -> str:
    return f"{neurons} neuron{'s' * (neurons != 1)}"


def show_run(run: Run, layers: Sequence[str], captions: Sequence[Caption], total: int | None = None) -> None:
    """The table and a verdict in a few sentences. `captions`: all, or of `total` those that there is something to tell of (`runs.told`)."""
    total = len(captions) if total is None else total
    memorized = [c for c in captions if c.results.get("detect", {}).get("memorized")]
    others = total - len(memorized)
    order = sorted(captions, key=lambda c: (c not in memorized, c.id))
    stdout.print(summary_table(order[: len(memorized) + 8], layers))
    if others > 8:
        stdout.print(f"[dim]… and {others - 8} more captions[/]")
    for line in verdict(run, captions, total):
        stdout.print(line, soft_wrap=True)


def verdict(run: Run, captions: Sequence[Caption], total: int) -> list[str]:
    """Plain sentences: how many memorized, how many gone, at what price, how many failed."""
    from findnemo.runs import all_neurons, list_of, list_told, neurons_of, settings_of, standing

    settings, quality = settings_of(run), run.meta("quality")
    results = [c.results for c in captions]
    memorized = [r for r in results if r.get("detect", {}).get("memorized")]
    found = [r["localize"] for r in memorized if "localize" in r]
    checked = [r["verify"] for r in memorized if "verify" in r]
    lines = [f"\n{len(memorized)} of {total} captions are memorized (score at or above tau = {settings['tau']:.3f})."]
    if (made := list_of(run)) is not None:
        lines.append(list_told(made))
    if found:
        sizes = sorted(len(neurons_of(c)) for c in captions if c.results.get("localize", {}).get("memorized"))
        fallen, held = sum(f["reached"] for f in found), sum(not f["reached"] for f in found)
        lines.append(
            f"{fallen} of {len(found)} memories fall to tau or below with {_count(len(all_neurons(captions)))} off in all, median "
            f"{sizes[len(sizes) // 2]} a caption."
        )
        if held:
            lines.append(
                f"[red]{held} out of reach[/] (marked !): not even all value neurons bring {'it' if held == 1 else 'them'} down to tau. What "
                f"was found there stays on; if {'it is' if held == 1 else 'they are'} no memory, tau is low for such captions."
            )
    lines += _impact_lines(captions)
    if checked:
        under = sum(c["same_seed"] <= settings["tau"] for c in checked)
        lines.append(f"On fresh seeds {under} of {len(checked)} stay at tau or under it.")
        grown = [c["grown"] for c in checked if "grown" in c]
        if grown:
            lines.append(
                f"Finished images of {len(grown)} still were copies: {_count(sum(grown))} more went off there, which the score alone "
                "did not ask for."
            )
        fell = [r["verify"] for r in memorized if "verify" in r and r["localize"]["reached"]]
        copied = sum(c.get("copies_after", 0) > 0 and c["copies_before"] >= 0.5 for c in fell)
        if copied:
            lines.append(f"[red]Finished images of {copied} still hold copies[/] on fresh seeds (copies_after in results.csv).")
        gone = sum(standing(c, settings["tau"]) == "gone" for c in captions)
        lines.append(f"[bold]{gone} of {len(checked)} memories are gone.[/]")
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
        lines.append(f"[red]failed:[/] the quality check on {quality['failed']} captions, whose images hold NaN.")
    failed = [c for c in captions if c.failed]
    for caption in failed[:5]:
        lines.append(f"[red]failed:[/] row {caption.row}: {plain('; '.join(caption.failed.values()))}")
    return lines


def _impact_lines(captions: Sequence[Caption]) -> list[str]:
    """How gentle the chosen sets are, where that was asked for."""
    from findnemo.runs.export import impact_of

    asked = [(c.results["localize"]["max_impact"], impact) for c in captions if (impact := impact_of(c)) is not None]
    over = [impact for most, impact in asked if impact > most]
    if not asked:
        return []
    line = f"{len(asked) - len(over)} of {len(asked)} sets change unrelated captions by no more than {asked[0][0]:g} (impact, 1 - SSIM)."
    if over:
        line += f" [red]{len(over)} change them more[/], up to {max(over):.3f}: no gentler set that removes the memory was found."
    return [line]
