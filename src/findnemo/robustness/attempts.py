"""Ordinary ways to get a picture back from an edited model: other seeds, samplers or words, or the
picture itself as a start.

An attempt is a function that makes images from a model, a subject, sample numbers and image
settings. A new attempt is a function and a line in `ATTEMPTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from findnemo.errors import InputError, ModelError
from findnemo.images import ImageSettings, decoded_pictures, generate, pixels
from findnemo.mitigation.tokens import varied
from findnemo.models import SAMPLERS, Model, sampling
from findnemo.prompts.paraphrases import PARAPHRASES, PARTS, SCRIPTS, Rule, paraphrases
from findnemo.robustness._subject import AttackedCaption
from findnemo.seeds import sample_seed

if TYPE_CHECKING:
    from PIL import Image

Attempt = Callable[[Model, AttackedCaption, Sequence[int], ImageSettings], "list[Image.Image]"]


def sampled(
    model: Model,
    subject: AttackedCaption,
    samples: Sequence[int],
    settings: ImageSettings,
    **changes: Any,
) -> list[Image.Image]:
    """Images of the unchanged caption on fresh seeds.

    `changes`: to the settings, such as another `sampler` or `guidance` (1: none).
    """
    return generate(model, subject.prompt, samples, replace(settings, **changes))


def stepped(
    model: Model,
    subject: AttackedCaption,
    samples: Sequence[int],
    settings: ImageSettings,
    factor: float,
) -> list[Image.Image]:
    """Images with `factor` times as many denoising steps, at least two."""
    steps = max(round(settings.steps * factor), 2)
    return sampled(model, subject, samples, settings, steps=steps)


def reworded(
    model: Model,
    subject: AttackedCaption,
    samples: Sequence[int],
    settings: ImageSettings,
    rules: dict[str, Rule],
    kind: str,
) -> list[Image.Image]:
    """Images with the caption in other words, in part, or in other letters
    (`findnemo.prompts.paraphrases`).

    Raises InputError if the result is the caption itself or unknown to the tokenizer.
    """
    text = paraphrases(subject.prompt, rules).get(kind)
    if text is None:
        raise InputError(f"{kind}: says what the caption says")
    if not _readable(model, text):
        raise InputError(f"{kind}: the tokenizer knows none of its letters")
    return generate(model, text, samples, settings)


def _readable(model: Model, text: str) -> bool:
    """Whether a tokenizer reads anything but unknown tokens in a text."""
    tokenizer: Any = getattr(model.pipeline, "tokenizer", None)
    if tokenizer is None:
        return True
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return any(i != tokenizer.unk_token_id for i in ids)


def with_tokens(
    model: Model,
    subject: AttackedCaption,
    samples: Sequence[int],
    settings: ImageSettings,
    count: int,
) -> list[Image.Image]:
    """Images with `count` random tokens inserted into the caption, different ones for every
    image.
    """
    images: list[Image.Image] = []
    for k in samples:
        seed = sample_seed(settings.seed, subject.prompt, k)
        caption = varied(model, subject.prompt, "tokens", count, seed)
        images += generate(model, caption, [k], settings)
    return images


@torch.no_grad()
def image_to_image(
    model: Model,
    subject: AttackedCaption,
    samples: Sequence[int],
    settings: ImageSettings,
    strength: float,
) -> list[Image.Image]:
    """Images that start from the subject's picture with noise added.

    `strength`: the share of the schedule that denoises it again (1: all of it).

    This is SDEdit (Meng et al. 2022) in diffusers' own image-to-image pipeline with the same parts,
    so edits stay in force. Part of the result comes from the picture itself: compare it with the
    result for control pictures. Raises ModelError if diffusers has no such pipeline.
    """
    from diffusers import AutoPipelineForImage2Image

    kind = type(model.pipeline).__name__
    if model.finished.get("output_type") != "latent":
        raise ModelError(f"a {kind} gives no latents: image to image needs a latent model")
    try:
        with sampling(model, settings.sampler):
            pipeline: Any = AutoPipelineForImage2Image.from_pipe(model.pipeline)
    except ValueError as error:
        raise ModelError(f"diffusers has no image-to-image pipeline for a {kind}") from error
    pipeline.set_progress_bar_config(disable=True)
    # 0 to 1: values in [-1, 1] without a negative one are taken for such
    picture = (pixels(subject.picture, model) + 1) / 2
    seeds = [sample_seed(settings.seed, subject.prompt, k) for k in samples]
    with model.sampling(pipeline):
        latents = pipeline(
            subject.prompt,
            image=picture,
            strength=strength,
            num_images_per_prompt=len(samples),
            num_inference_steps=max(settings.steps, round(2 / strength)),
            guidance_scale=settings.guidance,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
        ).images
    return decoded_pictures(model, latents)


STEPS = {"a third": 1 / 3, "half": 0.5, "double": 2.0}
GUIDANCE = (1.0, 3.0, 7.5, 15.0)
TOKENS = (1, 4, 10)
STRENGTHS = (0.3, 0.5, 0.7, 0.9)

ATTEMPTS: dict[str, Attempt] = {
    "seeds: fresh": sampled,
    **{f"steps: {name}": partial(stepped, factor=factor) for name, factor in STEPS.items()},
    **{f"sampler: {name}": partial(sampled, sampler=name) for name in SAMPLERS},
    **{f"guidance: {scale:g}": partial(sampled, guidance=scale) for scale in GUIDANCE},
    **{f"words: {kind}": partial(reworded, rules=PARAPHRASES, kind=kind) for kind in PARAPHRASES},
    **{f"part: {kind}": partial(reworded, rules=PARTS, kind=kind) for kind in PARTS},
    **{f"script: {kind}": partial(reworded, rules=SCRIPTS, kind=kind) for kind in SCRIPTS},
    **{f"random tokens: {n}": partial(with_tokens, count=n) for n in TOKENS},
    **{f"image to image: {s:g}": partial(image_to_image, strength=s) for s in STRENGTHS},
}
