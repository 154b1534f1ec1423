"""Insert words into the caption (Somepalli et al., NeurIPS 2023, section 6, mitigation at
inference).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from findnemo.errors import InputError, ModelError
from findnemo.mitigation._case import Case
from findnemo.models import Model
from findnemo.passes.conditioning import Encoded, following
from findnemo.seeds import sample_seed

NUMBERS = 100_000
# prompts of the text encoders; missing ones are equal to the first
PROMPTS = ("prompt", "prompt_2", "prompt_3")
TRIES = 10_000


@contextmanager
def inserted_words(
    model: Model, case: Case, kind: str = "tokens", count: int = 4
) -> Iterator[None]:
    """Insert `count` words at random places of the caption, different ones for each image.

    `kind`: "tokens" (any of the vocabulary), "numbers" (below 100,000) or "repeats" (words of the
    caption). Image k of a prompt within a pipeline call has its own caption, see `varied`, drawn
    from (case.seed, prompt, k). The negative prompt stays unchanged. Raises InputError for an
    unknown kind, a count below 1 or above the tokens that the text encoder reads, and a pipeline
    call with prompt_embeds, into which no word can be inserted.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with inserted_words(model, Case(prompt), "numbers", 1):
    ...     image = model.pipeline(prompt, num_inference_steps=2).images[0]
    """
    if kind not in WORDS:
        raise InputError(f"kind of words {kind!r} is not known: use one of {', '.join(WORDS)}")
    if count < 1:
        raise InputError(f"{count} words cannot be inserted: use 1 or more")
    if count > model.longest:
        raise InputError(
            f"{count} words cannot be inserted: the text encoder reads {model.longest} tokens"
        )

    def vary(encode: Encoded) -> Encoded:
        def encode_prompt(**options: Any) -> tuple:
            prompts = {name: options[name] for name in PROMPTS if options.get(name) is not None}
            if "prompt" not in prompts:
                raise InputError(
                    "words are inserted into a caption: call the pipeline with prompt, not"
                    " prompt_embeds"
                )
            images = options["num_images_per_prompt"]
            alone = {
                name: value
                for name, value in options.items()
                if not name.startswith("negative") and not name.endswith("_embeds")
            }
            for name, given in prompts.items():
                captions = [given] if isinstance(given, str) else given
                alone[name] = varied_all(model, captions, images, kind, count, case.seed)
            alone |= {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
            changed = encode(**alone)
            plain = encode(**options)
            return tuple(
                old if new is None else new for old, new in zip(plain, changed, strict=True)
            )

        return encode_prompt

    with following(model, vary):
        yield


def varied_all(
    model: Model, prompts: list[str], images: int, kind: str, count: int, seed: int = 0
) -> list[str]:
    """One caption for each image; those of a prompt follow each other.

    A repeated prompt continues the count of its images.
    """
    written: Counter[str] = Counter()
    captions = []
    for prompt in prompts:
        for _ in range(images):
            number = sample_seed(seed, prompt, written[prompt])
            captions.append(varied(model, prompt, kind, count, number))
            written[prompt] += 1
    return captions


def varied(model: Model, prompt: str, kind: str, count: int, seed: int) -> str:
    """The caption with `count` words inserted at random places; its own words stay in order.

    Inserted words are never cut. If the whole is longer than the text encoder reads (77 tokens),
    words are dropped from the caption's end. Raises InputError if there is no word to repeat, or if
    the inserted words alone are too long.

    >>> import findnemo
    >>> varied(findnemo.load("demo"), "a red star", "repeats", 2, seed=5).split()
    ['a', 'red', 'star', 'star', 'red']
    """
    random = Random(seed)
    tokenizer = model.pipeline.tokenizer
    words = prompt.split()
    inserted = [WORDS[kind](random, words, tokenizer) for _ in range(count)]
    kept = _fitting(words, inserted, tokenizer, model.longest)
    if len(kept) < len(words) and prompt not in model.told:
        model.told.add(prompt)
        model.tell(
            f"{prompt[:60]!r}: with {count} words inserted it has more than the {model.longest}"
            " tokens that the model reads: words are left out at its end"
        )
    for word in inserted:
        kept.insert(random.randint(0, len(kept)), word)
    return " ".join(kept)


def _fitting(words: list[str], inserted: list[str], tokenizer: Any, limit: int) -> list[str]:
    """As many of the caption's first words as leave room for the inserted ones."""
    for kept in range(len(words), -1, -1):
        text = " ".join([*words[:kept], *inserted])
        if len(tokenizer(text, truncation=False, verbose=False).input_ids) <= limit:
            return words[:kept]
    raise InputError(
        f"the {len(inserted)} words to insert are longer than the {limit} tokens that the text"
        f" encoder reads: insert fewer ({' '.join(inserted)[:60]} ...)"
    )


def _token(random: Random, words: list[str], tokenizer: Any) -> str:
    """A random token that is a word of its own: no special token, no part of a word or of a
    character.
    """
    for _ in range(TRIES):
        number = random.randrange(len(tokenizer))
        # a copied tokenizer leaves </w> there
        text = tokenizer.decode([number]).removesuffix("</w>").strip()
        alone = tokenizer(text, add_special_tokens=False).input_ids == [number]
        if alone and number not in tokenizer.all_special_ids:
            return text
    raise ModelError(
        "no token of this tokenizer's vocabulary is a word of its own: insert numbers or repeats"
        " instead"
    )


def _number(random: Random, words: list[str], tokenizer: Any) -> str:
    return str(random.randrange(NUMBERS))


def _repeat(random: Random, words: list[str], tokenizer: Any) -> str:
    if not words:
        raise InputError("the empty prompt has no word to repeat: insert tokens or numbers instead")
    return random.choice(words)


WORDS: dict[str, Callable[[Random, list[str], Any], str]] = {
    "tokens": _token,
    "numbers": _number,
    "repeats": _repeat,
}
