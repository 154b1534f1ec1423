"""Captions of everyday subjects."""

from __future__ import annotations

from findnemo.prompts import ordinary
from findnemo.prompts.ordinary import LIGHTS, SUBJECTS


def test_all_are_different_and_every_pair_of_subject_and_light_comes_once():
    every = ordinary()
    assert len({*every}) == len(SUBJECTS) * len(LIGHTS) == 200
    assert {*every} == {f"{subject} {light}" for subject in SUBJECTS for light in LIGHTS}


def test_a_few_of_them_are_the_first_and_mix_subjects_and_lights():
    assert ordinary(25) == ordinary()[:25]
    assert len({next(s for s in SUBJECTS if c.startswith(s)) for c in ordinary(25)}) == 25
    assert len({next(light for light in LIGHTS if c.endswith(light)) for c in ordinary(8)}) == 8
    assert ordinary(1000) == ordinary()
