"""Counts of what a process opens: pipelines, copy descriptors and CLIPs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from transformers import CLIPModel


def note_openings(patch: pytest.MonkeyPatch, note) -> None:
    """Call `note` with the place of each pipeline, TorchScript file and CLIP that is opened."""
    for kind in (DiffusionPipeline, CLIPModel):
        real = kind.from_pretrained.__func__

        def opening(cls, source, *args, real=real, **options):
            note(str(source))
            return real(cls, source, *args, **options)

        patch.setattr(kind, "from_pretrained", classmethod(opening))
    jit = torch.jit.load

    def loading(source, *args, **options):
        note(str(Path(source)))
        return jit(source, *args, **options)

    patch.setattr(torch.jit, "load", loading)
