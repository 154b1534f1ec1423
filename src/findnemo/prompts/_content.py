"""Find the format of a file by its content; its suffix decides only if several are possible."""

from __future__ import annotations

import json
import os
import re
from itertools import islice
from typing import IO

from findnemo.errors import InputError
from findnemo.prompts._columns import CAPTION_COLUMNS, IMAGE_COLUMNS, TYPE_COLUMNS, folded
from findnemo.prompts._csv import rows_of
from findnemo.prompts._formats import (
    Reader,
    csv_header,
    read_csv,
    read_json,
    read_json_lines,
    read_parquet,
    read_text,
)
from findnemo.prompts._kinds import EXPORT, HEAD, kind_of
from findnemo.prompts._lines import beginning, lines_of, text_blocks
from findnemo.prompts._table import LONGEST

_REFUSED = (
    ".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".npy", ".npz",
    ".safetensors", ".feather", ".arrow", ".pdf", ".docx", ".db", ".sqlite",
    ".gz", ".bz2", ".xz", ".zst", ".zip",
)  # fmt: skip
_READERS: dict[str, Reader] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
}
_OTHERS = (
    "", "id", "index", "row", "n", "no", "nr", "number", "key", "name", "file", "filename",
    "score", "width", "height",
)  # fmt: skip
_KNOWN = {*CAPTION_COLUMNS, *TYPE_COLUMNS, *IMAGE_COLUMNS, *_OTHERS}
_NAME = re.compile(r"[^\W\d][\w .:/()-]{0,39}")  # a possible name of a column
_ROWS = 1000  # rows to check in a text that may be a table


def reader_of(source: str, suffix: str | None, file: IO[bytes], column: str | None) -> Reader:
    """The reader of a file, by its content. `suffix`: None for standard input.

    Raises InputError naming what the file is if it is no table: an archive, a workbook, a picture,
    a pickle.
    """
    suffix = None if suffix is None else suffix.lower()
    head, tail = _ends(file)
    if head.startswith(b"PAR1") and (suffix == ".parquet" or tail.endswith(b"PAR1")):
        return read_parquet
    refused = suffix if suffix in _REFUSED else None
    if kind := kind_of(head, tail):
        raise InputError(f"{source}: {_refusal(refused, *kind)}")
    reader = _shown(beginning(text_blocks(source, file)), suffix, column)
    if refused and reader is None:
        raise InputError(f"{source}: {_refusal(refused)}")
    return reader or _READERS.get(suffix or "", read_text)


def _refusal(suffix: str | None, what: str = "", way_out: str = EXPORT) -> str:
    why = "workbooks, archives and pickles, which can run code, are not opened"
    if suffix is None:
        return f"this is {what}, not a table of captions: {way_out}"
    return f"{what and f'this is {what}; '}{suffix} is not read ({why}): {way_out}"


def _ends(file: IO[bytes]) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - HEAD))
    tail = file.read(HEAD)
    file.seek(0)
    return file.read(HEAD), tail


def _shown(text: str, suffix: str | None, column: str | None) -> Reader | None:
    """The format that the beginning of a file shows; None if any is possible."""
    lines = (line.strip() for line in lines_of("", [text]))
    first, second = [*islice(filter(None, lines), 2), "", ""][:2]
    if first.startswith("{") and re.match(r'\{\s*("|$)', first):
        return _of_object(first, second, suffix)
    if first.startswith("[") and _begins_list(text.lstrip("\ufeff \t\r\n")):
        return read_json
    texts = first.startswith('"') and _is_json(first, str)
    if suffix is None and texts and (not second or _is_json(second, str, dict)):
        return read_json_lines
    if suffix in (".csv", ".tsv"):
        return None
    return read_csv if _is_table(text, second, suffix, column) else None


def _of_object(first: str, second: str, suffix: str | None) -> Reader | None:
    """The reader of objects on lines of their own, or of one object over all lines."""
    if _is_json(first, dict):
        return read_json_lines if second or suffix != ".json" else None
    return read_json if first == "{" or first.endswith((",", "{", "[")) else read_json_lines


def _begins_list(text: str) -> bool:
    """Whether a text is a list of JSON, or the beginning of one."""
    if len(text) < LONGEST and _is_json(text, list):
        return True
    rest = text[1:].lstrip()
    try:
        value, end = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, dict):
        return True
    # a complete text that gets here is broken JSON: an error only if it was surely meant as JSON
    whole = len(text) < LONGEST
    return not whole and isinstance(value, str | None) and rest[end:].lstrip()[:1] == ","


def _is_json(text: str, *types: type) -> bool:
    try:
        return isinstance(json.loads(text), types)
    except (ValueError, RecursionError):
        return False


def _is_table(text: str, second: str, suffix: str | None, column: str | None) -> bool:
    """Whether a text without the name of a CSV file is a table.

    Its first row then names a caption column among others, and the rows fit under it.
    """
    captions = CAPTION_COLUMNS if column is None else (folded(column),)
    delimiter, header = csv_header(text, column)
    names = [folded(name) for name in header]
    if suffix is None and column is not None:
        return True
    if not any(name in captions for name in names):
        return False
    if len(names) == 1 or {*names} <= {*_KNOWN, *captions}:
        return bool(second) or len(names) > 1
    named = all(name in _KNOWN or _NAME.fullmatch(name) for name in names)
    return named and len({*names}) == len(names) and _fit(text, delimiter, len(names))


def _fit(text: str, delimiter: str | None, width: int) -> bool:
    """Whether at least half of the rows have this many fields."""
    widths: list[int] = []
    rows = rows_of("", lines_of("", [text]), delimiter)
    try:
        for _, row in islice(rows, 1, _ROWS):
            widths.append(len(row))
    except InputError:
        widths.append(0)
    return bool(widths) and 2 * widths.count(width) >= len(widths)
