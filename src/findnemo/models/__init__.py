"""Models: one adapter per architecture, and `load`."""

from findnemo.models._base import Model, sample_seed
from findnemo.models._loading import load
from findnemo.models.stable_diffusion import StableDiffusion

__all__ = ["Model", "StableDiffusion", "load", "sample_seed"]
