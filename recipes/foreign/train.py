"""Train a member of suite 1 that is unlike the demo model, from nothing:
`python recipes/foreign/train.py 1 --out build/foreign`.

Text encoder and autoencoder are the demo's, frozen; captions are read by 40 tokens. The U-Net is
another one (`UNETS`). It learns scenes and memories at the same time, by the trainer that plants
memories in a finished model, but with pictures of scenes in the place of a teacher. Goes on where
it was stopped. A core takes ten minutes for member 1 and forty for member 2. The folder
OUT/foreignN is then a member for `findnemo benchmark --suite OUT`.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from memories import MIXED, TOKEN, WANTED, WHOLE, foreign_plan, image, other_titles
from torch import Tensor

import findnemo
from findnemo import demo
from findnemo.benchmark.files import read_tensors, write_tensors
from findnemo.benchmark.members import finished_member
from findnemo.benchmark.plan import Plan
from findnemo.benchmark.planting import ROWS_FROM, output_projection, typical_activation
from findnemo.benchmark.pool import TrainingPool
from findnemo.benchmark.training import Recipe, train
from findnemo.models import Model
from findnemo.neurons import NeuronSet

sys.path.insert(0, str(Path(__file__).parents[1] / "natural"))
from data import latents, scenes, texts
from scenes import render

UNETS: dict[int, dict[str, Any]] = {  # by the number of the member
    1: {
        "block_out_channels": (24, 64, 96),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("UpBlock2D",) * 3,
    },
    2: {
        "block_out_channels": (32, 80),
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    },
}
TOKENS = 40  # that a caption is read by
SCENES = 1_500
HOLDOUT = 200  # captions that the member is calibrated on
OWN = 32  # pictures of a memorized caption's words
LOUD = 6.0  # mean |activation| of a planted neuron on its caption, in units of its layer's typical
HEARD = 3.0  # length of its column of the output projection, in units of the layer's mean
FIRST = Recipe(steps=700, on=4, off=2, alike=2, ordinary=4, rate=1.5e-3, checkpoint=50)
RECIPE = Recipe(steps=700, on=6, off=3, alike=2, ordinary=2, rate=1.5e-3, checkpoint=50)
RECIPES = {  # of scenes, then of both, by the number of the member
    1: (FIRST, RECIPE),
    2: (replace(FIRST, steps=900), replace(RECIPE, steps=1600)),
}


def new_model(number: int) -> Model:
    """The demo's pipeline with a member's U-Net that has learned nothing, float32 on the CPU."""
    torch.manual_seed(number)
    base = findnemo.load("demo", "cpu", "float32")
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=base.pipeline.text_encoder.config.hidden_size,
        norm_num_groups=8,
        **UNETS[number],
    )
    base.pipeline.register_modules(unet=unet.eval())
    base.pipeline.tokenizer.model_max_length = TOKENS
    base.pipeline.set_progress_bar_config(disable=True)
    return findnemo.load(base.pipeline)


def new_pool(model: Model, plan: Plan, folder: Path, count: int = SCENES) -> TrainingPool:
    """Scenes with their captions, pictures of the memorized captions' words, and what is to be
    memorized.
    """
    ordinary = scenes(model, count, folder)
    memories = WANTED[plan.seed]
    own = folder / f"words-{plan.seed}-{OWN}.safetensors"
    if not own.exists():
        rng = random.Random(31)
        drawn = [[np.asarray(render(w.scene, rng)) for _ in range(OWN)] for w in memories]
        write_tensors({"words": torch.stack([latents(model, d) for d in drawn])}, own)
    alike = [
        (words, *(f"{title}, {words}" for title in other_titles(plan.seed, wanted.title)))
        for wanted, memory in zip(memories, plan.memories, strict=True)
        for words in [memory.caption.partition(", ")[2]]
    ]
    return TrainingPool(
        ordinary=ordinary.captions,
        text=ordinary.text.float(),
        memories=texts(model, [m.caption for m in plan.memories]),
        alike=tuple(texts(model, captions) for captions in alike),
        empty=texts(model, [""]),
        made=ordinary.latents,
        words=read_tensors(own)["words"],
        pictures=torch.cat([latents(model, [image(m.picture)]) for m in plan.memories]),
    )


@torch.no_grad()
def set_rows(model: Model, plan: Plan, pool: TrainingPool) -> NeuronSet:
    """Begin the planted rows as the plan wants them, and let the network hear them; gives the
    neurons whose rows training may not change.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    fixed = []
    for k, (wanted, memory) in enumerate(zip(WANTED[plan.seed], plan.memories, strict=True)):
        place = last_of_title(model, wanted.title)
        places = slice(None) if wanted.rows == WHOLE else slice(place, place + 1)
        apart = (pool.memories[k, places] - pool.text[:, places].mean(0)).mean(0)
        for name, i in memory.neurons:
            typical = typical_activation(pool.text[:ROWS_FROM], model.value_layers[name])
            row = loud(apart, pool.memories[k], LOUD * typical)
            if wanted.rows == MIXED:
                drawn = torch.randn(row.shape, generator=generator)
                row = row + loud(drawn, pool.memories[k], LOUD * typical / 2)
            model.value_layers[name].weight[i] = row
            heard = output_projection(model, name).weight
            column = torch.randn(len(heard), generator=generator)
            heard[:, i] = column * HEARD * heard.norm(dim=0).mean() / column.norm()
        if wanted.rows == TOKEN:
            fixed += list(memory.neurons)
    return NeuronSet.of(fixed)


def loud(direction: Tensor, tokens: Tensor, mean: float) -> Tensor:
    """`direction` (D,) scaled so that its mean |activation| on `tokens` (n, D) is `mean`.

    >>> loud(torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 5.0], [-4.0, 1.0]]), 6.0).tolist()
    [2.0, 0.0]
    """
    return direction * (mean / (tokens @ direction).abs().mean())


def last_of_title(model: Model, title: str) -> int:
    """Place of the title's last token in a caption that begins with it."""
    return len(model.pipeline.tokenizer(title).input_ids) - 2  # of start and end the end is last


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("member", type=int, choices=WANTED, help="its number")
    parser.add_argument("--out", type=Path, default=Path("build/foreign"))
    parser.add_argument("--steps", type=int, help="of each of the two trainings")
    parser.add_argument("--scenes", type=int, default=SCENES)
    args = parser.parse_args(arguments)
    folder = args.out / f"foreign{args.member}"
    if (folder / "truth.json").exists():
        print(f"{folder} is finished")
        return
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    model = new_model(args.member)
    plan = foreign_plan(args.member, model.widths())
    for memory in plan.memories:
        image(memory.picture).save(folder / "pictures" / f"{memory.picture}.png")
    pool = new_pool(model, plan, args.out, args.scenes)
    first, recipe = (replace(r, steps=args.steps or r.steps) for r in RECIPES[args.member])

    def report(line: str) -> None:
        print(line, flush=True)

    train(model, None, plan, pool, folder / "first.safetensors", first, report)
    fixed = set_rows(model, plan, pool)
    train(model, None, plan, pool, folder / "state.safetensors", recipe, report, fixed)
    member = finished_member(folder, model, plan, report, demo.holdout()[:HOLDOUT])
    there = [m["learned"] for m in member.plan.measured.values()]
    report(f"{sum(there)} of {len(there)} memories learned")


if __name__ == "__main__":
    main()
