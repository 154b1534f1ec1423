"""Models: one adapter per architecture, and `load`.

May be imported: the names below and the modules without an underscore. May import: runtime, files,
settings, seeds and errors.
"""

from findnemo.models._base import SCOPES, Model, captions_in, require_caption
from findnemo.models._checkpoints import Checkpoint, lora_checkpoints, model_checkpoints
from findnemo.models._diffusion import DiffusionModel
from findnemo.models._flow import FlowModel
from findnemo.models._reading import Reader, truncation_note
from findnemo.models._text import Text
from findnemo.models.deepfloyd import DeepFloyd
from findnemo.models.flux import Flux
from findnemo.models.loading import load
from findnemo.models.lora import Lora, of_strength, read_lora
from findnemo.models.pixart import PixArt
from findnemo.models.samplers import SAMPLERS, check_steps, sampler_class, sampler_name, sampling
from findnemo.models.stable_diffusion import StableDiffusion
from findnemo.models.stable_diffusion_3 import StableDiffusion3
from findnemo.models.stable_diffusion_xl import StableDiffusionXL

__all__ = [
    "SAMPLERS",
    "SCOPES",
    "Checkpoint",
    "DeepFloyd",
    "DiffusionModel",
    "FlowModel",
    "Flux",
    "Lora",
    "Model",
    "PixArt",
    "Reader",
    "StableDiffusion",
    "StableDiffusion3",
    "StableDiffusionXL",
    "Text",
    "captions_in",
    "check_steps",
    "load",
    "lora_checkpoints",
    "model_checkpoints",
    "of_strength",
    "read_lora",
    "require_caption",
    "sampler_class",
    "sampler_name",
    "sampling",
    "truncation_note",
]
