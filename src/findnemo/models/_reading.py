"""How much of a caption each text encoder reads, so that nothing is left out of it without a word."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from findnemo.errors import ModelError

KINDS = ("CLIP", "T5")  # what text encoders are called; one of another kind goes by its class
ENDLESS = 1_000_000  # transformers says 1e30 where a tokenizer states no length

Prepared = Callable[[str, Any], str]


def as_it_is(caption: str, tokenizer: Any) -> str:
    """A caption that the pipeline gives to the tokenizer untouched."""
    return caption


def converted(caption: str, tokenizer: Any) -> str:
    """A caption as pipelines with textual inversions write it: a token of several vectors is several tokens."""
    from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin

    made: str = TextualInversionLoaderMixin().maybe_convert_prompt(caption, tokenizer)
    return made


def lowered(caption: str, tokenizer: Any) -> str:
    """A caption as DeepFloyd IF prepares it."""
    return caption.lower().strip()


def cleaned(caption: str, tokenizer: Any) -> str:
    """A caption as PixArt cleans it, without addresses and marks."""
    from diffusers import PixArtAlphaPipeline

    bare: Any = PixArtAlphaPipeline.__new__(
        PixArtAlphaPipeline
    )  # cleaning asks nothing of a pipeline's parts
    (made,) = bare._text_preprocessing(caption, clean_caption=True)
    return str(made)


@dataclass(frozen=True)
class Reader:
    """A text encoder: its name in messages, its tokenizer, and how many tokens of a caption it reads, start and end of text included."""

    name: str
    tokenizer: Any
    limit: int
    prepared: Prepared = as_it_is

    def count(self, caption: str) -> int:
        """Tokens of a whole caption."""
        text = self.prepared(caption, self.tokenizer)
        return len(self.tokenizer(text, truncation=False, verbose=False).input_ids)


def cut(readers: Sequence[Reader], caption: str) -> str:
    """What is left unread of a caption and by whom; empty where all encoders read all of it.

    >>> import findnemo
    >>> readers = findnemo.load("demo").readers
    >>> cut(readers, "a red star"), cut(readers, "star " * 90)
    ('', 'the caption has 92 tokens, the model reads the first 77')
    """
    found = dict.fromkeys((reader.name, reader.count(caption), reader.limit) for reader in readers)
    if not any(count > limit for _, count, limit in found):
        return ""
    if len({(count, limit) for _, count, limit in found}) == 1:
        ((_, count, limit), *_) = found
        return f"the caption has {count} tokens, the model reads the first {limit}"
    first, *others = sorted(
        found, key=lambda one: one[1] <= one[2]
    )  # those that read less than all come first
    name, total, limit = first
    return ", ".join(
        [f"{total} tokens; {name} reads {limit} of them", *(_part(one, total) for one in others)]
    )


def _part(one: tuple[str, int, int], total: int) -> str:
    name, count, limit = one
    return (
        f"{name} all"
        if count <= limit
        else f"{name} {limit} of {'them' if count == total else count}"
    )


def kind_of(encoder: Any) -> str:
    """What a text encoder is called in messages."""
    kind = type(encoder).__name__
    return next((known for known in KINDS if known in kind), kind)


def named(readers: Sequence[tuple[str, Reader]]) -> tuple[Reader, ...]:
    """Readers told apart where several of one kind read differently: by the pipeline's name of each."""
    several = Counter(
        name for name, _ in dict.fromkeys((reader.name, reader.limit) for _, reader in readers)
    )
    return tuple(
        Reader(f"{r.name} ({part})", r.tokenizer, r.limit, r.prepared) if several[r.name] > 1 else r
        for part, r in readers
    )


def positions(encoder: Any) -> int | None:
    """Tokens that a text encoder has positions for; None where it has no such limit, as T5."""
    config = getattr(encoder, "config", None)
    found = getattr(config, "max_position_embeddings", None)
    return int(found) if isinstance(found, int) else None


def fitting(own: int, tokenizer: Any, encoder: Any, part: str) -> int:
    """How many tokens of a caption a tokenizer shall give: `own`, or what the encoder has positions for, where that is less.

    Raises ModelError where neither says, or where no token of a caption is left beside start and end of text.
    """
    most = positions(encoder)
    limit = own if most is None else min(own, most)
    if limit >= ENDLESS:
        raise ModelError(
            f"{part} states no model_max_length, and its text encoder ({type(encoder).__name__}) no max_position_embeddings: how much of a "
            f"caption is read is not known; set pipeline.{part}.model_max_length, or model_max_length in {part}/tokenizer_config.json"
        )
    marks = tokenizer.num_special_tokens_to_add()
    if limit <= marks:
        raise ModelError(
            f"{part} gives {limit} tokens of a caption, and its marks of start and end take {marks}: all captions would be the same; set "
            f"pipeline.{part}.model_max_length to what the text encoder reads ({most or 'see its model card'})"
        )
    return limit


def usual_length(pipeline: Any) -> int:
    """Tokens of a prompt that a pipeline reads by default where it says so itself (PixArt, Stable Diffusion 3, FLUX)."""
    length: int = (
        inspect.signature(type(pipeline).encode_prompt).parameters["max_sequence_length"].default
    )
    return length


def mend_limits(model: Any) -> None:
    """Give tokenizers that state no length, or more than their text encoder has positions for, the length that it reads, with a warning.

    diffusers would fail on them. Raises ModelError where no length is known, or none of a caption is left.
    """
    for part, encoder in model.encoders:
        tokenizer, reads = (getattr(model.pipeline, name, None) for name in (part, encoder))
        if tokenizer is None or reads is None:
            continue
        stated = model.limit(part)
        limit = fitting(stated, tokenizer, reads, part)
        if limit < stated:
            tokenizer.model_max_length = limit
            if hasattr(model.pipeline, "tokenizer_max_length"):
                model.pipeline.tokenizer_max_length = limit
            said = "no model_max_length" if stated >= ENDLESS else f"model_max_length {stated}"
            model.tell(
                f"{part} says {said}, and {encoder} reads {limit} tokens: {limit} is taken (pipeline.{part}.model_max_length)"
            )
