"""How mitigations take part in a call: `predicting` needs guidance to change, and `captions` a
prompt to see.
"""

import pytest
import torch
from _mitigated import CASE, PROMPT, hooks, small_model
from _tiny_unets import tiny_lcm

from findnemo import load
from findnemo.errors import InputError, ModelError
from findnemo.mitigation import MITIGATIONS
from findnemo.models import Model


@pytest.fixture
def model() -> Model:
    return small_model()


def test_guidance_that_is_built_in_is_not_changed():
    model = load(tiny_lcm())
    for name in ("delayed", "noise-batch"):
        with pytest.raises(ModelError, match=r"guidance built in.*neurons, embedding"):
            MITIGATIONS[name](model, CASE).__enter__()
        assert not hooks(model)


@pytest.mark.parametrize("name", ["padding", "prss"])
def test_a_prompt_that_is_not_seen_is_refused(model, name):
    text = model.encode([PROMPT]).tokens
    plain = {"prompt_embeds": text, "negative_prompt_embeds": text, "num_inference_steps": 1}
    with MITIGATIONS[name](model, CASE), pytest.raises(InputError, match="see the one text"):
        model.pipeline(**plain)
    model.pipeline(**plain)  # after the context it may be hidden


@pytest.mark.parametrize("name", ["padding", "prss"])
def test_a_prompt_is_a_text_or_a_list_of_texts(model, name):
    options = {"padding": {}, "prss": {"memorized": 0, "low": 0, "high": 1}}[name]
    images = []
    with MITIGATIONS[name](model, CASE, **options):
        for prompt in (PROMPT, [PROMPT]):
            given = model.pipeline(
                prompt,
                num_inference_steps=2,
                output_type="latent",
                generator=torch.Generator().manual_seed(0),
            )
            images.append(given.images)
    assert torch.equal(*images)
