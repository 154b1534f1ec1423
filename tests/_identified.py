"""What tests of a model's identity share."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig

from findnemo import Settings

SETTINGS = Settings(samples=2)
PROMPTS = ["a red fox", "two grey geese at night"]


def lora(part: Any, name: str = "toy", **options: Any) -> None:
    """Add an active LoRA to a U-Net or a text encoder, in place."""
    torch.manual_seed(3)
    options = {"r": 2, "lora_alpha": 2} | options
    targets = ["to_q", "to_v"] if hasattr(part, "attn_processors") else ["q_proj"]
    part.add_adapter(LoraConfig(target_modules=targets, init_lora_weights=False, **options), name)
