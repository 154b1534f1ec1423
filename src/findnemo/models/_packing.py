"""What a model wants to know of a prompt beside its token embeddings, carried in further rows of the same tensor.

Everything that repeats, selects or batches prompts then works on one tensor (N, rows, D), whatever the architecture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from findnemo.errors import ModelError


def packed(text: Tensor, *extras: Tensor) -> Tensor:
    """Embeddings (N, tokens, D) with vectors (N, width <= D) as further rows, filled with zeros: (N, tokens + extras, D).

    Raises ModelError for a vector that is wider than the embeddings.

    >>> packed(torch.ones(2, 3, 4), torch.ones(2, 2)).shape
    torch.Size([2, 4, 4])
    """
    width = text.shape[-1]
    if any(extra.shape[-1] > width for extra in extras):
        raise ModelError(f"a vector of {max(e.shape[-1] for e in extras)} values does not fit beside embeddings of {width}")
    rows = [pad(extra, (0, width - extra.shape[-1]))[:, None].to(text) for extra in extras]
    return torch.cat([text, *rows], 1)


def unpacked(text: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """What `packed` joined: the embeddings, then one vector for each of `widths`.

    >>> tokens, pooled = unpacked(packed(torch.ones(2, 3, 4), torch.ones(2, 2)), [2])
    >>> tokens.shape, pooled.shape
    (torch.Size([2, 3, 4]), torch.Size([2, 2]))
    """
    count = text.shape[1] - len(widths)
    return text[:, :count], *(text[:, count + k, :width] for k, width in enumerate(widths))
