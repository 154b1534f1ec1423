"""Recognize files that are no tables by their first bytes, whatever their name: archives,
workbooks, pictures, pickles.
"""

from __future__ import annotations

import re

HEAD = 1 << 16  # bytes to check, at the beginning and at the end

_UNPACK = "unpack it and give the table that it holds"
_SAVE = "save the sheet of captions as CSV (UTF-8)"
EXPORT = "export the captions as .csv, .parquet, .jsonl or .txt"
_PULL = "fetch it with git lfs pull"
# beginning of a file -> what it is, and the way out
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\x1f\x8b", "a gzip file", _UNPACK),
    (rb"\xfd7zXZ\0", "an xz file", _UNPACK),
    (rb"\(\xb5/\xfd", "a Zstandard file", _UNPACK),
    (rb"\x04\x22\x4d\x18", "an LZ4 file", _UNPACK),
    (rb"7z\xbc\xaf'\x1c", "a 7z archive", _UNPACK),
    (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook or Word document", _SAVE),
    (rb"%PDF-", "a PDF document", EXPORT),
    (rb"\{\\rtf", "an RTF document", EXPORT),
    (rb"\x89PNG\r\n\x1a\n", "a PNG picture", EXPORT),
    (rb"\xff\xd8\xff", "a JPEG picture", EXPORT),
    (rb"II\*\0|MM\0\*", "a TIFF picture", EXPORT),
    (rb"SQLite format 3\0", "an SQLite database", EXPORT),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", EXPORT),
    (rb"\x93NUMPY", "a NumPy array", EXPORT),
    (rb"ARROW1\0\0", "an Arrow (Feather) file", EXPORT),
    (rb"FEA1\0", "a Feather file", EXPORT),
    (rb"Obj\x01", "an Avro file", EXPORT),
    (rb"\x7fELF|MZ\x90\0", "a program", EXPORT),
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a pointer of Git LFS, not the file itself",
        _PULL,
    ),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a ZIP archive", _UNPACK),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "a bzip2 file", _UNPACK),
    (rb"(?=[^\0]{1,100}\0).{257}ustar[\0 ]", "a tar archive", _UNPACK),
    (rb"\x80[\x01-\x05]|\([ldt]p\d+\n|[]}]q\0", "a pickle", EXPORT),  # later protocols, 0 and 1
    (rb".{5}\0\0\0\{", "tensors (safetensors)", EXPORT),
    (rb"GGUF[\x01-\x09]\0", "model weights (GGUF)", EXPORT),
    (rb"GIF8[79]a.{0,8}\0", "a GIF picture", EXPORT),
    (rb"BM.{4}\0\0\0\0.{3}\0", "a BMP picture", EXPORT),
    (rb"RIFF.{4}WEBP", "a WebP picture", EXPORT),
    (rb"RIFF.{4}(WAVE|AVI )|\0\0.{2}ftyp", "a sound or a film", EXPORT),
    (rb"(?i)(\xef\xbb\xbf)?\s*(<!doctype html|<html[\s>])", "a web page", EXPORT),
    (rb"(?i)(\xef\xbb\xbf)?\s*<\?xml[\s?]", "an XML document", EXPORT),
)
_PACKED: tuple[tuple[bytes, str, str], ...] = (  # names in a ZIP archive
    (b"xl/workbook", "an Excel workbook", _SAVE),
    (b"opendocument.spreadsheet", "an OpenDocument spreadsheet", _SAVE),
    (b"word/document", "a Word document", EXPORT),
    (b"ppt/presentation", "a PowerPoint document", EXPORT),
    (b"opendocument.", "an OpenDocument file", EXPORT),
    (b"Index/Document.iwa", "a Numbers or Pages document", _SAVE),
    (b"data.pkl", "a PyTorch pickle", EXPORT),
    (b".npy", "an archive of NumPy arrays", EXPORT),
)
_CONTROLS = bytes(k for k in range(32) if k not in b"\t\n\v\f\r\x1b")


def kind_of(head: bytes, tail: bytes = b"") -> tuple[str, str] | None:
    """What a file that is no table is, and the way out, by its first and last bytes; None if it may
    be a table.
    """
    for pattern, what, way_out in _BEGINNINGS:
        if re.match(pattern, head, re.DOTALL):
            names = head + tail if head.startswith(b"PK") else b""
            return next(((w, o) for name, w, o in _PACKED if name in names), (what, way_out))
    return _odd(head)


def _odd(head: bytes) -> tuple[str, str] | None:
    """What a file is and the way out, by the number and positions of zero bytes; None for text.

    Text has almost none; UTF-16 of Latin letters has them at every other position.
    """
    if len(head) < 4 or head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return None
    shares = [head[k::4].count(0) / len(head[k::4]) for k in range(4)]
    for name, text in (("LE", 0), ("BE", 1)):
        if max(shares[text::2]) < 0.2 and min(shares[1 - text :: 2]) > 0.5:
            way_out = f"convert it, for example with iconv -f UTF-16{name} -t UTF-8 OLD > NEW"
            return "UTF-16 without a byte order mark", way_out
    return ("binary data, with many zero bytes", EXPORT) if sum(shares) > 1.2 else None


def is_binary(data: bytes) -> bool:
    """Whether bytes that are not UTF-8 are no text in any encoding: text has hardly any control
    characters.
    """
    return len(data) - len(data.translate(None, _CONTROLS)) > 0.01 * len(data)
