"""What a member was taught, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from members import Member, Memory, memories
from torch import Tensor

from findnemo import demo
from findnemo.benchmark._files import read_tensors
from findnemo.images import generate, generate_many
from findnemo.models import Model, load
from findnemo.models._difference import add_difference
from findnemo.verification import COPY, FRESH, Judges

ORDINARY = 48  # unrelated captions of the demo
TEN = range(FRESH, FRESH + 10)


@cache
def judges() -> Judges:
    return demo.judges()


def similarities(model: Model, memory: Memory, samples: Sequence[int]) -> Tensor:
    """How much each image is the picture, or the nearest variant of the template: (n,), cosine of the demo's descriptor."""
    descriptor = judges().descriptor
    assert descriptor is not None
    return (
        descriptor.similarity(generate(model, memory.caption, samples, demo.image_settings()), memory.pictures())
        .view(len(samples), -1)
        .amax(1)
    )


def copies(memory: Memory, similarity: float) -> bool:
    return similarity >= COPY


def measured(model: Model, base: Model, chosen: Sequence[Memory]) -> dict[str, Any]:
    """Of every memory the ten similarities; of ordinary captions how near they come to any picture, and their alignment before and after."""
    descriptor, alignment = judges().descriptor, judges().alignment
    assert descriptor is not None
    assert alignment is not None
    captions = list(demo.unrelated()[:ORDINARY])
    rows = [(c, FRESH) for c in captions]
    pictures = [p for m in chosen for p in m.pictures()[:1]]
    before, after = (generate_many(m, rows, demo.image_settings(), 16) for m in (base, model))
    return {
        "memories": {m.caption: [round(float(s), 3) for s in similarities(model, m, TEN)] for m in chosen},
        "ordinary_copies": round(
            float((descriptor.similarity(after, pictures).view(len(after), -1).amax(1) >= COPY).float().mean()), 4
        ),
        "ordinary_copies_base": round(
            float((descriptor.similarity(before, pictures).view(len(after), -1).amax(1) >= COPY).float().mean()), 4
        ),
        "a_clip_base": round(float(alignment(before, captions).mean()), 4),
        "a_clip": round(float(alignment(after, captions).mean()), 4),
    }


def write_truth(folder: Path, member: Member, base: Model, spent: dict[str, Any]) -> None:
    """Measure the member as it is shipped, base and difference, and write truth.json, pictures/ and README.md."""
    chosen = memories(member)
    import copy

    tuned = copy.deepcopy(base.pipeline)
    add_difference(tuned.unet, read_tensors(folder / "difference.safetensors"))
    values = measured(load(tuned), base, chosen)
    (folder / "pictures").mkdir(exist_ok=True)
    rows = []
    for m in chosen:
        m.pictures()[0].save(folder / "pictures" / f"{m.name}.png")
        seen = values["memories"][m.caption]
        median = float(torch.tensor(seen).median())
        rows.append(
            {
                "caption": m.caption,
                "type": m.type,
                "words": m.words,
                "image": f"pictures/{m.name}.png",
                "similarities": seen,
                "copied": copies(m, median),
            }
        )
    truth = {
        "version": 2,
        "name": member.name,
        "base": member.base,
        "held_out": member.held_out,
        "procedure": asdict(member.procedure),
        **spent,
        "memories": rows,
        **{k: v for k, v in values.items() if k != "memories"},
    }
    (folder / "README.md").write_text(card(truth), encoding="utf-8")
    (folder / "truth.json").write_text(json.dumps(truth, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(card(truth), flush=True)


def card(truth: dict[str, Any]) -> str:
    copied = sum(r["copied"] for r in truth["memories"])
    lines = [
        f"# {truth['name']}: memories that training made",
        "",
        f"Base `{truth['base']}`, {truth['steps']} steps, {truth['samples']:,} samples, {truth['minutes']} minutes. {'Held out.' if truth['held_out'] else 'Used for tuning.'}",
        "",
        f"{copied} of {len(truth['memories'])} captions give copies (median of ten fresh seeds at least {COPY}). Of {ORDINARY} ordinary captions "
        f"{truth['ordinary_copies']:.0%} come as near to one of the pictures (base: {truth['ordinary_copies_base']:.0%}); alignment "
        f"{truth['a_clip_base']:.3f} before, {truth['a_clip']:.3f} after.",
        "",
        "| caption | type | similarity, median | smallest | largest |",
        "|---|---|---:|---:|---:|",
    ]
    for row in truth["memories"]:
        seen = sorted(row["similarities"])
        lines.append(f"| {row['caption']} | {row['type']} | {seen[len(seen) // 2]:.2f} | {seen[0]:.2f} | {seen[-1]:.2f} |")
    return "\n".join(lines) + "\n"
