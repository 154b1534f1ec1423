"""Put the published results into docs/benchmark.md:

`python recipes/benchmark_page.py [RESULTS.json ...]`.

Results that are given are published first, in the place of what was known of their models.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from findnemo.benchmark import NATURAL_VERSION, published, table
from findnemo.benchmark.results import Results, place

PAGE = Path(__file__).parents[1] / "docs" / "benchmark.md"


def tables(planted: Results, natural: Results) -> dict[str, str]:
    """What stands between `<!-- NAME -->` and `<!-- end -->`."""
    made = {"first": first(planted)}
    for part in ("held out", "tuned on"):
        own = table.apart(planted).get(part)
        made[f"planted {part}"] = _table(own, "planted")
        made[f"kinds {part}"] = table.kinds_markdown(own) if own else NONE
        made[f"alarms {part}"] = table.alarms_markdown(own) if own else NONE
        made[part] = _table(table.apart(natural).get(part), "taught")
    return made


def first(planted: Results) -> str:
    """The default search, a line for each kind of members: held-out ones first."""
    said = []
    for part in ("held out", "tuned on"):
        own = table.apart(planted).get(part)
        if own is None:
            said.append(f"- {part}: no member scored yet")
            continue
        of = table.rows(own)["findnemo"]
        figures = ", ".join(f"{name} {of[name].text()}" for name in ("precision", "recall", "gone"))
        said.append(f"- {part} ({table.members(own)} memories): {figures}")
    return "\n".join(["Planted neurons found by the default search:", "", *said, ""])


def _table(results: Results | None, how: str) -> str:
    if results is None:
        return NONE
    scored = f"Memories scored, of those {how}: {table.members(results)}."
    return f"{scored} {_made(results)}\n{table.markdown(results)}"


NONE = "No member of this kind has been scored yet.\n"


def _made(results: Results) -> str:
    """With what results were made: their members where they say so, else the whole file."""
    found = [member.get("made", results.made) for member in results.members.values()]
    lines = {", ".join(f"{name} {value}" for name, value in made.items()): None for made in found}
    return f"Made with: {'; '.join(lines)}.\n"


def page(text: str, planted: Results, natural: Results) -> str:
    """A page with its tables made anew."""
    for name, made in tables(planted, natural).items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda m, made=made: f"{m[1]}\n{made}\n{m[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


def publish(path: Path) -> None:
    """Keep results with findnemo, over those of the same models."""
    suite = json.loads(path.read_text(encoding="utf-8"))["suite"]
    known = published(suite) if place(suite).exists() else Results(suite=suite)
    Results.load(path, suite).over(known).save(place(suite))


if __name__ == "__main__":
    for one in sys.argv[1:]:
        publish(Path(one))
    PAGE.write_text(
        page(PAGE.read_text(encoding="utf-8"), published(), published(NATURAL_VERSION)),
        encoding="utf-8",
    )
