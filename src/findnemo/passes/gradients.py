"""Gradients through the denoiser: of masks and embeddings, never of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from findnemo.errors import EditError

GRADIENT_SCALE = 1024.0  # keeps small gradients from vanishing in half precision


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Compute no gradients for weights, only for masks.

    Raises EditError for weights made in inference mode, where no gradient exists.
    """
    if any(p.is_inference() for p in module.parameters()):
        raise EditError(
            f"the weights of {type(module).__name__} were made under torch.inference_mode, so no"
            " gradient goes through them: load the model outside of it"
        )
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
