"""Inserted words: the right number at random places, none cut, and nothing else changed."""

import copy
from collections import Counter
from random import Random

import pytest
import torch
from _mitigated import CASE, OTHER, PROMPT, call, small_model
from _tiny import tiny_pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from findnemo import load
from findnemo.errors import InputError, ModelError
from findnemo.mitigation import Case, inserted_words
from findnemo.mitigation.tokens import WORDS, varied, varied_all
from findnemo.models import Model
from findnemo.seeds import sample_seed

MODEL = small_model()  # nothing here changes it for good
CAPTION = "one two six ten"
KINDS = list(WORDS)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def model() -> Model:
    return MODEL


def is_subsequence(short: list[str], long: list[str]) -> bool:
    rest = iter(long)
    return all(word in rest for word in short)


@every_kind
@given(
    words=st.lists(st.text("abcxyz", min_size=1, max_size=12), min_size=1, max_size=30),
    count=st.sampled_from([1, 4, 10]),
    seed=st.integers(0, 2**62),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_as_many_words_are_inserted_as_asked_and_the_others_keep_their_order(
    kind, words, count, seed
):
    tokenizer = MODEL.pipeline.tokenizer
    try:
        result = varied(MODEL, " ".join(words), kind, count, seed).split(" ")
    except InputError:  # ten repeats of long words
        assert kind == "repeats"
        assert count * max(map(len, words)) > 75
        return
    kept = words[: len(result) - count]
    assert is_subsequence(kept, result)
    assert len(tokenizer(" ".join(result)).input_ids) <= 77
    if kept != words:  # no more was dropped than had to be
        assert len(tokenizer(" ".join([*result, words[len(kept)]])).input_ids) > 77
    inserted = list((Counter(result) - Counter(kept)).elements())
    assert len(inserted) == count
    if kind == "numbers":
        assert all(0 <= int(word) < 100_000 for word in inserted)
    if kind == "repeats":
        assert set(inserted) <= set(words)


def test_a_token_is_an_ordinary_one_and_any_of_them(model):
    tokenizer = model.pipeline.tokenizer
    drawn = Counter(WORDS["tokens"](Random(seed), [], tokenizer) for seed in range(1500))
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in drawn]
    assert all(len(i) == 1 and i[0] not in tokenizer.all_special_ids for i in ids)
    letters = [w.removesuffix("</w>") for w in tokenizer.get_vocab() if w.endswith("</w>")]
    assert {x for x in "abcdefghijklmnopqrstuvwxyz0123456789!?+" if x in letters} <= set(drawn)


def test_a_copied_tokenizer_draws_the_same():
    fresh = load(tiny_pipeline())
    copied = copy.deepcopy(fresh)
    assert [varied(fresh, CAPTION, "tokens", 4, k) for k in range(9)] == [
        varied(copied, CAPTION, "tokens", 4, k) for k in range(9)
    ]


def test_a_vocabulary_without_words_is_an_error(model, monkeypatch):
    monkeypatch.setattr(type(model.pipeline.tokenizer), "all_special_ids", range(10_000))
    with pytest.raises(ModelError, match="insert numbers or repeats"):
        varied(model, CAPTION, "tokens", 1, 0)


def test_numbers_and_places_spread_over_all_there_are(model):
    results = [varied(model, CAPTION, "numbers", 1, seed).split() for seed in range(400)]
    places = Counter(next(k for k, word in enumerate(r) if word.isdigit()) for r in results)
    assert sorted(places) == [0, 1, 2, 3, 4]
    assert min(places.values()) > 40
    numbers = [int(word) for r in results for word in r if word.isdigit()]
    assert 40_000 < sum(numbers) / 400 < 60_000
    assert max(numbers) > 95_000


@every_kind
def test_a_draw_depends_on_seed_prompt_and_image_only(model, kind):
    captions = varied_all(model, [CAPTION, OTHER, CAPTION], 2, kind, 4, seed=3)
    expected = [(CAPTION, 0), (CAPTION, 1), (OTHER, 0), (OTHER, 1), (CAPTION, 2), (CAPTION, 3)]
    assert captions == [varied(model, p, kind, 4, sample_seed(3, p, k)) for p, k in expected]
    assert len(set(captions)) == len(captions)
    assert not set(captions) & set(varied_all(model, [CAPTION, OTHER, CAPTION], 2, kind, 4, seed=4))


@every_kind
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_each_image_is_that_of_its_own_caption(model, kind, guidance):
    """The same noise with the varied captions given by hand, one image each; the
    negative prompt is what it was.
    """
    with inserted_words(model, Case(CAPTION, seed=5), kind, 4):
        result = call(
            model, [CAPTION, OTHER], images=2, guidance=guidance, negative_prompt=["x", "y"]
        )
    generators = [
        torch.Generator().manual_seed(sample_seed(0, p, k))
        for p in (CAPTION, OTHER)
        for k in (0, 1)
    ]
    captions = varied_all(model, [CAPTION, OTHER], 2, kind, 4, seed=5)
    expected = call(
        model,
        captions,
        guidance=guidance,
        negative_prompt=["x", "x", "y", "y"],
        generator=generators,
    )
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(
        result, call(model, [CAPTION, OTHER], 2, guidance, negative_prompt=["x", "y"]), atol=1e-2
    )


def test_a_prompt_may_be_a_plain_string(model):
    options = {"num_inference_steps": 1, "output_type": "latent"}
    with inserted_words(model, CASE, "numbers", 1):
        result = model.pipeline(
            PROMPT, generator=torch.Generator().manual_seed(0), **options
        ).images
    caption = varied(model, PROMPT, "numbers", 1, sample_seed(0, PROMPT, 0))
    expected = model.pipeline(caption, generator=torch.Generator().manual_seed(0), **options).images
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    ("kind", "count", "prompt", "message"),
    [
        (
            "verbs",
            1,
            PROMPT,
            "kind of words 'verbs' is not known: use one of tokens, numbers, repeats",
        ),
        ("tokens", 0, PROMPT, "0 words cannot be inserted"),
        ("repeats", 1, "", "the empty prompt has no word to repeat"),
        ("repeats", 10, "incomprehensible", "the 10 words to insert are longer than the 77 tokens"),
    ],
)
def test_what_cannot_be_inserted_is_refused(model, kind, count, prompt, message):
    with pytest.raises(InputError, match=message), inserted_words(model, CASE, kind, count):
        call(model, prompt)


def test_embeddings_instead_of_a_prompt_are_refused(model):
    text = model.encode([PROMPT]).tokens
    with pytest.raises(InputError, match="not prompt_embeds"), inserted_words(model, CASE):
        model.pipeline(prompt_embeds=text, negative_prompt_embeds=text)
