"""Read a table of captions: CSV, Parquet, JSON, JSON Lines or plain text, from a file, standard input or memory.

    table = read_prompts("captions.csv")
    for prompt in table.limit(100):
        print(prompt.row, prompt.text)

    for prompt in stream_prompts("millions.parquet"):  # a few thousand in memory at a time, repeated captions and all
        print(prompt.row, prompt.text)

The format follows from the suffix. A caption is kept as it stands, because one changed character can be enough to hide
a memory: only surrounding whitespace and NUL, which belongs to no text, are removed. Other control characters stay.
"""

import csv
import io
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
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
_FEW = 5  # rows that a warning names
_BLOCK = 1 << 20  # bytes decoded at once
_PARQUET_ROWS = 8192  # read at once
_LINE = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")  # where lines end
LONGEST = 1 << 20  # characters of a caption, or of one CSV field: more is a quote that was never closed
_LINE_LIMIT = 1 << 24  # characters of a line
_MOST_COLUMNS = 10_000
_AT_ONCE = 1 << 30  # bytes of a file of one JSON list, which is read whole
_HERE = 8 << 20  # bytes of such a file that is parsed in this process; parsed, it takes up to sixty times as much memory
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

    @property
    def most(self) -> None:
        """How many of its captions are meant: all. See `PromptStream.most`."""

    def limit(self, n: int | None) -> "PromptTable":
        """The table with its first `n` prompts only; what it says about skipped rows stays."""
        _check_limit(self.source, n)
        return replace(self, prompts=self.prompts[:n])

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each kind of row that was skipped."""
        counts = len(self.missing), len(self.duplicates)
        return skipped(self.source, counts[0], self.missing[:_FEW]) + repeated(self.source, counts[1], self.duplicates[:_FEW])


@dataclass(frozen=True)
class PromptStream:
    """The captions of a source of any length, read anew at each iteration: nothing of it is kept in memory.

    Rows without caption are left out; rows with the caption of an earlier row are not, for to know them takes memory: `runs.enter` does.
    `rows`, `missing`: how many rows it has, and how many have no caption, `some` of them; `most`: how many distinct captions are meant (None:
    all).

    >>> stream = stream_prompts(["a red fox", "", "a red fox"])
    >>> [prompt.row for prompt in stream], stream.warnings()
    ([1, 3], ('captions in memory: skipped 1 row without caption (row 2).',))
    """

    source: str
    open: Callable[[], Iterator["_Record"]]
    rows: int
    missing: int
    some: tuple[int, ...]
    most: int | None = None

    def __iter__(self) -> Iterator[Prompt]:
        return _prompts(self.source, self.open())

    def limit(self, n: int | None) -> "PromptStream":
        """The stream with its first `n` distinct captions only."""
        _check_limit(self.source, n)
        return replace(self, most=n)

    def warnings(self) -> tuple[str, ...]:
        """A sentence on the rows without caption, if there are any."""
        return skipped(self.source, self.missing, self.some)


def skipped(source: str, count: int, some: Sequence[int]) -> tuple[str, ...]:
    """A sentence on rows without caption: how many, and the first of them."""
    return _sentence(source, count, [f"row {row}" for row in some], "without caption")


def repeated(source: str, count: int, some: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """A sentence on rows with the caption of an earlier row: how many, and the first of them, each with that row."""
    return _sentence(
        source, count, [f"row {row} repeats row {first}" for row, first in some], "with the caption of an earlier row"
    )


def _sentence(source: str, count: int, some: Sequence[str], what: str) -> tuple[str, ...]:
    more = [f"and {count - len(some)} more"] if count > len(some) else []
    return (f"{source}: skipped {_rows(count)} {what} ({', '.join([*some, *more])}).",) if count else ()


def _check_limit(source: str, n: int | None) -> None:
    if n is not None and n < 1:
        raise InputError(f"{source}: a limit of {n} leaves no prompt: give 1 or more, or no limit")


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
    name, records = _opener(source, column, stdin)
    return _table(name, records())


def stream_prompts(
    source: str | os.PathLike[str] | Iterable[Any], column: str | None = None, stdin: IO[bytes] | None = None
) -> PromptStream:
    """The same for tables of any length; reads the source once to check it, and again whenever it is iterated.

    Parquet, JSON Lines, CSV and text are read piece by piece, standard input by way of a temporary file; a file of one JSON list is read whole.
    Or give what yields captions or rows with columns: a Hugging Face data set (`datasets.load_dataset(..., streaming=True)` too), or a
    function that returns an iterator. Raises InputError as `read_prompts` does, before anything is yielded.

    >>> rows = [{"caption": "a red fox", "type": "VM"}, {"caption": None}]
    >>> list(stream_prompts(rows))
    [Prompt(text='a red fox', row=1, type='VM', image=None)]
    """
    name, records = _opener(source, column, stdin)
    rows, missing = 0, 0
    some: list[int] = []
    for rows, (caption, _, _) in enumerate(records(), start=1):
        if _text(caption, f"{name}: row {rows}") is None:
            missing, some = missing + 1, [*some, rows][:_FEW]
    if missing == rows:
        raise InputError(f"{name}: no caption in {_rows(rows)}: give at least one")
    return PromptStream(name, records, rows, missing, tuple(some))


def _opener(source: Any, column: str | None, stdin: IO[bytes] | None) -> tuple[str, Callable[[], Iterator["_Record"]]]:
    """The name of a source, and what opens it: records from its beginning."""
    if not isinstance(source, str | os.PathLike):
        return _of_values(source, column)
    if source == "-":
        name, spooled = "standard input", _spooled(stdin or sys.stdin.buffer)
        reader = _reader_of_content(name, spooled, column)
    else:
        name, spooled, reader = str(source), None, _reader_of_suffix(Path(source))
        _look_first(Path(source), reader, column)

    def records() -> Iterator[_Record]:
        with _opened(Path(source)) if spooled is None else nullcontext(spooled) as file:
            file.seek(0)
            yield from reader(name, file, column)

    return name, records


def _of_values(source: Any, column: str | None) -> tuple[str, Callable[[], Iterator["_Record"]]]:
    """Captions or rows in memory, of a data set, or of what a function returns."""
    known = getattr(source, "column_names", None)
    if known is None and not callable(source):
        source = list(source)
    name = "captions in memory" if isinstance(source, list) else f"{type(source).__name__} of captions"

    def records() -> Iterator[_Record]:
        values = source() if callable(source) else source
        return _records(name, values, column, None if known is None else list(known))

    return name, records


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    """A pipe as a file without a name, which is gone when it is closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    shutil.copyfileobj(stream, file, _BLOCK)
    return file


def _look_first(path: Path, reader: "_Reader", column: str | None) -> None:
    """Have a process of its own, with limited memory, read what could take all memory or break the library that reads it.

    Parquet, and large files of one JSON list: what a few kilobytes unpack to cannot be told beforehand.
    """
    from findnemo._contained import call

    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
    if reader is _read_json and size > _AT_ONCE:
        raise InputError(f"{path}: {size:,} bytes, more than the {_AT_ONCE >> 30} GiB of one JSON list: write it as .jsonl")
    if reader is _read_parquet or (reader is _read_json and size > _HERE):
        call("findnemo.prompts", "_read_through", str(path), column)


def _read_through(source: str, column: str | None) -> int:
    """What the other process does: how many rows a table has."""
    with _opened(Path(source)) as file:
        return sum(1 for _ in _reader_of_suffix(Path(source))(source, file, column))


def _table(source: str, records: Iterable[_Record]) -> PromptTable:
    """Sort the records of a source into prompts, rows without caption and repeated captions."""
    prompts: dict[str, Prompt] = {}
    missing: list[int] = []
    duplicates: list[tuple[int, int]] = []
    for row, (text, kind, image) in _cells(source, records):
        if text is None:
            missing.append(row)
        elif text in prompts:
            duplicates.append((row, prompts[text].row))
        else:
            prompts[text] = Prompt(text, row, kind, image)
    if not prompts:
        raise InputError(f"{source}: no caption in {_rows(len(missing))}: give at least one")
    return PromptTable(source, tuple(prompts.values()), tuple(missing), tuple(duplicates))


def _cells(source: str, records: Iterable[_Record]) -> Iterator[tuple[int, tuple[str | None, str | None, str | None]]]:
    """Row numbers with caption, type and image as text."""
    for row, (caption, kind, image) in enumerate(records, start=1):
        where = f"{source}: row {row}"
        text = _text(caption, where)
        yield row, (None, None, None) if text is None else (text, _label(kind, where), _label(image, where))


def _prompts(source: str, records: Iterable[_Record]) -> Iterator[Prompt]:
    return (Prompt(text, row, kind, image) for row, (text, kind, image) in _cells(source, records) if text is not None)


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


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _few(items: Sequence[str], most: int = 5) -> str:
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path!s:.200}: cannot be read ({why}): name a file, or pass captions as a list") from None


def _decoded(source: str, file: IO[bytes]) -> Iterator[str]:
    """A file as text, block by block, without byte order mark."""
    rest, offset, lines, first = b"", 0, 0, True
    while block := file.read(_BLOCK):
        data = rest + block
        text, end = _decoded_part(source, data, offset, lines)
        yield text.removeprefix("\ufeff") if first else text
        rest, offset, lines, first = data[end:], offset + end, lines + data.count(b"\n", 0, end), False
    if rest:
        _decoded_part(source, rest, offset, lines, whole=True)


def _decoded_part(source: str, data: bytes, offset: int, lines: int, whole: bool = False) -> tuple[str, int]:
    """The text of bytes, and where it ends: before a character that the next block completes, unless this is the whole."""
    try:
        return data.decode("utf-8"), len(data)
    except UnicodeDecodeError as error:
        if error.end == len(data) and error.reason == "unexpected end of data" and not whole:
            return data[: error.start].decode("utf-8"), error.start
        line = lines + data.count(b"\n", 0, error.start) + 1
        likely = "UTF-16" if offset == 0 and data.startswith((b"\xff\xfe", b"\xfe\xff")) else "WINDOWS-1252"
        where = f"line {line}, byte offset {offset + error.start} (0x{data[error.start]:02x})"
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
        names = _keys(values)
    plain = not names and column is None
    caption, kind, image = ("", None, None) if plain else _columns(source, names, column)
    for value in values:
        row: dict[Any, Any] = value if isinstance(value, dict) else {caption: value}
        yield row.get(caption), row.get(kind), row.get(image)


def _keys(values: Iterable[Any]) -> list[str]:
    names: dict[str, None] = {}
    for value in values:
        names |= dict.fromkeys(value) if isinstance(value, dict) else {}
        if len(names) > _MOST_COLUMNS:
            raise InputError(f"more than {_MOST_COLUMNS:,} columns: a table of captions has a few")
    return list(names)


def _lines(source: str, blocks: Iterable[str]) -> Iterator[str]:
    """Lines as files have them, with their ends; `str.splitlines` would also cut at separators that occur inside captions."""
    rest = ""
    for block in blocks:
        *lines, rest = _LINE.split(rest + block)
        if rest == "" and lines and lines[-1].endswith("\r"):  # perhaps half of an end
            rest = lines.pop()
        if len(rest) > _LINE_LIMIT:
            raise InputError(f"{source}: a line of over {_LINE_LIMIT >> 20} million characters: a table has a caption on each")
        yield from lines
    yield from (line for line in _LINE.split(rest) if line)


def _without_end(lines: Iterable[str]) -> Iterator[str]:
    """Lines without the blank ones at the end of a file."""
    blank = 0
    for line in lines:
        if not line.strip():
            blank += 1
            continue
        yield from ("" for _ in range(blank))
        blank = 0
        yield line


def _read_text(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    return _records(source, _without_end(_lines(source, _decoded(source, file))), column, [])


def _read_json_lines(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    def values() -> Iterator[Any]:
        file.seek(0)
        for number, line in enumerate(_without_end(_lines(source, _decoded(source, file))), start=1):
            yield _json(line, f"{source}: line {number}") if line.strip() else None

    return _records(source, values(), column, _keys(values()))


def _read_json(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    values = _json("".join(_decoded(source, file)).strip() or "[]", source)
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
    blocks = (block.replace("\0", "") for block in _decoded(source, file))  # Python 3.10 refuses NUL
    head = ""
    while len(head) < LONGEST and (block := next(blocks, "")):
        head += block
    delimiter, _ = _csv_header(head, column)
    rows = _csv_rows(source, _lines(source, chain([head], blocks)), delimiter)
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


def _read_parquet(source: str, file: IO[bytes], column: str | None) -> Iterable[_Record]:
    import polars as pl

    try:
        schema = pl.read_parquet_schema(file)
        names = [name for name, dtype in schema.items() if not dtype.is_nested()]
        wanted = [name for name in _columns(source, names, column) if name is not None]
        return _records(source, _parquet_rows(source, file, wanted), column, wanted)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _broken_parquet(source, error) from None


def _parquet_rows(source: str, file: IO[bytes], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    import polars as pl

    frame, start = pl.scan_parquet(file.name if isinstance(file.name, str) else file).select(columns), 0
    try:
        while len(part := frame.slice(start, _PARQUET_ROWS).collect()):
            yield from part.iter_rows(named=True)
            start += len(part)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise _broken_parquet(source, error) from None


def _broken_parquet(source: str, error: BaseException) -> InputError:
    return InputError(f"{source}: broken Parquet ({error!s:.200}): write it again, or export it as .csv")


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


def _reader_of_content(source: str, file: IO[bytes], column: str | None) -> _Reader:
    """The format that the first line that is not blank shows."""

    def text() -> Iterator[str]:
        file.seek(0)
        return _decoded(source, file)

    first = next((line for line in _lines(source, text()) if line.strip()), "").lstrip()
    if first.startswith('{"') or _is_json(first, dict, str):
        return _read_json_lines
    if first.startswith("[") and _is_json("".join(text()), list):
        return _read_json
    delimiter, header = _csv_header(first, column)
    named = delimiter != _NO_DELIMITER and bool(_captions_among(header, column))
    return _read_csv if named or column is not None else _read_text


def _is_json(text: str, *types: type) -> bool:
    try:
        return isinstance(json.loads(text), types)
    except (ValueError, RecursionError):
        return False
