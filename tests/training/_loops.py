"""What is trained in tests of the copy test, and how little a reading makes there."""

from __future__ import annotations

from peft import LoraConfig

from findnemo.images import ImageSettings
from findnemo.training import CopyTest

FEW = ImageSettings(2, 2.0)
TEST = CopyTest(pictures=2, samples=1, images=FEW)
QUICK = {"every": 1, "test": TEST}


def lora(pipeline, **options):
    """A LoRA with dropout in the U-Net, in training mode, as its parameters."""
    unet = pipeline.unet
    for network in (unet, pipeline.vae, pipeline.text_encoder):
        network.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(r=2, lora_dropout=0.5, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    unet.train()
    return [p for p in unet.parameters() if p.requires_grad]
