"""What attacks on an edited model gave, for the terminal; and the part of `verify` that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Column, Table

from findnemo.cli._common import Source, bar, plain, say, stdout, stoppable, warn
from findnemo.cli._steps import opened
from findnemo.errors import InputError

ROOM = 3  # columns of attempts that 80 characters hold together with their intervals


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
) -> bool:
    """Attempts and the attack on the edited model of a run, with their controls; in this process. What is answered is not done again.

    Whether anything failed.
    """
    from findnemo.cli._report import write_report
    from findnemo.runs import write_results
    from findnemo.runs.robustness import ATTACK, ATTEMPT, attack_all, evaluations, failures, memorized, try_out

    with opened(run, model, device, dtype, quiet, trust) as work:
        if not memorized(work.run.captions(), 1):
            say("no memorized caption has its neurons off: there is nothing to attack", quiet)
            return False
        stages = [(ATTEMPT, try_out)] * attempts + [(ATTACK, attack_all)] * attack
        costs = {name.rstrip(":"): cost for name, _ in stages if (cost := evaluations(work, effort, name))}
        if costs:
            told = ", ".join(f"{name} about {cost:,} U-Net evaluations" for name, cost in costs.items())
            left_out = " and ".join(f"--no-{name}" for name in costs)
            say(f"{told}, in one process; {left_out} leave{'s it' if len(costs) == 1 else ' them'} out", quiet)
        for _, do in stages:
            with stoppable() as stop, bar(quiet) as update:
                do(work, effort, None, update, stop)
        if not quiet:
            show_robustness(work.run.meta("attempts") if attempts else None, work.run.meta("attack") if attack else None)
        write_results(work.run)
        write_report(work.run, quiet=quiet)
        failed = failures(work.run.captions())
    for line in failed:
        warn(line)
    return bool(failed)


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
    """The table of attempts, the curves of the attack with the gaps between memorized pictures and controls, and what they say."""
    from findnemo.robustness import sentences

    if attempts and attempts["table"]:
        stdout.print(attempts_table(attempts))
    if attack and any(attack["curves"].values()):
        stdout.print(attack_table(attack))
    for line in sentences(attempts, attack):
        stdout.print(plain(line), soft_wrap=True)


def attempts_table(attempts: Mapping[str, Any]) -> Table:
    """Captions of which an attempt gave a copy, a column for each model and kind of caption; Wilson intervals (95 %) where they have room."""
    columns = attempts["columns"]
    table = Table(
        Column("captions copied by", no_wrap=True),
        *map(plain, columns),
        box=SIMPLE,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for name, found in attempts["table"].items():
        table.add_row(plain(name), *(_copies(found.get(column), len(columns) <= ROOM) for column in columns))
    return table


def _copies(cell: Mapping[str, float] | None, with_interval: bool) -> str:
    """
    >>> _copies({"captions": 1, "n": 5, "low": 0.04, "high": 0.62}, False)
    '1/5'
    """
    if cell is None:
        return "-"
    interval = f" [dim]{cell['low']:.2f}-{cell['high']:.2f}[/]" if with_interval else ""
    return f"{cell['captions']:.0f}/{cell['n']:.0f}{interval}"


def attack_table(attack: Mapping[str, Any]) -> Table:
    """Mean similarity to the wanted picture after so many steps, a line a curve; then the gaps, with their intervals below them."""
    gaps = attack.get("gaps") or {}
    steps = sorted({point[0] for line in [*attack["curves"].values(), *gaps.values()] for point in line})
    table = Table(
        "similarity after steps", *(f"{x:g}" for x in steps), box=SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True
    )
    for name, line in attack["curves"].items():
        known = {x: f"{y:.2f}" for x, y in line}
        table.add_row(plain(name), *(known.get(x, "-") for x in steps))
    for name, points in gaps.items():
        known = {x: _gap(value, low, high) for x, value, low, high in points}
        table.add_row(plain(f"gap, {name}"), *(known.get(x, "-") for x in steps))
    return table


def _gap(value: float, low: float | None, high: float | None) -> str:
    return f"{value:+.2f}" + ("" if low is None or high is None else f"\n[dim]{low:+.2f}\n{high:+.2f}[/]")
