"""What a mitigation is given: a case, and hyperparameters that are numbers in their range."""

import pytest
import torch
from _mitigated import NEURONS, PROMPT, call, small_model

from findnemo.errors import InputError
from findnemo.mitigation import MITIGATIONS, Case
from findnemo.models import Model


@pytest.fixture
def model() -> Model:
    return small_model()


def test_a_prompt_alone_is_a_case_without_neurons(model):
    plain = call(model)
    with MITIGATIONS["neurons"](model, Case(PROMPT)):
        assert torch.equal(call(model), plain)
    with MITIGATIONS["neurons"](model, Case(PROMPT, NEURONS)):
        assert not torch.equal(call(model), plain)


def test_the_seed_of_a_case_is_that_of_the_words_drawn(model):
    def images(seed: int) -> torch.Tensor:
        with MITIGATIONS["tokens-4"](model, Case(PROMPT, seed=seed)):
            return call(model)

    assert torch.equal(images(0), images(0))
    assert not torch.equal(images(0), images(1))


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("delayed", {"tau": -0.5}, "^tau is -0.5: give a number from 0 on"),
        ("embedding", {"iterations": 0}, "^iterations is 0: give a number from 1 on"),
        ("noise", {"target": float("nan")}, "^target is nan: give a number from 0 on"),
        ("sail", {"candidates": float("inf")}, "^candidates is inf: give a number from 1 on"),
        ("wanda", {"first": 0}, "^first is 0: give a number from 1 on"),
    ],
)
def test_a_refusal_names_the_hyperparameter_and_its_least_value(model, name, options, problem):
    with (
        pytest.raises(InputError, match=problem),
        MITIGATIONS[name](model, Case(PROMPT), **options),
    ):
        pass
