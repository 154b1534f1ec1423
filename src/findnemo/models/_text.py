"""`Text`: everything that a denoiser gets from some prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from findnemo.errors import ModelError


@dataclass(frozen=True, eq=False)
class Text:
    """N prompts in the form for a denoiser, one row each.

    Fields that an architecture does not use are None.

    `tokens`: embeddings of their tokens, (N, tokens, D). `pooled`: one embedding of each whole
    prompt, (N, width). `mask`: 1 for a token, 0 for padding, (N, tokens). The other two depend on
    the call and not on the prompt. `sizes`: of the image, (N, 6). `guidance`: embedding of the
    scale of a distilled guidance, (N, width).

    >>> text = Text(torch.zeros(2, 77, 4), pooled=torch.zeros(2, 9))
    >>> len(text), len(text[:1].expand(5)), text.repeat(3).pooled.shape
    (2, 5, torch.Size([6, 9]))
    """

    tokens: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None
    sizes: Tensor | None = None
    guidance: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Text:
        """Some of the rows: a slice, their numbers, or a Boolean mask."""
        return self.map(lambda tensor: tensor[rows])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor of the fields in use."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> Text:
        """Apply a function to every tensor."""
        return Text(**{name: function(tensor) for name, tensor in self.tensors.items()})

    def to(self, *args: Any) -> Text:
        """The text on another device or in another dtype; arguments as for `Tensor.to`."""
        return self.map(lambda tensor: tensor.to(*args))

    def repeat(self, times: int) -> Text:
        """Repeat every row `times` times in place."""
        return self.map(lambda tensor: tensor.repeat_interleave(times, 0))

    def expand(self, count: int) -> Text:
        """A single row as `count` rows that share memory."""
        return self.map(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def split(self) -> list[Text]:
        """A list of texts of one row each."""
        return [self[k : k + 1] for k in range(len(self))]

    @staticmethod
    def cat(texts: Sequence[Text]) -> Text:
        """The rows of several texts of one model, one after the other."""
        return Text(
            **{name: torch.cat([text.tensors[name] for text in texts]) for name in texts[0].tensors}
        )


def of_width(pooled: Tensor, width: int) -> Tensor:
    """Pooled embeddings (N, width).

    Raises ModelError unless they have the `width` that the denoiser takes.

    >>> of_width(torch.zeros(1, 32), 24)
    Traceback (most recent call last):
    findnemo.errors.ModelError: the text encoders give vectors of [32] values ...
    """
    if pooled.shape[-1] != width:
        raise ModelError(
            f"the text encoders give vectors of [{pooled.shape[-1]}] values with the embeddings,"
            f" and the denoiser takes [{width}]: load the pipeline again, with the text encoders"
            " that its denoiser was trained with"
        )
    return pooled
