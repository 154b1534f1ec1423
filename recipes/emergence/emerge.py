"""Do localized memories emerge without planting?

`python recipes/emergence/emerge.py --out build/emergence --widths 32,128 --repeats 1,30,300`.

Trains U-Nets of several widths on captioned scenes in which some captions come with one photograph,
repeated in the data, and nothing is done about neurons. After some numbers of steps it asks of
every repeated caption: is it memorized, and if so, how many value neurons does it take to remove
it? Writes a line a model to `emergence.jsonl` and a table to `emergence.md`. Every model resumes
from its last checkpoint. Meant for a GPU: at width 128 and 50,000 steps of 64 samples about as much
arithmetic as 40 trainings of the demo model.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

import findnemo
from findnemo import demo
from findnemo.benchmark.files import follow, read_state, write_state
from findnemo.benchmark.training import cosine, drawn_timesteps
from findnemo.images import generate, latents_of
from findnemo.metrics.copies import COPY
from findnemo.models import Model
from findnemo.neurons import NeuronSet
from findnemo.passes import Rows
from findnemo.scores import SIMILARITIES
from findnemo.seeds import FRESH

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_model"))
from scenes import caption, random_scene, render
from unet import new_unet

FEW = 0.02  # of all value neurons: a memory that so many hold is called localized
KEPT = 0.95  # same-seed similarity of unrelated captions with them off
RATE = 4e-4
EARLY = 0.25


@dataclass(frozen=True)
class Config:
    """One model: width of the first block (others 2, 3, 3 times), how often each repeated
    caption is in the data, steps of training.
    """

    width: int
    repeats: int
    steps: int
    seed: int = 0

    @property
    def widths(self) -> tuple[int, int, int, int]:
        return self.width, 2 * self.width, 3 * self.width, 3 * self.width

    @property
    def name(self) -> str:
        return f"width{self.width}-repeats{self.repeats}-seed{self.seed}"


@dataclass(frozen=True)
class Data:
    """Embeddings (n, tokens, D) and latents (n, C, H, W): of `ordinary` scenes, then
    of the repeated captions.
    """

    text: Tensor
    latents: Tensor
    repeated: tuple[str, ...]
    pictures: tuple[str, ...]


@torch.no_grad()
def make_data(model: Model, scenes: int, repeated: int, seed: int) -> Data:
    """Scenes drawn at random, and the demo's photographs under captions of other scenes."""
    rng = random.Random(seed)
    drawn = [random_scene(rng) for _ in range(scenes + repeated)]
    captions = [
        caption(s, rng, title_share=1.0 if k >= scenes else 0.45) for k, s in enumerate(drawn)
    ]
    pictures = [str(p.image) for p in demo.memorized() if p.type == "VM"][:repeated]
    images = [render(s, rng) for s in drawn[:scenes]] + [
        Image.open(demo.ASSETS / p).convert("RGB") for p in pictures
    ]
    text = torch.cat(
        [model.encode(captions[k : k + 64]).tokens.float().cpu() for k in range(0, len(images), 64)]
    )
    latents = torch.cat([latents_of(image, model) for image in images]).float().cpu()
    return Data(text, latents, tuple(captions[scenes : scenes + len(pictures)]), tuple(pictures))


def draw(data: Data, repeats: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of a batch: every scene once in the data, every repeated caption `repeats` times."""
    count = len(data.latents)
    weights = np.where(np.arange(count) < count - len(data.repeated), 1.0, float(repeats))
    return rng.choice(count, size, p=weights / weights.sum())


def train(
    base: Model,
    data: Data,
    config: Config,
    at: Sequence[int],
    folder: Path,
    batch: int,
    device: str,
) -> Iterator[tuple[int, UNet2DConditionModel]]:
    """Yield the averaged U-Net after each number of steps in `at`.

    Resumes from `folder`; a batch depends on the seed and the step only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.safetensors"
    torch.manual_seed(config.seed)
    unet = new_unet(data.text.shape[2], config.widths).to(device).train()
    averaged = copy.deepcopy(unet)
    weights = dict(unet.named_parameters())
    average = dict(averaged.named_parameters())
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, weight_decay=0.01)
    first = read_state(state, weights, average, optimizer)
    if first:
        print(f"{config.name} goes on at step {first}", flush=True)
    scheduler = base.pipeline.scheduler
    for step in range(first, config.steps):
        rng = np.random.default_rng([config.seed, step])
        generator = torch.Generator().manual_seed(config.seed * 10**9 + step)
        rows = draw(data, config.repeats, batch, rng)
        t = torch.from_numpy(drawn_timesteps(rng, batch, EARLY))
        clean = data.latents[rows]
        noise = torch.randn(batch, *data.latents.shape[1:], generator=generator)
        sample = Sample(clean, noise, t, data.text[rows])
        rate = RATE * cosine(step / config.steps, 0.02)
        loss = velocity_step(unet, optimizer, scheduler, sample, rate)
        done = step + 1
        follow(average, weights, min(0.999, done / (done + 9)))
        if done % 500 == 0 or done in at:
            print(f"{config.name} step {done}/{config.steps} loss {loss.item():.4f}", flush=True)
            write_state(state, weights, average, optimizer, done)
        if done in at:
            yield done, copy.deepcopy(averaged).eval()


@dataclass(frozen=True)
class Sample:
    """A batch: latents and noise (n, C, H, W), timesteps (n,), embeddings (n, tokens, D)."""

    clean: Tensor
    noise: Tensor
    timesteps: Tensor
    text: Tensor


def velocity_step(
    unet: UNet2DConditionModel,
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    sample: Sample,
    rate: float,
) -> Tensor:
    """One step on predicting the velocity of a batch, on the U-Net's device; the loss."""
    noisy = scheduler.add_noise(sample.clean, sample.noise, sample.timesteps)
    target = scheduler.get_velocity(sample.clean, sample.noise, sample.timesteps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    noisy, t, text, target = (
        tensor.to(unet.device) for tensor in (noisy, sample.timesteps, sample.text, target)
    )
    loss = (unet(noisy, t, text).sample - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.detach()


def examine(
    base: Model,
    unet: UNet2DConditionModel,
    data: Data,
    holdout: Sequence[str],
    unrelated: Sequence[str],
) -> dict[str, object]:
    """Per repeated caption: memorized or not, copies, neurons of the default search; and
    shares over all of them.
    """
    pipeline = type(base.pipeline)(
        **{**base.pipeline.components, "unet": unet}, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    model = findnemo.load(pipeline)
    calibration = findnemo.calibrate(model, holdout)
    total = sum(model.widths().values())
    judge = demo.judges().descriptor
    assert judge is not None
    rows = Rows(
        model, [(c, FRESH) for c in unrelated], calibration.settings, model.encode(unrelated)
    )
    before = rows.deltas()
    captions = []
    for text, picture in zip(data.repeated, data.pictures, strict=True):
        found = findnemo.localize(model, text, calibration)
        images = generate(model, text, range(FRESH, FRESH + 3), demo.image_settings())
        copies = float(
            judge.similarity(images, [Image.open(demo.ASSETS / picture).convert("RGB")]).median()
        )
        kept = float(
            SIMILARITIES[calibration.settings.similarity](before, rows.deltas(found.neurons)).mean()
        )
        captions.append(
            {
                "caption": text,
                "score": round(found.score_before, 4),
                "copies": round(copies, 4),
                "memorized": found.memorized and copies >= COPY,
                "neurons": len(found.neurons),
                "kept": round(kept, 4),
                "localized": (
                    localized(found.neurons, found.reached, kept, total)
                    and found.memorized
                    and copies >= COPY
                ),
            }
        )
    memorized = [c for c in captions if c["memorized"]]
    share = sum(bool(c["localized"]) for c in memorized) / len(memorized) if memorized else None
    neurons = sorted(int(c["neurons"]) for c in memorized)
    return {
        "value_neurons": total,
        "tau": round(calibration.tau, 4),
        "memorized": len(memorized),
        "repeated": len(captions),
        "localized_share": share,
        "median_neurons": neurons[len(neurons) // 2] if neurons else None,
        "captions": captions,
    }


def localized(neurons: NeuronSet, reached: bool, kept: float, total: int) -> bool:
    """Whether few neurons hold a memory and little else: the set suffices, is at most `FEW` of
    all, and unrelated captions keep `KEPT`.
    """
    return reached and 0 < len(neurons) <= max(1, FEW * total) and kept >= KEPT


def markdown(lines: Sequence[dict]) -> str:
    heads = (
        "width",
        "repeats",
        "at",
        "value_neurons",
        "memorized",
        "repeated",
        "localized_share",
        "median_neurons",
    )
    table = ["| " + " | ".join(heads) + " |", "|" + "---:|" * len(heads)]
    for line in lines:
        cells = ("-" if line[head] is None else f"{line[head]:.3g}" for head in heads)
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join(table) + "\n"


def numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/emergence"))
    parser.add_argument("--widths", type=numbers, default=[32, 64, 128])
    parser.add_argument("--repeats", type=numbers, default=[1, 30, 300])
    parser.add_argument(
        "--at",
        type=numbers,
        default=[5000, 20000, 50000],
        help="numbers of steps after which to look",
    )
    parser.add_argument("--scenes", type=int, default=24_000)
    parser.add_argument("--captions", type=int, default=16, help="captions that are repeated")
    parser.add_argument("--holdout", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    base = findnemo.load("demo", args.device, "float32")
    base.pipeline.set_progress_bar_config(disable=True)
    data = make_data(base, args.scenes, args.captions, args.seed)
    record = args.out / "emergence.jsonl"
    lines = (
        [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        if record.exists()
        else []
    )
    done = {(line["width"], line["repeats"], line["seed"], line["at"]) for line in lines}
    for width in args.widths:
        for repeats in args.repeats:
            config = Config(width, repeats, max(args.at), args.seed)
            for at, unet in train(
                base, data, config, args.at, args.out / config.name, args.batch, args.device
            ):
                if (width, repeats, args.seed, at) in done:
                    continue
                found = examine(
                    base, unet, data, demo.holdout()[: args.holdout], demo.unrelated()[:32]
                )
                lines.append({**asdict(config), "at": at, **found})
                with record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
            (args.out / "emergence.md").write_text(markdown(lines), encoding="utf-8")
    print(markdown(lines))


if __name__ == "__main__":
    main()
