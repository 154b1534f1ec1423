"""The open captions of a stage, longest first.

They are read from the store a window at a time: no list of all captions is ever in memory.
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
    """The captions that a stage concerns, and their order, in SQL.

    The fields are a `join` with a result `r`, a `where` and an `order`.
    """

    join: str = ""
    where: str = "1"
    order: str = "a.position"


CONCERNS = {
    "detect": Concern(),
    # more neurons hold a memory near tau: on the demo model the caption with the lowest score took
    # a third of all seconds
    "localize": Concern(
        f"{_OF} 'detect'",
        "json_extract(r.payload, '$.memorized')",
        "json_extract(r.payload, '$.score'), a.position",
    ),
    # longest first: a long one at the end would leave all other workers idle
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
    """List what is open in a stage; return the numbers of captions and of groups that share passes.

    Open means: asked for (see `table.enter`), concerned, and without an answer under at least one
    name in `stages` (by default the stage itself). Failed captions are tried again. `size`:
    captions that share passes, by their ids. `within`: only concerned captions share passes, `size`
    at a time in each block of `within` ids. What earlier stages committed is backed up first.
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
    """The listed groups in order.

    Each is whole even if a part of it is answered, so that a caption always shares the same passes.
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
    """The ids of a group: those that `list_open` listed, or `size` in a row."""
    told = run.query("SELECT caption FROM temp.members WHERE unit = ? ORDER BY caption", (unit,))
    return [number for (number,) in told] or range(unit * size + 1, (unit + 1) * size + 1)


def on_list(run: Run, captions: Sequence[Caption]) -> set[int]:
    """The ids of these captions that are on the list."""
    wanted = json.dumps([c.id for c in captions])  # one SQL value for any number of ids
    sql = "SELECT caption FROM temp.open WHERE caption IN (SELECT value FROM json_each(?))"
    return {number for (number,) in run.query(sql, (wanted,))}
