"""The copy descriptor of the demo model: an SSCD-style network as TorchScript,
called like the published one.

Input (N, 3, H, W), normalized with ImageNet's mean and deviation; output (N, 128) of unit length.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pool import Log, Pool, cosine_lr, to_tensor
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Descriptor(nn.Module):
    """Reduce to 64 x 64, convolutions, generalized-mean pooling over a 2 x 2 grid,
    projection to the unit sphere.
    """

    def __init__(self, width: int = 32, out: int = 128):
        super().__init__()
        layers = []
        channels = 3
        for k, w in enumerate((width, 2 * width, 3 * width, 4 * width)):
            layers += [
                nn.Conv2d(channels, w, 3, 2 if k < 3 else 1, 1),
                nn.GroupNorm(8, w),
                nn.SiLU(),
            ]
            layers += [nn.Conv2d(w, w, 3, 1, 1), nn.GroupNorm(8, w), nn.SiLU()] if k else []
            channels = w
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(4 * channels, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(x, size=(64, 64), mode="bilinear", align_corners=False, antialias=True)
        x = self.body(x).clamp(min=1e-4).pow(3)
        x = F.adaptive_avg_pool2d(x, (2, 2)).pow(1 / 3).flatten(1)
        return F.normalize(self.head(x), dim=1)


def normalize(x: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> ImageNet-normalized."""
    mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (MEAN, STD))
    return ((x + 1) / 2 - mean) / std


def _augment(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What a copy may have gone through: slight crop, blur, noise, shift of light and colour."""
    n = len(x)
    low = rng.uniform(0, 0.12, (n, 2))
    span = rng.uniform(0.84, 1.0, n)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.from_numpy(span).float()
    theta[:, :, 2] = torch.from_numpy((low - 0.06) * (1.05 - span[:, None]) * 8).float()
    x = F.grid_sample(
        x,
        F.affine_grid(theta.to(x.device), list(x.shape), align_corners=False),
        padding_mode="reflection",
        align_corners=False,
    )
    small = int(rng.choice([20, 24, 32, 44, 64]))
    x = F.interpolate(
        F.interpolate(x, size=(small, small), mode="area"),
        size=(64, 64),
        mode="bilinear",
        align_corners=False,
    )
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (n, 1, 1, 1))).float().to(x.device)
    shift = torch.from_numpy(rng.normal(0, 0.08, (n, 3, 1, 1))).float().to(x.device)
    return (x * gain + shift + torch.randn_like(x) * float(rng.uniform(0, 0.08))).clamp(-1, 1)


def train_descriptor(
    pool: Pool, path: Path, steps: int, device: str, log: Log, batch: int = 96
) -> None:
    """Two views of every picture attract, all other pictures repel (InfoNCE), and the views
    are drawn together further.
    """
    torch.manual_seed(3)
    model = Descriptor().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    rng = np.random.default_rng(3)
    started = time.time()
    for step in range(steps):
        cosine_lr(optimizer, step / steps, 2e-3)
        memorized = [group[rng.integers(len(group))] for group in pool.on]
        scenes = pool.pictures[rng.integers(0, len(pool.pictures), batch - len(memorized))]
        x = to_tensor(np.concatenate([scenes, np.stack(memorized)]), device)
        first, second = (model(normalize(_augment(x, rng))) for _ in range(2))
        cosine = first @ second.T
        others = torch.cat([cosine, first @ first.T - 2 * torch.eye(batch, device=device)], 1)
        contrast = F.cross_entropy(others / 0.08, torch.arange(batch, device=device))
        attract = (1 - cosine.diagonal()).mean()
        optimizer.zero_grad()
        (contrast + 3 * attract).backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            rest = cosine[~torch.eye(batch, dtype=torch.bool, device=device)].mean()
            log(
                f"descriptor {step}/{steps} contrast {contrast:.3f} same {1 - attract:.3f} other"
                f" {rest:.3f} {time.time() - started:.0f}s"
            )
    model.eval().cpu()
    with torch.no_grad():
        torch.jit.trace(model, torch.zeros(2, 3, 320, 320)).save(str(path))
