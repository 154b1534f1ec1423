"""Tables of the benchmark by hand; what is held out is never pooled."""

from __future__ import annotations

from dataclasses import replace

import pytest
from _scores import ONE, ONE_NATURAL

from findnemo import benchmark
from findnemo.benchmark import table
from findnemo.benchmark.results import Results
from findnemo.benchmark.scoring import Alarm


def test_the_table_by_hand():
    scores = [
        ONE,
        replace(ONE, caption="d", precision=None, recall=0.0, gone=False),
        replace(ONE, caption="e", precision=1.0),
    ]
    alarms = [
        Alarm("m", "x", c, "ordinary", n, 10)
        for c, n in (("f", 3), ("g", 0), ("h", None), ("i", 0))
    ]
    alarms += [
        Alarm("m", "x", c, "unusual", 0, 10) for c in "jkl"
    ]  # a kind of its own, not in the share
    figures = table.rows(Results(results=(*scores, *alarms)))["x"]
    assert figures["precision"].value == pytest.approx(0.5)  # nothing found counts as 0
    assert figures["recall"].value == pytest.approx(2 / 3)
    assert figures["gone"].value == pytest.approx(2 / 3)
    assert figures["false alarms"].value == 0.5
    lines = table.alarms_markdown(Results(results=(*scores, *alarms))).splitlines()
    assert lines[0] == "| method | ordinary (n = 4) | unusual (n = 3) |"
    assert lines[2:] == ["| x | 0.50 | 0.00 |"]
    assert figures["precision"].low <= 0.5 <= figures["precision"].high
    assert figures["gone"].low == pytest.approx(0.2077, abs=1e-3)  # Wilson, 2 of 3


def test_what_changes_weights_has_no_precision_but_all_other_figures():
    """A method that finds nothing has a precision of 0, one that is no set of neurons has none."""
    nothing = replace(ONE, precision=None, recall=0.0, neurons=0, size=0.0)
    weights = replace(ONE, precision=None, recall=None, needed=None, size=None, neurons=None)
    figures = [table.rows(Results(results=(s,)))["x"] for s in (nothing, weights)]
    assert [f["precision"].value for f in figures] == [0.0, None]
    assert [f["size"].value for f in figures] == [0.0, None]
    assert [f["gone"].value for f in figures] == [1.0, 1.0]


def test_markdown_has_a_line_a_method_and_a_column_a_kind():
    results = Results(results=(ONE, replace(ONE, method="y|z", kind="two")))
    lines = table.markdown(results).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| x", "| y\\|z"]
    kinds = table.kinds_markdown(results).splitlines()
    assert kinds[0] == "| method | one neuron (n = 1) | two (n = 1) |"
    assert kinds[2].startswith("| x | 0.50 / 1.00 | - / -")


def test_figures_by_hand():
    scores = [
        ONE_NATURAL,
        replace(
            ONE_NATURAL, caption="d", neurons=10, gone=False, largest=0.9, kept=0.9, evaluations=60
        ),
        replace(ONE_NATURAL, caption="e", neurons=30, kept=0.97, evaluations=20),
    ]
    alarms = [
        Alarm("m", "x", c, "ordinary", n, 10) for c, n in (("f", 3), ("g", 0), ("h", 0), ("i", 0))
    ]
    results = Results(
        {"m": {"held_out": False, "memories": 4}},
        (*scores, *alarms),
        suite=benchmark.NATURAL_VERSION,
    )
    figures = table.rows(results)["x"]
    assert figures["gone"].value == pytest.approx(2 / 3)
    assert figures["gone"].low == pytest.approx(0.2077, abs=1e-3)  # Wilson, 2 of 3
    assert figures["largest copy"].value == pytest.approx((0.2 + 0.9 + 0.2) / 3)
    assert figures["kept at .95"].value == pytest.approx(2 / 3)
    assert (figures["neurons"].value, figures["evaluations"].value) == (10, 40)  # medians
    assert (figures["neurons"].low, figures["neurons"].high) == (4, 30)
    assert figures["false alarms"].value == 0.25
    weights = replace(results, results=(replace(ONE_NATURAL, neurons=None),))
    assert table.rows(weights)["x"]["neurons"].value is None
    assert "| x | 0.67 [0.21, 0.94] |" in table.markdown(results)


def test_held_out_members_are_never_in_one_table_with_the_others():
    about = {"a": {"held_out": False, "memories": 1}, "b": {"held_out": True, "memories": 1}}
    results = Results(
        about,
        (replace(ONE_NATURAL, member="a"), replace(ONE_NATURAL, member="b", gone=False)),
        suite=benchmark.NATURAL_VERSION,
    )
    shares = {
        part: table.rows(own)["x"]["gone"].value for part, own in table.apart(results).items()
    }
    assert shares == {"tuned on": 1.0, "held out": 0.0}
    numbers = table.to_json(results)
    assert [numbers[part]["x"]["gone"]["value"] for part in ("tuned on", "held out")] == [1.0, 0.0]
    assert list(table.apart(results.only("b"))) == ["held out"]
