"""Masked padding: the embeddings that a call gets, against those made by hand."""

import pytest
import torch
from _by_hand import embedded, usual, written_out
from _mitigated import CASE, OTHER, PROMPT, call, small_model

from findnemo.errors import InputError
from findnemo.mitigation import masked_padding


def by_hand(pipeline, prompt, share=None):
    """Ids of one prompt, its end found by hand; embeddings."""
    tokenizer = pipeline.tokenizer
    ids = tokenizer(prompt).input_ids
    end = len(ids) - 1
    if share is None:
        padded = torch.tensor([ids + [0] * (77 - len(ids))])
        assert tokenizer.convert_ids_to_tokens(0) == "!"
        with torch.no_grad():
            embeddings = pipeline.text_encoder(padded)[0]
        embeddings[:, end] = 0
    else:
        embeddings = embedded(pipeline, prompt)
        embeddings[:, end + 1 : end + 1 + int(share * (77 - len(ids)))] = 0
    return embeddings


@pytest.mark.parametrize("share", [None, 0.7])
def test_a_call_is_that_with_the_padding_masked_by_hand(share):
    model = small_model()
    text = by_hand(model.pipeline, PROMPT, share)
    expected = written_out(model.pipeline, 3, usual, text=text)
    with masked_padding(model, CASE, share):
        result = call(model, num_inference_steps=3)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [None, 0.7])
def test_every_prompt_has_an_end_of_its_own_and_the_empty_one_is_left_alone(share):
    model = small_model()
    seen = []
    with masked_padding(model, CASE, share):
        model.denoiser.register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
        )
        call(model, [PROMPT, OTHER, ""], images=2)
        assert torch.equal(model.unconditional().tokens, embedded(model.pipeline, ""))
    empty = embedded(model.pipeline, "")
    expected = [empty] * 6
    for prompt in (PROMPT, OTHER):
        expected += [by_hand(model.pipeline, prompt, share)] * 2
    torch.testing.assert_close(seen[0], torch.cat(expected + [empty] * 2), atol=1e-5, rtol=1e-5)


def test_a_share_of_none_is_refused():
    with (
        pytest.raises(InputError, match="more than 0, at most 1"),
        masked_padding(small_model(), CASE, 0),
    ):
        pass
