"""The paper's numbers, as they are shown beside ours."""

from __future__ import annotations

from findnemo.studies.published import DETECTOR, HOLDOUT, TABLE2, UNRELATED


def test_published_numbers():
    assert {name: tuple(row.values()) for name, row in TABLE2.items()} == {
        "Alg. 1, noise differences": (0.21, 0.18),
        "Alg. 2, out-of-distribution neurons": (0.29, 0.25),
        "Alg. 3, initial selection": (2.31, 6.09),
        "Alg. 4, refinement": (12.85, 39.37),
        "total": (15.68, 45.90),
    }
    assert (HOLDOUT, UNRELATED) == ((0.358, 0.07, 0.428), (500, 442, 62, 27))
    assert DETECTOR == {"all": (0.98, 0.942, 0.876), "VM": (0.9964, 0.9739, 0.9821)}
