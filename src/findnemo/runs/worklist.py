"""What is open in a stage, longest first, read from the store a window at a time: no list of all
captions is ever in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from findnemo.runs.store import Caption, Run

WINDOW = 64  # captions read at once

_OF = "JOIN results AS r ON r.caption = a.caption AND r.status = 'done' AND r.stage ="
_HAS_NEURONS = (
    "EXISTS (SELECT 1 FROM json_each(r.payload, '$.neurons') AS layer WHERE"
    " json_array_length(layer.value) > 0)"
)


@dataclass(frozen=True)
class Concern:
    """Which captions a stage concerns, and in which order they are begun, in SQL:

    `join` a result `r`, `where`, `order`.
    """

    join: str = ""
    where: str = "1"
    order: str = "a.position"


CONCERNS = {
    "detect": Concern(),
    # a memory near tau is held by more neurons: on the demo model the caption of the lowest score
    # took a third of all seconds
    "localize": Concern(
        f"{_OF} 'detect'",
        "json_extract(r.payload, '$.memorized')",
        "json_extract(r.payload, '$.score'), a.position",
    ),
    # the longest first: what is long at the end keeps one worker busy and the others idle
    "verify": Concern(
        f"{_OF} 'localize'",
        _HAS_NEURONS,
        "json_extract(r.payload, '$.evaluations') DESC, a.position",
    ),
    "compare": Concern(f"{_OF} 'detect'"),
}


def list_open(
    run: Run,
    stage: str,
    stages: Sequence[str] | None = None,
    size: int = 1,
    extra: str = "1",
    within: int | None = None,
) -> tuple[int, int]:
    """Make the list of what is open in a stage; returns how many captions, and how many groups of
    captions that share passes.

    Open: asked for (see `table.enter`), concerned, and not answered under every name in `stages`
    (the stage itself); what failed is tried again. `size`: captions that share passes, by their
    ids. `within`: only those that the stage concerns do, `size` after `size` of each block of so
    many ids. What earlier stages committed is backed up first.
    """
    run.backup()
    concern = CONCERNS.get(stage, Concern())
    names = [stage] if stages is None else list(stages)
    marks = ", ".join("?" * len(names))
    answered = (
        "(SELECT COUNT(*) FROM results AS d WHERE d.caption = a.caption AND d.status = 'done' AND"
        f" d.stage IN ({marks}))"
    )
    group = f"(a.caption - 1) / {int(size)}"
    with run.transaction():
        run.query("DROP TABLE IF EXISTS temp.members")
        run.query("CREATE TEMP TABLE members (caption INTEGER PRIMARY KEY, unit INTEGER)")
        if within is not None:
            block = f"(a.caption - 1) / {int(within)}"
            rank = f"ROW_NUMBER() OVER (PARTITION BY {block} ORDER BY a.caption) - 1"
            run.query(
                f"INSERT INTO members SELECT a.caption, {block} * {int(within)} + ({rank}) /"
                f" {int(size)} FROM asked AS a {concern.join} WHERE {concern.where} AND {extra}"
            )
            run.query("CREATE INDEX temp.members_unit ON members (unit)")
            group = "(SELECT m.unit FROM temp.members AS m WHERE m.caption = a.caption)"
        run.query("DROP TABLE IF EXISTS temp.open")
        run.query(
            f"CREATE TEMP TABLE open AS SELECT a.caption AS caption, {group} AS unit FROM asked AS"
            f" a {concern.join} WHERE {answered} < ? AND {concern.where} AND {extra} ORDER BY"
            f" {concern.order}",
            (*names, len(names)),
        )
        run.query("DROP TABLE IF EXISTS temp.units")
        run.query(
            "CREATE TEMP TABLE units AS SELECT unit FROM open GROUP BY unit ORDER BY MIN(rowid)"
        )
        run.query("CREATE INDEX temp.open_caption ON open (caption)")
    captions, units = run.query(
        "SELECT (SELECT COUNT(*) FROM temp.open), (SELECT COUNT(*) FROM temp.units)"
    )[0]
    return captions, units


def groups(run: Run, size: int = 1) -> Iterator[tuple[Caption, ...]]:
    """The groups on the list in their order.

    Each is whole, also where a part of it is answered: what shares the passes of a caption is then
    always the same.
    """
    last = 0
    many = max(1, WINDOW // size)
    while rows := run.query(
        "SELECT rowid, unit FROM temp.units WHERE rowid > ? ORDER BY rowid LIMIT ?", (last, many)
    ):
        last = rows[-1][0]
        members = [_members(run, unit, size) for _, unit in rows]
        found = {c.id: c for c in run.captions(chain.from_iterable(members))}
        for group in members:
            yield tuple(found[number] for number in group if number in found)


def _members(run: Run, unit: int, size: int) -> Sequence[int]:
    """The ids of a group: those that `list_open` has told, or so many in a row."""
    told = run.query("SELECT caption FROM temp.members WHERE unit = ? ORDER BY caption", (unit,))
    return [number for (number,) in told] or range(unit * size + 1, (unit + 1) * size + 1)


def on_list(run: Run, captions: Sequence[Caption]) -> set[int]:
    """Which of these captions are on the list."""
    wanted = json.dumps([c.id for c in captions])  # one value, however many they are
    sql = "SELECT caption FROM temp.open WHERE caption IN (SELECT value FROM json_each(?))"
    return {number for (number,) in run.query(sql, (wanted,))}
