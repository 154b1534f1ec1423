"""A data set of the Hugging Face hub as a table: read piece by piece, without running its code or
loading pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from findnemo.errors import InputError, first_line
from findnemo.prompts._columns import columns_of, records
from findnemo.prompts._table import Record

PREFIX = "hf:"


def of_hub(source: str, column: str | None) -> Callable[[], Iterator[Record]]:
    """A function that opens `hf:OWNER/NAME` or `hf:OWNER/NAME:SPLIT` (by default train); a
    directory may replace the name.

    Raises InputError without the library `datasets`, and for a data set that it cannot open.
    """
    try:
        from datasets import Value, load_dataset
    except ImportError as error:
        raise InputError(
            f"{source}: data sets of the hub need a library: pip install findnemo[datasets]"
        ) from error
    place, _, split = source.removeprefix(PREFIX).partition(":")
    try:
        rows: Any = load_dataset(place, split=split or "train", streaming=True)
        # the columns of CSV are unknown before reading
        features = rows.features or dict.fromkeys(next(iter(rows), {}), Value("string"))
    except Exception as error:  # the library raises anything on missing or invalid data sets
        raise _unread(source, error) from None
    names = [name for name, kind in features.items() if isinstance(kind, Value)]
    wanted = [name for name in columns_of(source, names, column) if name is not None]

    def read() -> Iterator[Any]:
        try:
            yield from rows.select_columns(wanted)
        except Exception as error:
            raise _unread(source, error) from None

    return lambda: records(source, read(), column, wanted)


def _unread(source: str, error: Exception) -> InputError:
    return InputError(
        f"{source}: cannot be read ({first_line(error):.200}): name it as hf:OWNER/NAME or hf:OWNER/NAME:SPLIT,"
        " or give a file"
    )
