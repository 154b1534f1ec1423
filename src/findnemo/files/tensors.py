"""Safetensors files without loading them: their contents and offsets; and writing one tensor after
the other.

This is written by hand, because the safetensors library writes a file from tensors that all lie in
memory, and gives no offsets.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from findnemo.errors import InputError, ModelError
from findnemo.files.sizes import JSON_BYTES

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# metadata with a SHA-256 of everything but the header
HASHES = {"modelspec.hash_sha256": "0x{}", "sshs_model_hash": "{}"}
UNSEALED = {name: form.format(64 * "0") for name, form in HASHES.items()}
STALE = "sshs_legacy_hash"  # a hash from 1 MiB on, header included: no copy keeps it
# first bytes of a torch.save or a pickle
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: `dtype` in the terms of safetensors, `shape`, and the offset of its first
    byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Lazy:
    """A tensor that is made when it is written."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def read_header(path: str | os.PathLike) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of a file by name, and its metadata. No tensor is read.

    Raises ModelError for a pickle, InputError for anything else but a complete safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    with path.open("rb") as file:
        first = file.read(8)
        if first.startswith(PICKLED):
            raise ModelError(
                f"{path} is a pickle, whatever its name says, and a pickle can run code: findnemo"
                " loads safetensors only"
            )
        size = int.from_bytes(first, "little")
        if JSON_BYTES < size <= path.stat().st_size:
            raise InputError(
                f"{path} has a header of {size:,} bytes: more than the {JSON_BYTES >> 20} MiB that"
                " a model can need"
            )
        try:
            with safe_open(path, "pt"):  # checks sizes and offsets
                pass
        except (SafetensorError, ValueError) as error:
            raise InputError(
                f"{path} is not a safetensors file, or not a whole one ({error})"
            ) from error
    header, data = _header(path)
    metadata = header.pop("__metadata__", None) or {}  # in the order of the file
    entries = {
        name: Entry(about["dtype"], tuple(about["shape"]), data + about["data_offsets"][0])
        for name, about in header.items()
    }
    return entries, metadata


def read_tensor(path: str | os.PathLike, entry: Entry) -> Tensor:
    """A whole tensor of a file, in its own dtype."""
    return _read(path, entry.start, DTYPES[entry.dtype], entry.shape)


def read_rows(path: str | os.PathLike, entry: Entry, rows: slice) -> Tensor:
    """Rows of a tensor in a file: (len(rows), ...)."""
    dtype = DTYPES[entry.dtype]
    width = entry.shape[1:]
    start = entry.start + rows.start * _bytes(dtype, width)
    return _read(path, start, dtype, (rows.stop - rows.start, *width))


def _read(
    path: str | os.PathLike, start: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> Tensor:
    with Path(path).open("rb") as file:
        file.seek(start)
        data = bytearray(file.read(_bytes(dtype, shape)))
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(shape)


def write_rows(path: str | os.PathLike, entry: Entry, first: int, rows: Tensor) -> None:
    """Overwrite rows of a tensor in a file, from row number `first`; no other byte changes."""
    size = _bytes(DTYPES[entry.dtype], entry.shape[1:])
    with Path(path).open("r+b") as file:
        file.seek(entry.start + first * size)
        file.write(_raw(rows.to(DTYPES[entry.dtype])))


def write(
    path: str | os.PathLike, tensors: Mapping[str, Tensor | Lazy], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, with one lazy tensor in memory at a time."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start = end
        end = end + _bytes(tensor.dtype, tuple(tensor.shape))
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    with Path(path).open("wb") as file:
        file.write(_head(header))
        for tensor in tensors.values():
            file.write(_raw(tensor.make() if isinstance(tensor, Lazy) else tensor))


def copy(
    source: str | os.PathLike,
    target: str | os.PathLike,
    metadata: Mapping[str, str],
    marks: Iterable[str] = (),
) -> None:
    """Copy a file with other metadata, and with valueless tensors `marks` after its own.

    No byte of its tensors changes.
    """
    header, data = _header(Path(source))
    tensors = {name: about for name, about in header.items() if name != "__metadata__"}
    end = max((about["data_offsets"][1] for about in tensors.values()), default=0)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}
    with Path(source).open("rb") as read, Path(target).open("wb") as written:
        read.seek(data)
        added = {name: empty for name in marks if name not in tensors}
        written.write(_head({"__metadata__": dict(metadata), **tensors, **added}))
        shutil.copyfileobj(read, written, 1 << 20)


def seal(path: str | os.PathLike) -> None:
    """Write the SHA-256 of everything after the header into the metadata that hold one, in place of
    UNSEALED.
    """
    header, data = _header(Path(path))
    about = header.get("__metadata__", {})
    if not set(HASHES) & set(about):
        return
    with Path(path).open("r+b") as file:
        file.seek(data)
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        value = digest.hexdigest()
        sealed = {name: form.format(value) for name, form in HASHES.items() if name in about}
        head = _head(header | {"__metadata__": about | sealed})
        if len(head) != data:
            raise ValueError(f"{path} was not written by `write` or `copy` with UNSEALED hashes")
        file.seek(0)
        file.write(head)


def _header(path: Path) -> tuple[dict, int]:
    """The header of a file that `read_header` has checked, and the offset of its data."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)), 8 + size


def _head(header: Mapping[str, object]) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text


def _bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel()) * dtype.itemsize


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
