"""What attacks on an edited model gave, for the terminal; and the part of `verify` that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from findnemo.cli._common import Source, bar, plain, say, stdout, stoppable
from findnemo.cli._steps import opened
from findnemo.errors import InputError


def attack_run(
    run: Path,
    model: Source,
    trust: bool,
    device: str | None,
    dtype: str | None,
    quiet: bool,
    attempts: bool,
    attack: bool,
    effort: Any,
) -> None:
    """Attempts and the attack on the edited model of a run, with their controls; in this process. What is answered is not done again."""
    from findnemo.cli._report import write_report
    from findnemo.runs.robustness import ATTACK, ATTEMPT, attack_all, evaluations, memorized, try_out

    with opened(run, model, device, dtype, quiet, trust) as work:
        if not memorized(work.run.captions(), 1):
            say("no memorized caption has its neurons off: there is nothing to attack", quiet)
            return
        stages = [(ATTEMPT, try_out)] * attempts + [(ATTACK, attack_all)] * attack
        for name, do in stages:
            cost = evaluations(work, effort, name)
            if cost:
                say(f"{name.rstrip(':')}: about {cost:,} U-Net evaluations", quiet)
            with stoppable() as stop, bar(quiet) as update:
                do(work, effort, None, update, stop)
        if not quiet:
            show_robustness(work.run.meta("attempts") if attempts else None, work.run.meta("attack") if attack else None)
        write_report(work.run, quiet=quiet)


def steps_of(text: str) -> tuple[int, ...]:
    """Steps of an attack from `0,5,10`. Raises InputError for anything else.

    >>> steps_of("10,0,5")
    (0, 5, 10)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) <= 100_000 for part in parts):
        raise InputError(f"attack steps {text[:60]!r} are none: give numbers with commas, such as 0,5,10,20,50")
    return tuple(sorted({int(part) for part in parts}))


def starts_of(text: str) -> tuple[str, ...]:
    """Starts of an attack from `caption,random`, each once. Raises InputError for one that is not known.

    >>> starts_of("caption, random,caption")
    ('caption', 'random')
    """
    from findnemo.robustness import STARTS

    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [part for part in parts if part not in STARTS]
    if unknown:
        raise InputError(f"attack start {unknown[0][:60]!r} is not known: use one or several of {', '.join(STARTS)}")
    return parts


def show_robustness(attempts: Mapping[str, Any] | None, attack: Mapping[str, Any] | None) -> None:
    """The table of attempts, the curves of the attack, and the gaps between memorized pictures and controls."""
    if attempts and attempts["table"]:
        stdout.print(attempts_table(attempts))
    if attack and any(attack["curves"].values()):
        stdout.print(curves_table(attack))
        for line in gap_lines(attack):
            stdout.print(line, soft_wrap=True)


def attempts_table(attempts: Mapping[str, Any]) -> Table:
    """Captions of which an attempt gave a copy, a column for each model and kind of caption; Wilson intervals (95 %)."""
    table = Table("captions copied by", *(plain(c) for c in attempts["columns"]), box=SIMPLE, show_edge=False, pad_edge=False)
    for name, columns in attempts["table"].items():
        cells = [columns.get(column) for column in attempts["columns"]]
        table.add_row(
            plain(name),
            *("-" if c is None else f"{c['captions']:.0f}/{c['n']:.0f} [dim]{c['low']:.2f}-{c['high']:.2f}[/]" for c in cells),
        )
    return table


def curves_table(attack: Mapping[str, Any]) -> Table:
    """Mean similarity to the wanted picture after so many steps, a line a curve."""
    steps = [f"{x:g}" for x, _ in max(attack["curves"].values(), key=len)]
    table = Table("similarity after steps", *steps, box=SIMPLE, show_edge=False, pad_edge=False)
    for name, line in attack["curves"].items():
        table.add_row(plain(name), *(f"{y:.2f}" for _, y in line))
    return table


def gap_lines(attack: Mapping[str, Any]) -> list[str]:
    """The gap of every control at each step, with its interval."""
    lines = []
    for name, points in attack.get("gaps", {}).items():
        told = [f"{x:g}: {value:+.2f}" + ("" if low is None else f" [{low:+.2f}, {high:+.2f}]") for x, value, low, high in points]
        lines.append(f"{plain(name)}, gap after steps {'; '.join(told)}".replace("[", "\\["))
    return lines
