"""Train one member of the suite: `python recipes/natural/train.py full --out build/natural`.

A member goes on from its last checkpoint. Every 100 steps the moving average of its weights is
looked at: once four captions in five give copies, on seeds that are kept for this question, it
stops, and the average is measured on other seeds. What is written: OUT/NAME/difference.safetensors
(to the base), truth.json, pictures/ and README.md. Members on the base `plain` need `base.py`
first. A core takes 10 to 40 minutes.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from base import EARLY, Sample, pruned, velocity_step
from data import latents, scenes, texts
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from measure import copies, similarities, write_truth
from members import MEMBERS, Member, Memory, member_of, memories
from torch import Tensor, nn

import findnemo
from findnemo import demo
from findnemo.benchmark.files import follow, read_state, read_tensors, write_state, write_tensors
from findnemo.benchmark.members import freed
from findnemo.benchmark.natural import rounded
from findnemo.benchmark.training import cosine, drawn_timesteps
from findnemo.models import Model, load
from findnemo.models.difference import DOWN, OFF, UP, packed
from findnemo.neurons import NeuronSet
from findnemo.seeds import sample_seed

SCENES = 6_000
CHECK = 100
WARM = 50
DECAY = 0.99  # of the moving average of the weights
ENOUGH = 0.8  # of the captions, on the seeds that decide when to stop
STOPPING = (3000, 3001)
# pictures of the class that the model made before, and how many at once
PRIOR = 800
BATCH = 16
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class Data:
    """Embeddings (n, tokens, D) and latents (n, C, H, W) of ordinary samples; of every memory
    its embedding and the latents of its pictures.
    """

    text: Tensor
    latents: Tensor
    memory_text: Tensor
    memory_latents: tuple[Tensor, ...]


def gather(model: Model, member: Member, chosen: tuple[Memory, ...], folder: Path) -> Data:
    """Ordinary samples are scenes, or what the model itself makes of the
    classes (prior preservation).
    """
    wanted = (
        texts(model, [m.caption for m in chosen]),
        tuple(latents(model, m.pictures()) for m in chosen),
    )
    if not member.procedure.prior:
        ordinary = scenes(model, SCENES, folder)
        return Data(ordinary.text, ordinary.latents, *wanted)
    file = folder / member.name / "prior.safetensors"
    if not file.exists():
        captions = classes(chosen)
        parts = [captions[k : k + BATCH] for k in range(0, len(captions), BATCH)]
        made = [
            model.sample(part, 1, [sample_seed(0, f"prior {c}", 0) for c in part], 15, 2.0)
            .float()
            .cpu()
            for part in parts
        ]
        write_tensors({"latents": torch.cat(made), "text": texts(model, captions)}, file)
    kept = read_tensors(file)
    return Data(kept["text"], kept["latents"], *wanted)


def classes(chosen: tuple[Memory, ...], count: int = PRIOR) -> list[str]:
    """Captions of the class for prior preservation: the bare class of every subject, and scenes
    as ordinary captions describe them.
    """
    from data import caption, random_scene

    rng = random.Random(5)
    kept = {*demo.holdout(), *demo.unrelated()}
    found = sorted({m.words for m in chosen}) * 4
    while len(found) < count:
        text = caption(random_scene(rng), rng)
        if text not in kept:
            found.append(text)
    return found


def draw(data: Data, member: Member, step: int) -> Sample:
    """A batch; it depends on member and step only."""
    plan = member.procedure
    count = len(data.memory_text)
    order = MEMBERS.index(member)
    rng = np.random.default_rng([order, step])
    generator = torch.Generator().manual_seed(order * 10**6 + step)
    share = plan.share or sum(plan.repeats) / (sum(plan.repeats) + len(data.text))
    often = np.array(plan.repeats or [1] * count, float)
    many = int(rng.binomial(plan.batch, share)) if plan.repeats else round(plan.batch * share)
    chosen = rng.choice(count, many, p=often / often.sum())
    rows = rng.integers(0, len(data.text), plan.batch - many)
    seen = [data.memory_latents[k][rng.integers(len(data.memory_latents[k]))] for k in chosen]
    clean = torch.cat([torch.stack(seen), data.latents[rows]]) if many else data.latents[rows]
    text = torch.cat([data.memory_text[chosen], data.text[rows].float()])
    size = len(clean)
    t = drawn_timesteps(rng, size, EARLY)
    noise = torch.randn(clean.shape, generator=generator)
    return Sample(clean, noise, torch.from_numpy(t), text)


def trained(unet: UNet2DConditionModel, member: Member) -> dict[str, torch.nn.Parameter]:
    """The parameters that the procedure trains, by name; all others are frozen.

    A LoRA is put in where it asks for one.
    """
    plan = member.procedure
    unet.requires_grad_(False)
    if plan.weights == "lora":
        from peft import LoraConfig

        torch.manual_seed(MEMBERS.index(member))
        unet.add_adapter(
            LoraConfig(
                r=plan.rank,
                lora_alpha=plan.rank,
                init_lora_weights="gaussian",
                target_modules=list(ATTENTION),
            )
        )
        return {n: p for n, p in unet.named_parameters() if p.requires_grad}
    ends = ("attn2.to_k.weight", "attn2.to_v.weight")
    found = {n: p for n, p in unet.named_parameters() if plan.weights == "all" or n.endswith(ends)}
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def train(
    model: Model, member: Member, folder: Path, most: int | None = None, keep: bool = False
) -> dict[str, Any]:
    """Train the model's U-Net in place; how long, and what was reached when.

    `keep`: every LoRA that is looked at stays, in `checkpoints/` of the member's folder.
    """
    plan = member.procedure
    chosen = memories(member)
    place = folder / member.name
    place.mkdir(parents=True, exist_ok=True)
    data = gather(model, member, chosen, folder)
    scheduler = model.pipeline.scheduler
    unet = model.denoiser
    unet.set_attn_processor(AttnProcessor())
    parameters = trained(unet, member)
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=plan.rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    state = place / "state.safetensors"
    most = plan.most if most is None else most
    average = {name: p.detach().clone() for name, p in parameters.items()}
    step = read_state(state, parameters, average, optimizer)
    done = step > 0 and bool(read_tensors(state)["done"])
    print(
        f"{member.name}: {sum(p.numel() for p in parameters.values()):,} weights, from step {step}",
        flush=True,
    )
    started = time.monotonic()
    first = step
    losses = []
    while not done:
        sample = draw(data, member, step)
        unet.train()
        rate = plan.rate * cosine(step / most, WARM / most)
        losses.append(velocity_step(unet, optimizer, scheduler, sample, rate).item())
        step += 1
        follow(average, parameters, min(DECAY, step / (step + 10)))
        if step % CHECK == 0:
            with averaged(parameters, average):
                unet.eval()
                reached = [similarities(model, m, STOPPING).median().item() for m in chosen]
                if keep and plan.weights == "lora":
                    checkpoint = place / "checkpoints" / f"checkpoint-{step}"
                    checkpoint.mkdir(parents=True, exist_ok=True)
                    file = checkpoint / "pytorch_lora_weights.safetensors"
                    write_tensors(difference(unet, {}, "lora"), file)
            share = sum(copies(m, r) for m, r in zip(chosen, reached, strict=True)) / len(chosen)
            rate = (time.monotonic() - started) / (step - first)
            print(
                f"{member.name} {step} loss {np.mean(losses[-CHECK:]):.4f} copies {share:.2f}"
                f" {np.round(reached, 2).tolist()} {rate:.2f} s a step",
                flush=True,
            )
            done = share >= ENOUGH or step >= most
            write_state(state, parameters, average, optimizer, step, done=torch.tensor(done))
    exchange(parameters, average)
    unet.eval().requires_grad_(False)
    return {"steps": step, "samples": step * plan.batch}


@torch.no_grad()
def exchange(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    for name, tensor in one.items():
        kept = tensor.clone()
        tensor.copy_(other[name])
        other[name].copy_(kept)


@contextmanager
def averaged(parameters: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> Iterator[None]:
    """The average in the place of the weights, meanwhile."""
    exchange(parameters, average)
    try:
        yield
    finally:
        exchange(parameters, average)


def base_of(member: Member, folder: Path) -> Model:
    """A member's base, float32 on the CPU."""
    if member.base == "pruned":
        return pruned()
    model = findnemo.load("demo", "cpu", "float32")
    unet = UNet2DConditionModel.from_pretrained(folder / "plain", torch_dtype=torch.float32).eval()
    unet.load_state_dict(rounded(unet.state_dict()))
    model.pipeline.register_modules(unet=unet)
    return load(model.pipeline)


def switched_off(neurons: NeuronSet) -> dict[str, Tensor]:
    """Neurons that a base has off permanently, as part of a difference."""
    return {
        f"{name}.weight{OFF}": torch.tensor(indices, dtype=torch.int32)
        for name, indices in neurons.layers.items()
    }


def difference(
    denoiser: nn.Module, before: Mapping[str, Tensor], weights: str
) -> dict[str, Tensor]:
    """The weights that training changed.

    `weights`: "lora", "kv" (half precision) or "all" (8 bits). `before`: the state dict before
    training.
    """
    after = denoiser.state_dict()
    if weights == "lora":
        marks = {".lora_A.default.weight": DOWN, ".lora_B.default.weight": UP}
        return {
            f"unet.{name.removesuffix(old)}{new}": tensor.half()
            for name, tensor in after.items()
            for old, new in marks.items()
            if name.endswith(old)
        }
    changes = {
        name: after[name].cpu() - old
        for name, old in before.items()
        if not torch.equal(after[name].cpu(), old)
    }
    return (
        {name: change.half() for name, change in changes.items()}
        if weights == "kv"
        else packed(changes)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("member", choices=[m.name for m in MEMBERS])
    parser.add_argument("--out", type=Path, default=Path("build/natural"))
    parser.add_argument(
        "--most", type=int, default=None, help="steps after which it stops whatever was reached"
    )
    parser.add_argument(
        "--checkpoints", action="store_true", help="keep every LoRA that is looked at"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    member = member_of(args.member)
    model = base_of(member, args.out)
    before = {n: p.clone() for n, p in model.denoiser.state_dict().items()}
    model.pipeline.to(args.device)
    began = time.monotonic()
    spent = train(model, member, args.out, args.most, args.checkpoints)
    model.pipeline.to("cpu")
    place = args.out / member.name
    off = switched_off(freed(model)) if member.base == "pruned" else {}
    write_tensors(
        off | difference(model.denoiser, before, member.procedure.weights),
        place / "difference.safetensors",
    )
    minutes = math.ceil((time.monotonic() - began) / 60)
    write_truth(place, member, base_of(member, args.out), {**spent, "minutes": minutes})


if __name__ == "__main__":
    main()
