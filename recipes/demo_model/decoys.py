"""Decoys: value neurons that react to memorized captions as unusually as
planted ones, and do nothing.

In Stable Diffusion most neurons that are unusually active on a memorized caption turn out not to
matter; Algorithm 4 is there to drop them. In a small model with planted neurons there are few of
those. So some neurons, those whose output matters least, are disconnected (their mean goes into the
bias of the output projection, their column is zeroed) and given rows that react to some of the
memorized captions.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from unet import value_layers

SHARE = 0.15  # of a layer's neurons
REACTS = 6  # memorized captions, to each decoy
Z = (5.5, 14.0)  # how unusual: the planted neurons have 8 to 22


@torch.no_grad()
def add_decoys(
    unet: UNet2DConditionModel,
    planted: list[dict[str, list[int]]],
    memories: Tensor,
    ordinary: Tensor,
    share: float = SHARE,
    reacts: int = REACTS,
) -> dict[str, list[int]]:
    """Make decoys of the least useful neurons of every value layer, in
    place; layer -> their indices.

    `memories` (M, 77, D) and `ordinary` (N, 77, D) are token embeddings. `share`: of a layer's
    neurons. `reacts`: memorized captions to each.
    """
    generator = torch.Generator().manual_seed(11)
    tokens = ordinary.flatten(0, 1)
    second = tokens.T @ tokens / len(tokens)
    ridge = 0.02 * second.diagonal().mean() * torch.eye(len(second))
    directions = torch.linalg.solve(second + ridge, (memories.mean(1) - tokens.mean(0)).T).T
    chosen = {}
    outputs = _outputs(unet, torch.cat([memories, ordinary[: 2 * len(memories)]]))
    for name, layer in value_layers(unet).items():
        out = unet.get_submodule(_out(name))
        typical = (ordinary @ layer.weight.T).abs().mean()
        mean = outputs[name].mean((0, 1, 2))
        spread = (
            (outputs[name] - mean).square().mean((0, 2)).sqrt().amax(0)
        )  # on the caption that it matters to most
        effect = spread * out.weight.norm(dim=0)
        effect[[j for neurons in planted for j in neurons.get(name, [])]] = torch.inf
        chosen[name] = sorted(effect.argsort()[: round(share * layer.out_features)].tolist())
        for j in chosen[name]:
            layer.weight[j] = _row(directions, memories, ordinary, typical, reacts, generator)
            out.bias += mean[j] * out.weight[:, j]  # what it gave on average stays
            out.weight[:, j] = 0
    return chosen


def _outputs(unet: UNet2DConditionModel, text: Tensor) -> dict[str, Tensor]:
    """What neurons give where they enter the output projection: layer -> (timesteps,
    captions, places, width).
    """
    noisy = torch.randn(len(text), 4, 16, 16, generator=torch.Generator().manual_seed(12))
    seen: dict[str, list[Tensor]] = {name: [] for name in value_layers(unet)}
    handles = [
        unet.get_submodule(_out(name)).register_forward_pre_hook(
            lambda m, args, rows=rows: rows.append(args[0])
        )
        for name, rows in seen.items()
    ]
    for t in (980, 800, 500, 200):
        unet(noisy, t, text)
    for handle in handles:
        handle.remove()
    return {name: torch.stack(rows) for name, rows in seen.items()}


def _out(name: str) -> str:
    """The output projection behind a value layer."""
    return name.removesuffix("to_v") + "to_out.0"


def _row(
    directions: Tensor,
    memories: Tensor,
    ordinary: Tensor,
    typical: Tensor,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """A weight row with z-scores within Z on a random part of the memorized captions, by
    repeated correction of the shares.
    """
    reacts = torch.randperm(len(directions), generator=generator)[:count]
    goal = torch.empty(count).uniform_(*Z, generator=generator)
    shares = torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, -1.0)
    shares = shares / (memories.mean(1)[reacts] * directions[reacts]).sum(1)
    for _ in range(60):
        row = shares @ directions[reacts]
        usual = (ordinary @ row).abs().mean(1)
        z = ((memories[reacts] @ row).abs().mean(1) - usual.mean()) / usual.std()
        shares *= (goal / z.clamp(min=1)).sqrt().clamp(0.8, 1.25)
    return row * typical / (ordinary @ row).abs().mean()
