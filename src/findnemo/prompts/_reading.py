"""Open a source of any kind, and read it once or repeatedly."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Any

from findnemo.errors import InputError
from findnemo.files.contained import call
from findnemo.prompts._columns import keys
from findnemo.prompts._columns import records as records_of
from findnemo.prompts._content import reader_of
from findnemo.prompts._formats import Reader, read_json, read_parquet
from findnemo.prompts._hub import PREFIX, of_hub
from findnemo.prompts._lines import BLOCK
from findnemo.prompts._table import (
    FEW,
    PromptStream,
    PromptTable,
    Record,
    caption_of,
    rows_in_words,
    table_of,
)

_AT_ONCE = 1 << 30  # largest file of one JSON list, in bytes; it is read whole
_HERE = 8 << 20  # largest one parsed in this process; it takes up to sixty times as much memory


def read_prompts(
    source: str | os.PathLike[str] | Iterable[str],
    column: str | None = None,
    stdin: IO[bytes] | None = None,
) -> PromptTable:
    """Read captions from a path, from standard input (`"-"`), from a data set of the hub
    (`"hf:OWNER/NAME"`) or from a sequence of strings.

    `column`: the column of captions, if it is not one of `CAPTION_COLUMNS`.

    >>> read_prompts(["a red fox"]).prompts
    (Prompt(text='a red fox', row=1, type=None, image=None),)
    """
    name, records = _opener(source, column, stdin)
    return table_of(name, records())


def stream_prompts(
    source: str | os.PathLike[str] | Iterable[Any],
    column: str | None = None,
    stdin: IO[bytes] | None = None,
) -> PromptStream:
    """Captions of a table of any length, read once to check it, and again at each iteration.

    Parquet, JSON Lines, CSV and text are read piece by piece, standard input through a temporary
    file; a file of one JSON list is read whole. The source may also be an iterable of captions or
    of rows with columns, such as a Hugging Face data set (`datasets.load_dataset(...,
    streaming=True)` too), or a function that returns an iterator. Raises InputError as
    `read_prompts` does, before anything is yielded.

    >>> rows = [{"caption": "a red fox", "type": "VM"}, {"caption": None}]
    >>> list(stream_prompts(rows))
    [Prompt(text='a red fox', row=1, type='VM', image=None)]
    """
    name, records = _opener(source, column, stdin)
    rows = missing = 0
    some: list[int] = []
    for rows, (caption, _, _) in enumerate(records(), start=1):
        if caption_of(caption, f"{name}: row {rows}") is None:
            missing += 1
            some = [*some, rows][:FEW]
    if missing == rows:
        raise InputError(f"{name}: no caption in {rows_in_words(rows)}: give at least one")
    return PromptStream(name, records, rows, missing, tuple(some))


def _opener(
    source: Any, column: str | None, stdin: IO[bytes] | None
) -> tuple[str, Callable[[], Iterator[Record]]]:
    """The name of a source, and a function that opens it: records from its beginning."""
    if not isinstance(source, str | os.PathLike):
        return _of_values(source, column)
    if str(source).startswith(PREFIX):
        return str(source), of_hub(str(source), column)
    if source == "-":
        name = "standard input"
        spooled = _spooled(stdin or sys.stdin.buffer)
        reader = reader_of(name, None, spooled, column)
    else:
        name = str(source)
        spooled = None
        with _opened(Path(source)) as file:
            reader = reader_of(name, Path(source).suffix, file, column)
        _look_first(Path(source), reader, column)

    def records() -> Iterator[Record]:
        with _opened(Path(source)) if spooled is None else nullcontext(spooled) as file:
            file.seek(0)
            yield from reader(name, file, column)

    return name, records


def _of_values(source: Any, column: str | None) -> tuple[str, Callable[[], Iterator[Record]]]:
    """Captions or rows in memory, of a data set, or from a function."""
    if isinstance(source, Mapping):
        raise InputError(
            "a dict of columns is not a list of captions: give rows, such as [{'caption': ...},"
            " ...], or a DataFrame"
        )
    # a DataFrame, of polars or of pandas
    if hasattr(source, "columns") and hasattr(source, "to_dict"):
        source = source.to_dicts() if hasattr(source, "to_dicts") else source.to_dict("records")
    if source is None or not (callable(source) or hasattr(source, "__iter__")):
        raise InputError(
            f"{source!r:.60} is not a table of captions: give a file, a list of captions, or rows"
        )
    columns = getattr(source, "column_names", None)
    if columns is None and hasattr(source, "column_names"):  # a streamed data set
        columns = keys(islice(source, 1))
    if columns is None and not callable(source):
        source = list(source)
    in_memory = isinstance(source, list)
    name = "captions in memory" if in_memory else f"{type(source).__name__} of captions"

    def records() -> Iterator[Record]:
        values = source() if callable(source) else source
        names = keys(source()) if callable(source) and columns is None else columns
        return records_of(name, values, column, None if names is None else list(names))

    return name, records


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    """A pipe as an unnamed file, which is deleted when closed; it may fill half of the free
    space.
    """
    room = shutil.disk_usage(tempfile.gettempdir()).free // 2
    file = tempfile.TemporaryFile()  # noqa: SIM115
    while block := stream.read(BLOCK):
        if file.tell() + len(block) > room:
            file.close()
            raise InputError(
                f"standard input: more than {room:,} bytes, half of the room in"
                f" {tempfile.gettempdir()}: write it to a file and name that, or set TMPDIR to a"
                " larger disk"
            )
        file.write(block)
    return file


def _opened(path: Path) -> IO[bytes]:
    try:
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # opening a pipe can block for ever
            raise InputError(
                f"{path}: a pipe or a device: name a file, or give - and pipe it into standard"
                " input"
            )
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path!s:.200}: cannot be read ({why}): name a file, or pass captions as a list"
        ) from None


def _look_first(path: Path, reader: Reader, column: str | None) -> None:
    """Let a separate process with limited memory read a file that could exhaust memory or break its
    library.

    This is for Parquet and large files of one JSON list: it is unknown beforehand to what size a
    few kilobytes unpack.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
    if reader is read_json and size > _AT_ONCE:
        raise InputError(
            f"{path}: {size:,} bytes, more than the {_AT_ONCE >> 30} GiB of one JSON list: write it"
            " as .jsonl"
        )
    if reader is read_parquet or (reader is read_json and size > _HERE):
        call("findnemo.prompts._reading", "_read_through", str(path), column)


def _read_through(source: str, column: str | None) -> int:
    """In the separate process: count the rows of a table."""
    with _opened(Path(source)) as file:
        reader = reader_of(source, Path(source).suffix, file, column)
        return sum(1 for _ in reader(source, file, column))
