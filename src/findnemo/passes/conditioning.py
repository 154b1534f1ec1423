"""Which rows of the denoiser's batch carry the prompt, and at which step, while a pipeline is
called as usual.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

from torch import Tensor, nn

from findnemo.errors import ModelError
from findnemo.models import Model
from findnemo.runtime.state import replacing

Encoded = Callable[..., Any]


class Call:
    """The current pipeline call.

    `step`: passes of the denoiser since it began, from 0. `rows(batch)`: the conditional rows.

    With guidance a pass has two halves, without and with the prompt. Methods that change the effect
    of the prompt change only the second, for any number of prompts and of images per prompt.
    Outside a pipeline call all rows are conditional.
    """

    def __init__(self) -> None:
        # number of rows with a prompt if others have none: prompts times images per prompt
        self.count: int | None = None
        self.step = -1
        self.following = True

    def rows(self, batch: int) -> slice:
        """The conditional rows of a batch of the denoiser: the last ones, in every diffusers
        pipeline.
        """
        return slice(0 if self.count is None or self.count > batch else batch - self.count, batch)

    def aside(self) -> AbstractContextManager[None]:
        """Make extra passes during a call that do not count as steps."""
        return replacing(self, "following", False)


def check_changeable(model: Model) -> None:
    """Raises ModelError for a pipeline with inputs from the prompt beyond `Model.conditions`.

    Masks or further text encoders would continue to carry the original prompt.
    """
    if not model.changeable:
        raise ModelError(
            f"a {type(model.pipeline).__name__} knows its prompt by more than one embedding, so it"
            " cannot be changed within a call: use methods that leave the prompt alone (neurons,"
            " wanda, conceptprune)"
        )


@contextmanager
def following(model: Model, change: Callable[[Encoded], Encoded] | None = None) -> Iterator[Call]:
    """Follow the pipeline's calls while the context lasts; the pipeline is used as usual.

    `change` wraps the pipeline's `encode_prompt`, called with keyword arguments only, for methods
    that change the prompt; `check_changeable` says for which models that works. On leaving, also by
    an exception, the pipeline is restored.

        >>> import findnemo
        >>> model = findnemo.load("demo")
        >>> with following(model) as call:
        ...     seen = []
        ...     handle = model.denoiser.register_forward_pre_hook(lambda m, args: seen.append((call.step, call.rows(len(args[0])))))
        ...     _ = findnemo.generate(model, "a red star", [0, 1, 2], findnemo.ImageSettings(steps=2, guidance=2.0))
        ...     handle.remove()
        >>> seen
        [(0, slice(3, 6, None)), (1, slice(3, 6, None))]
    """
    if change is not None:
        check_changeable(model)
    call = Call()
    pipeline = model.pipeline
    plain = pipeline.encode_prompt
    encode = change(plain) if change is not None else plain

    @wraps(plain)
    def encode_prompt(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        embeds, *rest = encode(**_named(plain, args, kwargs))
        guided = bool(rest) and rest[0] is not None
        call.count = len(embeds) if guided else None
        call.step = -1
        return (embeds, *rest)

    def count(module: nn.Module, args: Any) -> None:
        call.step += call.following

    def ended(module: nn.Module, args: Any, output: Any) -> None:
        if call.following and call.step + 1 >= len(pipeline.scheduler.timesteps):
            call.count = None
            call.step = -1

    with (
        model.denoiser.register_forward_pre_hook(count),
        model.denoiser.register_forward_hook(ended),
        replacing(pipeline, "encode_prompt", encode_prompt),
    ):
        yield call


def _named(function: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name, defaults included."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    more = bound.arguments.pop("kwargs", {})
    return bound.arguments | more
