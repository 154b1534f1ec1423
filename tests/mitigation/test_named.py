"""Mitigations by name: what is written after the colon is what the method gets."""

import pytest

from findnemo.errors import InputError
from findnemo.mitigation import (
    MITIGATIONS,
    canonical,
    hyperparameters,
    name_and_options,
    scaled_attention,
    typed_options,
)


@pytest.mark.parametrize(
    "text",
    ["wanda:", "wanda:share", "wanda:share=", "wanda:=1", "wanda:share=1:share=2", "a:b=1::c=2"],
)
def test_an_option_without_a_value_or_given_twice_is_refused(text):
    with pytest.raises(InputError, match=f"'{text}' is not a mitigation with options"):
        name_and_options(text)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("embedding", "embedding:targets=3", "no option 'targets': it has target, iterations"),
        ("embedding", "embedding:iterations=2.5", "embedding:iterations is a whole number"),
        ("embedding", "embedding:target=inf", "embedding:target is a number, not 'inf'"),
        ("embedding", "embedding:target=much", "embedding:target is a number, not 'much'"),
        ("attention", "attention:both=1", "attention:both is True or False, not '1'"),
        # the wordings of prss are a function, which no text can name
        ("prss", "prss:wordings=reworded", "no option 'wordings': it has memorized, low, high"),
    ],
)
def test_a_refusal_names_the_option_and_what_it_may_be(name, text, problem):
    with pytest.raises(InputError, match=problem):
        canonical(text, MITIGATIONS[name])


def test_a_value_is_of_the_kind_of_its_default():
    options = typed_options("attention", scaled_attention, {"both": "False", "c": "2"})
    assert options == {"c": 2.0, "both": False}
    assert [type(options[name]) for name in ("c", "both")] == [float, bool]


@pytest.mark.parametrize("name", MITIGATIONS)
def test_a_method_with_its_own_defaults_written_out_has_one_name_in_any_order(name):
    method = MITIGATIONS[name]
    defaults = hyperparameters(method)
    written = [f"{option}={value}" for option, value in defaults.items()]
    one = canonical(":".join([name, *written]), method)
    other = canonical(":".join([name, *reversed(written)]), method)
    assert one == other
    assert typed_options(name, method, name_and_options(one)[1]) == defaults
