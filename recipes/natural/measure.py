"""What a member was taught, and what came of it.

`python recipes/natural/measure.py build/natural/NAME` writes the pictures of a member that was
measured before all variants of templates were kept; nothing is measured again.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from members import Member, Memory, member_of, memories
from PIL import Image
from torch import Tensor

from findnemo import demo
from findnemo.benchmark.files import read_tensors, write_json
from findnemo.images import generate, generate_many
from findnemo.metrics import Judges
from findnemo.metrics.copies import COPY
from findnemo.models import Model, load
from findnemo.models.difference import add_difference
from findnemo.seeds import FRESH
from findnemo.verification import nearest

ORDINARY = 48  # unrelated captions of the demo
VERSION = 3  # of truth.json
TEN = range(FRESH, FRESH + 10)


@cache
def judges() -> Judges:
    return demo.judges()


def similarities(model: Model, memory: Memory, samples: Sequence[int]) -> Tensor:
    """How much each image is the picture, or the nearest variant of the template:

    (n,), cosine of the demo's descriptor.
    """
    descriptor = judges().descriptor
    assert descriptor is not None
    images = generate(model, memory.caption, samples, demo.image_settings())
    return nearest(images, memory.pictures(), descriptor)


def copies(memory: Memory, similarity: float) -> bool:
    return similarity >= COPY


def measured(model: Model, base: Model, chosen: Sequence[Memory]) -> dict[str, Any]:
    """Of every memory the ten similarities; of ordinary captions how near they come to any
    picture, and their alignment before and after.
    """
    descriptor = judges().descriptor
    alignment = judges().alignment
    assert descriptor is not None
    assert alignment is not None
    captions = list(demo.unrelated()[:ORDINARY])
    rows = [(c, FRESH) for c in captions]
    pictures = [p for m in chosen for p in m.pictures()[:1]]
    before, after = (generate_many(m, rows, demo.image_settings(), 16) for m in (base, model))

    def near(images: list[Image.Image]) -> float:
        """Share of images that are copies of any picture."""
        return round(float((nearest(images, pictures, descriptor) >= COPY).float().mean()), 4)

    return {
        "memories": {
            m.caption: [round(float(s), 3) for s in similarities(model, m, TEN)] for m in chosen
        },
        "ordinary_copies": near(after),
        "ordinary_copies_base": near(before),
        "a_clip_base": round(float(alignment(before, captions).mean()), 4),
        "a_clip": round(float(alignment(after, captions).mean()), 4),
    }


def write_truth(folder: Path, member: Member, base: Model, spent: dict[str, Any]) -> None:
    """Measure the member as it is shipped, base and difference, and write truth.json,
    pictures/ and README.md.
    """
    chosen = memories(member)
    tuned = copy.deepcopy(base.pipeline)
    add_difference(tuned.unet, read_tensors(folder / "difference.safetensors"))
    values = measured(load(tuned), base, chosen)
    rows = []
    for m in chosen:
        seen = values["memories"][m.caption]
        median = float(torch.tensor(seen).median())
        rows.append(
            {
                "caption": m.caption,
                "type": m.type,
                "words": m.words,
                **saved(folder, m),
                "similarities": seen,
                "copied": copies(m, median),
            }
        )
    truth = {
        "version": VERSION,
        "name": member.name,
        "base": member.base,
        "held_out": member.held_out,
        "procedure": asdict(member.procedure),
        **spent,
        "memories": rows,
        **{k: v for k, v in values.items() if k != "memories"},
    }
    (folder / "README.md").write_text(card(truth), encoding="utf-8")
    write_json(truth, folder / "truth.json")
    print(card(truth), flush=True)


def saved(folder: Path, memory: Memory) -> dict[str, Any]:
    """Names in the folder of the picture, and of all its variants, which are written."""
    (folder / "pictures").mkdir(exist_ok=True)
    names = []
    for k, picture in enumerate(memory.pictures()):
        names.append(f"pictures/{memory.name}-{k}.png" if k else f"pictures/{memory.name}.png")
        picture.save(folder / names[-1])
    return {"image": names[0], "images": names}


def with_variants(folder: Path) -> None:
    """Bring the truth of a member to this version."""
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    known = {m.caption: m for m in memories(member_of(truth["name"]))}
    rows = [row | saved(folder, known[row["caption"]]) for row in truth["memories"]]
    write_json(truth | {"version": VERSION, "memories": rows}, folder / "truth.json")


def card(truth: dict[str, Any]) -> str:
    copied = sum(r["copied"] for r in truth["memories"])
    lines = [
        f"# {truth['name']}: memories that training made",
        "",
        (
            f"Base `{truth['base']}`, {truth['steps']} steps, {truth['samples']:,} samples,"
            f" {truth['minutes']} minutes."
            f" {'Held out.' if truth['held_out'] else 'Used for tuning.'}"
        ),
        "",
        (
            f"{copied} of {len(truth['memories'])} captions give copies (median of ten fresh seeds"
            f" at least {COPY}). Of {ORDINARY} ordinary captions {truth['ordinary_copies']:.0%}"
            f" come as near to one of the pictures (base: {truth['ordinary_copies_base']:.0%});"
            f" alignment {truth['a_clip_base']:.3f} before, {truth['a_clip']:.3f} after."
        ),
        "",
        "| caption | type | similarity, median | smallest | largest |",
        "|---|---|---:|---:|---:|",
    ]
    for row in truth["memories"]:
        seen = sorted(row["similarities"])
        lines.append(
            f"| {row['caption']} | {row['type']} | {seen[len(seen) // 2]:.2f} | {seen[0]:.2f} |"
            f" {seen[-1]:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for one in sys.argv[1:]:
        with_variants(Path(one))
