"""What every training here draws on: captioned scenes as the demo model knows them,
and latents of pictures.
"""

from __future__ import annotations

import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from findnemo import demo
from findnemo.benchmark.files import read_tensors, write_tensors
from findnemo.models import Model

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_model"))
from scenes import caption, random_scene, render

SEED = 77_000  # the demo's own scenes were drawn from seeds below 20,300
PARTS = 16


@dataclass(frozen=True)
class Scenes:
    """Ordinary captions, their embeddings (n, tokens, D) in half precision, and latents (n, C,
    H, W) of one picture each.
    """

    captions: tuple[str, ...]
    text: Tensor
    latents: Tensor


def scenes(model: Model, count: int, folder: Path) -> Scenes:
    """`count` scenes drawn at random, none with a caption that calibrates or tests.

    Kept in `folder`.
    """
    file = folder / f"scenes-{count}.safetensors"
    drawn = _drawn(count)
    captions = tuple(text for text, _ in drawn)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pictures = torch.cat(
            [latents(model, [p for _, p in drawn[k : k + 64]]) for k in range(0, count, 64)]
        )
        write_tensors({"text": texts(model, captions).half(), "latents": pictures}, file)
    kept = read_tensors(file)
    return Scenes(captions, kept["text"], kept["latents"])


def _drawn(count: int) -> list[tuple[str, np.ndarray]]:
    with ProcessPoolExecutor() as workers:
        parts = workers.map(_part, range(PARTS), [-(-count // PARTS)] * PARTS)
        return [scene for part in parts for scene in part][:count]


def _part(part: int, count: int) -> list[tuple[str, np.ndarray]]:
    kept = {*demo.holdout(), *demo.unrelated()}
    rng = random.Random(SEED + part)
    found = []
    while len(found) < count:
        scene = random_scene(rng)
        text = caption(scene, rng)
        if text not in kept:
            found.append((text, np.asarray(render(scene, rng))))
    return found


@torch.no_grad()
def latents(model: Model, pictures: list[np.ndarray] | list[Image.Image]) -> Tensor:
    """Pictures of 64 x 64 RGB -> (n, C, H, W), as the model's diffusion sees them."""
    vae = model.pipeline.vae
    pixels = (
        torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2).float()
        / 127.5
        - 1
    )
    return vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor


def texts(model: Model, captions: tuple[str, ...] | list[str]) -> Tensor:
    """Embeddings (n, tokens, D)."""
    return torch.cat(
        [
            model.encode(list(captions[k : k + 64])).tokens.float()
            for k in range(0, len(captions), 64)
        ]
    )
