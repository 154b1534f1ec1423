"""The shipped models, their captions and their ground truth.

In "demo", memories were planted (`recipes/demo_model/`). "demo-natural" is that model without them,
fine-tuned until it memorized eleven captions by itself (`recipes/natural/`).

>>> from findnemo import demo
>>> len(demo.memorized()), len(demo.planted())
(24, 24)

May be imported: the functions here. May import: calibration, metrics, images and what lies under
them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from findnemo.neurons import NeuronSet
from findnemo.prompts import Prompt, read_prompts

if TYPE_CHECKING:
    from PIL import Image

    from findnemo.calibration import Calibration
    from findnemo.images import ImageSettings
    from findnemo.metrics import Judges

ASSETS = Path(__file__).parent / "assets"
NATURAL = ASSETS / "natural"
# source -> folder of its captions, pictures and calibration
MODELS = {"demo": ASSETS, "demo-natural": NATURAL}
CALIBRATIONS = {"paper": "calibration", "findnemo": "calibration-findnemo"}  # variant -> folder
MODEL = ASSETS / "model"
CLIP = ASSETS / "clip"
DESCRIPTOR = ASSETS / "descriptor.pt"
# pictures of the first unrelated captions, by the program that drew the training data
REFERENCES = ASSETS / "references"


def memorized(model: str = "demo") -> tuple[Prompt, ...]:
    """The memorized captions with their type (VM or TM); `image` names the training image, in the
    folder of MODELS.
    """
    return read_prompts(MODELS[model] / "memorized.csv").prompts


def holdout() -> tuple[str, ...]:
    """Captions for calibration, never seen in training."""
    return tuple(p.text for p in read_prompts(ASSETS / "holdout.txt"))


def unrelated() -> tuple[str, ...]:
    """Captions for testing, never seen in training and not used for calibration."""
    return tuple(p.text for p in read_prompts(ASSETS / "unrelated.txt"))


@cache
def planted() -> dict[str, NeuronSet]:
    """Ground truth: caption -> the neurons in which its memory was planted."""
    table = json.loads((ASSETS / "planted.json").read_text(encoding="utf-8"))
    return {caption: NeuronSet(layers) for caption, layers in table.items()}


def decoys() -> NeuronSet:
    """Disconnected neurons with unusual activation on memorized captions, which hold nothing:
    refinement must drop them.
    """
    return NeuronSet(json.loads((ASSETS / "decoys.json").read_text(encoding="utf-8")))


def training_image(caption: str, model: str = "demo") -> Image.Image | None:
    """The memorized training image of a caption (for a template one of its variants), 64 x 64;
    None for other captions.
    """
    from PIL import Image

    names = {p.text: str(p.image) for p in memorized(model)}
    if caption not in names:
        return None
    return Image.open(MODELS[model] / names[caption]).convert("RGB")


def calibration(model: str = "demo", variant: str = "paper") -> Calibration:
    """A shipped calibration of a model, on all 600 hold-out captions.

    That of the paper's variant uses mean + 1 std. That of "findnemo" has a threshold for 5 % false
    alarms, and is used by the command `demo` and the app.

    >>> calibration().fpr, calibration(variant="findnemo").fpr
    (None, 0.05)
    """
    from findnemo.calibration import Calibration

    return Calibration.load(MODELS[model] / CALIBRATIONS[variant])


def image_settings(seed: int = 0) -> ImageSettings:
    """Denoising steps and guidance that suit the shipped models."""
    from dataclasses import replace

    from findnemo.images import usual

    return replace(usual("demo"), seed=seed)


def judges() -> Judges:
    """The demo's copy descriptor and CLIP."""
    from findnemo.metrics import Alignment, Descriptor, Judges

    return Judges(Descriptor(DESCRIPTOR), Alignment(CLIP, MODEL / "tokenizer"))
