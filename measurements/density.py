"""How a codebase reads, in figures: `python measurements/density.py src/findnemo ANOTHER...`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median, quantiles

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
WIDTH = 100


def figures(root: Path) -> dict[str, float]:
    """Of all Python files under a folder; files that are no Python are left out."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(root.rglob("*.py"))]
    lines = [line for text in texts for line in text.splitlines()]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions]
    assigned = [node for node in nodes if isinstance(node, ast.Assign)]
    return {
        "lines": len(lines),
        "files": len(texts),
        "lines a file, median": median(len(text.splitlines()) for text in texts),
        "lines a function, median": median(lengths),
        "nine in ten functions under": quantiles(lengths, n=10)[-1],
        "AST nodes a statement": len(nodes) / sum(isinstance(node, ast.stmt) for node in nodes),
        f"% of lines over {WIDTH} columns": share(len(line) > WIDTH for line in lines),
        "% of assignments packed": share(packed(node) for node in assigned),
        "parameters of a public function, most": max(
            map(parameters, (node for node in functions if not node.name.startswith("_")))
        ),
    }


def share(found: Iterable[bool]) -> float:
    values = list(found)
    return 100 * sum(values) / max(len(values), 1)


def packed(node: ast.Assign) -> bool:
    """Whether several values are assigned at once, `a, b = x, y`."""
    return isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    taken = function.args
    every = (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)
    return sum(one.arg not in ("self", "cls") for one in every)


def main() -> None:
    columns = [(place, figures(Path(place))) for place in sys.argv[1:]]
    print("| |", " | ".join(place for place, _ in columns), "|")
    print("|---|" + "---:|" * len(columns))
    for name in columns[0][1]:
        row = [values[name] for _, values in columns]
        shown = (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" for value in row)
        print(f"| {name} |", " | ".join(shown), "|")


if __name__ == "__main__":
    main()
