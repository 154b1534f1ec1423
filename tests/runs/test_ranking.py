"""The order of a table: the same however it came about, and an estimate of what is left that holds."""

from __future__ import annotations

import random

import pytest

from findnemo.errors import DamageError, MismatchError, NumericalError
from findnemo.prompts import Prompt
from findnemo.runs import ranking as module
from findnemo.runs.ranking import Ranked, Ranking, chance_of, rank_table, what_is_left

CHUNK = 8


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", CHUNK)
    monkeypatch.setattr(module, "SAVE_EVERY", 2)


def table(count):
    return [Prompt(f"caption {k}", k + 1) for k in range(count)]


def likely(texts):
    return [(int(text.split()[1]) * 37) % 101 for text in texts]


def texts(order):
    return [one.prompt.text for one in order]


def test_likely_captions_come_first_and_every_tenth_is_drawn_by_chance(tmp_path):
    rows = table(100)
    order = rank_table(tmp_path / "order", "key", rows, likely, 40).order()
    assert [k for k, one in enumerate(order) if one.drawn] == [9, 19, 29, 39]
    values = dict(zip(texts_of(rows), likely(texts_of(rows)), strict=True))
    best = sorted(values, key=lambda text: (-values[text], chance_of(text)))
    by_chance = sorted(values, key=chance_of)
    wanted = []
    for k in range(40):
        source = by_chance if k % 10 == 9 else best
        wanted.append(next(text for text in source if text not in wanted))
    assert texts(order) == wanted


def texts_of(rows):
    return [row.text for row in rows]


def test_a_smaller_order_is_the_beginning_of_a_larger_one(tmp_path):
    rows = table(100)
    small, large, whole = (
        texts(rank_table(tmp_path / str(most), "key", rows, likely, most).order())
        for most in (25, 60, 500)
    )
    assert small == large[:25] == whole[:25]
    assert large == whole[:60]
    assert sorted(whole) == sorted(texts_of(rows))


def test_a_caption_that_recurs_is_ranked_once(tmp_path):
    rows = [*table(30), *table(30)]
    order = rank_table(tmp_path / "order", "key", rows, likely, 100).order()
    assert sorted(texts(order)) == sorted(texts_of(table(30)))
    assert {one.prompt.row for one in order} == set(range(1, 31))


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("times", "most"),
    [
        (1, 100),
        (1, 400),
        pytest.param(5, 400, marks=pytest.mark.slow),
        pytest.param(5, 3000, marks=pytest.mark.slow),
    ],
)
def test_rows_that_repeat_a_caption_are_no_captions_that_are_left(tmp_path, times, most):
    rows = [row for row in table(2000) for _ in range(times)]
    found = rank_table(tmp_path / "order", "key", rows, likely, most)
    assert found.captions == 2000 * times
    exact = times == 1 or most > 2000
    assert found.distinct() == pytest.approx(2000, rel=1e-9 if exact else 3 / most**0.5)


def test_an_order_that_was_stopped_or_broken_off_goes_on(tmp_path):
    rows = table(100)
    whole = rank_table(tmp_path / "whole", "key", rows, likely, 20)
    asked = []

    def once(found):
        asked.extend(found)
        return likely(found)

    path = tmp_path / "order"
    turns = iter([False, False, False, True])
    assert rank_table(path, "key", rows, once, 20, stop=lambda: next(turns)) is None

    def breaks(found):
        if "caption 70" in found:
            raise KeyboardInterrupt
        return once(found)

    with pytest.raises(KeyboardInterrupt):
        rank_table(path, "key", rows, breaks, 20)
    assert rank_table(path, "key", rows, once, 20).order() == whole.order()
    assert asked == texts_of(rows)  # nothing twice
    assert rank_table(path, "key", rows, once, 20).order() == whole.order()
    assert asked == texts_of(rows)


def test_another_table_or_a_damaged_file_is_refused_and_other_scores_begin_anew(tmp_path):
    path = tmp_path / "order"
    stopping = iter([False, False, True])
    rank_table(path, "key", table(40), likely, 20, stop=lambda: next(stopping))
    with pytest.raises(MismatchError, match="another table"):
        rank_table(path, "key", table(40)[::-1], likely, 20)
    with pytest.raises(MismatchError, match="the table has 3"):
        rank_table(path, "key", table(3), likely, 20)
    fresh = rank_table(path, "other", table(40)[::-1], likely, 20)
    assert fresh.captions == 40
    path.write_text('{"key": "other", "most": 99}', encoding="utf-8")
    with pytest.raises(DamageError, match="remove it"):
        rank_table(path, "other", table(40), likely, 20)


def test_no_number_is_no_order(tmp_path):
    with pytest.raises(NumericalError, match="row 5"):
        rank_table(
            tmp_path / "order",
            "key",
            table(9),
            lambda found: [float("nan") if "4" in text else 0.0 for text in found],
            5,
        )


def drawn_table(rng, helps):
    """400 captions, a tenth of them memorized; `helps`: by how much these are likelier."""
    rows = [Prompt(f"caption {rng.random()}", k) for k in range(400)]
    memorized = {row.text: rng.random() < 0.1 for row in rows}
    values = [rng.gauss(helps if memorized[row.text] else 0, 1) for row in rows]
    ranking = Ranking("key", 150)
    ranking.take(rows, values)
    return ranking.order(4), memorized


@pytest.mark.first(1)
@pytest.mark.parametrize("helps", [0.0, 1.5, -1.5])
def test_what_is_left_is_estimated_without_bias_and_the_interval_holds(helps):
    """Whether the order is good, useless or the wrong way round."""
    rng = random.Random(5)
    inside = 0
    errors = []
    for _ in range(200):
        order, memorized = drawn_table(rng, helps)
        looked = {
            one.prompt.text: memorized[one.prompt.text] for one in order[: rng.randint(60, 150)]
        }
        left = what_is_left(order, looked, 400)
        truth = sum(memorized.values()) - sum(looked.values())
        assert (left.looked, left.found) == (len(looked), sum(looked.values()))
        errors.append(left.left - truth)
        inside += left.low - 1e-9 <= truth <= left.high + 1e-9
    spread = (sum(e * e for e in errors) / 200) ** 0.5
    assert abs(sum(errors) / 200) < 3 * spread / 200**0.5
    assert inside >= 186


def test_what_was_looked_at_before_and_out_of_order_says_nothing_of_what_is_left():
    order, memorized = drawn_table(random.Random(5), True)
    looked = {one.prompt.text: memorized[one.prompt.text] for one in order[:60]}
    before = {one.prompt.text: memorized[one.prompt.text] for one in order[100:140]}
    assert what_is_left(order, looked | before, 400) == what_is_left(order, looked, 400)
    failed = looked | {order[20].prompt.text: None}
    assert what_is_left(order, failed, 400).looked == 59


def test_where_all_was_looked_at_nothing_is_left_and_without_a_draw_nothing_is_said():
    order = [Ranked(float(-k), 0.5, Prompt(f"caption {k}", k)) for k in range(5)]
    looked = {one.prompt.text: True for one in order}
    assert what_is_left(order, looked, 5).left == 0
    assert what_is_left(order, looked, 50).left is None
    assert what_is_left(order, {}, 50).found == 0
