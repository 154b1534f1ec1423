"""Prompt re-anchoring, against its formulas in a call written out by hand."""

import pytest
import torch
from _by_hand import as_noise, difference, drawn, embedded, usual, written_out
from _mitigated import CASE, PROMPT, call, small_model

from findnemo.errors import InputError
from findnemo.mitigation import reanchored
from findnemo.mitigation.prss import nearest
from findnemo.passes import counting

WORDINGS = ["cat", "kitten on a mat", "a feline"]
G = 3.0


def first_norms(model, k):
    """m of the prompt and of each wording at the first of four steps."""
    with torch.no_grad():
        return [
            float(difference(model.pipeline, 751, text)(drawn(k)).norm())
            for text in (PROMPT, *WORDINGS)
        ]


@pytest.mark.first(1)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("share", [0.2, 1.0, 3.0])
def test_guidance_goes_to_the_other_wording_and_away_from_the_prompt(prediction_type, share):
    """`share`: of the norm at the first step, where re-anchoring begins: always, in some steps, or
    never.
    """
    model = small_model(prediction_type)
    expected, tried = [], 0
    norms = first_norms(model, 0)
    low, high = share * norms[1], 1.5 * share * norms[1]
    for k in range(2):
        _, *others = first_norms(model, k)
        best = WORDINGS[others.index(min(others))]
        tried += len(others)
        e = embedded(model.pipeline, best)

        def guide(step, t, without, given, x, e=e):
            other = model.pipeline.unet(x, t, encoder_hidden_states=e).sample
            in_noise = [as_noise(model.pipeline, y, x, t) for y in (other, without)]
            m = float((in_noise[0] - in_noise[1]).norm())
            if m <= low:
                return without + G * (other - without)
            zero = (G * low - high) / (G - 1)
            s = min(G * (m - zero) / (high - zero), G)
            return given + s * (other - given) + (G - s) * (other - without)

        expected.append(written_out(model.pipeline, 4, guide, k=k))
    with (
        counting(model) as spent,
        reanchored(model, CASE, lambda text: WORDINGS, memorized=0, low=4 * low, high=4 * high),
    ):
        result = call(model, images=2, num_inference_steps=4)
    torch.testing.assert_close(result, torch.cat(expected), atol=1e-4, rtol=1e-3)
    assert spent.evaluations == tried + 2 * 4 + 2 * 2 * 4


def test_an_image_that_is_not_memorized_is_made_as_usual():
    model = small_model()
    expected = written_out(model.pipeline, 2, usual)
    with counting(model) as spent, reanchored(model, CASE, memorized=1e6):
        torch.testing.assert_close(call(model), expected, atol=1e-4, rtol=1e-4)
    assert spent.evaluations == 2 * 2


def test_the_first_wording_under_the_bound_is_taken_else_the_least():
    sizes = {"a": 3.0, "b": 0.8, "c": 0.5}
    assert nearest("abc", sizes.get, 1.0) == "b"
    assert nearest("abc", sizes.get, 0.1) == "c"
    assert nearest("", sizes.get, 0.1) is None


def test_a_caption_without_other_wordings_stays_and_is_told_of():
    model = small_model()
    told = []
    model.tell = told.append
    plain = call(model)
    with reanchored(model, CASE, lambda text: [], memorized=0):
        assert torch.equal(call(model), plain)
    assert told == ["'a cat': no other wording is known, so it stays"]


def test_a_call_whose_prompt_is_not_seen_is_refused():
    model = small_model()
    text = model.encode([PROMPT]).tokens
    with reanchored(model, CASE), pytest.raises(InputError, match="without prompt_2"):
        model.pipeline(prompt_embeds=text, negative_prompt_embeds=text, num_inference_steps=1)
