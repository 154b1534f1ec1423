"""Measure the assembled demo model and write its model card:

`python recipes/demo_model/card.py [--figures figures.json]`.

The card goes to `docs/demo-model.md` and beside the model. `--figures` takes the output of
`findnemo demo --check --json` instead of measuring again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import findnemo
from findnemo.benchmark.demo_check import CheckFigure, check_demo

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", type=Path)
    args = parser.parse_args()
    if args.figures:
        figures = [CheckFigure(**f) for f in json.loads(args.figures.read_text(encoding="utf-8"))]
    else:
        figures = check_demo(findnemo.load("demo"))
    missed = [f"- {f.name} ({f.value:.3f}, goal {f.goal})" for f in figures if not f.reached]
    limits = "\n".join(missed) or "None."
    card = (
        (HERE / "card.md")
        .read_text(encoding="utf-8")
        .replace("FIGURES\n", figures_markdown(figures) + "\n")
        .replace("LIMITS", limits)
    )
    for target in (HERE.parents[1] / "docs" / "demo-model.md", findnemo.demo.ASSETS / "README.md"):
        target.write_text(card, encoding="utf-8")


def figures_markdown(figures: Sequence[CheckFigure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | value | goal | n | |", "|---|---:|---|---:|---|"]
    for f in figures:
        verdict = "reached" if f.reached else "**missed**"
        lines.append(f"| {f.name} | {f.value:.3f} | {f.goal} | {f.n} | {verdict} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
