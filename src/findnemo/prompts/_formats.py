"""The formats of tables, each a function from an open file to its records; and which one a file has."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from findnemo.errors import InputError
from findnemo.prompts._columns import captions_among, columns_of, keys, records
from findnemo.prompts._lines import decoded, lines_of, without_end, without_nul
from findnemo.prompts._table import LONGEST, Record

DELIMITERS = (",", ";", "\t", "|")
REFUSED_SUFFIXES = (
    *(".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".npy", ".npz"),
    *(".safetensors", ".feather", ".arrow", ".pdf", ".docx", ".db", ".sqlite", ".gz", ".bz2", ".xz", ".zst", ".zip"),
)
PARQUET_ROWS = 8192  # read at once
_NO_DELIMITER = "\uffff"  # a lone column has no delimiter: this noncharacter leaves its commas alone

Reader = Callable[[str, IO[bytes], str | None], Iterable[Record]]


def _read_text(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    return records(source, without_end(lines_of(source, decoded(source, file))), column, [])


def _read_json_lines(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    def values() -> Iterator[Any]:
        file.seek(0)
        for number, line in enumerate(without_end(lines_of(source, decoded(source, file))), start=1):
            yield _json(line, f"{source}: line {number}") if line.strip() else None

    return records(source, values(), column, keys(values()))


def read_json(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    values = _json("".join(decoded(source, file)).strip() or "[]", source)
    if not isinstance(values, list):
        raise InputError(f"{source}: holds one {type(values).__name__}: make it a list of captions or of objects")
    return records(source, values, column)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "repair it, or name the file .jsonl for a value on each line, .json for one list, .txt for bare captions"
        raise InputError(f"{where}: broken JSON ({error}): {hint}") from None


def _read_csv(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    blocks = without_nul(source, decoded(source, file))
    head = ""
    while len(head) < LONGEST and (block := next(blocks, "")):
        head += block
    delimiter, _ = _csv_header(head, column)
    rows = _csv_rows(source, lines_of(source, chain([head], blocks)), delimiter)
    header = next(rows, [])
    return records(source, (dict(zip(header, row, strict=False)) for row in rows), column, header)


def _csv_header(text: str, column: str | None) -> tuple[str, list[str]]:
    """The delimiter that makes the first row name a caption column, else the one that splits it most; and that row."""

    def header(delimiter: str) -> list[str]:
        return next(filter(None, csv.reader(io.StringIO(text[:LONGEST], newline=""), delimiter=delimiter)), [])

    csv.field_size_limit(max(LONGEST, csv.field_size_limit()))  # of the whole process: it is only ever raised
    headers = [(delimiter, header(delimiter)) for delimiter in DELIMITERS]
    delimiter, names = max(headers, key=lambda item: (bool(captions_among(item[1], column)), len(item[1])))
    return (delimiter if len(names) > 1 else _NO_DELIMITER), names


def _csv_rows(source: str, lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    """The rows that are not blank: the header, and rows no longer than it."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line, width = 1, 0
    try:
        for row in reader:
            width = width or len(row)
            if len(row) > width:
                excess = f"{len(row)} fields under a header of {width}"
                raise InputError(f"{source}: line {line}: {excess}: put captions that hold a {delimiter!r} in quotes")
            if row:
                yield row
            line = reader.line_num + 1
    except csv.Error as error:
        hint = 'write a quote inside quotes twice (""), and close every quote'
        raise InputError(f"{source}: broken CSV in the row at line {line} ({error}): {hint}") from None


def read_parquet(source: str, file: IO[bytes], column: str | None) -> Iterable[Record]:
    import polars as pl

    try:
        schema = pl.read_parquet_schema(file)
        names = [name for name, dtype in schema.items() if not dtype.is_nested()]
        wanted = [name for name in columns_of(source, names, column) if name is not None]
        return records(source, _parquet_rows(source, file, wanted), column, wanted)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _broken_parquet(source, error) from None


def _parquet_rows(source: str, file: IO[bytes], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    import polars as pl

    frame, start = pl.scan_parquet(file.name if isinstance(file.name, str) else file).select(columns), 0
    try:
        while len(part := frame.slice(start, PARQUET_ROWS).collect()):
            yield from part.iter_rows(named=True)
            start += len(part)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _broken_parquet(source, error) from None


def _broken_parquet(source: str, error: BaseException) -> InputError:
    return InputError(f"{source}: broken Parquet ({error!s:.200}): write it again, or export it as .csv")


_READERS: dict[str, Reader] = {
    **{".csv": _read_csv, ".tsv": _read_csv, ".parquet": read_parquet},
    **{".jsonl": _read_json_lines, ".ndjson": _read_json_lines, ".json": read_json},
}


def reader_of_suffix(path: Path) -> Reader:
    suffix = path.suffix.lower()
    if suffix in REFUSED_SUFFIXES:
        why = "workbooks, archives and pickles, which can run code, are not opened"
        raise InputError(f"{path}: {suffix} is not read ({why}): export the captions as .csv, .parquet, .jsonl or .txt")
    return _READERS.get(suffix, _read_text)


def reader_of_content(source: str, file: IO[bytes], column: str | None) -> Reader:
    """The format that the first line that is not blank shows."""

    def text() -> Iterator[str]:
        file.seek(0)
        return decoded(source, file)

    first = next((line for line in lines_of(source, text()) if line.strip()), "").lstrip()
    if first.startswith('{"') or _is_json(first, dict, str):
        return _read_json_lines
    if first.startswith("[") and _is_json("".join(text()), list):
        return read_json
    delimiter, header = _csv_header(first, column)
    named = delimiter != _NO_DELIMITER and bool(captions_among(header, column))
    return _read_csv if named or column is not None else _read_text


def _is_json(text: str, *types: type) -> bool:
    try:
        return isinstance(json.loads(text), types)
    except (ValueError, RecursionError):
        return False
