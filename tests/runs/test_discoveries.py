"""Lists at a false discovery rate: from stored results by hand, through an audit, and
why a list can be empty.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from _audited import PLAN, PROMPTS, SETTINGS, run_audit, small_model
from hypothesis import example, given
from hypothesis import strategies as st

import findnemo
from findnemo.errors import MismatchError
from findnemo.runs import Caption, Run, discoveries, list_of, list_told, p_values, q_values, summary


def caption(i: int, p: float | None, of_search: float | None = None) -> Caption:
    results = {"detect": {"memorized": True, "score": 0.9, "tau": 0.4, "p": p}}
    if of_search is not None:
        found = {"neurons": {}, "reached": True, "score_before": 0.9, "score_after": 0.1}
        results["localize"] = found | {"p": of_search}
    return Caption(i, f"caption {i}", i, None, None, results, {}, 0.0)


def p(captions: list[Caption]) -> dict[int, float]:
    return {c.id: value for c in captions if (value := c.p) is not None}


def test_q_values_by_hand():
    """m p / rank, the smallest from there on; the p-value of the search, over all seeds, goes
    before that of an early stop.
    """
    captions = [
        caption(1, 0.30, of_search=0.01),
        caption(2, 0.04),
        caption(3, None),
        caption(4, 0.9),
        caption(5, 0.03),
    ]
    assert q_values(p(captions)) == pytest.approx(
        {1: 0.04, 2: 4 * 0.04 / 3, 4: 0.9, 5: 4 * 0.04 / 3}
    )
    made = discoveries(p(captions), 99, 0.05)
    assert (made.listed, made.tested, made.holdout, made.needed) == ((1,), 4, 99, None)


@given(
    st.integers(1, 60),
    st.lists(st.integers(1, 61), min_size=1, max_size=40),
    st.sampled_from(["0.05", "0.1", "0.2", "0.3"]),
)
@example(9, [5, 9, 1], "0.3")  # 3 / 10, which is over 0.3 in floating point
def test_the_list_is_that_of_exact_arithmetic(holdout, ranks, level):
    """p = k / (n + 1): Benjamini and Hochberg's rule in fractions, where q can be the level itself."""
    exact = [Fraction(min(k, holdout + 1), holdout + 1) for k in ranks]
    ordered = sorted(exact)
    under = [k for k, p in enumerate(ordered, 1) if p <= Fraction(level) * k / len(exact)]
    cut = ordered[under[-1] - 1] if under else Fraction(0)
    want = tuple(i for i, p in enumerate(exact) if p <= cut)
    found = discoveries({i: float(p) for i, p in enumerate(exact)}, holdout, float(level))
    assert found.listed == want


def test_captions_without_p_values_make_no_list():
    open_ = Caption(1, "a", 1, None, None, {}, {"detect": "NaN"}, 0.0)
    made = discoveries(p([open_, caption(2, None)]), 99, 0.1)
    assert (made.listed, made.tested, made.needed) == ((), 0, None)


def test_an_empty_list_says_how_many_hold_out_captions_it_takes():
    """Two captions of forty above all hold-out scores: 1 / (n + 1) <= .1
    x 2 / 40 from n = 199 on.
    """
    for n, listed, needed in ((9, (), 199), (198, (), 199), (199, (1, 2), None)):
        captions = [caption(i, 1 / (n + 1)) for i in (1, 2)] + [
            caption(i, 0.8) for i in range(3, 41)
        ]
        made = discoveries(p(captions), n, 0.1)
        assert (made.listed, made.needed) == (listed, needed)
    few = [caption(i, 0.1) for i in (1, 2)] + [caption(i, 0.8) for i in range(3, 41)]
    assert "no p-value is under 1/10. It takes 199 hold-out captions" in list_told(
        discoveries(p(few), 9, 0.1)
    )


def test_an_empty_list_for_another_reason_does_not_ask_for_more():
    captions = [caption(i, 0.5) for i in range(1, 5)]
    assert (
        discoveries(p(captions), 39, 0.1).needed is None
    )  # a caption above all of them would have been listed
    assert discoveries(p(captions), 38, 0.1).needed == 39


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def calibration(model):
    """Scores of forty hold-out captions by decree, three captions of six over tau."""
    made = findnemo.calibrate(model, ["hold out a", "hold out b", "hold out c"], settings=SETTINGS)
    scores = sorted(findnemo.score(model, p.text, settings=SETTINGS) for p in PROMPTS)
    tau = (scores[2] + scores[3]) / 2
    rows = torch.linspace(scores[0] - 0.1, tau, 60)[:, None].repeat(1, SETTINGS.samples - 1)
    return replace(made, tau=tau, trajectories=rows, count=len(rows))


def test_an_audit_with_a_level_scores_all_seeds_and_lists_what_it_found(
    tmp_path, model, calibration
):
    captions = run_audit(
        tmp_path / "run", model, calibration, plan=replace(PLAN, fdr=0.1), stages=("detect",)
    )
    assert [c.results["detect"]["samples"] for c in captions] == [SETTINGS.samples] * 6
    for c in captions:
        whole = findnemo.score(model, c.text, settings=SETTINGS)
        assert c.results["detect"]["score"] == pytest.approx(whole, abs=1e-5)
        assert c.results["detect"]["p"] == pytest.approx(
            (1 + int((calibration.scores >= whole - 1e-6).sum())) / 61, abs=0.02
        )
    memorized = {c.id for c in captions if c.results["detect"]["memorized"]}
    with Run.open(tmp_path / "run") as run:
        made = list_of(run)
        whole = summary(run)
        assert p_values(run) == p(captions)
        assert set(made.listed) == memorized  # three at 1/61: 6/61/3 = .033
        assert list_of(run, 0.01).listed == ()
        assert list_of(run, 0.01).needed == 199  # 6 / (.01 x 3) - 1
    assert whole["discoveries"] == made.to_json() == json.loads(json.dumps(made.to_json()))
    assert whole["settings"]["fdr"] == 0.1
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        rows = {r["caption"].lstrip("'"): r for r in csv.DictReader(file)}
    for c in captions:
        assert float(rows[c.text]["p"]) == pytest.approx(c.results["detect"]["p"], rel=1e-3)
        assert (float(rows[c.text]["q"]) <= 0.1) == (c.id in memorized)


def test_a_run_without_a_level_stops_early_has_q_values_and_no_list(tmp_path, model, calibration):
    low = replace(calibration, tau=-1.0)
    captions = run_audit(tmp_path / "run", model, low, stages=("detect",))
    assert {c.results["detect"]["samples"] for c in captions} == {2}
    with Run.open(tmp_path / "run") as run:
        assert list_of(run) is None
        assert "discoveries" not in summary(run)
        assert list_of(run, 0.1).tested == 6
    with pytest.raises(MismatchError, match=r"fdr None, now 0\.1"):
        run_audit(tmp_path / "run", model, low, plan=replace(PLAN, fdr=0.1))


def test_imported_statistics_give_neither(tmp_path, model, calibration):
    imported = replace(calibration, trajectories=torch.empty(0, SETTINGS.samples - 1))
    captions = run_audit(tmp_path / "run", model, imported, stages=("detect",))
    assert q_values(p(captions)) == {}
    with Run.open(tmp_path / "run") as run:
        assert list_of(run, 0.1) is None
        assert {r["p"] for r in summary(run)["results"]} == {None}
