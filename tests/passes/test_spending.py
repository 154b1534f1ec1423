"""Evaluations of the denoiser are counted for those who ask for them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from _attempts import SEEDS, pictures

from findnemo.passes import Probe, counting, side_by_side, spend, spending, unpaid
from findnemo.passes.spending import is_unpaid


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


def test_each_counts_what_is_spent_while_it_is_open():
    with spending() as outer:
        spend(1)
        with spending() as inner:
            spend(10)
        spend(100)
    spend(1000)
    assert (outer.evaluations, inner.evaluations) == (111, 10)


def test_unpaid_work_can_be_counted_by_itself_and_counts_for_nobody_else():
    with spending() as outer, unpaid():
        assert is_unpaid()
        with spending() as inner:
            spend(7)
    assert (outer.evaluations, inner.evaluations) == (0, 7)
    assert not is_unpaid()


def test_an_error_ends_the_count():
    with spending() as outer:
        with pytest.raises(KeyError), spending() as inner:
            raise KeyError
        with pytest.raises(KeyError), unpaid():
            raise KeyError
        spend(1)
    assert (outer.evaluations, inner.evaluations) == (1, 0)


def test_a_pass_with_a_gradient_counts_three_times(tiny):
    latents = tiny.noise("a fox", [0, 1])
    text = tiny.encode(["a fox"]).expand(2)
    graded = latents.clone().requires_grad_()
    with counting(tiny) as plain, torch.no_grad():
        tiny.predict_noise(latents, 981, text)
        tiny.predict_noise(graded, 981, text)
    with counting(tiny) as slope:
        tiny.predict_noise(graded, 981, text)
    tiny.predict_noise(graded, 981, text)  # nobody counts any more
    assert (plain.evaluations, slope.evaluations) == (2 + 2, 3 * 2)
