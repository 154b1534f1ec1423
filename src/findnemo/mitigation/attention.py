"""Move the attention from the padding to the start of the text (Ren et al., ECCV 2024, section
5).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.errors import EditError, InputError, ModelError
from findnemo.mitigation._case import Case
from findnemo.models import Model
from findnemo.passes.attention import PLAIN
from findnemo.passes.conditioning import Call, Encoded, following

C = 1.25


@contextmanager
def scaled_attention(model: Model, case: Case, c: float = C, both: bool = False) -> Iterator[None]:
    """In all cross-attention layers and steps, hide the positions after end-of-text and multiply
    the logit of start-of-text by `c`.

    Both happen before the softmax, only for the rows with the prompt; each prompt of a call has its
    own end of text. A logit is a query times a key, so the key is multiplied, and the layers keep
    their own fast attention. `both`: also hide the same positions in the rows without the prompt,
    as the released code does. Raises InputError for a pipeline call with prompt_embeds, which hide
    the end of the text; EditError for a text encoded before the context, or a processor other than
    plain attention.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with scaled_attention(model, Case(prompt)):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    model.check_editable()
    layers = _plain(model)
    text = _Text(model)
    with following(model, text.wrap_encode) as call, ExitStack() as stack:
        hide = partial(_hide, call, text, both)
        stack.enter_context(model.denoiser.register_forward_pre_hook(hide, with_kwargs=True))
        for layer in layers:
            stack.enter_context(layer.to_k.register_forward_hook(partial(_scale_start, call, c)))
        yield


def _plain(model: Model) -> list[Any]:
    """The cross-attention layers, if all compute logits from queries and keys and respect a
    mask.
    """
    if not model.cross_attentions:
        raise ModelError(
            f"no cross-attention is known in {type(model.denoiser).__name__}, so none can be"
            " scaled: switch neurons off instead"
        )
    for name, layer in model.cross_attentions.items():
        kind = type(layer.processor).__name__
        if kind not in PLAIN or layer.norm_k is not None:
            way = f"uses {kind}" if kind not in PLAIN else "normalizes its keys"
            raise EditError(
                f"{name} {way}, so scaling a key might not scale its logit: restore"
                " set_attn_processor(AttnProcessor2_0())"
            )
    return list(model.cross_attentions.values())


def _scale_start(call: Call, c: float, module: nn.Module, args: Any, keys: Tensor) -> Tensor:
    """Forward hook of `to_k`: multiply the first position's key, (B, tokens, width),
    of the conditional rows.
    """
    factor = torch.ones_like(keys[:, :, :1])
    factor[call.rows(len(keys)), 0] = c
    return keys * factor


def _hide(
    call: Call, text: _Text, both: bool, module: nn.Module, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """Forward pre-hook of the denoiser: give its cross-attentions a mask of the visible positions,
    (B, tokens).
    """
    embeddings = kwargs["encoder_hidden_states"]
    mask = torch.ones_like(embeddings[:, :, 0])
    rows = call.rows(len(embeddings))
    visible = text.visible(len(embeddings[rows])).to(mask)
    if both:
        mask = visible.repeat(len(mask) // len(visible), 1)
    else:
        mask[rows] = visible
    return args, kwargs | {"encoder_attention_mask": mask}


class _Text:
    """Which positions of the prompts encoded last are text, start and end included."""

    def __init__(self, model: Model):
        self.model = model
        self.shown = torch.empty(0, 0)

    def wrap_encode(self, encode: Encoded) -> Encoded:
        def encode_prompt(**options: Any) -> Any:
            prompt = options.get("prompt")
            if prompt is None:
                raise InputError(
                    "attention scaling needs to see where the text ends: call the pipeline with"
                    " prompt, not prompt_embeds"
                )
            if options.get("prompt_2") is not None:
                raise InputError(
                    "attention scaling needs one end of the text: call the pipeline with prompt,"
                    " without prompt_2"
                )
            images = options["num_images_per_prompt"]
            self.shown = text_mask(self.model, prompt).repeat_interleave(images, 0)
            return encode(**options)

        return encode_prompt

    def visible(self, count: int) -> Tensor:
        """(count, tokens) of 0 and 1; one prompt may be shared by all rows."""
        if len(self.shown) not in (1, count):
            raise EditError(
                f"a pass of {count} rows with a prompt, but {len(self.shown)} were encoded within"
                " the attention scaling: encode the prompt inside the context"
            )
        return self.shown.expand(count, -1)


def text_mask(model: Model, prompts: str | list[str]) -> Tensor:
    """1 up to the end-of-text token of each prompt, 0 for the padding after it: (N, tokens).

    Read from the tokenizer's mask, not from token ids: padding, unknown words and end-of-text can
    have the same id.

    >>> import findnemo
    >>> text_mask(findnemo.load("demo"), ["a star", ""]).sum(1).tolist()
    [4, 2]
    """
    tokenizer = model.pipeline.tokenizer
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    tokens = tokenizer(
        model.pipeline.maybe_convert_prompt(prompts, tokenizer),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return tokens.attention_mask
