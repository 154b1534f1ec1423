"""Judges are opened once in a process."""

from __future__ import annotations

from findnemo.metrics._once import once


def test_one_judge_for_the_same_place_and_another_for_another():
    made = []

    def judge(place):
        made.append(place)
        return object()

    first = once(judge, "a.pt")
    assert once(judge, "a.pt") is first
    assert once(judge, "b.pt") is not first
    assert made == ["a.pt", "b.pt"]
