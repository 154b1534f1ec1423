"""Captions that a text encoder does not read to their end are told, with the limit that
the pipeline itself uses.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from _texts import assert_equal
from _tiny import tiny_pipeline, tiny_tokenizer
from _tiny_transformers import tiny_flux, tiny_pixart, tiny_sd3
from _tiny_unets import tiny_if, tiny_lcm, tiny_sdxl
from diffusers import PixArtSigmaPipeline

import findnemo
from findnemo import ImageSettings, Settings
from findnemo.errors import FindnemoWarning
from findnemo.models import Reader, truncation_note

TWO = Settings(samples=2)
LIMITS = {  # of every text encoder, as its pipeline has them by default
    "sd": (tiny_pipeline, {"text_encoder": 77}),
    "lcm": (tiny_lcm, {"text_encoder": 77}),
    "sdxl": (tiny_sdxl, {"text_encoder": 77, "text_encoder_2": 77}),
    "if": (tiny_if, {"text_encoder": 77}),
    "pixart-alpha": (tiny_pixart, {"text_encoder": 120}),
    "pixart-sigma": (lambda: tiny_pixart(PixArtSigmaPipeline), {"text_encoder": 300}),
    "sd3": (tiny_sd3, {"text_encoder": 77, "text_encoder_2": 77, "text_encoder_3": 256}),
    "sd3-without-t5": (lambda: tiny_sd3(t5=False), {"text_encoder": 77, "text_encoder_2": 77}),
    "flux": (tiny_flux, {"text_encoder": 77, "text_encoder_2": 512}),
}


def letters(count: int) -> str:
    """A caption of so many tokens in the tiny tokenizers, where every letter is
    one, start and end left out.
    """
    return "ab" * (count // 2) + "a" * (count % 2)


@pytest.mark.parametrize("name", LIMITS)
def test_readers_read_as_many_tokens_as_the_text_encoders_get(name):
    """Seen from the ids that the pipeline gives them."""
    make, limits = LIMITS[name]
    model = findnemo.load(make())
    got = {}
    for part in limits:
        encoder = getattr(model.pipeline, part)
        encoder.register_forward_pre_hook(
            lambda m, args, kwargs, part=part: got.update(
                {part: (args[0] if args else kwargs["input_ids"]).shape[1]}
            ),
            with_kwargs=True,
        )
    with pytest.warns(FindnemoWarning, match="tokens"):
        model.encode([letters(700)])
    assert got == limits
    assert [reader.limit for reader in model.readers] == list(limits.values())


@pytest.mark.parametrize("name", LIMITS)
def test_the_last_token_that_is_read_is_told_from_the_first_that_is_not(name):
    """Captions that differ in the last token read have other embeddings; in the
    first one not read, the same.
    """
    make, limits = LIMITS[name]
    model = findnemo.load(make())
    reader = model.readers[-1]
    room = reader.limit - (reader.count(letters(4)) - 4)
    full = letters(room)
    over = letters(room + 1)
    assert (reader.count(full), reader.count(over)) == (reader.limit, reader.limit + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FindnemoWarning)
        same = model.encode([over[:-1] + "c"])
        assert_equal(model.encode([over]), same)
        told = [model.encode([text]).tokens for text in (full, full[:-1] + "c")]
        assert not torch.equal(*told)
    assert str(reader.limit) in truncation_note(model.readers, over)
    if len(set(limits.values())) == 1:
        assert truncation_note(model.readers, full) == ""


@pytest.mark.parametrize(
    ("make", "count", "message"),
    [
        (tiny_pipeline, 111, "the caption has 113 tokens, the model reads the first 77"),
        (tiny_sdxl, 111, "the caption has 113 tokens, the model reads the first 77"),
        (tiny_flux, 111, "113 tokens; CLIP reads 77 of them, T5 all"),
        (tiny_sd3, 111, "113 tokens; CLIP reads 77 of them, T5 all"),
        (tiny_sd3, 300, "302 tokens; CLIP reads 77 of them, T5 256 of them"),
        (tiny_pixart, 130, "the caption has 132 tokens, the model reads the first 120"),
    ],
)
def test_what_is_said_names_who_reads_how_much(make, count, message):
    model = findnemo.load(make())
    assert truncation_note(model.readers, letters(count)) == message
    assert truncation_note(model.readers, "a cat") == ""


def test_encoders_that_read_differently_are_told_apart():
    readers = [
        Reader(name, tiny_tokenizer(), limit)
        for name, limit in (("CLIP (a)", 20), ("CLIP (b)", 30), ("T5", 99))
    ]
    assert (
        truncation_note(readers, letters(40))
        == "42 tokens; CLIP (a) reads 20 of them, CLIP (b) 30 of them, T5 all"
    )
    assert (
        truncation_note(readers, letters(23))
        == "25 tokens; CLIP (a) reads 20 of them, CLIP (b) all, T5 all"
    )
    assert truncation_note(readers, letters(18)) == ""


def test_a_second_encoder_alone_is_named_when_only_it_is_cut():
    readers = [Reader("CLIP", tiny_tokenizer(), 77), Reader("T5", tiny_tokenizer(), 20)]
    assert truncation_note(readers, letters(30)) == "32 tokens; T5 reads 20 of them, CLIP all"


def test_textual_inversions_of_several_vectors_count_as_several_tokens():
    pipeline = tiny_pipeline()
    pipeline.tokenizer.add_tokens(["<toy>", "<toy>_1", "<toy>_2"])
    pipeline.text_encoder.resize_token_embeddings(len(pipeline.tokenizer))
    model = findnemo.load(pipeline)
    assert model.readers[0].count("<toy>") == 2 + 3


ASK = {
    "score": lambda model, caption: findnemo.score(model, caption, settings=TWO),
    "generate": lambda model, caption: findnemo.generate(model, caption, [0], ImageSettings(1)),
    "calibrate": lambda model, caption: findnemo.calibrate(model, ["a cat", caption], settings=TWO),
    "localize": lambda model, caption: findnemo.localize(
        model, caption, findnemo.calibrate(model, ["a", "b"], settings=TWO)
    ),
}


@pytest.mark.first(2)
@pytest.mark.parametrize("ask", ASK)
def test_every_way_in_warns_once_a_caption(ask):
    model = findnemo.load(tiny_pipeline())
    caption = letters(100)
    with pytest.warns(
        FindnemoWarning, match="the caption has 102 tokens, the model reads the first 77"
    ) as told:
        _ = [ASK[ask](model, caption) for _ in range(2)]
    assert len([w for w in told if w.category is FindnemoWarning]) == 1


def test_short_captions_are_not_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FindnemoWarning)
        findnemo.score(findnemo.load(tiny_pipeline()), letters(75), settings=TWO)


@pytest.mark.first(1)
@pytest.mark.parametrize("stated", [int(1e30), 512])
@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl, tiny_sd3, tiny_flux])
def test_a_tokenizer_that_states_too_much_gets_what_its_encoder_reads(make, stated):
    """diffusers would fail on it; the scores are those of the tokenizer that
    states the encoder's length.
    """
    expected = findnemo.load(make()).encode(["a cat"])
    pipeline = make()
    pipeline.tokenizer.model_max_length = stated
    if hasattr(pipeline, "tokenizer_max_length"):
        pipeline.tokenizer_max_length = stated
    with pytest.warns(FindnemoWarning, match="tokenizer says .*, and text_encoder reads 77 tokens"):
        model = findnemo.load(pipeline)
    torch.testing.assert_close(model.encode(["a cat"]).tensors, expected.tensors)
    assert model.readers[0].limit == 77


def test_a_shorter_tokenizer_is_heeded():
    pipeline = tiny_pipeline()
    pipeline.tokenizer.model_max_length = 20
    model = findnemo.load(pipeline)
    assert model.encode(["a"]).tokens.shape[1] == 20
    assert (
        truncation_note(model.readers, letters(40))
        == "the caption has 42 tokens, the model reads the first 20"
    )


def test_the_judge_says_what_it_does_not_read():
    from findnemo import demo

    judge = demo.judges().alignment
    image = demo.training_image(demo.memorized()[0].text)
    long = "star " * 100
    with pytest.warns(
        FindnemoWarning, match="102 tokens; the judge's CLIP reads 77 of them"
    ) as told:
        _ = [judge([image, image], [long, "a star"]) for _ in range(2)]
    assert len(told) == 1


def test_words_that_push_others_out_are_told():
    from findnemo.mitigation.tokens import varied

    model = findnemo.load("demo")
    with pytest.warns(FindnemoWarning, match="words are left out at its end"):
        varied(model, "star " * 75, "repeats", 4, seed=0)
