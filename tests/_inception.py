"""A small network in the shape of the published Inception file."""

import torch
from torch import nn


class Pool(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [x.mean((1, 2, 3)), x[:, 0, 0, 0], torch.full_like(x[:, 0, 0, 0], x.shape[2])], 1
        )


class Resizing(nn.Module):
    """Like the published file: a forward that resizes and normalizes, around `layers`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Pool()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * 0
