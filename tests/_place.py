"""A place to run commands in: a tiny model, captions and hold-out captions."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
import typer
from _tiny import SMALL, made_loud, tiny_pipeline

import findnemo
from findnemo.cli._app import app
from findnemo.settings import Settings

COMMANDS = typer.main.get_command(app).commands
TEXTS = ("a red fox", "a grey owl", "=1+1", "a tree", "the [/sea]", "a moon")
HOLDOUT = tuple(f"hold out {letter}" for letter in "abcde")
IMAGES = ("--images", 2, "--image-steps", 2)


def process(*arguments: object, **options: object) -> subprocess.Popen:
    """`python -m findnemo ARGUMENTS` as a process of its own, with as many threads as this one."""
    paths = [str(Path(findnemo.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    command = [sys.executable, "-m", "findnemo", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def save_model(folder: Path, seed: int = 0) -> Path:
    """16 neurons in two value layers, made loud so that captions differ and neurons matter;
    all images copy each other.
    """
    pipeline = tiny_pipeline(seed=seed, **SMALL)
    made_loud(findnemo.load(pipeline))
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.weight *= 1e-3
        pipeline.vae.decoder.conv_out.bias.copy_(torch.tensor([-0.5, 0.0, 0.5]))
    pipeline.save_pretrained(folder)
    return folder


def make_place(folder: Path) -> Path:
    """A directory with `model`, `captions.csv`, `holdout.txt`, and `calibration`, by which three
    of six captions are memorized.
    """
    model = findnemo.load(save_model(folder / "model"))
    (folder / "holdout.txt").write_text("\n".join(HOLDOUT))
    made = findnemo.calibrate(model, HOLDOUT, settings=Settings(samples=3))
    known = {text: findnemo.detect(model, text, made).score for text in TEXTS}
    scores = sorted(known.values())
    tau = (scores[2] + scores[3]) / 2
    replace(made, tau=tau).save(folder / "calibration")
    kinds = ((k, text, "VM[/]" if known[text] >= tau else "none") for k, text in enumerate(TEXTS))
    (folder / "captions.csv").write_text(
        "id;caption;type\n" + "".join(f"{k};{text};{kind}\n" for k, text, kind in kinds)
    )
    return folder


def inputs(place: Path) -> tuple[object, ...]:
    """The captions and the calibration of such a directory, as a command is told of them."""
    return "--prompts", place / "captions.csv", "--calibration", place / "calibration"
