"""Read a table of captions: CSV, Parquet, JSON, JSON Lines or plain text, from a file, standard input or memory.

    table = read_prompts("captions.csv")
    for prompt in table.limit(100):
        print(prompt.row, prompt.text)

The format follows from the suffix. A caption is kept as it stands, because one changed character can be enough to hide
a memory: only surrounding whitespace and NUL, which belongs to no text, are removed. Other control characters stay.
"""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from findnemo.errors import InputError

CAPTION_COLUMNS = ("caption", "prompt", "text", "captions", "prompts")
TYPE_COLUMNS = ("type", "kind", "memorization")
IMAGE_COLUMNS = ("url", "image", "image_url", "image_path")
DELIMITERS = (",", ";", "\t", "|")
REFUSED_SUFFIXES = (
    *(".xlsx", ".xls", ".ods", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib", ".npy", ".npz"),
    *(".safetensors", ".feather", ".arrow", ".pdf", ".docx", ".db", ".sqlite", ".gz", ".bz2", ".xz", ".zst", ".zip"),
)
MOST_BYTES = 1 << 30  # of a table
LONGEST = 1 << 20  # characters of a caption, or of one CSV field: more is a quote that was never closed
_HERE = 8 << 20  # bytes of a table that is parsed in this process; parsed, it takes up to sixty times as much memory
_NO_DELIMITER = "\uffff"  # a lone column has no delimiter: this noncharacter leaves its commas alone


@dataclass(frozen=True)
class Prompt:
    """One caption. `row` counts from 1 the data rows of its source, or the lines of a text."""

    text: str
    row: int
    type: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class PromptTable:
    """The distinct captions of a source in their order, and the rows that gave none.

    >>> table = read_prompts(["a red fox", "", "a grey owl", "a red fox "])
    >>> [prompt.text for prompt in table], table.missing, table.duplicates
    (['a red fox', 'a grey owl'], (2,), ((4, 1),))
    >>> table.warnings()[1]
    'captions in memory: skipped 1 row with the caption of an earlier row (row 4 repeats row 1).'
    """

    source: str
    prompts: tuple[Prompt, ...]
    missing: tuple[int, ...] = ()
    duplicates: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def limit(self, n: int | None) -> "PromptTable":
        """The table with its first `n` prompts only; what it says about skipped rows stays."""
        if n is not None and n < 1:
            raise InputError(f"{self.source}: a limit of {n} leaves no prompt: give 1 or more, or no limit")
        return replace(self, prompts=self.prompts[:n])

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each kind of row that was skipped."""
        missing = [f"row {row}" for row in self.missing]
        repeats = [f"row {row} repeats row {first}" for row, first in self.duplicates]
        told = (missing, "without caption"), (repeats, "with the caption of an earlier row")
        return tuple(f"{self.source}: skipped {_rows(rows)} {what} ({_few(rows)})." for rows, what in told if rows)


_Record = tuple[Any, Any, Any]  # caption, type and image as the source holds them
_Reader = Callable[[str, IO[bytes], str | None], Iterable[_Record]]


def read_prompts(
    source: str | os.PathLike[str] | Iterable[str], column: str | None = None, stdin: IO[bytes] | None = None
) -> PromptTable:
    """Read captions from a path, from standard input (`"-"`) or from a sequence of strings.

    `column` names the column of captions where it is not one of `CAPTION_COLUMNS`.

    >>> read_prompts(["a red fox"]).prompts
    (Prompt(text='a red fox', row=1, type=None, image=None),)
    """
    if not isinstance(source, str | os.PathLike):
        return _table("captions in memory", _records("captions in memory", list(source), column))
    if source == "-":
        data = _bytes("standard input", stdin or sys.stdin.buffer)
        reader = _reader_of_content(_decoded("standard input", data), column)
        return _table("standard input", reader("standard input", io.BytesIO(data), column))
    reader = _reader_of_suffix(Path(source))
    with _opened(Path(source)) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_BYTES:
            raise InputError(f"{source}: {size:,} bytes, more than the {MOST_BYTES >> 30} GiB of a table: split it")
        if reader is _read_parquet or size > _HERE:
            return _table_of_child(str(source), column)
        return _table(str(source), reader(str(source), file, column))


def _table_of_child(source: str, column: str | None) -> "PromptTable":
    """A table that could take all memory, or break the library that reads it, as a process of its own reads it, with limited memory."""
    from findnemo._contained import call

    told = call("findnemo.prompts", "_told", source, column)
    captions = tuple(Prompt(*values) for values in told["prompts"])
    return PromptTable(source, captions, tuple(told["missing"]), tuple((row, first) for row, first in told["duplicates"]))


def _told(source: str, column: str | None) -> dict[str, Any]:
    """What a child tells of a table."""
    with _opened(Path(source)) as file:
        table = _table(source, _reader_of_suffix(Path(source))(source, file, column))
    prompts = [(p.text, p.row, p.type, p.image) for p in table]
    return {"prompts": prompts, "missing": table.missing, "duplicates": table.duplicates}


def _bytes(source: str, file: IO[bytes]) -> bytes:
    data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise InputError(f"{source}: more than the {MOST_BYTES >> 30} GiB of a table: split it")
    return data


def _table(source: str, records: Iterable[_Record]) -> PromptTable:
    """Sort the records of a source into prompts, rows without caption and repeated captions."""
    prompts: dict[str, Prompt] = {}
    missing: list[int] = []
    duplicates: list[tuple[int, int]] = []
    for row, (caption, kind, image) in enumerate(records, start=1):
        where = f"{source}: row {row}"
        text = _text(caption, where)
        if text is None:
            missing.append(row)
        elif text in prompts:
            duplicates.append((row, prompts[text].row))
        else:
            prompts[text] = Prompt(text, row, _label(kind, where), _label(image, where))
    if not prompts:
        raise InputError(f"{source}: no caption in {_rows(missing)}: give at least one")
    return PromptTable(source, tuple(prompts.values()), tuple(missing), tuple(duplicates))


def _text(value: Any, where: str) -> str | None:
    """The caption in a cell; None for null, NaN and blank. The text 'nan' is a caption like any other."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        raise InputError(f"{where}: {repr(value)[:60]} is {type(value).__name__}, not text: make it a string")
    if value.encode(errors="ignore").decode() != value:
        raise InputError(f"{where}: {ascii(value)[:60]} holds half of a surrogate pair: repair or remove it")
    text = value.replace("\0", "").strip()
    if len(text) > LONGEST:
        raise InputError(f"{where}: {len(text):,} characters, and a caption can have {LONGEST:,}: shorten it")
    return text or None


def _label(value: Any, where: str) -> str | None:
    """A type or image cell as text; None where it holds nothing, or something else such as the pixels themselves."""
    text = str(value) if isinstance(value, str) or (isinstance(value, int) and abs(value) < 10**18) else ""
    return _text(text, where) if len(text) <= LONGEST else None


def _rows(rows: Sequence[Any]) -> str:
    return "1 row" if len(rows) == 1 else f"{len(rows)} rows"


def _few(items: Sequence[str], most: int = 5) -> str:
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path!s:.200}: cannot be read ({why}): name a file, or pass captions as a list") from None


def _decoded(source: str, data: bytes) -> str:
    """`data` as text, without byte order mark."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        likely = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "WINDOWS-1252"
        where = f"line {line}, byte offset {error.start} (0x{data[error.start]:02x})"
        way_out = f"convert it, for example with iconv -f {likely} -t UTF-8 OLD > NEW if it is {likely}"
        raise InputError(f"{source}: not UTF-8 at {where}: {way_out}") from None


def _columns(source: str, names: Sequence[str], column: str | None) -> tuple[str, str | None, str | None]:
    """The columns of captions, types and images. Two that could both be the captions are an error, not a guess."""
    found = [name for name in names if name == column] or _captions_among(names, column)
    if len(found) == 1:
        kind, image = (next(iter(_matches(names, known)), None) for known in (TYPE_COLUMNS, IMAGE_COLUMNS))
        return found[0], kind, image
    wanted = f"caption column ({', '.join(CAPTION_COLUMNS)})" if column is None else f"column {column!r}"
    have = f"the columns are {_few([repr(name)[:60] for name in names], 20)}" if names else "there are no columns"
    way_out = "choose one of them with --column" if names else "leave --column out"
    raise InputError(f"{source}: {'more than one' if found else 'no'} {wanted}: {have}; {way_out}")


def _captions_among(names: Sequence[str], column: str | None) -> list[str]:
    return _matches(names, CAPTION_COLUMNS if column is None else (column,))


def _matches(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """Those of `names` that are `known`, whatever their case, in the order of `known`."""
    return [name for want in known for name in names if name.strip().casefold() == want.strip().casefold()]


def _records(source: str, values: Iterable[Any], column: str | None, names: Sequence[str] | None = None) -> Iterator[_Record]:
    """Captions from values that are captions themselves or rows with columns (all the keys, unless `names`)."""
    if names is None:
        values = list(values)
        names = list(dict.fromkeys(key for value in values if isinstance(value, dict) for key in value))
    plain = not names and column is None
    caption, kind, image = ("", None, None) if plain else _columns(source, names, column)
    for value in values:
        row: dict[Any, Any] = value if isinstance(value, dict) else {caption: value}
        yield row.get(caption), row.get(kind), row.get(image)


def _lines(text: str) -> list[str]:
    """Lines as files have them; `str.splitlines` would also cut at separators that occur inside captions."""
    return list(io.StringIO(text.rstrip(), newline=None))


def _read_text(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    return _records(source, _lines(_decoded(source, _bytes(source, file))), column)


def _read_json_lines(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    lines = enumerate(_lines(_decoded(source, _bytes(source, file))), start=1)
    values = (_json(line, f"{source}: line {number}") if line.strip() else None for number, line in lines)
    return _records(source, values, column)


def _read_json(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    values = _json(_decoded(source, _bytes(source, file)).strip() or "[]", source)
    if not isinstance(values, list):
        raise InputError(f"{source}: holds one {type(values).__name__}: make it a list of captions or of objects")
    return _records(source, values, column)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        hint = "repair it, or name the file .jsonl for a value on each line, .json for one list, .txt for bare captions"
        raise InputError(f"{where}: broken JSON ({error}): {hint}") from None


def _read_csv(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    text = _decoded(source, _bytes(source, file)).replace("\0", "")  # Python 3.10 refuses NUL
    delimiter, _ = _csv_header(text, column)
    rows = _csv_rows(source, text, delimiter)
    header = next(rows, [])
    return _records(source, (dict(zip(header, row, strict=False)) for row in rows), column, header)


def _csv_header(text: str, column: str | None) -> tuple[str, list[str]]:
    """The delimiter that makes the first row name a caption column, else the one that splits it most; and that row."""

    def header(delimiter: str) -> list[str]:
        return next(filter(None, csv.reader(io.StringIO(text[:LONGEST], newline=""), delimiter=delimiter)), [])

    csv.field_size_limit(max(LONGEST, csv.field_size_limit()))  # of the whole process: it is only ever raised
    headers = [(delimiter, header(delimiter)) for delimiter in DELIMITERS]
    delimiter, names = max(headers, key=lambda item: (bool(_captions_among(item[1], column)), len(item[1])))
    return (delimiter if len(names) > 1 else _NO_DELIMITER), names


def _csv_rows(source: str, text: str, delimiter: str) -> Iterator[list[str]]:
    """The rows that are not blank: the header, and rows no longer than it."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
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


def _read_parquet(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    import polars as pl

    try:
        schema = pl.read_parquet_schema(file)
        names = [name for name, dtype in schema.items() if not dtype.is_nested()]
        wanted = [name for name in _columns(source, names, column) if name is not None]
        file.seek(0)
        frame = pl.read_parquet(file, columns=wanted)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise InputError(f"{source}: broken Parquet ({error!s:.200}): write it again, or export it as .csv") from None
    return _records(source, frame.iter_rows(named=True), column, wanted)


_READERS: dict[str, _Reader] = {
    **{".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet},
    **{".jsonl": _read_json_lines, ".ndjson": _read_json_lines, ".json": _read_json},
}


def _reader_of_suffix(path: Path) -> _Reader:
    suffix = path.suffix.lower()
    if suffix in REFUSED_SUFFIXES:
        why = "workbooks, archives and pickles, which can run code, are not opened"
        raise InputError(f"{path}: {suffix} is not read ({why}): export the captions as .csv, .parquet, .jsonl or .txt")
    return _READERS.get(suffix, _read_text)


def _reader_of_content(text: str, column: str | None) -> _Reader:
    """The format that the first line that is not blank shows."""
    first = next(iter(_lines(text.lstrip())), "")
    if first.startswith('{"') or _is_json(first, dict, str):
        return _read_json_lines
    if first.startswith("[") and _is_json(text, list):
        return _read_json
    delimiter, header = _csv_header(first, column)
    named = delimiter != _NO_DELIMITER and bool(_captions_among(header, column))
    return _read_csv if named or column is not None else _read_text


def _is_json(text: str, *types: type) -> bool:
    try:
        return isinstance(json.loads(text), types)
    except (ValueError, RecursionError):
        return False
