"""Draws docs/images/layout.svg, how the code is laid out, from the imports of the package:

`python recipes/layout.py`.

A room is a folder or a loose module of `findnemo`. It stands one level above the highest room that
it imports. Imports for type checkers alone do not count.
"""

from __future__ import annotations

from pathlib import Path

import grimp
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

OUT = Path(__file__).parents[1] / "docs" / "images" / "layout.svg"
PACKAGE = "findnemo"


def arrows() -> dict[str, set[str]]:
    """Room -> the rooms that it imports."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True)
    found: dict[str, set[str]] = {}
    for module in graph.modules - {PACKAGE}:
        room = module.split(".")[1]
        targets = graph.find_modules_directly_imported_by(module) - {PACKAGE}
        found.setdefault(room, set()).update(target.split(".")[1] for target in targets)
    return {room: found[room] - {room} for room in sorted(found)}


def levels(imports: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by level, the lowest first. Raises ValueError for imports in a circle."""
    known: dict[str, int] = {}
    while len(known) < len(imports):
        ready = [r for r in imports if r not in known and imports[r] <= set(known)]
        if not ready:
            raise ValueError(f"a circle among {sorted(set(imports) - set(known))}")
        known |= {room: 1 + max((known[t] for t in imports[room]), default=0) for room in ready}
    return [sorted(r for r in known if known[r] == k) for k in sorted(set(known.values()))]


def draw(rows: list[list[str]], imports: dict[str, set[str]]) -> None:
    plt.rcParams["svg.hashsalt"] = PACKAGE  # the same picture each time
    figure, axis = plt.subplots(figsize=(9, 0.72 * len(rows)))
    place = {}
    for height, rooms in enumerate(rows):
        for k, room in enumerate(rooms):
            place[room] = ((k + 0.5) / len(rooms) * 10, height)
    for room, targets in imports.items():
        for target in sorted(targets):
            axis.plot(
                *zip(place[room], place[target], strict=True), color="#9db4c8", lw=0.5, zorder=1
            )
    for room, (x, y) in place.items():
        box = {"boxstyle": "round,pad=0.3", "fc": "white", "ec": "#2b5d84", "lw": 0.9}
        axis.text(x, y, room, ha="center", va="center", fontsize=9, bbox=box, zorder=2)
    axis.axis("off")
    figure.savefig(OUT, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    found = arrows()
    made = levels(found)
    draw(made, found)
    for level, rooms in reversed(list(enumerate(made, 1))):
        print(f"{level:2} {', '.join(rooms)}")
