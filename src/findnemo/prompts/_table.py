"""Captions, and facts about rows without one: a table in memory, or a stream of any length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from findnemo.errors import InputError

LONGEST = 1 << 20  # longest caption or CSV field, in characters: more means an unclosed quote
FEW = 5  # rows that a warning lists

Record = tuple[Any, Any, Any]  # caption, type and image as in the source


@dataclass(frozen=True)
class Prompt:
    """One caption. `row`: counted from 1 among the data rows of its source, or the lines of a
    text.
    """

    text: str
    row: int
    type: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class PromptTable:
    """The distinct captions of a source in order, and the rows without one.

    >>> from findnemo.prompts import read_prompts
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
        """How many of its captions to use: None, all. See `PromptStream.most`."""

    def limit(self, n: int | None) -> PromptTable:
        """The table with its first `n` prompts only; its facts about skipped rows stay."""
        _check_limit(self.source, n)
        return replace(self, prompts=self.prompts[:n])

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each kind of skipped rows."""
        missing = _skipped(self.source, len(self.missing), self.missing[:FEW])
        return missing + repeated(self.source, len(self.duplicates), self.duplicates[:FEW])


@dataclass(frozen=True)
class PromptStream:
    """The captions of a source of any length, read anew at each iteration and not kept in memory.

    Rows without a caption are left out. Repeated captions are not, because recognizing them takes
    memory; `runs.enter` does it. `rows`: number of rows. `missing`: number of rows without a
    caption, and `some` of these. `most`: number of distinct captions to use (None: all).

    >>> from findnemo.prompts import stream_prompts
    >>> stream = stream_prompts(["a red fox", "", "a red fox"])
    >>> [prompt.row for prompt in stream], stream.warnings()
    ([1, 3], ('captions in memory: skipped 1 row without caption (row 2).',))
    """

    source: str
    open: Callable[[], Iterator[Record]]
    rows: int
    missing: int
    some: tuple[int, ...]
    most: int | None = None

    def __iter__(self) -> Iterator[Prompt]:
        return (prompt for _, prompt in _prompts(self.source, self.open()) if prompt is not None)

    def limit(self, n: int | None) -> PromptStream:
        """The stream with its first `n` distinct captions only."""
        _check_limit(self.source, n)
        return replace(self, most=n)

    def warnings(self) -> tuple[str, ...]:
        """A sentence on the rows without caption, if there are any."""
        return _skipped(self.source, self.missing, self.some)


def _skipped(source: str, count: int, some: Sequence[int]) -> tuple[str, ...]:
    """A sentence on rows without caption: how many, and the first of them."""
    return _sentence(source, count, [f"row {row}" for row in some], "without caption")


def repeated(source: str, count: int, some: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """A sentence on rows with the caption of an earlier row: how many, and the first ones with
    those rows.
    """
    pairs = [f"row {row} repeats row {first}" for row, first in some]
    return _sentence(source, count, pairs, "with the caption of an earlier row")


def _sentence(source: str, count: int, some: Sequence[str], what: str) -> tuple[str, ...]:
    if not count:
        return ()
    more = [f"and {count - len(some)} more"] if count > len(some) else []
    return (f"{source}: skipped {rows_in_words(count)} {what} ({', '.join([*some, *more])}).",)


def _check_limit(source: str, n: int | None) -> None:
    if n is not None and n < 1:
        raise InputError(f"{source}: a limit of {n} leaves no prompt: give 1 or more, or no limit")


def table_of(source: str, records: Iterable[Record]) -> PromptTable:
    """Sort the records of a source into prompts, rows without caption and repeated captions."""
    prompts: dict[str, Prompt] = {}
    missing: list[int] = []
    duplicates: list[tuple[int, int]] = []
    for row, prompt in _prompts(source, records):
        if prompt is None:
            missing.append(row)
        elif prompts.setdefault(prompt.text, prompt) is not prompt:
            duplicates.append((row, prompts[prompt.text].row))
    if not prompts:
        raise InputError(
            f"{source}: no caption in {rows_in_words(len(missing))}: give at least one"
        )
    return PromptTable(source, tuple(prompts.values()), tuple(missing), tuple(duplicates))


def _prompts(source: str, records: Iterable[Record]) -> Iterator[tuple[int, Prompt | None]]:
    """Row numbers with their prompts; None for a row without caption."""
    for row, (caption, kind, image) in enumerate(records, start=1):
        where = f"{source}: row {row}"
        text = caption_of(caption, where)
        if text is None:
            yield row, None
        else:
            yield row, Prompt(text, row, _label(kind, where), _label(image, where))


def caption_of(value: Any, where: str) -> str | None:
    """The caption in a cell; None for null, NaN and blank.

    The text 'nan' is a caption like any other.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str):
        raise InputError(
            f"{where}: {repr(value)[:60]} is {type(value).__name__}, not text: make it a string"
        )
    if value.encode(errors="ignore").decode() != value:
        raise InputError(
            f"{where}: {ascii(value)[:60]} holds half of a surrogate pair: repair or remove it"
        )
    text = value.replace("\0", "").strip()
    if len(text) > LONGEST:
        raise InputError(
            f"{where}: {len(text):,} characters, and a caption can have {LONGEST:,}: shorten it"
        )
    return text or None


def _label(value: Any, where: str) -> str | None:
    """A type or image cell as text; None if it is empty or something else, such as pixels."""
    if isinstance(value, float) and value.is_integer():  # integers in a column with gaps
        value = int(value)
    if not isinstance(value, str | int) or (isinstance(value, int) and abs(value) >= 10**18):
        return None
    text = str(value)
    return caption_of(text, where) if len(text) <= LONGEST else None


def rows_in_words(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
