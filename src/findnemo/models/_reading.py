"""How much of a caption each text encoder reads, so that truncation is always reported."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from findnemo.errors import ModelError

KINDS = ("CLIP", "T5")  # names of text encoders; others are called by their class
ENDLESS = 1_000_000  # transformers says 1e30 where a tokenizer states no length

Prepared = Callable[[str, Any], str]


def as_it_is(caption: str, tokenizer: Any) -> str:
    """The unchanged caption, as most pipelines give it to the tokenizer."""
    return caption


def converted(caption: str, tokenizer: Any) -> str:
    """A caption as pipelines with textual inversions write it: a token of several vectors becomes
    several tokens.
    """
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin

    return str(TextualInversionLoaderMixin().maybe_convert_prompt(caption, tokenizer))


def lowered(caption: str, tokenizer: Any) -> str:
    """A caption as DeepFloyd IF prepares it."""
    return caption.lower().strip()


def cleaned(caption: str, tokenizer: Any) -> str:
    """A caption as PixArt cleans it, without addresses and marks."""
    from diffusers import PixArtAlphaPipeline

    # cleaning uses no part of a pipeline
    bare: Any = PixArtAlphaPipeline.__new__(PixArtAlphaPipeline)
    (text,) = bare._text_preprocessing(caption, clean_caption=True)
    return str(text)


@dataclass(frozen=True)
class Reader:
    """A text encoder: its name in messages, its tokenizer, and how many tokens of a caption it
    reads, start and end of text included.
    """

    name: str
    tokenizer: Any
    limit: int
    prepared: Prepared = as_it_is

    def count(self, caption: str) -> int:
        """Tokens of a whole caption."""
        text = self.prepared(caption, self.tokenizer)
        return len(self.tokenizer(text, truncation=False, verbose=False).input_ids)


def truncation_note(readers: Sequence[Reader], caption: str) -> str:
    """What the text encoders leave unread of a caption; empty if all read it completely.

    >>> import findnemo
    >>> readers = findnemo.load("demo").readers
    >>> truncation_note(readers, "a red star"), truncation_note(readers, "star " * 90)
    ('', 'the caption has 92 tokens, the model reads the first 77')
    """
    counts = dict.fromkeys((reader.name, reader.count(caption), reader.limit) for reader in readers)
    if not any(count > limit for _, count, limit in counts):
        return ""
    # encoders that truncate come first
    (name, total, limit), *others = sorted(counts, key=lambda one: one[1] <= one[2])
    if len({(count, limit) for _, count, limit in counts}) == 1:
        return f"the caption has {total} tokens, the model reads the first {limit}"
    return ", ".join(
        [f"{total} tokens; {name} reads {limit} of them", *(_share(*one, total) for one in others)]
    )


def _share(name: str, count: int, limit: int, total: int) -> str:
    if count <= limit:
        return f"{name} all"
    return f"{name} {limit} of {'them' if count == total else count}"


def encoder_kind(encoder: Any) -> str:
    """The name of a text encoder in messages."""
    kind = type(encoder).__name__
    return next((short for short in KINDS if short in kind), kind)


def distinct(readers: Mapping[str, Reader]) -> tuple[Reader, ...]:
    """Readers by the pipeline's names of their encoders, with that name added if several of one
    kind read differently.
    """
    limits = {(reader.name, reader.limit) for reader in readers.values()}
    several = Counter(name for name, _ in limits)
    return tuple(
        replace(reader, name=f"{reader.name} ({part})") if several[reader.name] > 1 else reader
        for part, reader in readers.items()
    )


def _fitting(own: int, tokenizer: Any, encoder: Any, part: str) -> int:
    """How many tokens of a caption a tokenizer should give: `own`, or the number of positions of
    the encoder if that is less.

    Raises ModelError if neither is known, or if only start and end of text would be left.
    """
    # T5 has no such limit
    most = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
    limit = min(own, most) if isinstance(most, int) else own
    if limit >= ENDLESS:
        raise ModelError(
            f"{part} states no model_max_length, and its text encoder ({type(encoder).__name__}) no"
            " max_position_embeddings: how much of a caption is read is not known; set"
            f" pipeline.{part}.model_max_length, or model_max_length in"
            f" {part}/tokenizer_config.json"
        )
    marks = tokenizer.num_special_tokens_to_add()
    if limit <= marks:
        raise ModelError(
            f"{part} gives {limit} tokens of a caption, and its marks of start and end take"
            f" {marks}: all captions would be the same; set pipeline.{part}.model_max_length to"
            f" what the text encoder reads ({most or 'see its model card'})"
        )
    return limit


def usual_length(pipeline: Any) -> int:
    """Tokens of a prompt that a pipeline reads by default, if it states that itself (PixArt, Stable
    Diffusion 3, FLUX).
    """
    parameters = inspect.signature(type(pipeline).encode_prompt).parameters
    return int(parameters["max_sequence_length"].default)


def mend_limits(model: Any) -> None:
    """Set the length of tokenizers that state none, or more than their text encoder has positions
    for, with a warning.

    diffusers would fail on them. Raises ModelError if no length is known, or if nothing of a
    caption would be left.
    """
    for part, encoder in model.encoders:
        tokenizer = getattr(model.pipeline, part, None)
        reads = getattr(model.pipeline, encoder, None)
        if tokenizer is None or reads is None:
            continue
        stated = model.limit(part)
        limit = _fitting(stated, tokenizer, reads, part)
        if limit < stated:
            tokenizer.model_max_length = limit
            if hasattr(model.pipeline, "tokenizer_max_length"):
                model.pipeline.tokenizer_max_length = limit
            said = "no model_max_length" if stated >= ENDLESS else f"model_max_length {stated}"
            model.tell(
                f"{part} says {said}, and {encoder} reads {limit} tokens: {limit} is taken"
                f" (pipeline.{part}.model_max_length)"
            )
