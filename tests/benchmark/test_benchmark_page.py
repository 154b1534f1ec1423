"""docs/benchmark.md shows the published results, and names every kind and method."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from findnemo.benchmark import METHODS, NATURAL_VERSION, published
from findnemo.benchmark.natural_scoring import NaturalScore
from findnemo.benchmark.plan import DECOYS, KINDS, SUITE_VERSION
from findnemo.benchmark.results import Results

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmark.md"


def recipe():
    spec = importlib.util.spec_from_file_location(
        "benchmark_page", ROOT / "recipes" / "benchmark_page.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_published_results():
    text = PAGE.read_text(encoding="utf-8")
    both = published(), published(NATURAL_VERSION)
    assert text == recipe().page(text, *both), "run: python recipes/benchmark_page.py"
    for name, made in recipe().tables(*both).items():
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
    made = recipe()
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
