"""Make images within a training loop without any effect on it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from findnemo.errors import ModelError
from findnemo.runtime.state import AUTOCAST, modules_of


@contextmanager
def keeping_random_state() -> Iterator[None]:
    """Restore all random number generators after the context: of Python, NumPy and PyTorch on every
    device.

    No gradients are computed in it, and none are lost.

    >>> torch.manual_seed(0).initial_seed(), random.seed(0)
    (0, None)
    >>> with keeping_random_state():
    ...     drawn = torch.rand(1), random.random()
    >>> drawn == (torch.rand(1), random.random())
    True
    """
    import numpy as np

    own = random.getstate()
    arrays = np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        random.setstate(own)
        np.random.set_state(arrays)
        if any(torch.is_autocast_enabled(kind) for kind in AUTOCAST):
            torch.clear_autocast_cache()  # older PyTorch caches weights that were cast without gradients


def bare(pipeline: Any) -> Any:
    """A pipeline with the same networks, without their wrappers for training; the given one does
    not change.

    Raises ModelError for anything but a pipeline, and for a network compiled in place.
    """
    parts = getattr(pipeline, "components", None)
    if not isinstance(parts, dict) or not hasattr(pipeline, "register_modules"):
        raise ModelError(
            f"{type(pipeline).__name__} is not a pipeline: give the diffusers pipeline of the"
            " networks that are trained"
        )
    found = copy.copy(pipeline)
    networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    found.register_modules(**{name: unwrapped(part) for name, part in networks.items()})
    found.set_progress_bar_config(disable=True)
    return found


def unwrapped(network: nn.Module) -> nn.Module:
    """A network without DistributedDataParallel, `torch.compile` and peft around it.

    >>> unwrapped(torch.compile(nn.Linear(1, 1)))
    Linear(in_features=1, out_features=1, bias=True)
    """
    while True:
        if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
            network = network.module
        elif "_orig_mod" in network._modules:
            network = network._modules["_orig_mod"]  # type: ignore[assignment]
        elif callable(getattr(network, "get_base_model", None)):
            network = network.get_base_model()  # type: ignore[operator]
        else:
            return network


@contextmanager
def without_adapters(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Disable all LoRAs of peft while the context lasts; trainable parameters stay trainable.

    `disable_adapters` of peft would change that.
    """
    layers = [m for m in modules_of(networks) if vars(m).get("_disable_adapters") is False]
    try:
        for layer in layers:
            layer._disable_adapters = True  # type: ignore[assignment]
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False  # type: ignore[assignment]
