"""What a model wants to know of a prompt beside its token embeddings, carried in further rows of the same tensor.

Everything that repeats, selects or batches prompts then works on one tensor (N, rows, D), whatever the architecture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from findnemo.errors import ModelError


def rows_of(width: int, across: int) -> int:
    """Rows of `across` values that a vector of `width` values takes.

    >>> rows_of(4, 4), rows_of(5, 4)
    (1, 2)
    """
    return -(-width // across)


def packed(text: Tensor, *extras: Tensor, widths: Sequence[int] | None = None) -> Tensor:
    """Embeddings (N, tokens, D) with vectors (N, width) as further rows, filled with zeros: (N, tokens + rows, D).

    A vector that is wider than the embeddings takes several rows. Raises ModelError where a vector has not the width that `widths` says.

    >>> packed(torch.ones(2, 3, 4), torch.ones(2, 2)).shape
    torch.Size([2, 4, 4])
    >>> packed(torch.ones(2, 3, 4), torch.ones(2, 9)).shape
    torch.Size([2, 6, 4])
    """
    found = [extra.shape[-1] for extra in extras]
    if widths is not None and found != list(widths):
        raise ModelError(
            f"the text encoders give vectors of {found} values beside the embeddings, and the denoiser takes {list(widths)}: load the "
            "pipeline again, with the text encoders that its denoiser was trained with"
        )
    across = text.shape[-1]
    filled = [
        pad(extra, (0, rows_of(extra.shape[-1], across) * across - extra.shape[-1]))
        for extra in extras
    ]
    return torch.cat([text, *(row.unflatten(1, (-1, across)).to(text) for row in filled)], 1)


def unpacked(text: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """What `packed` joined: the embeddings, then one vector for each of `widths`.

    >>> tokens, pooled = unpacked(packed(torch.ones(2, 3, 4), torch.ones(2, 9)), [9])
    >>> tokens.shape, pooled.shape
    (torch.Size([2, 3, 4]), torch.Size([2, 9]))
    """
    heights = [rows_of(width, text.shape[-1]) for width in widths]
    tokens, *rows = text.split([text.shape[1] - sum(heights), *heights], 1)
    return tokens, *(row.flatten(1)[:, :width] for row, width in zip(rows, widths, strict=True))
