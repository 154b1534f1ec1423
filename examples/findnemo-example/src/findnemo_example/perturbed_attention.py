"""Stable Diffusion with perturbed-attention guidance (Ahn et al., ECCV 2024)."""

from __future__ import annotations

from findnemo.models import StableDiffusion


class PerturbedAttention(StableDiffusion):
    """The networks are those of Stable Diffusion, so neurons and scores are too.

    Only finished images differ: the pipeline asks the U-Net a third time a step, with
    self-attention switched to identity.
    """
