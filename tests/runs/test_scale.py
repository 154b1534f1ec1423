"""One run, whoever answers: this process, or several workers that die. In shards: test_merge.py; by
Ray: test_cluster.py.
"""

from __future__ import annotations

import pytest
from _audited import PLAN, PROMPTS, TEXTS, outcome
from _divided import everything, run_with
from _pool import FakePool

import findnemo
from findnemo.runs import Work, answer, enter, start

pytestmark = pytest.mark.usefixtures("small_groups")


@pytest.mark.first(1)
@pytest.mark.parametrize(("size", "deaths", "aim"), [(1, 0, 0.0), (3, 2, 0.0), (5, 2, 60.0)])
def test_the_same_to_the_last_bit_whoever_answers(
    tmp_path, model, calibration, undivided, size, deaths, aim
):
    pool = FakePool(model, size, seed=size, deaths=deaths, aim=aim)
    want = everything(undivided)
    assert (
        len(want["files"]) == 3 * 9
    )  # of three memorized captions four images, four noise differences and a sheet
    assert everything(run_with(tmp_path / "run", model, calibration, pool)) == want
    assert pool.deaths == 0


@pytest.mark.slow
def test_a_caption_that_kills_workers_is_set_aside_and_the_rest_is_answered(
    tmp_path, model, calibration, undivided
):
    pool = FakePool(
        model,
        2,
        deadly=lambda item: (
            item[0].text == TEXTS[1] if isinstance(item[0], findnemo.runs.Caption) else False
        ),
    )
    out = run_with(tmp_path / "run", model, calibration, pool)
    have = outcome(out)["captions"]
    want = outcome(undivided)["captions"]
    results, failed = have.pop(TEXTS[1])
    assert results == {}
    assert "workers died over it alone" in failed["detect"]
    del want[TEXTS[1]]
    assert {t: set(r) for t, (r, _) in have.items()} == {t: set(r) for t, (r, _) in want.items()}
    with_its_neighbour = {t: r for t, (r, _) in have.items() if t != TEXTS[0]}
    assert with_its_neighbour == {t: r for t, (r, _) in want.items() if t != TEXTS[0]}
    have, want = (
        everything(run) for run in (run_with(out, model, calibration), undivided)
    )  # a later run tries it again
    alone, shared = (
        run["captions"].pop(TEXTS[0])[0] for run in (have, want)
    )  # its neighbour was answered by itself: other rounding
    assert alone["detect"].pop("score") == pytest.approx(shared["detect"].pop("score"), abs=1e-5)
    assert alone == shared
    assert have == want


@pytest.mark.slow
def test_stopped_between_tasks_and_gone_on_with(tmp_path, model, calibration, undivided):
    asked = iter([False] * 4 + [True] * 1000)
    with start(tmp_path / "run", model, calibration, PLAN) as run:
        enter(run, PROMPTS, size=2)
        work = Work(run, model, calibration, PLAN)
        assert not answer(work, pool=FakePool(model, 2), stop=lambda: next(asked))
        done = run.query("SELECT COUNT(*) FROM results")[0][0]
    assert 0 < done < 12
    assert everything(run_with(tmp_path / "run", model, calibration)) == everything(undivided)
