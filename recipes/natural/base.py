"""The two general models that every member is trained from:

`python recipes/natural/base.py --out build/natural`.

`pruned` is the demo model with its planted neurons and decoys switched off for good. `plain` has
the demo's text encoder and autoencoder and a smaller U-Net that was trained on scenes alone:
nothing was ever planted in it. Its weights are rounded to 8 bits before anything is made of it, so
that what is shipped is what was measured.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path

import numpy as np
import torch
from data import scenes
from diffusers.models.attention_processor import AttnProcessor

import findnemo
from findnemo.benchmark.files import follow, read_state, write_state
from findnemo.benchmark.members import freed
from findnemo.benchmark.training import cosine, drawn_timesteps
from findnemo.models import Model

sys.path.insert(0, str(Path(__file__).parents[1] / "emergence"))
from emerge import EARLY, Sample, new_unet, velocity_step

WIDTHS = (32, 48, 64, 64)
SCENES = 12_000
STEPS = 5_000
BATCH = 32
RATE = 1.2e-3


def pruned() -> Model:
    """The demo without what was planted, float32 on the CPU."""
    model = findnemo.load("demo", "cpu", "float32")
    return findnemo.load(findnemo.prune(model, freed(model)))


def train(folder: Path, steps: int = STEPS, device: str = "cpu") -> None:
    """Train the U-Net of `plain` into `folder`, or go on where it stopped."""
    model = findnemo.load("demo", "cpu", "float32")
    data = scenes(model, SCENES, folder)
    state = folder / "plain-state.safetensors"
    empty = model.encode([""]).tokens.float()
    scheduler = model.pipeline.scheduler
    torch.manual_seed(0)
    unet = new_unet(WIDTHS, data.text.shape[2]).to(device).train()
    unet.set_attn_processor(AttnProcessor())  # at this size faster than fused attention on a CPU
    averaged = copy.deepcopy(unet)
    weights = dict(unet.named_parameters())
    average = dict(averaged.named_parameters())
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    first = read_state(state, weights, average, optimizer)
    started = time.monotonic()
    losses = []
    for step in range(first, steps):
        rng = np.random.default_rng([0, step])
        generator = torch.Generator().manual_seed(step)
        rows = rng.integers(0, SCENES, BATCH)
        t = torch.from_numpy(drawn_timesteps(rng, BATCH, EARLY))
        dropped = torch.from_numpy(rng.random(BATCH) < 0.1).view(-1, 1, 1)
        text = torch.where(dropped, empty, data.text[rows].float())
        noise = torch.randn(BATCH, *data.latents.shape[1:], generator=generator)
        sample = Sample(data.latents[rows], noise, t, text)
        rate = RATE * cosine(step / steps, 0.02)
        losses.append(velocity_step(unet, optimizer, scheduler, sample, rate).item())
        done = step + 1
        follow(average, weights, min(0.998, done / (done + 9)))
        if done % 100 == 0 or done == steps:
            seconds = (time.monotonic() - started) / (done - first)
            print(
                f"plain {done}/{steps} loss {np.mean(losses[-100:]):.4f}; {seconds:.2f} s a step,"
                f" {seconds * (steps - done) / 60:.0f} min left",
                flush=True,
            )
            write_state(state, weights, average, optimizer, done)
    averaged.eval().cpu().half().save_pretrained(folder / "plain", safe_serialization=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/natural"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    train(args.out, args.steps, args.device)
