"""Bytes as text, and text as lines, piece by piece."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import IO

from findnemo.errors import InputError
from findnemo.prompts._kinds import is_binary

BLOCK = 1 << 20  # bytes decoded at once
_LINE = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")  # where lines end
_LINE_LIMIT = 1 << 24  # characters of a line
_MARKED = (  # byte order mark -> encoding, as Windows programs save "Unicode" text; the longer mark first
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def decoded(source: str, file: IO[bytes]) -> Iterator[str]:
    """A file from its beginning as text, block by block, without byte order mark. It is UTF-8, or has the mark of UTF-16 or UTF-32."""
    file.seek(0)
    mark = file.read(4)
    file.seek(0)
    encoding = next((name for known, name in _MARKED if mark.startswith(known)), None)
    return (
        _decoded_utf8(source, file) if encoding is None else _decoded_marked(source, file, encoding)
    )


def _decoded_marked(source: str, file: IO[bytes], encoding: str) -> Iterator[str]:
    """Text of two or four bytes a character, whose order its mark tells."""
    decoder, offset, block = codecs.getincrementaldecoder(encoding)(), 0, b" "
    while block:
        block = file.read(BLOCK)
        try:
            yield decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            at = offset + len(block) - len(error.object) + error.start
            raise InputError(
                f"{source}: not {encoding} at byte offset {at}, though it begins as such: save it as UTF-8"
            ) from None
        offset += len(block)


def _decoded_utf8(source: str, file: IO[bytes]) -> Iterator[str]:
    rest, offset, lines, first = b"", 0, 0, True
    while block := file.read(BLOCK):
        data = rest + block
        text, end = _decoded_part(source, data, offset, lines)
        yield text.removeprefix("\ufeff") if first else text
        rest, offset, lines, first = (
            data[end:],
            offset + end,
            lines + data.count(b"\n", 0, end),
            False,
        )
    if rest:
        _decoded_part(source, rest, offset, lines, whole=True)


def _decoded_part(
    source: str, data: bytes, offset: int, lines: int, whole: bool = False
) -> tuple[str, int]:
    """The text of bytes, and where it ends: before a character that the next block completes, unless this is the whole."""
    try:
        return data.decode("utf-8"), len(data)
    except UnicodeDecodeError as error:
        if error.end == len(data) and error.reason == "unexpected end of data" and not whole:
            return data[: error.start].decode("utf-8"), error.start
        line = lines + data.count(b"\n", 0, error.start) + 1
        where = f"line {line}, byte offset {offset + error.start} (0x{data[error.start]:02x})"
        likely = "WINDOWS-1252"
        way_out = (
            f"convert it, for example with iconv -f {likely} -t UTF-8 OLD > NEW if it is {likely}"
        )
        if is_binary(data):
            way_out = "this is binary data, no text: export the captions as .csv, .parquet, .jsonl or .txt"
        raise InputError(f"{source}: not UTF-8 at {where}: {way_out}") from None


def lines_of(source: str, blocks: Iterable[str]) -> Iterator[str]:
    """Lines as files have them, with their ends; `str.splitlines` would also cut at separators that occur inside captions."""
    rest = ""
    for block in blocks:
        *lines, rest = _LINE.split(rest + block)
        if rest == "" and lines and lines[-1].endswith("\r"):  # perhaps half of an end
            rest = lines.pop()
        if len(rest) > _LINE_LIMIT:
            raise InputError(
                f"{source}: a line of over {_LINE_LIMIT >> 20} million characters: a table has a caption on each"
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
    """Text without NUL, which the csv module of Python 3.10 refuses; a block of nothing else is a hole in a file, which has no end."""
    for block in blocks:
        text = block.replace("\0", "")
        if not text and len(block) >= BLOCK:
            raise InputError(
                f"{source}: {BLOCK:,} zero bytes on end: this is no table of captions, or a damaged one"
            )
        yield text
