"""The content of a module: digests of its weights that survive a change of dtype, and a quick stamp
that changes with any value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.models.modules import COMPUTED

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
ROW = 1024  # 8-byte words in a row of a stamp
PIECE = 2**20  # bytes that a stamp reads at once


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module with its non-persistent buffers, even if offloading keeps it
    elsewhere.
    """
    state: dict[str, Any] = module.state_dict()
    if any(getattr(value, "is_meta", False) for value in state.values()):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        here = {name: value for name, value in state.items() if not value.is_meta}
        state = here | get_state_dict_offloaded_model(module) | _offloaded(module)
    for name, buffer in module.named_buffers():
        if not buffer.is_meta:
            state.setdefault(name, buffer)
    return {name: part for key, value in state.items() for name, part in _plain(key, value)}


def _offloaded(module: Any) -> dict[str, Tensor]:
    """The offloaded weights of a module itself, not of those in it: accelerate's function leaves
    them out.
    """
    hook = getattr(module, "_hf_hook", None)
    kept = [getattr(one, "weights_map", None) or {} for one in getattr(hook, "hooks", [hook])]
    own = {**module._parameters, **module._buffers}
    away = [name for name, value in own.items() if value is not None and value.is_meta]
    return {name: weights[name] for weights in kept for name in away if name in weights}


def _plain(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """A tensor itself, or the parts of a subclass that packs several (torchao)."""
    if type(value) is Tensor and not value.requires_grad:
        yield name, value
    elif hasattr(value, "__tensor_flatten__"):
        for part in value.__tensor_flatten__()[0]:
            yield from _plain(f"{name}.{part}", getattr(value, part))
    elif isinstance(value, Tensor):
        yield name, value.detach().as_subclass(Tensor)


# digests ------------------------------------------------------------------------------------------


def digests(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """SHA-256 of names, shapes and values, 32 digits: rounded to `float16`, to `bfloat16`, and as
    `float32` if any are wider than half.

    `held`: half precisions of which one of the tensors is, or which hold all their values. In these
    the weights can be compared with those of a load in that precision (`same_weights`). Tensors are
    read one by one; the three digests are computed in parallel.
    """
    dtypes = {t.dtype for t in tensors.values()}
    kinds: dict[str, torch.dtype] = dict(HALVES)
    if dtypes & {torch.float64, torch.float32}:
        kinds["float32"] = torch.float32
    with ThreadPoolExecutor(len(kinds)) as pool:
        results = pool.map(lambda kind: _digest(tensors, kind), kinds.values())
        digest_of = dict(zip(kinds, results, strict=True))
    held = [name for name, kind in HALVES.items() if kind in dtypes or digest_of[name][1]]
    return {name: digest for name, (digest, _) in digest_of.items()} | {"held": held}


def _digest(tensors: Mapping[str, Tensor], kind: torch.dtype) -> tuple[str, bool]:
    """The digest of tensors rounded to a dtype, and whether the dtype holds all their values."""
    digest = hashlib.sha256()
    unchanged = True
    for name in sorted(tensors):
        value = tensors[name].cpu()
        # anything else (codes of quantized weights) counts by its bytes
        computed = value.dtype in COMPUTED
        rounded = value.to(kind) if computed else value
        if rounded.dtype != value.dtype:
            unchanged = unchanged and torch.equal(rounded.to(value.dtype), value)
        about = "" if computed else str(value.dtype)
        digest.update(f"{name}{tuple(value.shape)}{about}".encode())
        digest.update(_bytes(rounded).numpy().data)
    return digest.hexdigest()[:32], unchanged


def same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two `digests` are of the same weights, as far as the coarser of their precisions
    shows.

    >>> full = {"float32": "a", "float16": "b", "bfloat16": "c", "held": []}
    >>> same_weights(full, {"float16": "b", "bfloat16": "d", "held": ["float16"]})
    True
    >>> same_weights(full, {"float32": "e", "float16": "b", "bfloat16": "c", "held": []})
    False
    """
    kinds = {*one["held"], *other["held"]} | ({"float32"} & one.keys() & other.keys())
    return any(one[kind] == other[kind] for kind in kinds)


def rounded_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether one is float16 and the other bfloat16, and neither holds the other's values.

    Both may then be roundings of the same weights.
    """
    return sorted([one["held"], other["held"]]) == [["bfloat16"], ["float16"]]


# stamps -------------------------------------------------------------------------------------------


def stamp(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names, shapes, dtypes and contents, computed on the device of the tensors;
    `digests` take ten times as long.

    Contents are 8-byte words in rows of 1,024. The stamp includes the sums of all rows and all
    columns, so that it changes if one value changes, two values swap places, or values change their
    sign.
    """
    about = [(name, tuple(t.shape), t.stride(), str(t.dtype)) for name, t in tensors.items()]
    digest = hashlib.sha256(repr(about).encode())
    by_device: dict[torch.device, list[Tensor]] = {}
    for value in tensors.values():
        by_device.setdefault(value.device, []).append(_bytes(_as_stored(value)))
    for flats in by_device.values():
        sums = [part for flat in _gathered(flats) for part in _sums(flat)]
        digest.update(torch.cat(sums).cpu().numpy().data)
    return digest.hexdigest()


def _gathered(flats: Iterable[Tensor]) -> Iterator[Tensor]:
    """Bytes (N,) of many tensors in few pieces, because each call has a cost and most tensors are
    small.
    """
    small: list[Tensor] = []
    size = 0
    for flat in flats:
        if flat.numel() >= PIECE // 8:
            yield flat
            continue
        small.append(flat)
        size += flat.numel()
        if size >= PIECE:
            yield torch.cat(small)
            small = []
            size = 0
    if small:
        yield torch.cat(small)


def _sums(flat: Tensor) -> list[Tensor]:
    """A summary of bytes (N,), as bytes: sums of rows and columns, and the rest that does not fill
    a row.
    """
    whole = flat.numel() - flat.numel() % (8 * ROW)
    rows = flat[:whole].view(torch.int64).view(-1, ROW)
    return [rows.sum(0).view(torch.uint8), rows.sum(1).view(torch.uint8), flat[whole:]]


def _as_stored(value: Tensor) -> Tensor:
    """The values with axes in the order of memory, so that a channels-last tensor is not copied."""
    if value.is_contiguous():
        return value
    strides = value.stride()
    return value.permute(sorted(range(value.dim()), key=lambda axis: -strides[axis]))


def _bytes(value: Tensor) -> Tensor:
    """The bytes of a tensor in the order of its values, (N,), without a copy if memory has that
    order.
    """
    if value.is_complex():
        value = torch.view_as_real(value)
    flat = value.reshape(-1).view(torch.uint8)
    return flat if flat.storage_offset() % 8 == 0 else flat.clone()
