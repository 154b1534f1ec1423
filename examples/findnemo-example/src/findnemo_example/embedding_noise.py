"""Gaussian noise on the text embedding (Somepalli et al., NeurIPS 2023, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from findnemo import Model
from findnemo.mitigation import Case, Method
from findnemo.passes.conditioning import following
from findnemo.seeds import sample_seed

SCALE = 0.1


@contextmanager
def noisy(model: Model, case: Case, scale: float = SCALE) -> Iterator[None]:
    """The pipeline is told of every caption with the same noise on its embedding, drawn from
    (case.seed, case.prompt); the negative prompt stays as it is.
    """

    def change(encode: Callable[..., tuple]) -> Callable[..., tuple]:
        def encode_prompt(**options: Any) -> tuple:
            embeds, *rest = encode(**options)
            seed = sample_seed(case.seed, case.prompt, 0)
            noise = torch.randn(embeds.shape[1:], generator=torch.Generator().manual_seed(seed))
            return (embeds + scale * noise.to(embeds), *rest)

        return encode_prompt

    with following(model, change):
        yield


embedding_noise = Method(noisy, "Embedding noise (Somepalli et al.)", "Somepalli et al. 2023, 6")
