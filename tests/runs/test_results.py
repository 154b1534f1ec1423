"""Stored values are read as their types, and what has another shape is refused by its name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from findnemo.errors import InputError
from findnemo.localization import Point
from findnemo.neurons import NeuronSet
from findnemo.runs import results
from findnemo.runs.results import (
    META,
    STAGES,
    Compared,
    Detected,
    Localized,
    Number,
    Verified,
    answer,
    as_stored_type,
    check_caption,
    fits,
    meta,
    of_key,
    parsed,
)

SCORE = {"memorized": True, "score": 0.9, "tau": 0.4}


def test_a_stored_result_is_its_type_and_a_key_of_a_newer_findnemo_is_left_out():
    assert as_stored_type(Detected, SCORE | {"later": [1]}, "here") == Detected(True, 0.9, 0.4)
    found = {"score_before": 0.9, "score_after": 0.1, "reached": True, "neurons": {"up": [3, 1]}}
    searched = as_stored_type(Localized, found | {"points": [[1, 0.5, None]]}, "here")
    assert searched.neurons == NeuronSet({"up": [1, 3]})
    assert searched.points == (Point(1, 0.5, None),)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (Detected, {"memorized": True, "score": 0.9}, "'tau' is missing"),
        (Detected, SCORE | {"memorized": 1}, "'memorized' is of another kind"),
        (Detected, SCORE | {"score": math.nan}, "'score' is of another kind"),
        (Localized, SCORE | {"neurons": {"up": [-1]}}, "'neurons' is of another kind"),
        (Verified, {"copies_before": 1.0}, "'it' is of another kind"),
        (Detected, [], "'it' is of another kind"),
    ],
)
def test_a_result_of_another_shape_is_named(kind, value, said):
    with pytest.raises(InputError, match=f"^run.sqlite is damaged .*{said}"):
        as_stored_type(kind, value, "run.sqlite")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2e9, "0.5", True, None])
def test_what_is_no_figure_of_a_run_fits_no_number(value):
    assert fits(Number, 0.5)
    assert not fits(Number, value)


def test_a_key_has_the_type_of_its_prefix_whatever_the_settings():
    for key in ("compare:nemo", "compare@1a2b3c4d:nemo"):
        assert of_key(STAGES, key) is Compared
    assert of_key(STAGES, "unheard of") is Any
    assert meta('{"any": [1]}', "unheard of", "here") == {"any": [1]}
    for key in META:
        assert meta("null", key, "here") is None


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (7, "no text"),
        ("{", "broken JSON"),
        ("[" * 100_000, "broken JSON"),
        ("[1, 2, 3, 4, 5, 6]", "over 9 characters"),
    ],
)
def test_a_column_that_is_no_json_is_damage(monkeypatch, stored, said):
    if said.startswith("over"):
        monkeypatch.setattr(results, "LONGEST", 9)
    with pytest.raises(InputError, match=said):
        parsed(stored, "run.sqlite")


def test_rows_of_other_types_are_refused():
    assert answer(("detect", "failed", 0.5, '{"error": "NaN"}'), "here")[3] == {"error": "NaN"}
    for row, said in (
        (("detect", "failed", 0.5, "{}"), "a failure without its reason"),
        (("detect", "perhaps", 0.5, "{}"), "stage, status or seconds"),
        (("detect", "done", "long", "{}"), "stage, status or seconds"),
        (("detect", "done", 0.5, "[]"), "no object"),
    ):
        with pytest.raises(InputError, match=said):
            answer(row, "here")
    check_caption((1, "a red fox", 1, None, None), "here")
    with pytest.raises(InputError, match="caption 7 has columns of other types"):
        check_caption((7, b"a red fox", 1, None, None), "here")
