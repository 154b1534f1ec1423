"""Memory of a device that runs out: told from other errors, and named with the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from findnemo.errors import DeviceError


def out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def freed(device: torch.device) -> None:
    """Give back what PyTorch holds on to. Outside the handler of the error, which holds the failed pass's tensors."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def too_little(device: torch.device, what: str) -> DeviceError:
    return DeviceError(
        f"out of memory on {device} with {what}: load the model with dtype float16 or bfloat16"
    )


@contextmanager
def named(device: torch.device, what: str) -> Iterator[None]:
    """Raises DeviceError where memory runs out while the context lasts.

    >>> with named(torch.device("cpu"), "a single image"):
    ...     raise torch.OutOfMemoryError
    Traceback (most recent call last):
    findnemo.errors.DeviceError: out of memory on cpu with a single image: load the model with dtype float16 or bfloat16
    """
    try:
        yield
        return
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    freed(device)
    raise too_little(device, what)
