"""Bytes as text, and text as lines, piece by piece."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import IO

from findnemo.errors import InputError
from findnemo.prompts._kinds import EXPORT, is_binary
from findnemo.prompts._table import LONGEST

BLOCK = 1 << 20  # bytes decoded at once
_LINE = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")  # where lines end
_LINE_LIMIT = 1 << 24  # characters of a line
_UTF_8 = "UTF-8"
# byte order mark -> encoding, as Windows programs save "Unicode" text; the longer mark first
_MARKED = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def text_blocks(source: str, file: IO[bytes]) -> Iterator[str]:
    """A file from its beginning as text, block by block, without byte order mark.

    It must be UTF-8, or have the mark of UTF-16 or UTF-32.
    """
    file.seek(0)
    mark = file.read(4)
    file.seek(0)
    encoding = next((name for known, name in _MARKED if mark.startswith(known)), _UTF_8)
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = lines = 0
    block = b" "
    while block:
        block = file.read(BLOCK)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = offset + len(block) - len(error.object)
            line = lines + error.object.count(b"\n", 0, error.start) + 1
            why = _undecodable(encoding, error, before + error.start, line)
            raise InputError(f"{source}: not {why}") from None
        yield text.removeprefix("\ufeff") if encoding == _UTF_8 and offset == 0 else text
        offset += len(block)
        lines += block.count(b"\n")


def _undecodable(encoding: str, error: UnicodeDecodeError, offset: int, line: int) -> str:
    """The encoding that a file does not have, where that shows, and the way out."""
    if encoding != _UTF_8:
        return f"{encoding} at byte offset {offset}, though it begins as such: save it as UTF-8"
    data = error.object
    where = f"line {line}, byte offset {offset} (0x{data[error.start]:02x})"
    likely = "WINDOWS-1252"
    way_out = f"convert it, for example with iconv -f {likely} -t UTF-8 OLD > NEW if it is {likely}"
    if is_binary(data):
        way_out = f"this is binary data, no text: {EXPORT}"
    return f"UTF-8 at {where}: {way_out}"


def beginning(blocks: Iterator[str]) -> str:
    """As many first blocks of a text as hold its first `LONGEST` characters."""
    text = ""
    for block in blocks:
        text += block
        if len(text) >= LONGEST:
            break
    return text


def lines_of(source: str, blocks: Iterable[str]) -> Iterator[str]:
    """Lines of a file with their ends; `str.splitlines` would also split at separators inside
    captions.
    """
    rest = ""
    for block in blocks:
        *lines, rest = _LINE.split(rest + block)
        if rest == "" and lines and lines[-1].endswith("\r"):  # possibly half of a line end
            rest = lines.pop()
        if len(rest) > _LINE_LIMIT:
            raise InputError(
                f"{source}: a line of over {_LINE_LIMIT >> 20} million characters: a table has a"
                " caption on each"
            )
        yield from lines
    yield from (line for line in _LINE.split(rest) if line)


def without_end(lines: Iterable[str]) -> Iterator[str]:
    """Lines without the blank ones at the end of a file."""
    blank = 0
    for line in lines:
        if not line.strip():
            blank += 1
            continue
        yield from ("" for _ in range(blank))
        blank = 0
        yield line


def without_nul(source: str, blocks: Iterable[str]) -> Iterator[str]:
    """Text without NUL, which no caption has.

    Raises InputError for a block of nothing else, which is a hole in a file and may have no end.
    """
    for block in blocks:
        text = block.replace("\0", "")
        if not text and len(block) >= BLOCK:
            raise InputError(
                f"{source}: {BLOCK:,} zero bytes on end: this is not a table of captions, or a"
                " damaged one"
            )
        yield text
