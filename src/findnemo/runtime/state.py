"""The state of networks and of PyTorch that would silently change results: set aside while findnemo
computes, and restored afterwards.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")
AUTOCAST = ("cpu", "cuda", "mps", "xpu")  # kinds of devices, each with its own autocast


def modules_of(networks: Iterable[nn.Module]) -> list[nn.Module]:
    """All modules of networks; a shared one comes twice.

    It takes a third of the time of `nn.Module.modules`, because it is called in every pass.
    """
    modules: list[nn.Module] = []
    waiting = list(networks)
    while waiting:
        module = waiting.pop()
        modules.append(module)
        waiting += [part for part in module._modules.values() if part is not None]
    return modules


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Every module of `networks` in evaluation mode, and without gradient checkpointing, while the
    context lasts.

    In training mode dropout makes every pass different. Checkpointing recomputes a part of the
    network in the backward pass, without the edits of the forward pass. On leaving, also by an
    exception, each module returns to its own mode, even if modes within a network differ. Source:
    k-diffusion's `eval_mode`.

    >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    >>> with evaluating(network):
    ...     network(torch.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    >>> [module.training for module in network.modules()]
    [True, True, False]
    """
    parts = modules_of(networks)
    modes = [(module, "training") for module in parts if getattr(module, "training", False)]
    saving = [module for module in parts if vars(module).get("gradient_checkpointing")]
    modes += [(module, "gradient_checkpointing") for module in saving]
    try:
        for module, mode in modes:
            setattr(module, mode, False)
        yield
    finally:
        for module, mode in modes:
            setattr(module, mode, True)


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """No autocast while the context lasts: float32 is computed in float32, whatever the caller has
    in force.

    >>> with torch.autocast("cpu", torch.bfloat16), plain_arithmetic():
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    with ExitStack() as stack:
        for kind in AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """A function called in `plain_arithmetic`, with its backward passes, and outside
    `torch.inference_mode`, which forbids them.

    >>> with torch.inference_mode():
    ...     undisturbed(torch.is_inference_mode_enabled)(), undisturbed(torch.is_grad_enabled)()
    (False, False)
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            stack.enter_context(plain_arithmetic())
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())
            return function(*args, **kwargs)

    return called


@contextmanager
def replacing(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object another attribute, or another method, while the context lasts.

    >>> from types import SimpleNamespace
    >>> lamp = SimpleNamespace(light="on")
    >>> with replacing(lamp, "light", "off"), replacing(lamp, "__str__", None):
    ...     lamp.light
    'off'
    >>> vars(lamp)
    {'light': 'on'}
    """
    missing = object()
    own = vars(owner).get(name, missing)  # a method is mostly that of the class
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def spare_scheduler(pipeline: Any) -> AbstractContextManager[None]:
    """Replace the pipeline's scheduler by a copy while the context lasts, so that another call in
    progress is not affected.
    """
    return replacing(pipeline, "scheduler", copy.deepcopy(pipeline.scheduler))


@contextmanager
def taking(network: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let a network convert its floating-point inputs to `dtype`: text encoders often have another
    dtype.
    """

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(dtype)
        if isinstance(value, dict):
            return {name: cast(one) for name, one in value.items()}
        return value

    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, Any]:
        return tuple(cast(value) for value in args), cast(kwargs)

    with network.register_forward_pre_hook(before, with_kwargs=True):
        yield
