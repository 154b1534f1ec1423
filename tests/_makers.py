"""Tiny pipelines by the kind of architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _tiny import tiny_pipeline
from _tiny_transformers import tiny_flux, tiny_sd3
from _tiny_unets import tiny_sdxl

MAKERS: dict[str, Callable[[], Any]] = {
    "sd": tiny_pipeline,
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
}
