"""Settings of a score: what they mean at the threshold, as JSON, and values that no score can have."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from findnemo.errors import InputError
from findnemo.settings import FINDNEMO, PAPER, RELEASED, VARIANTS, Settings, settings_for


@pytest.mark.parametrize("settings", [*VARIANTS.values(), replace(PAPER, guidance=7.5, seed=-3)])
def test_json_gives_the_settings_back(settings):
    assert Settings.from_json(settings.to_json()) == settings


def test_the_pairs_of_the_paper_are_left_out_of_json_as_before_there_was_a_choice():
    assert "pairs" not in PAPER.to_json()
    assert FINDNEMO.to_json()["pairs"] == "mean"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variant", "Paper"),
        ("samples", 1),
        ("samples", 4.0),
        ("samples", True),
        ("steps", 0),
        ("timestep", 50),
        ("trials", -1),
        ("per_channel", 1),
        ("guidance", float("nan")),
        ("guidance", True),
        ("seed", 2**63),
    ],
)
def test_a_value_that_no_score_can_have_is_named(name, value):
    with pytest.raises(InputError, match=rf"settings cannot have {name} {value!r}"):
        replace(PAPER, **{name: value})
    with pytest.raises(InputError, match="calibrate again"):
        Settings.from_json(PAPER.to_json() | {name: value})


@pytest.mark.parametrize("values", [None, [], {"sample": 4}])
def test_settings_of_another_version_are_refused(values):
    with pytest.raises(InputError, match="another findnemo version"):
        Settings.from_json(values)


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_a_difference_names_what_differs_and_nothing_else(field):
    other = {"timestep": 3, "guidance": 2.0, "similarity": "ms-ssim", "pairs": "mean"}
    value = other.get(field, {"variant": "released"}.get(field))
    if value is None:
        present = getattr(PAPER, field)
        value = not present if isinstance(present, bool) else present + 1
    changed = replace(PAPER, **{field: value})
    assert changed.differences(PAPER) == f"{field} {value!r} instead of {getattr(PAPER, field)!r}"
    assert PAPER.differences(PAPER) == ""


@pytest.mark.parametrize(
    ("settings", "grows"),
    [
        (PAPER, True),
        (FINDNEMO, False),
        (RELEASED, False),
        (replace(FINDNEMO, pairs="largest"), True),
    ],
)
def test_one_pair_decides_only_where_the_largest_ssim_counts(settings, grows):
    assert settings.grows is grows


def test_a_variant_with_changes():
    assert settings_for("paper", seed=7, samples=3) == replace(PAPER, seed=7, samples=3)
    with pytest.raises(InputError, match="use one of findnemo, paper, released"):
        settings_for("nemo")
