"""Rows out of a damaged SQLite file: by asking SQLite for ever smaller ranges, and by reading its pages without it.

The second way trusts nothing of the file but the rows themselves: every row of the store carries a checksum, so whatever a leaf page
seems to hold is a row if the checksum fits. Format: https://www.sqlite.org/fileformat2.html, sections 1.6, 2.1 and 4.
"""

from __future__ import annotations

import re
import sqlite3
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from findnemo.runs.store import COLUMNS, checksum

PAGE = 4096  # bytes of a page, where the header does not tell
LEAF, KINDS = 13, (2, 5, 10, 13)  # type of a table's leaf page; of all pages of a tree
LOG_HEAD, FRAME_HEAD = 32, 24  # bytes before the first page, and before each, of a write-ahead log
PATIENCE = 20_000  # questions that SQLite cannot answer, before the rest is left to the other way
MOST = 10_000_000  # bytes of a row: no sane one is longer
MOST_BEFORE = 14  # bytes of the two numbers before a row's head
HEADS = [
    re.compile(rb"(?=([\x04-\x28](?:[\x80-\xff]{0,4}[\x00-\x7f]){%d}\x2d))" % n, re.DOTALL)
    for n in (2, 5)
]
SHORTEST, LONGEST = 4, 40  # bytes of the head of a row of three to six values
WIDTHS = (0, 1, 2, 3, 4, 6, 8)  # bytes of the integer types 0 (NULL) to 6

Row = tuple[Any, ...]


# through SQLite -------------------------------------------------------------------------------------------------------


def live(db: sqlite3.Connection, table: str, old: bool = False) -> dict[int, Row]:
    """Row number -> row with its checksum, of all rows of a table that SQLite can still reach; None for it in an `old` run, of format 1."""
    db.text_factory = lambda raw: raw.decode(errors="surrogateescape")
    columns = ", ".join(COLUMNS[table])
    for last in ("checksum", "NULL") if old else ("checksum",):
        query = f"SELECT rowid, {columns}, {last} FROM {table} WHERE rowid BETWEEN ? AND ?"
        try:
            db.execute(query, (0, -1)).fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            continue
        return {row[0]: row[1:] for row in _ranges(db, query, 0, _last(db, table))}
    return {}


def _last(db: sqlite3.Connection, table: str) -> int:
    """The largest row number, or one that is surely not smaller where that cannot be read."""
    try:
        return int(db.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0])
    except (sqlite3.Error, TypeError, ValueError):
        return 2**24


def _ranges(db: sqlite3.Connection, query: str, first: int, last: int) -> Iterator[Row]:
    """Rows of a range; where it cannot be read whole, of its halves, the wide ones first, down to single rows."""
    open_, failed = deque([(first, last)]), 0
    while open_ and failed < PATIENCE:
        first, last = open_.popleft()
        try:
            yield from db.execute(query, (first, last)).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeDecodeError):
            failed, middle = failed + 1, (first + last) // 2
            if first < last:
                open_ += [(first, middle), (middle + 1, last)]


# without SQLite -------------------------------------------------------------------------------------------------------


def scattered(file: Path, log: Path | None) -> Iterator[tuple[str, int, Row]]:
    """Table, row number and row with its checksum of whatever the pages of a database and its log hold, also older versions of a row."""
    data, logged = (path.read_bytes() if path is not None else b"" for path in (file, log))
    size = _page_size(data, logged)
    pages = {k + 1: data[k * size : (k + 1) * size] for k in range(-(-len(data) // size))}
    frames = list(_frames(logged, size))
    newest = pages | dict(frames)
    for number, page in [*pages.items(), *frames]:
        for rowid, values in _cells(page, 100 if number == 1 else 0, newest, size):
            table = _table(rowid, values)
            if table is not None:
                yield table[0], rowid, table[1]


def _page_size(data: bytes, logged: bytes) -> int:
    """What a header says, if it can be true."""
    told = (int.from_bytes(data[16:18], "big"), int.from_bytes(logged[8:12], "big"))
    return next((n for n in told if n in (512, 1024, 2048, 4096, 8192, 16384, 32768)), PAGE)


def _frames(logged: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    for start in range(LOG_HEAD, len(logged) - FRAME_HEAD, FRAME_HEAD + size):
        yield (
            int.from_bytes(logged[start : start + 4], "big"),
            logged[start + FRAME_HEAD : start + FRAME_HEAD + size],
        )


def _cells(
    page: bytes, head: int, pages: dict[int, bytes], size: int
) -> Iterator[tuple[int, list[Any]]]:
    """Row numbers and values in a leaf page. Where its head says that it is none of a tree, at whatever place a row could begin."""
    if len(page) < head + 8 or (page[head] in KINDS and page[head] != LEAF):
        return
    if page[head] == LEAF:
        count = int.from_bytes(page[head + 3 : head + 5], "big")
        ends = range(head + 8, min(head + 8 + 2 * count, len(page) - 1), 2)
        places: Sequence[int] = [int.from_bytes(page[at : at + 2], "big") for at in ends]
    else:
        places = _places(page)
    for at in places:
        cell = _cell(page, at, pages, size)
        if cell is not None:
            yield cell


def _places(page: bytes) -> list[int]:
    """Where a row of ours may begin: the numbers before what looks like its head, the types of its values, the checksum's last."""
    heads = {m.start() for pattern in HEADS for m in pattern.finditer(page) if len(m[1]) == m[1][0]}
    return sorted({at for head in heads for at in range(max(head - MOST_BEFORE, 0), head - 1)})


def _cell(page: bytes, at: int, pages: dict[int, bytes], size: int) -> tuple[int, list[Any]] | None:
    """The row at a place of a page; None if there is none."""
    try:
        length, at = _varint(page, at)
        rowid, at = _varint(page, at)
        if not 4 <= length <= MOST:
            return None
        payload = _payload(page, at, length, pages, size)
        return rowid, _values(payload)
    except (IndexError, ValueError, KeyError, struct.error):
        return None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for k in range(8):
        value = value << 7 | data[at + k] & 0x7F
        if data[at + k] < 0x80:
            return value, at + k + 1
    return value << 8 | data[at + 8], at + 9


def _payload(page: bytes, at: int, length: int, pages: dict[int, bytes], size: int) -> bytes:
    """The bytes of a row: in the page, the rest in a chain of overflow pages."""
    most = size - 35
    if length <= most:
        return page[at : at + length]
    least = (size - 12) * 32 // 255 - 23
    here = least + (length - least) % (size - 4)
    here = here if here <= most else least
    parts, missing = [page[at : at + here]], length - here
    following = int.from_bytes(page[at + here : at + here + 4], "big")
    while missing > 0:
        more = pages[following]
        parts.append(more[4 : 4 + missing])
        if len(parts[-1]) == 0:
            raise ValueError("an overflow page is cut off")
        missing -= len(parts[-1])
        following = int.from_bytes(more[:4], "big")
    return b"".join(parts)


def _values(payload: bytes) -> list[Any]:
    """The values of a row."""
    end, at = _varint(payload, 0)
    if not SHORTEST <= end <= LONGEST:
        raise ValueError("not the head of a row of ours")
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values = []
    for kind in kinds:
        value, at = _value(payload, at, kind)
        values.append(value)
    return values


def _value(payload: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind <= 6:
        end = at + WIDTHS[kind]
        return (None if kind == 0 else int.from_bytes(payload[at:end], "big", signed=True)), end
    if kind == 7:
        return struct.unpack(">d", payload[at : at + 8])[0], at + 8
    if kind in (8, 9):
        return kind - 8, at
    if kind < 13 or kind % 2 == 0:
        raise ValueError("neither number nor text")
    end = at + (kind - 13) // 2
    return payload[at:end].decode(), end


def _table(rowid: int, values: list[Any]) -> tuple[str, Row] | None:
    """The table that values are a row of: the one with which their checksum fits."""
    for table, columns in COLUMNS.items():
        if len(values) != len(columns) + 1:
            continue
        row = list(values)
        if table == "captions":
            row[0] = rowid  # kept as the row's number only
        if table == "results" and isinstance(row[3], int):
            row[3] = float(row[3])  # whole numbers are kept short
        if checksum(table, row[:-1]) == row[-1]:
            return table, tuple(row)
    return None
