"""A_CLIP: cosine of the CLIP embeddings of an image and a caption."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image


class Alignment:
    """Any CLIP of transformers, from a directory or hub id (safetensors only)."""

    def __init__(self, source: str | os.PathLike, tokenizer: str | os.PathLike | None = None, device: str | torch.device = "cpu"):
        from transformers import CLIPModel, CLIPTokenizer

        model: Any = CLIPModel.from_pretrained(str(source), use_safetensors=True, dtype=torch.float32)
        self.model = model.to(device).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer or source))
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], captions: Sequence[str]) -> Tensor:
        """Cosine of image k with caption k, (N,)."""
        size = self.model.config.vision_config.image_size
        pixels = torch.stack([_prepare(image, size) for image in images]).to(self.device)
        tokens = self.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").to(self.device)
        text = self.model.get_text_features(**tokens).pooler_output
        image = self.model.get_image_features(pixels).pooler_output
        return torch.nn.functional.cosine_similarity(image, text).cpu()


def _prepare(image: Image.Image, size: int) -> Tensor:
    """[-1, 1] pixels at the model's size: the demo's CLIP is trained so."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)
