"""A memory planted by hand in a model of random weights: one value neuron that only one caption drives, and that drives the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from findnemo.models import Model

LOUD, STRONG, FINAL = 100.0, 30.0, 1000.0


@torch.no_grad()
def plant(model: Model, caption: str, others: Sequence[str], layer: str, index: int, out: nn.Linear, last: nn.Module) -> None:
    """Make neuron `index` of `layer` answer to `caption` alone, and drive the whole image by it.

    Its row is the direction that tells the caption's most unusual token from the tokens of `others`, w = C^-1 (token - mean), C their
    ridge-regularised covariance; it gives `LOUD` there. `out`, the output projection of its attention, sends it on with alternating signs, `STRONG` times, so
    that the norms behind it hide everything else. `last`, the denoiser's last layer, is scaled by `FINAL`, so that the prediction outweighs the latent.
    """
    inputs = _inputs(model, [caption, *others], layer)
    mine, rest = inputs[0].double(), inputs[1:].flatten(0, -2).double()
    mean, spread = rest.mean(0), torch.cov(rest.T)
    solved = torch.linalg.solve(spread + 1e-2 * spread.trace() / len(spread) * torch.eye(len(spread)), (mine - mean).T).T
    row = solved[(solved * (mine - mean)).sum(1).argmax()]
    row = row * LOUD / ((mine - mean) @ row).max()
    projection = model.value_layers[layer]
    projection.weight[index] = row.to(projection.weight)
    if projection.bias is not None:
        projection.bias[index] = -(row @ mean).to(projection.bias)
    signs = torch.ones(out.out_features)
    signs[1::2] = -1
    out.weight[:, index] = STRONG * signs.to(out.weight)
    last.weight *= FINAL


def _inputs(model: Model, prompts: Sequence[str], layer: str) -> Tensor:
    """What the value layer sees of each prompt in a pass, (N, tokens, width)."""
    seen: list[Tensor] = []
    handle = model.value_layers[layer].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    for prompt in prompts:
        model.predict_noise(model.noise(prompt, [0]), model.timesteps(50)[0], model.encode([prompt]))
    handle.remove()
    return torch.cat(seen)
