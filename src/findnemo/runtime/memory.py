"""Lack of memory on a device: recognized among other errors, and reported with the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from findnemo.errors import DeviceError

T = TypeVar("T")


def out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def freed(device: torch.device) -> None:
    """Release memory that PyTorch caches.

    Call it outside the handler of the error, which holds the failed pass's tensors.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()


def too_little(device: torch.device, what: str) -> DeviceError:
    return DeviceError(
        f"out of memory on {device} with {what}: load the model with dtype float16 or bfloat16"
    )


@contextmanager
def guarding_memory(device: torch.device, what: str) -> Iterator[None]:
    """Raises DeviceError if memory runs out while the context lasts.

    >>> with guarding_memory(torch.device("cpu"), "a single image"):
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


class Batches:
    """Work on rows, in as many pieces as the memory of a device requires.

    `size`: rows in one piece; halved if memory runs out, and kept for later work. `row`: name of
    one row. `release`: called before a smaller piece is tried, to free memory.

    >>> Batches(torch.device("cpu"), 2)(5, lambda rows: (rows.start, rows.stop))
    [(0, 2), (2, 4), (4, 5)]
    """

    def __init__(
        self,
        device: torch.device,
        size: int,
        row: str = "a single latent",
        release: Callable[[], object] = lambda: None,
    ):
        self.device = device
        self.size = size
        self._row = row
        self._release = release

    def __call__(self, count: int, part: Callable[[slice], T]) -> list[T]:
        """`part` for the rows 0 to `count`, in order. Raises DeviceError if one row is too much."""
        results: list[T] = []
        done = 0
        while done < count:
            rows = slice(done, min(done + self.size, count))
            try:
                results.append(part(rows))
                done = rows.stop
                continue
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # outside the handler, which holds the failed pass's tensors
            self._halve(rows.stop - rows.start)
        return results

    def _halve(self, size: int) -> None:
        if size == 1:
            raise too_little(self.device, self._row)
        self.size = size // 2
        self._release()
        freed(self.device)
