"""docs/benchmark.md shows the published results, and names every kind and method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from _recipes import recipe

from findnemo.benchmark import METHODS, NATURAL_VERSION, published
from findnemo.benchmark.natural_scoring import NaturalScore
from findnemo.benchmark.plan import DECOYS, KINDS, SUITE_VERSION
from findnemo.benchmark.results import Results

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmark.md"


@pytest.mark.slow
def test_the_tables_are_those_of_the_published_results():
    text = PAGE.read_text(encoding="utf-8")
    both = published(), published(NATURAL_VERSION)
    assert text == recipe("benchmark_page").page(text, *both), (
        "run: python recipes/benchmark_page.py"
    )
    for name, made in recipe("benchmark_page").tables(*both).items():
        assert f"<!-- {name} -->\n\n{made}" in text


def test_every_method_and_every_kind_is_explained():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in METHODS)
    assert all(kind.split(",")[0] in text for kind, *_ in KINDS)
    assert f"{DECOYS} neurons are decoys" in text
    assert f"**Suite {SUITE_VERSION}**" in text
    assert f"**Suite {NATURAL_VERSION}**" in text


def test_results_are_published_over_those_of_the_same_model(tmp_path, monkeypatch):
    """Held-out members that are scored later join the others, in a table of their own."""
    made = recipe("benchmark_page")
    kept = tmp_path / "suite-2.json"
    monkeypatch.setattr(made, "place", lambda suite: kept)
    monkeypatch.setattr(made, "published", lambda suite: Results.load(kept, suite))
    for name, held_out in (("tuned", False), ("other", True), ("other", True)):
        one = NaturalScore(
            name, "NeMo", "c", "VM", {}, 3, [0.1], 0.1, 0.1, True, 0.99, 0.5, 20, 1.0
        )
        Results(
            {name: {"held_out": held_out, "memories": 4}},
            (one,),
            {"date": "today"},
            NATURAL_VERSION,
        ).save(tmp_path / "own.json")
        made.publish(tmp_path / "own.json")
    natural = Results.load(kept, NATURAL_VERSION)
    assert [s.member for s in natural.scores] == ["tuned", "other"]
    tables = made.tables(published(), natural)
    assert tables["tuned on"].startswith("Memories scored, of those taught: tuned 1 of 4.")
    assert tables["held out"].startswith("Memories scored, of those taught: other 1 of 4.")
    assert made.tables(published(), natural.only(["tuned"]))["held out"] == made.NONE


def test_the_page_begins_with_what_is_held_out_and_pools_nothing():
    """Two members of one memory each: a mean over both would be .75."""
    made = recipe("benchmark_page")
    score = published().scores[0]
    both = Results(
        {"seen": {"held_out": False, "memories": 1}, "unseen": {"held_out": True, "memories": 2}},
        (
            replace(score, member="seen", method="findnemo", precision=1.0, recall=1.0),
            replace(score, member="unseen", method="findnemo", precision=0.5, recall=0.25),
        ),
        {"date": "today"},
    )
    tables = made.tables(both, Results(suite=NATURAL_VERSION))
    line = tables["first"]
    assert line.index("held out (unseen 1 of 2 memories): precision 0.50") < line.index("tuned on")
    assert "tuned on (seen 1 of 1 memories): precision 1.00" in line
    assert "| findnemo | 0.50 [0.50, 0.50] | 0.25" in tables["planted held out"]
    assert "| findnemo | 1.00 [1.00, 1.00] | 1.00" in tables["planted tuned on"]
    assert "0.75" not in "".join(tables.values())
    assert "held out: no member scored yet" in made.first(both.only(["seen"]))


def test_the_first_line_and_the_first_table_of_the_page_are_held_out():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert lines[2] == "<!-- first -->"
    marks = [line for line in lines if line.startswith("<!-- ") and line != "<!-- end -->"]
    assert marks[1] == "<!-- planted held out -->"
    assert not any(line.startswith("|") for line in lines[: lines.index(marks[1])])
