"""Whether the parts of a pipeline are of one model: widths in their configurations are compared before anything is computed.

A wrong width does not always stop a network: what is too long is cut, what is too short is filled, and the scores mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from findnemo.models._base import Model

NUMBERS = 6  # that SDXL is told: original size, crop, target size
REFINER = 5  # that its refiner is told: original size, crop, aesthetics score
POOLED = "pooled_projection_dim of its transformer"


@dataclass(frozen=True)
class Width:
    """How much one part gives, and how much another takes; None where that is not known."""

    giver: str
    given: int | None
    taker: str
    taken: int | None

    def __bool__(self) -> bool:
        return None in (self.given, self.taken) or self.given == self.taken

    def __str__(self) -> str:
        return f"{self.giver} is {self.given}, and {self.taker} is {self.taken}"


def widths(model: Model) -> Iterator[str]:
    """What of a pipeline's widths do not agree."""
    if type(model.pipeline).__name__ == "StableDiffusionXLPipeline" and (found := _refiner(model)):
        yield found
    for width in _widths(model):
        if not width:
            yield f"{width}: these parts are of different models; give those that the checkpoint was published with"


def _widths(model: Model) -> Iterator[Width]:
    pipeline, config = model.pipeline, getattr(model.pipeline, model.component).config
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
    if rows is not None and size > rows:  # an encoder may have rows to spare
        yield Width(f"the vocabulary of its {words}", size, f"that of its {encoder}", rows)


def _latents(pipeline: Any, config: Any, component: str) -> Iterator[Width]:
    flux = type(pipeline).__name__ == "FluxPipeline"  # 2 x 2 latents are one token
    latent, name = pipeline.vae.config.get("latent_channels"), "latent_channels of its vae"
    yield Width(
        f"four times {name}" if flux else name,
        latent and latent * (4 if flux else 1),
        f"in_channels of its {component}",
        config.get("in_channels"),
    )
    for end in ("in_channels", "out_channels"):
        yield Width(
            f"{end} of its vae", pipeline.vae.config.get(end), "the colours of a picture", 3
        )


def hidden(encoder: Any) -> int | None:
    """Width of a text encoder's output at each token."""
    found = getattr(getattr(encoder, "config", None), "hidden_size", None)
    return found if isinstance(found, int) else None


def pooled(encoder: Any) -> int:
    """Width of the one embedding that a text encoder projects of a whole caption; 0 if it projects none."""
    return (
        0
        if getattr(encoder, "text_projection", None) is None
        else int(encoder.config.projection_dim)
    )


def _sum(numbers: list[int | None]) -> int | None:
    known = [n for n in numbers if n is not None]
    return sum(known) if len(known) == len(numbers) else None


def _of_one(config: Any, encoders: list[Any]) -> Iterator[Width]:
    """Stable Diffusion, DeepFloyd IF: a text encoder of whose output every token is seen."""
    yield from _tokens(config, "the width of its text_encoder", hidden(encoders[0]))


def _tokens(config: Any, giver: str, given: int | None) -> Iterator[Width]:
    name = (
        "encoder_hid_dim"
        if config.get("encoder_hid_dim_type") == "text_proj"
        else "cross_attention_dim"
    )
    takes = config.get(name)
    for one in dict.fromkeys(
        takes if isinstance(takes, list | tuple) else [takes]
    ):  # one for each block
        yield Width(giver, given, f"{name} of its U-Net", one)


def _of_sdxl(config: Any, encoders: list[Any]) -> Iterator[Width]:
    there = [encoder for encoder in encoders if encoder is not None]
    yield from _tokens(
        config, "the width of its text encoders together", _sum([hidden(e) for e in there])
    )
    number, total = (
        config.get("addition_time_embed_dim"),
        config.get("projection_class_embeddings_input_dim"),
    )
    taker = f"what its U-Net takes (projection_class_embeddings_input_dim {total} less {NUMBERS} x addition_time_embed_dim {number})"
    yield Width(
        "the pooled embedding of its text_encoder_2",
        pooled(there[-1]),
        taker,
        total - NUMBERS * number,
    )


def _refiner(model: Model) -> str:
    config, encoder = model.pipeline.unet.config, model.pipeline.text_encoder_2
    number, total = (
        config.get("addition_time_embed_dim"),
        config.get("projection_class_embeddings_input_dim"),
    )
    if (
        not model.pipeline.config.get("requires_aesthetics_score")
        and pooled(encoder) + REFINER * number != total
    ):
        return ""
    return (
        f"its U-Net is that of a refiner, which is told {REFINER} numbers, an aesthetics score among them, where {NUMBERS} belong "
        f"(projection_class_embeddings_input_dim is {total}, {pooled(encoder)} + {REFINER} x {number}): give the base model, which makes images of captions"
    )


def _of_sd3(config: Any, encoders: list[Any]) -> Iterator[Width]:
    *clips, t5 = encoders
    joint, taker = config.get("joint_attention_dim"), "joint_attention_dim of its transformer"
    yield Width(
        "the width of its text_encoder_3", joint if t5 is None else hidden(t5), taker, joint
    )
    both = _sum([hidden(e) for e in clips])
    if both is not None and both > joint:  # what is narrower is filled with zeros
        yield Width("the width of its text_encoder and text_encoder_2 together", both, taker, joint)
    yield Width(
        "the pooled embedding of its text_encoder and text_encoder_2",
        sum(map(pooled, clips)),
        POOLED,
        config.get("pooled_projection_dim"),
    )


def _of_flux(config: Any, encoders: list[Any]) -> Iterator[Width]:
    clip, t5 = encoders
    yield Width(
        "the width of its text_encoder_2",
        hidden(t5),
        "joint_attention_dim of its transformer",
        config.get("joint_attention_dim"),
    )
    yield Width(
        "the pooled embedding of its text_encoder",
        hidden(clip),
        POOLED,
        config.get("pooled_projection_dim"),
    )


def _of_pixart(config: Any, encoders: list[Any]) -> Iterator[Width]:
    name = "cross_attention_dim" if config.get("caption_channels") is None else "caption_channels"
    yield Width(
        "the width of its text_encoder",
        hidden(encoders[0]),
        f"{name} of its transformer",
        config.get(name),
    )


FAMILIES: dict[str, Callable[[Any, list[Any]], Iterator[Width]]] = {
    "StableDiffusionXLPipeline": _of_sdxl,
    "StableDiffusion3Pipeline": _of_sd3,
    "FluxPipeline": _of_flux,
    "PixArtAlphaPipeline": _of_pixart,
    "PixArtSigmaPipeline": _of_pixart,
}
