"""Safetensors files without loading them: what they hold, and where; and how to write one tensor after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from findnemo._sizes import JSON_BYTES
from findnemo.errors import InputError, ModelError

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
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how a torch.save or a pickle begins


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: `dtype` as safetensors names it, `shape`, and the offset of its first byte in the file."""

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

    Raises ModelError for a pickle, InputError for anything else that is not whole and safetensors.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    with path.open("rb") as file:
        first = file.read(8)
        if first.startswith(PICKLED):
            raise ModelError(
                f"{path} is a pickle, whatever its name says, and a pickle can run code: findnemo loads safetensors only"
            )
        try:
            with safe_open(path, "pt") as checked:  # looks through sizes and offsets
                metadata = checked.metadata() or {}
        except (SafetensorError, ValueError) as error:
            raise InputError(f"{path} is not a safetensors file, or not a whole one ({error})") from error
        size = int.from_bytes(first, "little")
        if size > JSON_BYTES:
            raise InputError(f"{path} has a header of {size:,} bytes: more than the {JSON_BYTES >> 20} MiB that a model can need")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    data = 8 + size
    return {n: Entry(e["dtype"], tuple(e["shape"]), data + e["data_offsets"][0]) for n, e in header.items()}, dict(metadata)


def read_rows(path: str | os.PathLike, entry: Entry, rows: slice) -> Tensor:
    """Rows of a tensor in a file: (len(rows), ...)."""
    dtype, width = DTYPES[entry.dtype], entry.shape[1:]
    size = _bytes(dtype, width)
    with Path(path).open("rb") as file:
        file.seek(entry.start + rows.start * size)
        data = bytearray(file.read((rows.stop - rows.start) * size))
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(-1, *width)


def write_rows(path: str | os.PathLike, entry: Entry, first: int, rows: Tensor) -> None:
    """Write rows of a tensor over those in the file, from row number `first`; not a byte beside them changes."""
    size = _bytes(DTYPES[entry.dtype], entry.shape[1:])
    with Path(path).open("r+b") as file:
        file.seek(entry.start + first * size)
        file.write(_raw(rows.to(DTYPES[entry.dtype])))


def write(path: str | os.PathLike, tensors: Mapping[str, Tensor | Lazy], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, one tensor in memory at a time beside those that are there already."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + _bytes(tensor.dtype, tuple(tensor.shape))
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of eight bytes
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(_raw(tensor.make() if isinstance(tensor, Lazy) else tensor))


def _bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel()) * dtype.itemsize


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
