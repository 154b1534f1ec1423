"""The formats of tables: a function from an open file to its records for each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

from findnemo.errors import InputError
from findnemo.files.marks import is_ours, unmarked
from findnemo.prompts._columns import CAPTION_COLUMNS, captions_among, columns_of, keys, records
from findnemo.prompts._csv import has_strays, rows_of
from findnemo.prompts._lines import beginning, lines_of, text_blocks, without_end, without_nul
from findnemo.prompts._table import LONGEST, Record

DELIMITERS = (",", ";", "\t", "|")
PARQUET_ROWS = 8192  # rows read at once
_SEPARATOR = re.compile(rf"[Ss][Ee][Pp]=([{''.join(DELIMITERS)}])(\s|$)")
_UNQUOTED = ("\t", "|")  # delimiters of tables without quotes

Reader = Callable[[str, IO[bytes], str | None], Iterable[Record]]


def read_text(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    return records(source, without_end(lines_of(source, text_blocks(source, file))), column, [])


def read_json_lines(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    def values() -> Iterator[Any]:
        lines = without_end(lines_of(source, text_blocks(source, file)))
        for number, line in enumerate(lines, start=1):
            yield _json(line, f"{source}: line {number}") if line.strip() else None

    return records(source, values(), column, keys(values()))


def read_json(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    """One list of captions or of objects, or an object with one list of objects with captions, such
    as a results.json.
    """
    values = _json("".join(text_blocks(source, file)).strip() or "[]", source)
    lists = [values] if isinstance(values, list) else _lists(values, column)
    if len(lists) != 1:
        many = f" with {len(lists)} lists of captions" if lists else ""
        raise InputError(
            f"{source}: holds one {type(values).__name__}{many}: make it a list of captions or of"
            " objects"
        )
    return records(source, lists[0], column)


def _lists(value: Any, column: str | None) -> list[list[Any]]:
    """The lists of objects with captions in an object."""

    def holds_captions(one: Any) -> bool:
        rows = isinstance(one, list) and all(isinstance(row, dict) for row in one)
        return rows and bool(captions_among(keys(one), column))

    return [one for one in value.values() if holds_captions(one)] if isinstance(value, dict) else []


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        hint = (
            "repair it, or name the file .jsonl for a value on each line, .json for one list, .txt"
            " for bare captions"
        )
        raise InputError(f"{where}: broken JSON ({error}): {hint}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for two values of one name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two values for {twice!r:.60}")
    return values


def read_csv(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    """Fields split by any of `DELIMITERS`, under a header.

    Marks against formulas are removed from a table that findnemo wrote.
    """
    blocks = without_nul(source, text_blocks(source, file))
    head = beginning(blocks)
    delimiter, _ = csv_header(head, column)
    whole_lines = lines_of(source, [head[: head.rfind("\n") + 1]])
    quotes = delimiter not in _UNQUOTED and not has_strays(whole_lines, delimiter)
    rows = rows_of(source, _without_sep(lines_of(source, chain([head], blocks))), delimiter, quotes)
    return _csv_records(source, rows, column)


def _csv_records(
    source: str, rows: Iterator[tuple[int, list[str]]], column: str | None
) -> Iterator[Record]:
    _, header = next(rows, (0, []))
    if not header:
        return
    names = columns_of(
        source, header, column, "; if these are captions and no header, name the file .txt"
    )
    places = [len(header) if name is None else header.index(name) for name in names]
    clean = unmarked if is_ours(header) else str
    for line, row in rows:
        if places[0] < len(row) < len(header) and any(map(str.strip, row)):
            missing = f"{len(row)} fields under a header of {len(header)}"
            way_out = "leave none out, and put captions that hold line breaks in quotes"
            raise InputError(f"{source}: line {line}: {missing}: {way_out}")
        caption, kind, image = (clean(row[k]) if k < len(row) else None for k in places)
        yield caption, kind, image


def csv_header(text: str, column: str | None) -> tuple[str | None, list[str]]:
    """The delimiter and the first row.

    The delimiter is the one that makes the first row name a caption column, else the one that
    splits it most. None: a single column.
    """
    text = text[:LONGEST]
    if stated := _separator(text):
        return stated, _first_row(text, stated)
    headers = {delimiter: _first_row(text, delimiter) for delimiter in DELIMITERS}
    best = max(headers, key=lambda d: (bool(captions_among(headers[d], column)), len(headers[d])))
    return (best, headers[best]) if len(headers[best]) > 1 else (None, _first_row(text, None))


def _first_row(text: str, delimiter: str | None) -> list[str]:
    return next((row for _, row in rows_of("", _without_sep(lines_of("", [text])), delimiter)), [])


def _separator(line: str) -> str | None:
    """The delimiter that a first line `sep=;` gives, as spreadsheets write and read it."""
    match = _SEPARATOR.match(line.lstrip())
    return match[1] if match else None


def _without_sep(lines: Iterator[str]) -> Iterator[str]:
    first = next(lines, "")
    return chain(["\n" if _separator(first) else first], lines)


def read_parquet(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    import polars as pl

    file.seek(0)
    with _whole_parquet(source):
        schema = pl.read_parquet_schema(file)
    names = [name for name, dtype in schema.items() if not dtype.is_nested()]
    captions = (*CAPTION_COLUMNS, (column or "").lower())
    nested = [n for n in schema if n not in names and n.strip().lower() in captions]
    if nested and not {name.strip().lower() for name in names} & {*CAPTION_COLUMNS}:
        raise InputError(
            f"{source}: the column {nested[0]!r} holds lists, and a row is one caption: write a row"
            " for each (explode it)"
        )
    wanted = [name for name in columns_of(source, names, column) if name is not None]
    return records(source, _parquet_rows(source, file, wanted), column, wanted)


def _parquet_rows(source: str, file: IO[bytes], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    import polars as pl

    frame = pl.scan_parquet(file.name if isinstance(file.name, str) else file).select(columns)
    start = 0
    with _whole_parquet(source):
        while len(part := frame.slice(start, PARQUET_ROWS).collect()):
            yield from part.iter_rows(named=True)
            start += len(part)


@contextmanager
def _whole_parquet(source: str) -> Iterator[None]:
    """Raises InputError for files that polars cannot read while the context lasts."""
    from polars.exceptions import PanicException, PolarsError

    try:
        yield
    except (PolarsError, PanicException, OSError) as error:
        raise InputError(
            f"{source}: broken Parquet ({error!s:.200}): write it again, or export it as .csv"
        ) from None
