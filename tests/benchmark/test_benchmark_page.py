"""docs/benchmark.md shows the published results, and names every kind and method."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from findnemo.benchmark import METHODS, published
from findnemo.benchmark.plan import DECOYS, KINDS, SUITE_VERSION

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "benchmark.md"


def recipe():
    spec = importlib.util.spec_from_file_location("benchmark_page", ROOT / "recipes" / "benchmark_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_published_results():
    text = PAGE.read_text(encoding="utf-8")
    assert text == recipe().page(text, published()), "run: python recipes/benchmark_page.py"
    for name, made in recipe().tables(published()).items():
        assert f"<!-- {name} -->\n\n{made}" in text


def test_every_method_and_every_kind_is_explained():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in METHODS)
    assert all(kind.split(",")[0] in text for kind, *_ in KINDS)
    assert f"{DECOYS} neurons are decoys" in text
    assert f"This is suite {SUITE_VERSION}." in text
