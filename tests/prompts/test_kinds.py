"""Files that are no tables are refused by what they are, whatever they are called (`kind_of`)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from contextlib import closing

import numpy as np
import pytest
import torch
from _rows import read
from PIL import Image
from safetensors.torch import save as tensors

from findnemo.errors import InputError


def workbook(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name in names:
            file.writestr(name, "caption\na fox\n" * 9999)
    return out.getvalue()


def made(save) -> bytes:
    save(out := io.BytesIO())
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        file.addfile(tarfile.TarInfo("captions.csv"))
    return out.getvalue()


def database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE captions (caption TEXT)")
        return db.serialize() if hasattr(db, "serialize") else b"SQLite format 3\0" + bytes(84)


OTHERS = {
    "an Excel workbook": (
        workbook("[Content_Types].xml", "xl/workbook.xml"),
        "save the sheet of captions as CSV",
    ),
    "a Word document": (
        workbook("[Content_Types].xml", "word/document.xml"),
        "export the captions",
    ),
    "an OpenDocument spreadsheet": (
        b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
        "save the sheet of captions as CSV",
    ),
    "an old Excel workbook or Word document": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500),
        "save the sheet",
    ),
    "a ZIP archive": (workbook("captions.csv"), "unpack it"),
    "a PyTorch pickle": (made(lambda out: torch.save([1], out)), "export the captions"),
    "a gzip file": (gzip.compress(b"caption\na\n"), "unpack it"),
    "a bzip2 file": (bz2.compress(b"caption\na\n"), "unpack it"),
    "an xz file": (lzma.compress(b"caption\na\n"), "unpack it"),
    "a tar archive": (tar(), "unpack it"),
    "a pickle": (pickle.dumps(["a fox"]), "export the captions"),
    "a PDF document": (b"%PDF-1.7\n", "export the captions"),
    "a PNG picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "PNG")),
        "export the captions",
    ),
    "a JPEG picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "JPEG")),
        "export the captions",
    ),
    "a WebP picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "WEBP")),
        "export the captions",
    ),
    "a BMP picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "BMP")),
        "export the captions",
    ),
    "a GIF picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "GIF")),
        "export the captions",
    ),
    "an SQLite database": (database(), "export the captions"),
    "tensors (safetensors)": (tensors({"a": torch.zeros(3)}), "export the captions"),
    "a NumPy array": (made(lambda out: np.save(out, np.zeros(3))), "export the captions"),
    "a web page": ("\ufeff\n<!DOCTYPE html>\n<p>caption</p>".encode(), "export the captions"),
    "an XML document": (b'<?xml version="1.0"?>\n<Workbook>', "export the captions"),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "git lfs pull",
    ),
    "binary data": (bytes(5000), "export the captions"),
}


@pytest.mark.parametrize(
    "suffix", [".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", "", ".xlsx"]
)
@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_table_is_refused_by_what_it_is(tmp_path, what, suffix):
    content, way_out = OTHERS[what]
    path = tmp_path / f"captions{suffix}"
    with pytest.raises(InputError) as caught:
        read(path, content)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert what in told
    assert way_out in told


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_any_protocol(tmp_path, protocol):
    with pytest.raises(InputError, match=r"a pickle|binary"):
        read(tmp_path / "a.txt", pickle.dumps([f"caption {k}" for k in range(40)], protocol))
