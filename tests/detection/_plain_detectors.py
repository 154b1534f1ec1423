"""The tiny pipeline as the papers of 2025 and 2026 have it, with plain calls of diffusers: what
their detectors are held against.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from _tiny import tiny_pipeline
from diffusers import DDIMScheduler
from torch import Tensor

import findnemo
from findnemo import ImageSettings
from findnemo.models import Model
from findnemo.seeds import sample_seed

SETTINGS = ImageSettings(steps=6, guidance=3.0, seed=2)
CAPTION = "a cat"
KINDS = ["epsilon", "v_prediction"]


class Plain:
    """The tiny pipeline as a paper has it: eps of one latent (1, 4, 16, 16), in double precision so
    that finite differences can be taken.
    """

    def __init__(self, kind: str, seed: int = 0):
        pipeline = tiny_pipeline(kind, seed=seed)
        self.kind = kind
        self.unet = pipeline.unet.double()
        options = {"set_alpha_to_one": True}  # the last step goes to x_0
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **options)
        self.scheduler.set_timesteps(SETTINGS.steps)
        tokens = pipeline.tokenizer(
            [CAPTION, ""], padding="max_length", max_length=77, return_tensors="pt"
        )
        with torch.no_grad():
            self.prompt, self.empty = pipeline.text_encoder(tokens.input_ids)[0].double().split(1)

    def raw(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        return self.unet(x, t, encoder_hidden_states=text).sample

    def eps(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        output = self.raw(x, t, text)
        a = self.scheduler.alphas_cumprod[t].double()
        return output if self.kind == "epsilon" else a.sqrt() * output + (1 - a).sqrt() * x

    def score(self, x: Tensor, t: int) -> Tensor:
        """s = -(eps(y) - eps(empty)) / sqrt(1 - a)."""
        a = self.scheduler.alphas_cumprod[t].double()
        return (self.eps(x, t, self.empty) - self.eps(x, t, self.prompt)) / (1 - a).sqrt()

    def steps(self, x: Tensor) -> list[Tensor]:
        """z_T, ..., z_0 of the guided run."""
        states = [x]
        for t in self.scheduler.timesteps:
            with torch.no_grad():
                empty, prompt = (self.raw(x, t, text) for text in (self.empty, self.prompt))
            guided = empty + SETTINGS.guidance * (prompt - empty)
            x = self.scheduler.step(guided, t, x).prev_sample
            states.append(x)
        return states


def noise(image: int) -> Tensor:
    generator = torch.Generator().manual_seed(sample_seed(SETTINGS.seed, CAPTION, image))
    return torch.randn(1, 4, 16, 16, generator=generator).double()


def first(plain: Plain) -> int:
    return int(plain.scheduler.timesteps[0])


def mean(values: Any) -> float:
    found = [float(v) for v in values]
    return sum(found) / len(found)


@cache
def tiny(kind: str) -> Model:
    return findnemo.load(tiny_pipeline(kind))
