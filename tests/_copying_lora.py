"""A LoRA that copies, known by construction: the demo model without its planted memories is the
base, and the LoRA puts the value rows of some memories back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

import findnemo
from findnemo import demo
from findnemo.edits import prune
from findnemo.neurons import NeuronSet

ORDINARY = "a small yellow kite over a green hill"


@dataclass(frozen=True)
class Place:
    """`memories`: captions that the LoRA copies, with the neurons of each."""

    base: Path
    lora: Path
    photos: Path
    memories: dict[str, NeuronSet]


def put_back(model, memories: dict[str, NeuronSet]) -> dict[str, torch.Tensor]:
    """A LoRA, of one rank a neuron, that gives a model without them its rows of values again."""
    rows = NeuronSet.of(n for neurons in memories.values() for n in neurons)
    tensors = {}
    for name, indices in rows.layers.items():
        weight = model.value_layers[name].weight.detach()
        up = torch.zeros(len(weight), len(indices))
        up[list(indices), range(len(indices))] = 1.0
        tensors[f"unet.{name}.lora_A.weight"] = weight[list(indices)].clone()
        tensors[f"unet.{name}.lora_B.weight"] = up
    return tensors


def make_copying_lora(here: Path, count: int = 2) -> Place:
    """The base, the LoRA, and a folder of training pictures: those of `count` memories, each with
    its caption, and one that the LoRA was not given.
    """
    model = findnemo.load("demo")
    planted = demo.planted()
    captions = [p.text for p in demo.memorized() if p.type == "VM"][:count]
    memories = {caption: planted[caption] for caption in captions}
    tensors = put_back(model, memories)
    everything = NeuronSet.of(n for neurons in planted.values() for n in neurons)
    prune(model, everything).save_pretrained(here / "base", safe_serialization=True)
    save_file(tensors, here / "lora.safetensors")
    photos = here / "photos"
    photos.mkdir()
    for k, caption in enumerate(captions):
        demo.training_image(caption).save(photos / f"memory-{k}.png")
        (photos / f"memory-{k}.txt").write_text(caption, encoding="utf-8")
    kite = Image.new("RGB", (64, 64), (70, 140, 60))
    kite.paste((230, 210, 40), (20, 10, 40, 30))
    kite.save(photos / "kite.png")
    (photos / "kite.txt").write_text(ORDINARY, encoding="utf-8")
    return Place(here / "base", here / "lora.safetensors", photos, memories)
