"""What denoisers are given and give in their passes: those of a pipeline's own call, and findnemo's."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.models import Flux, Model

PROMPT = "A red fox"
PROMPTS = ["a cat", "Two dogs"]


def call(
    pipeline: Any,
    prompts: list[str] = PROMPTS,
    images: int = 2,
    guidance: float = 3.0,
    steps: int = 2,
    **options: Any,
) -> Tensor:
    """Finished images of a whole call, as the pipeline gives them."""
    generators = [torch.Generator().manual_seed(k) for k in range(images * len(prompts))]
    options = {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "output_type": "pt",
        "generator": generators,
    } | options
    return pipeline(list(prompts), num_images_per_prompt=images, **options).images


def passes(model: Model, run: Any) -> list[tuple[Tensor, Any, dict[str, Any], Tensor]]:
    """(sample, timestep, keyword arguments, output) of the denoiser's passes."""
    seen = []
    handle = model.denoiser.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((*args, kwargs, output[0])),
        with_kwargs=True,
    )
    try:
        run()
    finally:
        handle.remove()
    return seen


@torch.no_grad()
def predicted(model: Model, samples: int = 2) -> Tensor:
    """findnemo's prediction for the first latents of PROMPT at the first timestep."""
    text = model.encode([PROMPT]).expand(samples)
    return model.predict_noise(model.noise(PROMPT, range(samples)), model.timesteps(50)[0], text)


def inputs(model: Model, run: Any) -> dict[str, Any]:
    """Arguments of the first pass of the network while something runs, by name; None
    and empty ones left out.
    """
    seen: list[dict[str, Any]] = []
    signature = inspect.signature(type(model.denoiser).forward)

    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen.append(dict(signature.bind(module, *args, **kwargs).arguments))

    handle = model.denoiser.register_forward_pre_hook(hook, with_kwargs=True)
    run()
    handle.remove()
    left_out = ("self", "return_dict")
    flat = seen[0] | seen[0].pop("added_cond_kwargs", {})
    return {
        k: v
        for k, v in flat.items()
        if k not in left_out and v is not None and not (isinstance(v, dict) and not v)
    }


def check_inputs(model: Model) -> dict[str, Any]:
    """The network is given what the pipeline gives it at its first step from the same latents."""
    latents = model.noise(PROMPT, [0, 1])
    start = latents
    if isinstance(model, Flux):
        start = model.pipeline._pack_latents(latents, *latents.shape)
    options = {
        "guidance_scale": 1.0,
        "num_images_per_prompt": 2,
        "num_inference_steps": 4,
        "output_type": "latent",
    }
    theirs = inputs(model, lambda: model.pipeline(PROMPT, latents=start, **options))
    mine = inputs(model, lambda: predicted(model))
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(
            mine[key],
            value.to(mine[key].dtype),
            atol=0,
            rtol=0,
            msg=lambda m, key=key: f"{key}: {m}",
        )
    return mine
