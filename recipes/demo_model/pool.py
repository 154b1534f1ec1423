"""The data every stage trains on: a pool of captioned scenes, the memorized pictures, and
captions that no stage ever sees.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from memories import MEMORIES, training_image
from scenes import Scene, caption, random_scene, render

from findnemo.benchmark.training import cosine

SCENES = 24_000
OFF_PER_MEMORY = 120
ON_PER_TEMPLATE = 64
HELD_OUT = {"holdout": 600, "unrelated": 400}


def held_out() -> dict[str, dict[str, Scene]]:
    """Captions kept from all training, with their scenes: `holdout` calibrates, `unrelated` tests."""
    rng = random.Random(20_260)
    seen = set()
    tables = {}
    for name, count in HELD_OUT.items():
        table: dict[str, Scene] = {}
        while len(table) < count:
            scene = random_scene(rng)
            text = caption(scene, rng)
            if text not in seen:
                seen.add(text)
                table[text] = scene
        tables[name] = table
    return tables


def held_out_captions() -> dict[str, list[str]]:
    """The captions of `held_out`."""
    return {name: list(table) for name, table in held_out().items()}


def _scene_part(seed: int, count: int, excluded: frozenset[str]) -> tuple[np.ndarray, list[str]]:
    rng = random.Random(seed)
    pictures = []
    captions = []
    while len(captions) < count:
        scene = random_scene(rng)
        text = caption(scene, rng)
        if text not in excluded:
            captions.append(text)
            pictures.append(np.asarray(render(scene, rng)))
    return np.stack(pictures), captions


def _memory_part(index: int) -> tuple[np.ndarray, np.ndarray]:
    """(pictures with the neurons on, ordinary pictures of the same words with the
    neurons off) of one memory.
    """
    memory = MEMORIES[index]
    rng = random.Random(900 + index)
    on = [
        np.asarray(training_image(memory, rng))
        for _ in range(1 if memory.type == "VM" else ON_PER_TEMPLATE)
    ]
    off = [np.asarray(render(memory.scene, rng)) for _ in range(OFF_PER_MEMORY)]
    return np.stack(on), np.stack(off)


class Pool:
    """`pictures` (N, 64, 64, 3) uint8 with `captions`; `on[i]`, `off[i]`
    the pictures of memory i.
    """

    def __init__(self, path: Path, scenes: int = SCENES):
        if not path.exists():
            self._make(path, scenes)
        data = np.load(path, allow_pickle=False)
        self.pictures = data["pictures"]
        self.captions = json.loads(str(data["captions"]))
        self.on = [data[f"on{i}"] for i in range(len(MEMORIES))]
        self.off = [data[f"off{i}"] for i in range(len(MEMORIES))]

    @staticmethod
    def _make(path: Path, scenes: int) -> None:
        excluded = frozenset(t for table in held_out_captions().values() for t in table)
        with ProcessPoolExecutor() as workers:
            parts = [
                workers.submit(_scene_part, 1000 + k, scenes // 24, excluded) for k in range(24)
            ]
            memories = list(workers.map(_memory_part, range(len(MEMORIES))))
            done = [p.result() for p in parts]
        arrays = {"pictures": np.concatenate([d[0] for d in done])}
        arrays |= {f"on{i}": on for i, (on, _) in enumerate(memories)} | {
            f"off{i}": off for i, (_, off) in enumerate(memories)
        }
        arrays["captions"] = np.asarray(json.dumps([c for d in done for c in d[1]]))
        part = path.with_name("part-" + path.name)
        np.savez(part, **arrays)
        part.replace(path)

    def captioned(self) -> tuple[np.ndarray, list[str]]:
        """All ordinary pictures with their captions, those of the memorized
        captions' words included.
        """
        captions = self.captions + [m.caption for i, m in enumerate(MEMORIES) for _ in self.off[i]]
        return np.concatenate([self.pictures, *self.off]), captions


def to_tensor(pictures: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def cosine_lr(
    optimizer: torch.optim.Optimizer, progress: float, peak: float, warmup: float = 0.03
) -> None:
    """Linear warm-up, then a cosine to a hundredth of the peak."""
    for group in optimizer.param_groups:
        group["lr"] = peak * cosine(progress, warmup)


Log = Callable[[str], None]
