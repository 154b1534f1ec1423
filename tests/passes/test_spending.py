"""Evaluations of the denoiser are counted for those who ask for them."""

from __future__ import annotations

from functools import partial

import pytest
from _attempts import SEEDS, pictures

from findnemo.passes import Probe, side_by_side, spending, unpaid


@pytest.mark.slow
def test_each_pays_for_its_own_rows(tiny):
    def search(caption, steps):
        with spending() as spent:
            pictures(tiny, caption, steps, 0)
        return spent.evaluations

    alone = [search("a", 2), search("b", 4)]
    with spending() as all_of_them:
        assert side_by_side(tiny, [partial(search, "a", 2), partial(search, "b", 4)]) == alone
    assert all_of_them.evaluations == sum(alone)


def test_unpaid_work_shares_passes_of_its_own(tiny, passes):
    """What is done once for all captions, in a search that shares passes with others."""

    def score(caption):
        return Probe(tiny, caption, SEEDS).score()

    def search(caption):
        with unpaid():
            once = side_by_side(tiny, [partial(score, "a"), partial(score, "b")])
        return [*once, score(caption)]

    with spending() as spent:
        found = side_by_side(tiny, [partial(search, "c"), partial(search, "d")])
    assert passes == [4, 4, 4]
    assert spent.evaluations == 4
    assert found[0][:2] == found[1][:2]
