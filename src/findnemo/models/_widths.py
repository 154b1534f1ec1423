"""Check that the parts of a pipeline belong to one model: compare widths in their configurations
before any computation.

A wrong width does not always stop a network. Too long inputs are cut, too short ones filled, and
the scores mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from findnemo.models._base import Model

NUMBERS = 6  # inputs of SDXL: original size, crop, target size
REFINER = 5  # inputs of its refiner: original size, crop, aesthetics score
# settings of a transformer
JOINT = "joint_attention_dim"
POOLED = "pooled_projection_dim"


class Width(NamedTuple):
    """The width that one part gives, and the width that another takes; None if unknown."""

    giver: str
    given: int | None
    taker: str
    taken: int | None


def widths(model: Model) -> Iterator[str]:
    """Widths in a pipeline that do not agree."""
    if type(model.pipeline).__name__ == "StableDiffusionXLPipeline":
        yield from _refiner(model)
    for giver, given, taker, taken in _widths(model):
        if None not in (given, taken) and given != taken:
            yield (
                f"{giver} is {given}, and {taker} is {taken}: these parts are of different models;"
                " give those that the checkpoint was published with"
            )


def _widths(model: Model) -> Iterator[Width]:
    pipeline = model.pipeline
    config = getattr(pipeline, model.component).config
    encoders = [getattr(pipeline, e, None) for _, e in model.encoders]
    for words, encoder in model.encoders:
        if getattr(pipeline, words, None) is not None:
            yield from _vocabulary(pipeline, words, encoder)
    if model.decodes:
        yield from _latents(pipeline, config, model.component)
    yield from FAMILIES.get(type(pipeline).__name__, _of_one)(config, encoders)


def _vocabulary(pipeline: Any, words: str, encoder: str) -> Iterator[Width]:
    rows = getattr(getattr(pipeline, encoder).get_input_embeddings(), "num_embeddings", None)
    size = len(getattr(pipeline, words))
    if rows is not None and size > rows:  # an encoder may have unused rows
        yield Width(f"the vocabulary of its {words}", size, f"that of its {encoder}", rows)


def _latents(pipeline: Any, config: Any, component: str) -> Iterator[Width]:
    vae = pipeline.vae.config
    given = vae.get("latent_channels")
    giver = "latent_channels of its vae"
    if type(pipeline).__name__ == "FluxPipeline":  # 2 x 2 latents make one token
        given = given and 4 * given
        giver = f"four times {giver}"
    yield Width(giver, given, f"in_channels of its {component}", config.get("in_channels"))
    for end in ("in_channels", "out_channels"):
        yield Width(f"{end} of its vae", vae.get(end), "the colours of a picture", 3)


def hidden_width(encoder: Any) -> int | None:
    """Width of a text encoder's output for each token."""
    width = getattr(getattr(encoder, "config", None), "hidden_size", None)
    return width if isinstance(width, int) else None


def pooled(encoder: Any) -> int:
    """Width of the projected embedding of a whole caption; 0 if a text encoder has none."""
    projects = getattr(encoder, "text_projection", None) is not None
    return int(encoder.config.projection_dim) if projects else 0


def _together(encoders: list[Any]) -> int | None:
    """The sum of the widths of several text encoders."""
    each = [hidden_width(encoder) for encoder in encoders]
    return None if None in each else sum(width for width in each if width is not None)


def _of_one(config: Any, encoders: list[Any]) -> Iterator[Width]:
    """Stable Diffusion, DeepFloyd IF: one text encoder, with an output for each token."""
    yield from _tokens(config, "the width of its text_encoder", hidden_width(encoders[0]))


def _tokens(config: Any, giver: str, given: int | None) -> Iterator[Width]:
    projected = config.get("encoder_hid_dim_type") == "text_proj"
    name = "encoder_hid_dim" if projected else "cross_attention_dim"
    takes = config.get(name)
    # a list has one value for each block
    for one in dict.fromkeys(takes if isinstance(takes, list | tuple) else [takes]):
        yield Width(giver, given, f"{name} of its U-Net", one)


def _of_sdxl(config: Any, encoders: list[Any]) -> Iterator[Width]:
    there = [encoder for encoder in encoders if encoder is not None]
    yield from _tokens(config, "the width of its text encoders together", _together(there))
    number = config.get("addition_time_embed_dim")
    total = config.get("projection_class_embeddings_input_dim")
    giver = "the pooled embedding of its text_encoder_2"
    taker = (
        f"what its U-Net takes (projection_class_embeddings_input_dim {total} less {NUMBERS} x"
        f" addition_time_embed_dim {number})"
    )
    yield Width(giver, pooled(there[-1]), taker, total - NUMBERS * number)


def _refiner(model: Model) -> Iterator[str]:
    config = model.pipeline.unet.config
    number = config.get("addition_time_embed_dim")
    total = config.get("projection_class_embeddings_input_dim")
    width = pooled(model.pipeline.text_encoder_2)
    scored = model.pipeline.config.get("requires_aesthetics_score")
    if scored or width + REFINER * number == total:
        yield (
            f"its U-Net is that of a refiner, which takes {REFINER} numbers, an aesthetics score"
            f" among them, instead of {NUMBERS} (projection_class_embeddings_input_dim is"
            f" {total}, {width} + {REFINER} x {number}): give the base model, which makes images"
            " from captions"
        )


def _of_transformer(config: Any, name: str, giver: str, given: int | None) -> Width:
    return Width(giver, given, f"{name} of its transformer", config.get(name))


def _of_sd3(config: Any, encoders: list[Any]) -> Iterator[Width]:
    *clips, t5 = encoders
    if t5 is not None:
        yield _of_transformer(config, JOINT, "the width of its text_encoder_3", hidden_width(t5))
    clip = "its text_encoder and text_encoder_2"
    both = _together(clips)
    if both is not None and both > config.get(JOINT):  # a narrower one is padded with zeros
        yield _of_transformer(config, JOINT, f"the width of {clip} together", both)
    total = sum(map(pooled, clips))
    yield _of_transformer(config, POOLED, f"the pooled embedding of {clip}", total)


def _of_flux(config: Any, encoders: list[Any]) -> Iterator[Width]:
    clip, t5 = encoders
    yield _of_transformer(config, JOINT, "the width of its text_encoder_2", hidden_width(t5))
    yield _of_transformer(
        config, POOLED, "the pooled embedding of its text_encoder", hidden_width(clip)
    )


def _of_pixart(config: Any, encoders: list[Any]) -> Iterator[Width]:
    name = "cross_attention_dim" if config.get("caption_channels") is None else "caption_channels"
    yield _of_transformer(config, name, "the width of its text_encoder", hidden_width(encoders[0]))


FAMILIES: dict[str, Callable[[Any, list[Any]], Iterator[Width]]] = {
    "StableDiffusionXLPipeline": _of_sdxl,
    "StableDiffusion3Pipeline": _of_sd3,
    "FluxPipeline": _of_flux,
    "PixArtAlphaPipeline": _of_pixart,
    "PixArtSigmaPipeline": _of_pixart,
}
