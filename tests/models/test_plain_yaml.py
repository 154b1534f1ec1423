"""Configurations of the original code are read as a YAML library reads them, and make no objects."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from findnemo.models.plain_yaml import at, read_yaml

SCALARS = st.one_of(
    st.booleans(),
    st.integers(0, 9999),
    st.sampled_from(["v", "eps", "a.b.C", "x y", "0.00085", "", "it's", "a: b", "# no"]),
)


CONFIGS = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(
        st.from_regex(r"[a-z_]{1,9}", fullmatch=True), inner, min_size=1, max_size=4
    ),
    max_leaves=12,
)


def as_text(config):
    return (
        {k: as_text(v) for k, v in config.items()}
        if isinstance(config, dict)
        else str(config).lower()
        if isinstance(config, bool)
        else str(config)
    )


@given(st.dictionaries(st.sampled_from(["model", "params", "on the side"]), CONFIGS, min_size=1))
def test_plain_yaml_is_read_as_a_yaml_library_reads_it(config):
    for text in (
        yaml.safe_dump(config),
        "# made by hand\n---\n" + yaml.safe_dump(config, indent=4),
        json.dumps(config),
    ):
        read = read_yaml(text)
        known = yaml.safe_load(text)
        assert as_text(read) == {k: as_text(v) for k, v in known.items()}


@pytest.mark.timeout(60)  # only ends a hang: what looks at each character for each takes hours
@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a" + " " * (1 << 22) + "b", 0),
        ("a: " + "' " * (1 << 21), 1),
        ("a: '" + " " * (1 << 22), 1),
        ("a: b" + " " * (1 << 22) + "c", 1),
        ("\n".join(["a:"] * (1 << 18)), 1),
    ],
    ids=["no key", "quotes", "an open quote", "a gap", "many lines"],
)
def test_long_lines_are_read_character_by_character(text, keys):
    assert len(read_yaml(text)) == keys


def test_lists_comments_and_long_scalars_are_passed_over():
    text = """
    # of a model with v
    model:   # the model
      target: ldm.models.diffusion.ddpm.LatentDiffusion
      params:
        parameterization: "v"  # not eps
        "linear_end": 0.012
        unet_config:
          params:
            attention_resolutions: [ 4, 2, 1 ]
            channel_mult:
            - 1
            - name: x
              parameterization: eps
        notes: >
          parameterization: eps
        first_stage_config: {}
    """
    params = read_yaml(text)["model"]["params"]
    assert (params["parameterization"], params["linear_end"]) == ("v", "0.012")
    assert params["unet_config"]["params"]["attention_resolutions"] == "[ 4, 2, 1 ]"
    assert params["notes"] == ">"


def test_a_mapping_is_found_under_its_names_and_is_empty_where_there_is_none():
    config = read_yaml("model:\n  params:\n    parameterization: v\n")
    assert at(config, "model", "params") == {"parameterization": "v"}
    assert at(config, "model", "params", "parameterization") == {}
    assert at(config, "first_stage", "params") == {}


@pytest.mark.parametrize("text", ["model: [1, 2]", "model: {params: {}}", "model: !!python/tuple"])
def test_a_value_that_is_no_plain_mapping_is_refused_where_one_is_asked_for(text):
    with pytest.raises(ValueError, match=r"model is '[\[{!].*write it as a mapping"):
        at(read_yaml(text), "model", "params")


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ValueError, match="it is not text"):
        read_yaml("model: a\0b")
