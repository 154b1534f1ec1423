"""Memories with price lists, and what carries one of them."""

from __future__ import annotations

from _runs import LAYERS, Told, memorized

_, _, MID = LAYERS


def priced(text, points, reached=True, **more) -> Told:
    told = memorized(text, {MID: [1, 2, 3]}, reached=reached)
    found = (
        told.results["localize"]
        | {"copy_before": 0.97, "order": [[MID, 3], [MID, 1], [MID, 2]], "points": points}
        | more
    )
    return Told(text, told.results | {"localize": found}, "VM")


DIAGNOSIS = {
    "sentence": "What carries it: <b>all</b> key layers.",
    "left": {"all key layers": 0.1},
    "kept": {"all key layers": 0.8},
    "words": {"<i>a": 0.3},
}
