"""Attention probabilities computed from a projection, apart from the code that is tested."""

from __future__ import annotations

import torch
from torch import Tensor

from findnemo.models import Model


def projected(model: Model, run) -> tuple[list[str], dict[str, list[Tensor]]]:
    """Names of the cross-attention layers in the order of their calls, and their attention from
    queries and keys, for all rows.
    """
    order = []
    queries = {}
    maps = {}
    handles = []

    def after_key(name, layer):
        def hook(module, args, key):
            order.append(name)
            q, k = (x.unflatten(2, (layer.heads, -1)) for x in (queries[name], key))
            logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
            maps.setdefault(name, []).append(logits.softmax(-1).mean(1))

        return hook

    for name, layer in model.denoiser.named_modules():
        if name.endswith("attn2"):
            handles.append(
                layer.to_q.register_forward_hook(
                    lambda m, a, out, name=name: queries.update({name: out})
                )
            )
            handles.append(layer.to_k.register_forward_hook(after_key(name, layer)))
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return order, maps
