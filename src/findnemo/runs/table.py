"""Enter a table of captions into a run, whole or not at all.

It may have any length: a few hundred captions are in memory at a time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from findnemo.errors import InputError, MismatchError
from findnemo.files.secrets import without_secrets
from findnemo.prompts import Prompt
from findnemo.runs.store import Caption, Run
from findnemo.runtime.notices import notice

FEW = 5  # repeated rows that are listed
_NEW_LIST = (
    """CREATE TEMP TABLE IF NOT EXISTS asked (
    position INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, row INTEGER NOT NULL, caption INTEGER)""",
    "CREATE INDEX IF NOT EXISTS temp.asked_caption ON asked (caption)",
    "DELETE FROM asked",
)


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` of a table.

    The table is split into groups of captions that share passes; a shard has every `count`-th
    group, from the `index`-th on.

    >>> shard = Shard.of("2/3")
    >>> [group for group in range(7) if shard.holds(group)]
    [1, 4]
    """

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """The shard `i/n`, i counted from 1. Raises InputError for any other text."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        index, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= index <= count:
            raise InputError(
                f"{text[:40]!r} is not a shard: give i/n with i from 1 to n, such as 1/8"
            )
        return cls(index, count)

    def holds(self, group: int) -> bool:
        return group % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Entered:
    """The result of `enter`.

    `captions`: number of distinct captions in the table, those of other shards included. `repeats`:
    number of rows that repeat an earlier caption. `some`: a few of them, (row, earlier row).
    `digest`: identity of the captions in their order.
    """

    captions: int
    repeats: int
    some: tuple[tuple[int, int], ...]
    digest: str


def enter(
    run: Run,
    prompts: Iterable[Prompt],
    shard: Shard | None = None,
    size: int = 1,
    limit: int | None = None,
) -> Entered:
    """Enter new captions in one transaction, and remember which were asked for; `answer` works on
    those.

    The id of a caption is its place among the distinct captions of the table, from 1, unless
    another caption of the run has that id. `size`: captions that share passes; a `shard` holds
    whole groups of them. `limit`: only the first distinct captions. Raises MismatchError if the run
    holds a shard of another table.
    """
    position = repeats = 0
    digest = hashlib.sha256()
    some: list[tuple[int, int]] = []
    with run.transaction():
        for statement in _NEW_LIST:
            run.query(statement)
        for prompt in prompts:
            if position == limit:
                break
            key = hashlib.sha256(prompt.text.encode("utf-8", "surrogatepass")).digest()[:16]
            if first := run.query("SELECT row FROM asked WHERE digest = ?", (key,)):
                repeats += 1
                some = [*some, (prompt.row, first[0][0])][:FEW]
                continue
            position += 1
            digest.update(key)
            caption = (
                _caption(run, prompt, position, shard)
                if shard is None or shard.holds((position - 1) // size)
                else None
            )
            run.query("INSERT INTO asked VALUES (?, ?, ?, ?)", (position, key, prompt.row, caption))
        if shard is not None:
            run.query("DELETE FROM asked WHERE caption IS NULL")
    if shard is not None:
        run.set_meta("table", {"captions": position, "digest": digest.hexdigest(), "group": size})
    return Entered(position, repeats, tuple(some), digest.hexdigest())


def _caption(run: Run, prompt: Prompt, position: int, shard: Shard | None) -> int:
    """The id of a caption, which is entered if new; in a shard the id is its place in the table."""
    number = run.id_of(prompt.text)
    if number is not None and (shard is None or number == position):
        _completed(run, number, prompt)
        return number
    taken = bool(run.query("SELECT 1 FROM captions WHERE id = ?", (position,)))
    if shard is not None and (taken or number is not None):
        raise MismatchError(
            f"{run.path} holds a shard of another table of captions: give the same table, or"
            " another --out"
        )
    return run.enter(prompt, None if taken else position)


def _completed(run: Run, number: int, prompt: Prompt) -> None:
    """Add the type and the image that a caption of the run lacks.

    Values that it has stay; a notice says where the table differs.
    """
    ((text, row, kind, image),) = run.query(
        "SELECT text, row, type, image FROM captions WHERE id = ?", (number,)
    )
    given = prompt.image and without_secrets(prompt.image)
    if (kind is None and prompt.type) or (image is None and given):
        run.put_row("captions", (number, text, row, kind or prompt.type, image or given))
    if kind and prompt.type and kind != prompt.type:
        notice(
            f"row {prompt.row}: the run has this caption with the type {kind!r:.20}, the table says"
            f" {prompt.type!r:.20}: the run's stays"
        )


def ask_all(run: Run) -> None:
    """Ask the stages to work on all captions of a run."""
    with run.transaction():
        for statement in (*_NEW_LIST, "INSERT INTO asked SELECT id, id, row, id FROM captions"):
            run.query(statement)


def asked_captions(run: Run) -> list[Caption]:
    """The captions that were asked for, with their results."""
    return list(run.captions(number for (number,) in run.query("SELECT caption FROM asked")))
