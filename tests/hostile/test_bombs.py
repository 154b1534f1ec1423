"""Small files that would unpack to more than the memory there is: refused by name, within a
limit on memory that is measured.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import threading
import zlib
from pathlib import Path

import polars as pl
import pytest
from _here import limited, refused
from PIL import Image

from findnemo.calibration import Calibration
from findnemo.errors import FindnemoError, InputError
from findnemo.files import contained
from findnemo.files.originals import Originals, picture
from findnemo.neurons import NeuronSet
from findnemo.prompts import read_prompts, stream_prompts

GB = 1 << 30


def sparse(path: Path, head: bytes = b"", size: int = 1 << 40) -> Path:
    """A file of `size` bytes that takes no room."""
    path.write_bytes(head)
    os.truncate(path, size)
    return path


# tables -------------------------------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.parametrize("codec", ["gzip", "zstd", "snappy", "lz4", "uncompressed"])
def test_a_parquet_file_of_a_few_kilobytes_that_unpacks_to_hundreds_of_megabytes(
    tmp_path, monkeypatch, codec
):
    monkeypatch.setattr(
        contained, "MEMORY", GB
    )  # as much as polars itself takes, and a little more
    file = tmp_path / "bomb.parquet"
    long = 1000 if codec == "uncompressed" else 900_000
    frame = pl.DataFrame(
        {"caption": ["a" * long] * (30_000 if codec == "uncompressed" else 700)}
    )  # one word in the dictionary
    frame.write_parquet(file, compression=codec, statistics=False)
    assert file.stat().st_size < 4 << 20
    told = refused(lambda: list(stream_prompts(file)))
    assert told is None or str(file) in told


def test_a_parquet_file_that_says_it_has_more_rows_than_there_are(tmp_path):
    file = tmp_path / "rows.parquet"
    pl.DataFrame({"caption": ["a red fox"] * 100}).write_parquet(file)
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[-8:-4], "little")
    at = data.index(
        b"\x16\xc8\x01", len(data) - 8 - size
    )  # the number of rows, 100, as a zigzag varint of Thrift
    data[at : at + 3] = b"\x16" + b"\xfe\xff\xff\xff\xff\xff\xff\x7f"
    data[-8:-4] = (size + 6).to_bytes(4, "little")
    file.write_bytes(data)
    told = refused(lambda: list(stream_prompts(file)))
    assert told is not None
    assert str(file) in told


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", b"[" * 5_000_000),
        ("wide.json", b"[" + b"[]," * 2_600_000 + b"[]]"),
        ("number.json", b"[" + b"9" * 3_000_000 + b"]"),
        ("number.jsonl", b'{"caption": ' + b"9" * 3_000_000 + b"}"),
        ("deep.jsonl", b'{"caption": ' + b'{"a":' * 1_000_000),
        pytest.param("line.txt", b"a" * (17 << 20), marks=pytest.mark.slow),
        pytest.param("quote.csv", b'caption\n"' + b"a" * (17 << 20), marks=pytest.mark.slow),
        ("columns.csv", b"caption," * 200_000),
        ("packed.csv", gzip.compress(b"caption\n" + b"a" * 50_000_000)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_text_tables_made_to_grow(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    said, peak = limited(
        "from findnemo.prompts import stream_prompts, read_prompts",
        f"list(stream_prompts({str(file)!r}))",
        2 * GB,
    )
    assert said.startswith("REFUSED")
    assert str(file) in said
    assert peak < 1500


@pytest.mark.parametrize(
    "suffix",
    [
        ".csv",
        ".json",
        ".parquet",
        *(pytest.param(end, marks=pytest.mark.slow) for end in (".txt", ".jsonl")),
    ],
)
def test_a_table_of_a_terabyte_of_nothing(tmp_path, suffix):
    file = sparse(tmp_path / f"table{suffix}")
    said, peak = limited(
        "from findnemo.prompts import stream_prompts",
        f"list(stream_prompts({str(file)!r}))",
        2 * GB,
    )
    assert said.startswith("REFUSED")
    assert str(file) in said
    assert peak < 1000


@pytest.mark.parametrize("read", [read_prompts, stream_prompts])
def test_a_pipe_or_a_device_is_no_table(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero"), Path("/dev/tty")):
        with pytest.raises(InputError, match="a pipe or a device"):
            in_time(lambda path=path: read(path))


def in_time(act, seconds: float = 10.0):
    """What a call gives or raises, if it ends in time."""
    ended: list = []

    def run() -> None:
        try:
            ended.append((act(), None))
        except Exception as error:
            ended.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert ended, "it still waits"
    if ended[0][1] is not None:
        raise ended[0][1]
    return ended[0][0]


# neurons, calibrations, statistics ----------------------------------------------------------------


READ_ALL = """
def read_all(files):
    for file in files:
        try:
            NeuronSet.load(file)
        except FindnemoError as error:
            print("REFUSED", error)
"""


def header(tensors: dict) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


CLAIMS = (  # name, how it begins, size
    ("n.json", b"", 1 << 40),
    ("n.json", b'{"layers": ' + b"[" * 3_000_000, 0),
    ("n.json", b'{"layers": {"a": [' + b"9" * 100_000 + b"]}}", 0),
    ("n.safetensors", b"\xff" * 8, 1 << 40),
    ("n.safetensors", (1 << 40).to_bytes(8, "little"), 1 << 40),
    (
        "n.safetensors",
        header({"a": {"dtype": "I64", "shape": [1 << 36], "data_offsets": [0, 1 << 39]}}),
        1 << 40,
    ),
    (
        "n.safetensors",
        header({"a": {"dtype": "I8", "shape": [1 << 62, 4], "data_offsets": [0, 8]}}),
        0,
    ),
)


def test_neuron_files_that_claim_sizes(tmp_path):
    """All in one process: the peak is that of the worst."""
    files = []
    for number, (name, head, size) in enumerate(CLAIMS):
        (tmp_path / str(number)).mkdir()
        files.append(str(sparse(tmp_path / str(number) / name, head, size or len(head))))
    said, peak = limited(
        "from findnemo.errors import FindnemoError\nfrom findnemo.neurons import NeuronSet\nimport"
        " torch" + READ_ALL,
        f"read_all({files!r})",
        GB,
    )
    lines = said.splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["REFUSED"] * len(CLAIMS) + ["READ"]
    assert [file for file, line in zip(files, lines, strict=False) if file not in line] == []
    assert peak < 1000


def test_pipes_and_devices_are_no_neuron_files_calibrations_or_pictures(tmp_path):
    for name in ("neurons.json", "calibration.json", "calibration.safetensors", "a.png"):
        os.mkfifo(tmp_path / name)
    for path in (tmp_path / "neurons.json", Path("/dev/zero")):
        with pytest.raises(InputError, match=str(path)):
            in_time(lambda path=path: NeuronSet.load(path))
        with pytest.raises(FindnemoError, match=str(path)):
            in_time(lambda path=path: picture(path))
    with pytest.raises(InputError, match="is not a calibration"):
        in_time(lambda: Calibration.load(tmp_path))


@pytest.mark.parametrize("name", ["calibration.json", "calibration.safetensors"])
def test_a_calibration_of_a_terabyte(tmp_path, name):
    from findnemo import demo

    demo.calibration().save(tmp_path)
    os.truncate(tmp_path / name, 1 << 40)
    said, peak = limited(
        "from findnemo.calibration import Calibration", f"Calibration.load({str(tmp_path)!r})", GB
    )
    assert said.startswith("REFUSED")
    assert str(tmp_path) in said
    assert peak < 1200


def test_a_checkpoint_whose_header_claims_gigabytes(tmp_path):
    file = sparse(tmp_path / "model.safetensors", (90 << 20).to_bytes(8, "little") + b"{", 1 << 33)
    said, peak = limited("import findnemo.models", f"findnemo.models.load({str(file)!r})", 2 * GB)
    assert said.startswith("REFUSED")
    assert str(file) in said
    assert peak < 1500


# pictures -----------------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            len(content).to_bytes(4, "big")
            + kind
            + content
            + zlib.crc32(kind + content).to_bytes(4, "big")
        )

    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        *more,
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def jpeg(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG")
    data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def saved(kind: str, size: tuple[int, int], **options) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, kind, **options)
    return out.getvalue()


ZEROS = zlib.compress(bytes(200_000_000), 9)
PICTURES = {
    "PNG that says it is huge": png(60_000, 60_000, ZEROS),
    "PNG of 49 megapixels of nothing": png(7000, 7000, zlib.compress(bytes(7000 * 21_001), 9)),
    "PNG with a text that unpacks": png(
        4, 4, zlib.compress(bytes(52)), (b"zTXt", b"a\0\0" + ZEROS)
    ),
    "PNG with a profile that unpacks": png(
        4, 4, zlib.compress(bytes(52)), (b"iCCP", b"a\0\0" + ZEROS)
    ),
    "PNG whose data never end": png(4, 4, ZEROS),
    "JPEG that says it is huge": jpeg(65_000, 65_000),
    "JPEG of 49 megapixels of little": jpeg(7000, 7000),
    "WebP of 49 megapixels": saved("WEBP", (7000, 7000)),
    "GIF that says it is huge": (
        b"GIF89a"
        + struct.pack("<HH", 65_000, 65_000)
        + b"\0\0\0,"
        + struct.pack("<HHHHB", 0, 0, 65_000, 65_000, 0)
        + b"\2\0;"
    ),
    "TIFF": saved("TIFF", (8, 8)),
    "BMP": saved("BMP", (8, 8)),
}


@pytest.mark.first(6)
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_unpack_to_more(tmp_path, name):
    file = tmp_path / "a.png"
    file.write_bytes(PICTURES[name])
    said, peak = limited(
        "from findnemo.files.originals import picture\nimport PIL.Image",
        f"picture({str(file)!r})",
        3 * GB,
    )
    assert said == "READ" or (said.startswith("REFUSED") and str(file) in said)
    assert peak < 1024  # as SECURITY.md says; WebP takes most, twenty bytes a pixel
    if "huge" in name or "unpacks" in name or name in ("TIFF", "BMP"):
        assert peak < 300


@pytest.mark.parametrize(
    "head", [b"\x89PNG\r\n\x1a\n", b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"\xff\xd8\xff\xe0", b"GIF89a"]
)
def test_a_picture_of_a_terabyte(tmp_path, head):
    file = sparse(tmp_path / "a.png", head)
    said, peak = limited(
        "from findnemo.files.originals import picture\nimport PIL.Image",
        f"picture({str(file)!r})",
        GB,
    )
    assert said.startswith("REFUSED")
    assert str(file) in said
    assert peak < 300


def test_references_of_tables_to_what_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    original = Originals(tmp_path / "cache", tmp_path)
    for reference in (
        "../../../../../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "pipe.png",
        "\0",
        "a" * 5000,
        "a/" * 6000,
        ".",
        "",
    ):
        assert in_time(lambda reference=reference: original(reference)) is None
        assert reference in original.failures
