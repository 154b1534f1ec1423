"""Pipelines with other parts or settings than they were made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _tiny import tiny_clip, tiny_pipeline, tiny_tokenizer
from transformers import CLIPTextModel, CLIPTextModelWithProjection


def with_parts(make: Callable[[], Any], **parts: Any) -> Callable[[], Any]:
    """A pipeline with other parts; a function makes one of the pipeline."""

    def made() -> Any:
        pipeline = make()
        for name, part in parts.items():
            setattr(
                pipeline,
                name,
                (
                    part(pipeline)
                    if callable(part) and not isinstance(part, torch.nn.Module)
                    else part
                ),
            )
        return pipeline

    return made


def configured(make: Callable[[], Any], part: str, **settings: Any) -> Callable[[], Any]:
    def made() -> Any:
        pipeline = make()
        getattr(pipeline, part).register_to_config(**settings)
        return pipeline

    return made


def tokenizing(
    make: Callable[[], Any], name: str = "tokenizer", **settings: Any
) -> Callable[[], Any]:
    def made() -> Any:
        pipeline = make()
        for key, value in settings.items():
            setattr(getattr(pipeline, name), key, value)
        return pipeline

    return made


def clip(width: int, projection: int | None = None, vocabulary: int | None = None) -> Any:
    kind = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    rows = vocabulary or len(tiny_tokenizer())
    return tiny_clip(kind, width, projection_dim=projection or width, vocab_size=rows)


def sd(**unet: Any) -> Callable[[], Any]:
    return lambda: tiny_pipeline(**unet)
