"""Put the published results into docs/benchmark.md: `python recipes/benchmark_page.py`."""

from __future__ import annotations

import re
from pathlib import Path

from findnemo.benchmark import published, table
from findnemo.benchmark.results import Results

PAGE = Path(__file__).parents[1] / "docs" / "benchmark.md"


def tables(results: Results) -> dict[str, str]:
    """What stands between `<!-- NAME -->` and `<!-- end -->`."""
    trained = results.only(n for n in results.members if n != "demo")
    versions = ", ".join(f"{name} {value}" for name, value in results.made.items())
    return {
        "all": table.markdown(results),
        "kinds": table.kinds_markdown(results),
        "trained": table.markdown(trained),
        "made": f"Memories scored, of those planted: {table.members(results)}. Made with: {versions}.\n",
    }


def page(text: str, results: Results) -> str:
    """A page with its tables made anew."""
    for name, made in tables(results).items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, made=made: f"{m[1]}\n{made}\n{m[2]}", text, flags=re.DOTALL
        )
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), published()), encoding="utf-8")
