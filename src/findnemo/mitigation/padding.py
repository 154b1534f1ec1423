"""Mask the content of the padding: in CLIP's embeddings it repeats the end of the text, which
contains the whole caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from findnemo.errors import InputError, ModelError
from findnemo.mitigation._calls import captions
from findnemo.mitigation._case import Case
from findnemo.mitigation.attention import text_mask
from findnemo.models import Model
from findnemo.passes.conditioning import Encoded, check_changeable, following

MARK = "!"  # CLIP's token 0
SHARE = 0.7


@contextmanager
def masked_padding(model: Model, case: Case, share: float | None = None) -> Iterator[None]:
    """Encode prompts padded with "!", and set the end of the text to zero; with `share`, only set
    the first `share` of the padding to zero.

    Published (Kim and No 2026): the first variant, and a share of .7. The caption's own words are
    encoded before the end and stay unchanged, and so do pooled embeddings. Rows without the prompt
    (guidance) and an empty prompt stay unchanged; the released code masks them too in the first
    variant. Raises InputError for an invalid share, or a pipeline call with prompt_embeds, which
    hide the end of the text, or with prompt_2. Raises ModelError for a text encoder other than
    CLIP's.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with masked_padding(model, Case(prompt)):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    if share is not None and not 0 < share <= 1:
        raise InputError(f"a share of {share!r:.40} of the padding: give more than 0, at most 1")
    check_changeable(model)
    marks = _marks(model)

    def mask(encode: Encoded) -> Encoded:
        def encode_prompt(**options: Any) -> tuple:
            prompts = captions(options)
            text = text_mask(model, prompts)
            embeds, *rest = encode(**options)
            if share is None:
                masked = _encoded(model, encode, options, text, marks)
                zeros = ends(text)
            else:
                masked = embeds
                zeros = first_padding(text, share)
            written = torch.tensor([bool(prompt) for prompt in prompts])[:, None]
            images = options["num_images_per_prompt"]
            zeros, written = (
                x.repeat_interleave(images, 0)[..., None].to(embeds.device)
                for x in (zeros, written)
            )
            return (torch.where(written, masked.masked_fill(zeros, 0), embeds), *rest)

        return encode_prompt

    with following(model, mask):
        yield


def ends(text: Tensor) -> Tensor:
    """Where texts end, (N, tokens), from `text_mask`: the last position before the padding.

    >>> ends(torch.tensor([[1, 1, 0, 0]])).tolist()
    [[False, True, False, False]]
    """
    return (text == 1) & (text.cumsum(1) == text.sum(1, keepdim=True))


def first_padding(text: Tensor, share: float = SHARE) -> Tensor:
    """The first `share` of the padding, rounded down, (N, tokens), from `text_mask`.

    >>> first_padding(torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0]]), 0.7).sum().item()
    4
    """
    padding = 1 - text
    many = (share * padding.sum(1, keepdim=True)).floor()
    return (padding == 1) & (padding.cumsum(1) <= many)


def _marks(model: Model) -> dict[str, int]:
    """Name of each text encoder of the pipeline -> id of "!"."""
    marks = {}
    for words, name in model.encoders:
        if getattr(model.pipeline, name, None) is None:
            continue
        tokenizer = getattr(model.pipeline, words)
        marks[name] = tokenizer.convert_tokens_to_ids(MARK)
        if model.starts != 1 or marks[name] in (None, tokenizer.unk_token_id):
            raise ModelError(
                f"{name} of a {type(model.pipeline).__name__} is not CLIP's, whose padding is"
                " masked: use a method that leaves the padding alone (embedding, neurons)"
            )
    return marks


def _encoded(
    model: Model, encode: Encoded, options: dict[str, Any], text: Tensor, marks: dict[str, int]
) -> Tensor:
    """Embeddings of the prompts with marks instead of padding."""
    with ExitStack() as stack:
        for name, mark in marks.items():

            def put(module: Any, args: tuple, mark: int = mark) -> tuple:
                ids, *others = args
                return (ids.masked_fill(text.to(ids.device) == 0, mark), *others)

            stack.enter_context(getattr(model.pipeline, name).register_forward_pre_hook(put))
        embeds: Tensor = encode(**options | {"do_classifier_free_guidance": False})[0]
    return embeds
