"""Run directories written by hand, with no model behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from findnemo.calibration import Calibration
from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.settings import PAPER

LAYERS = {"down.0.attn2.to_v": 8, "down.1.attn2.to_v": 16, "mid.attn2.to_v": 32}
TAU = 0.4
HOLDOUT = (0.1, 0.2, 0.3, 0.35, 0.45)  # one of five reaches tau
QUALITY = {
    "prompts": 6,
    "failed": 0,
    "neurons": 4,
    "pixel_change": 0.02,
    "a_clip_before": 0.5,
    "a_clip_after": 0.49,
}


@dataclass(frozen=True)
class Told:
    """A caption with the results that it shall have: stage -> payload, or the
    reason why the stage failed.
    """

    text: str
    results: dict[str, dict[str, Any] | str] = field(default_factory=dict)
    type: str | None = None
    pictures: int = 0


def under(text: str, score: float = 0.2) -> Told:
    return Told(text, {"detect": {"memorized": False, "score": score, "tau": TAU, "samples": 10}})


def memorized(
    text: str,
    neurons: dict[str, list[int]],
    /,
    pictures: int = 0,
    type: str | None = "VM",
    reached: bool = True,
    **checked,
) -> Told:
    """A memorized caption, gone unless `checked` says something else."""
    z = {f"{name}:{k}": 10.0 + k for name, indices in neurons.items() for k in indices}
    found = {
        "memorized": True,
        "score_before": 0.9,
        "score_after": 0.1,
        "reached": reached,
        "neurons": neurons,
        "z": z,
        "evaluations": 20,
    }
    values = {
        "score_before": 0.8,
        "score_after": 0.3,
        "same_seed": 0.2,
        "copies_before": 1.0,
        "copies_after": 0.0 if reached else 1.0,
    }
    detected = {"memorized": True, "score": 0.85, "tau": TAU, "samples": 2}
    return Told(
        text,
        {
            "detect": detected,
            "localize": found,
            "verify": {k: v for k, v in (values | checked).items() if v is not None},
        },
        type,
        pictures,
    )


def mixed() -> list[Told]:
    """Of four memories two are gone, and two are not, each in its own way; of three captions over
    tau no image was looked at.
    """
    first, second, mid = LAYERS
    failed = memorized("it failed", {mid: [9]})
    return [
        memorized("gone one", {first: [1]}, pictures=2),
        memorized("gone two", {first: [1], mid: [5]}, pictures=2, type="TM"),
        memorized("still copied", {second: [2]}, copies_after=0.25),
        memorized(
            "back again", {second: [3]}, same_seed=0.7, copies_before=None, copies_after=None
        ),
        memorized("beyond reach", {mid: [30, 31]}, reached=False, same_seed=0.9),
        Told(
            "not looked for",
            {"detect": {"memorized": True, "score": 0.5, "tau": TAU, "samples": 4}},
        ),
        Told("it failed", failed.results | {"verify": "holds NaN"}, "VM"),
        under("an ordinary one"),
        under("another"),
        Told("nothing yet"),
    ]


def make_run(
    path: Path,
    captions: list[Told],
    holdout=HOLDOUT,
    side: int = 32,
    source: str = "a model that is nowhere",
    **meta,
) -> Path:
    """Write a run directory with these captions and values of the run."""
    settings = {
        "model": "0123456789abcdef",
        "dtype": "float32",
        "calibration": PAPER.to_json(),
        "tau": TAU,
        "search": "gradient",
        "images": 4,
        "image_settings": {"steps": 50, "guidance": 7.0, "seed": 0},
        "judges": {},
    }
    scores = torch.tensor(holdout)[:, None].repeat(1, 9) if holdout else torch.empty(0, 9)
    mean, std = ({name: torch.ones(width) for name, width in LAYERS.items()} for _ in range(2))
    Calibration("0123456789abcdef", source, PAPER, TAU, mean, std, len(holdout), scores, None).save(
        path / "calibration"
    )
    with Run.create(path, settings) as run:
        run.set_meta("source", source)
        run.set_meta("versions", {"findnemo": "0.1.0"})
        for key, value in meta.items():
            run.set_meta(key, value)
        ids = run.add(Prompt(c.text, row, c.type) for row, c in enumerate(captions, 1))
        for id_, caption in zip(ids, captions, strict=True):
            for stage, payload in caption.results.items():
                failed = isinstance(payload, str)
                run.record(id_, stage, {} if failed else payload, 1.0, payload if failed else None)
        for entered, told in zip(run.captions(), captions, strict=True):
            if told.pictures:
                add_pictures(path, entered.slug, told.pictures, side)
    return path


def add_pictures(path: Path, slug: str, count: int, side: int) -> None:
    """Pictures like photographs (smooth, with grain) and noise differences of a caption."""
    names = ["original", *(f"{name}-{k:02d}" for name in ("before", "after") for k in range(count))]
    for k, name in enumerate(names):
        save(photograph(side, k), path / "images" / slug / f"{name}.png")
        if name != "original":
            noise = np.random.default_rng(k).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            save(Image.fromarray(noise), path / "noise" / slug / f"{name}.png")


@cache
def photograph(side: int, seed: int) -> Image.Image:
    """Smooth, with grain."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 8, (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(small) + grain, 0, 255).astype(np.uint8))


def save(image: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, compress_level=1)
