"""Rows of a table with delimiters, with or without a convention on quotes.

This is written by hand, because captions stay verbatim: the csv module and polars drop or join text
around a stray quote.

A field is quoted if it begins with a quote, and the next quote that is not doubled is directly
before a delimiter or the end of its line. Any other quote is an ordinary character: `"Bad" boy`,
`15" screen`, a caption that begins with a quote and never ends it.

A quote that ends on a later line can mean two things: one caption of several lines, or captions
with a stray quote each and all rows between them. In most cases the number of columns decides. If
both readings fit, a table with commas or semicolons is read as its writers usually write it
(quoted), unless stray quotes elsewhere show that this one did not. A table with tabs or bars has no
such convention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from findnemo.errors import InputError
from findnemo.prompts._table import LONGEST

_HINT = 'write a quote inside quotes twice (""), and close every quote'
_BACKSLASHED = re.compile(r' *"(?:[^"\\]|\\.)*\\"(?:[^"\\]|\\.)*" *\Z')  # "He said \"yes\""

Row = tuple[int, list[str]]  # number of its first line, and its fields


class _Ahead:
    """Lines that can be read ahead; `number`: of the line last taken."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._seen: list[str] = []
        self._at = self.number = 0

    def take(self) -> str | None:
        line = self.look(0)
        self._at += 1
        self.number += 1
        return line

    def look(self, index: int) -> str | None:
        """A line ahead; None after the last."""
        if self._at + index >= len(self._seen):
            del self._seen[: self._at]
            self._at = 0
        while index >= len(self._seen) - self._at:
            if (line := next(self._lines, None)) is None:
                return None
            self._seen.append(line)
        return self._seen[self._at + index]


def rows_of(
    source: str, lines: Iterable[str], delimiter: str | None, quotes: bool = True
) -> Iterator[Row]:
    """The rows that are not blank: the header, and rows no longer than it.

    `delimiter`: None for a single column. `quotes`: read an ambiguous quote over several lines as a
    quote, not as stray ones. Raises InputError naming the line of a row with more fields than the
    header, a too long field, or quotes behind backslashes.
    """
    width = 0
    for number, row, strays in _Table(lines, delimiter, quotes):
        width = width or len(row)
        if any(map(str.strip, row[width:])):  # delimiters at the end of a line are no fields
            excess = f"{len(row)} fields under a header of {width}"
            raise InputError(
                f"{source}: line {number}: {excess}: put captions that hold a {delimiter!r} in"
                " quotes"
            )
        if max(map(len, row)) > LONGEST:
            raise _broken(source, number, f"field larger than field limit ({LONGEST})")
        if any(map(_BACKSLASHED.match, strays)):
            raise _broken(source, number, "quotes behind backslashes")
        yield number, row[:width]


def has_strays(lines: Iterable[str], delimiter: str | None) -> bool:
    """Whether fields hold quotes that a usual writer of tables would have quoted and doubled."""
    return any(strays for _, _, strays in _Table(lines, delimiter))


def _broken(source: str, number: int, why: str) -> InputError:
    return InputError(f"{source}: broken CSV in the row at line {number} ({why}): {_HINT}")


class _Table:
    """The rows of a table that are not blank: number of the first line, fields, and fields with
    stray quotes.

    `delimiter` and `quotes` as in `rows_of`. `width`: fields of the header, 0 before it.
    """

    def __init__(self, lines: Iterable[str], delimiter: str | None, quotes: bool = True) -> None:
        self.ahead = _Ahead(lines)
        self.delimiter = delimiter
        self.quotes = quotes
        self.width = 0

    def __iter__(self) -> Iterator[tuple[int, list[str], list[str]]]:
        while (line := self.ahead.take()) is not None:
            number = self.ahead.number
            body = _body(line)
            if not body:
                continue
            strays: list[str] = []
            if '"' in body:
                row, strays = self._row(line)
            else:
                row = body.split(self.delimiter) if self.delimiter else [body]
            self.width = self.width or len(row)
            yield number, row, strays

    def _row(self, line: str) -> tuple[list[str], list[str]]:
        """The row that begins with a line; takes its further lines too."""
        row: list[str] = []
        strays: list[str] = []
        start = 0
        while start >= 0:
            fields, start, odd = self._fields(_body(line), start)
            row += fields
            strays += odd
            if start < 0:
                break
            further = self._further()
            whole = "".join([line[start:], *further])
            if further and self._is_quoted(whole, _body(line[start:]), further, len(row)):
                for _ in further:
                    self.ahead.take()
                line, start = whole, 0
            else:
                field, start = self._literal(_body(line), start)
                row.append(field)
                strays.append(field)
        return row, strays

    def _fields(self, text: str, start: int) -> tuple[list[str], int, list[str]]:
        """The fields of a text from a position on, the position of one whose quote does not end in
        the text (-1: none), and fields with stray quotes.
        """
        fields: list[str] = []
        strays: list[str] = []
        while start >= 0:
            quote = _spaces(text, start)
            close = _closing(text, quote + 1) if text.startswith('"', quote) else None
            if close == -1:
                return fields, start, strays
            after = None if close is None else self._next(text, close)
            if after is not None:
                fields.append(text[quote + 1 : close].replace('""', '"'))
                start = after
            else:
                field, start = self._literal(text, start)
                fields.append(field)
                strays += [field] if '"' in field else []
        return fields, -1, strays

    def _literal(self, text: str, start: int) -> tuple[str, int]:
        """An unquoted field, and the position of the next (-1: none)."""
        end = text.find(self.delimiter, start) if self.delimiter else -1
        return (text[start:], -1) if end < 0 else (text[start:end], end + 1)

    def _next(self, text: str, close: int) -> int | None:
        """The position of the field after a quote that ends one (-1: none); None for a quote that
        is not before a delimiter or the end of a text.
        """
        at = _spaces(text, close + 1)
        if at == len(text):
            return -1
        return at + 1 if self.delimiter and text.startswith(self.delimiter, at) else None

    def _is_quoted(self, whole: str, first: str, further: Sequence[str], before: int) -> bool:
        """Whether a quote that is open in the line `first` ends in the last of the `further` lines,
        and both are not stray, by the number of fields; `before` of them are known.

        As one row, `whole`, they fit with as many fields as the header (`width`). As separate rows,
        the first line and half of the others must fit.
        """
        if not self.width:
            return self.quotes
        fields, opened, _ = self._fields(_body(whole), 0)
        count = before + len(fields)
        one = count == self.width or (opened >= 0 and count < self.width)
        others = [self._count(text) == self.width for text in map(_body, further) if text]
        first_fits = before + self._count(first) == self.width
        many = first_fits and 2 * sum(others) >= len(others)
        return one or not many if self.quotes else one and not many

    def _count(self, text: str) -> int:
        """The number of fields of a line, if no quote continues after it."""
        count = start = 0
        while start >= 0:
            fields, start, _ = self._fields(text, start)
            count += len(fields)
            if start >= 0:
                count += 1
                _, start = self._literal(text, start)
        return count

    def _further(self) -> list[str]:
        """The lines ahead up to the one in which an open quote can end; empty if it cannot."""
        lines: list[str] = []
        size = 0
        while size <= LONGEST and (line := self.ahead.look(len(lines))) is not None:
            lines.append(line)
            size += len(line)
            if (close := _closing(line, 0)) >= 0:
                return [] if self._next(_body(line), close) is None else lines
        return []


def _body(line: str) -> str:
    return line.rstrip("\r\n")


def _spaces(text: str, start: int) -> int:
    """The first position from `start` on that is no space."""
    while text.startswith(" ", start):
        start += 1
    return start


def _closing(text: str, start: int) -> int:
    """The first quote that is not doubled; -1: none."""
    while (at := text.find('"', start)) >= 0 and text.startswith('"', at + 1):
        start = at + 2
    return at
