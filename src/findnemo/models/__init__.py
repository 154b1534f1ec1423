"""Models: one adapter per architecture, and `load`."""

from findnemo.models._base import Model, sample_seed
from findnemo.models._loading import load
from findnemo.models.deepfloyd import DeepFloyd
from findnemo.models.stable_diffusion import StableDiffusion
from findnemo.models.stable_diffusion_xl import StableDiffusionXL

__all__ = ["DeepFloyd", "Model", "StableDiffusion", "StableDiffusionXL", "load", "sample_seed"]
