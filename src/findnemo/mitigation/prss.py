"""Prompt re-anchoring and semantic search (PRSS): guidance away from a memorized prompt, towards
another wording of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from findnemo.errors import InputError, ModelError
from findnemo.mitigation._calls import (
    Halves,
    captions,
    fitted,
    in_noise,
    norms,
    predicting,
    timestep_of,
)
from findnemo.mitigation._case import Case, at_least
from findnemo.models import Model, Text, captions_in
from findnemo.passes.conditioning import Encoded, check_changeable, following
from findnemo.prompts.paraphrases import paraphrases

# ||d|| for a latent of 4 x 64 x 64 at the first step, above which a prompt is memorized
MEMORIZED = 1.0
LOW = 3.0  # ||eps_e - eps_empty|| at which re-anchoring begins
HIGH = 5.0  # ||eps_e - eps_empty|| at which it is complete
MOST = 25  # wordings to try, at most


def reworded(caption: str) -> list[str]:
    """Findnemo's own wordings of a caption, by rules and without a language model.

    >>> reworded("a photo of a red star")[:2]
    ['A PHOTO OF A RED STAR', 'one photograph of one red star']
    """
    return list(paraphrases(caption).values())


@contextmanager
def reanchored(
    model: Model,
    case: Case,
    wordings: Callable[[str], Iterable[str]] = reworded,
    memorized: float = MEMORIZED,
    low: float = LOW,
    high: float = HIGH,
) -> Iterator[None]:
    """Guide images whose prompt is memorized by another wording, away from the prompt.

    A prompt p is memorized for an image if m = ||eps_p - eps_empty|| > `memorized` at the first
    step. It is then replaced by e, the first of 25 `wordings` (caption -> texts) with m of at most
    that, or else the one with the least m: eps = `anchored`. Other images are made as usual. Norms
    are of noise, of each image alone, for latents of 4 x 64 x 64; for other sizes they are
    multiplied by the square root of the ratio of entries. The published wordings come from a
    language model; pass such wordings if you have them. A caption without other wordings stays
    unchanged, and a warning says so. Takes an evaluation for each image and step, and one for each
    tried wording. Raises ModelError and InputError if there is no guidance, and for prompt_embeds;
    InputError for negative norms and a `high` that is not over `low`.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with reanchored(model, Case(prompt), lambda caption: ["a large brown ring"]):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    at_least(0, memorized=memorized, low=low, high=high)
    if high <= low:
        raise InputError(f"re-anchoring cannot be complete at {high:g} and begin at {low:g}")
    check_changeable(model)
    if not hasattr(type(model.pipeline), "guidance_scale"):
        raise ModelError(
            f"a {type(model.pipeline).__name__} does not tell its guidance_scale, which prompt"
            " re-anchoring needs: use delayed guidance instead"
        )
    others = _Wordings(model, wordings)
    anchors: dict[int, Text | None] = {}

    def change(halves: Halves, args: tuple, kwargs: dict[str, Any]) -> Halves:
        pairs = zip(halves[0].split(1), halves[1].split(1), strict=True)
        text = model.text_of(kwargs)[call.rows(len(args[0]))]
        changed = [of_image(k, *pair, args, text[k : k + 1]) for k, pair in enumerate(pairs)]
        first, second = zip(*changed, strict=True)
        return torch.cat(first), torch.cat(second)

    def of_image(k: int, without: Tensor, given: Tensor, args: tuple, text: Text) -> Halves:
        latent = args[0][k : k + 1]  # equal in both halves
        bound, begin, full = (fitted(norm, latent) for norm in (memorized, low, high))

        def predicted(other: Text) -> Tensor:
            with call.aside():
                return model.output(latent, args[1], other)

        def magnitude(output: Tensor) -> float:
            return float(norms(in_noise(model, output - without, timestep_of(model, call))))

        if call.step == 0:
            anchors[k] = None
            if magnitude(given) > bound:
                tried = others.of(k, text)
                anchors[k] = nearest(tried, lambda other: magnitude(predicted(other)), bound)
        anchor = anchors[k]
        if anchor is None:
            return without, given
        output = predicted(anchor)
        scale = model.pipeline.guidance_scale
        return anchored(without, given, output, magnitude(output), scale, begin, full)

    with following(model, others.wrap_encode) as call, predicting(model, call, change):
        yield


def nearest(texts: Iterable[Text], magnitude: Callable[[Text], float], bound: float) -> Text | None:
    """The first text with a magnitude of at most `bound`, else that with the least; None without
    texts.
    """
    least, lowest = None, float("inf")
    for text in texts:
        m = magnitude(text)
        if m < lowest:
            least, lowest = text, m
        if m <= bound:
            break
    return least


def anchored(
    without: Tensor,
    given: Tensor,
    other: Tensor,
    magnitude: float,
    scale: float,
    low: float = LOW,
    high: float = HIGH,
) -> Halves:
    """Both halves for guidance of `scale` g, from predictions without a prompt (eps_0), with the
    memorized one (eps_p) and with the other wording (eps_e), whose `magnitude` is m.

    For m <= low it is guidance by eps_e, else eps_p + s (eps_e - eps_p) + (g - s)(eps_e - eps_0),
    with s = min(g (m - s0) / (high - s0), g) and s0 = (g low - high) / (g - 1). At m = low, s is 1,
    and both are equal; from m = high on, s is g.

    >>> one = torch.ones(())
    >>> anchored(0 * one, 3 * one, 2 * one, 9.0, scale=7.5)  # 3 + 7.5 * (2 - 3)
    (tensor(-4.5000), tensor(-4.5000))
    """
    if magnitude <= low:
        return without, other
    zero = (scale * low - high) / (scale - 1)
    s = min(scale * (magnitude - zero) / (high - zero), scale)
    eps = given + s * (other - given) + (scale - s) * (other - without)
    return eps, eps


class _Wordings:
    """Other wordings of the prompts encoded last."""

    def __init__(self, model: Any, wordings: Callable[[str], Iterable[str]]):
        self.model = model
        self.wordings = wordings
        self.captions: list[str] = []
        self.encoded: dict[str, list[Text]] = {}

    def wrap_encode(self, encode: Encoded) -> Encoded:
        self.encode = encode

        def encode_prompt(**options: Any) -> Any:
            images = options["num_images_per_prompt"]
            self.captions = [text for text in captions(options) for _ in range(images)]
            self.encoded.clear()
            return encode(**options)

        return encode_prompt

    def of(self, k: int, text: Text) -> list[Text]:
        """Texts of the wordings of image k's caption, with the image sizes of `text`."""
        caption = self.captions[k]
        if caption not in self.encoded:
            self.encoded[caption] = self._encoded(caption)
        return [replace(other, sizes=text.sizes) for other in self.encoded[caption]]

    def _encoded(self, caption: str) -> list[Text]:
        others = list(islice(captions_in(self.wordings(caption)), MOST))
        if not others:
            self.model.tell(f"{caption[:60]!r}: no other wording is known, so it stays")
            return []
        embeds, *more = self.encode(
            prompt=others,
            device=self.model.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        texts: Text = self.model.text_from(embeds, more)
        return texts.to(self.model.device, self.model.dtype).split()
