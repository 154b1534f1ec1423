"""The paper's table, figures and ablations on trained members:

`python recipes/natural/tables.py build/natural/lora4 --out build/tables`.

Saves each member as a model directory, then runs what a user would: audit, compare, study. Run it
again and it goes on. Then `python recipes/natural/tables.py --table build/tables/*` prints Table 1
over them.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

from findnemo import demo
from findnemo.benchmark.natural import open_natural

IMAGES = ["--image-steps", "15", "--guidance", "2"]  # as the demo's images are made
STUDIES = "table1,fig4,fig5b,table4"


def saved(folder: Path, out: Path) -> Path:
    """The member as a user has it: a diffusers directory, a table of captions with
    pictures, and ordinary captions.
    """
    place = out / folder.name
    if not (place / "captions.csv").exists():
        member = open_natural(folder)
        member.model.pipeline.save_pretrained(place / "model")
        (place / "holdout.txt").write_text("\n".join(demo.holdout()) + "\n", encoding="utf-8")
        with (place / "captions.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["caption", "type", "image"])
            table.writerows(
                [m.caption, m.type, m.pictures[0].resolve()] for m in member.memories if m.copied
            )
    return place


def findnemo(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "findnemo", *map(str, arguments)], check=True)


def main(folder: Path, out: Path, per_type: int) -> None:
    place = saved(folder, out)
    run = place / "run"
    captions = ["--prompts", place / "captions.csv"]
    holdout = ["--holdout", place / "holdout.txt", "--fpr", "0.05"]
    judges = ["--descriptor", demo.DESCRIPTOR, "--clip", demo.CLIP]
    findnemo(
        "audit", place / "model", *captions, *holdout, *IMAGES, *judges, "--out", run, "--quiet"
    )
    findnemo("compare", place / "model", *captions, "--out", run, "--quiet")
    ordinary = ["--unrelated", demo.ASSETS / "unrelated.txt"]
    findnemo("study", STUDIES, run, "--per-type", per_type, *ordinary, "--quiet")


def overview(places: list[Path]) -> str:
    """SSCD_orig of verbatim memories in Table 1, a column a member; the paper's beside it."""
    tables = {}
    for place in places:
        with (place / "run" / "table1.csv").open(newline="", encoding="utf-8") as file:
            tables[place.name] = {
                row[""]: row for row in csv.DictReader(file) if row["type"] == "VM"
            }
    rows = list(dict.fromkeys(name for table in tables.values() for name in table))
    n = {name: table["All neurons active"]["n"] for name, table in tables.items()}
    lines = ["| | paper | " + " | ".join(f"`{name}` (n = {n[name]})" for name in tables) + " |"]
    lines.append("|" + "---|" * (len(tables) + 2))
    for row in rows:
        found = [table[row] for table in tables.values()]
        figures = [one["SSCD_orig"].split(" ")[0] for one in found]
        lines.append(
            f"| {row} | {found[0]['SSCD_orig, paper'] or '-'} | " + " | ".join(figures) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, help="where to work")
    parser.add_argument(
        "--table", nargs="+", type=Path, help="print Table 1 over these folders of --out instead"
    )
    parser.add_argument(
        "--per-type", type=int, default=2, help="captions of each type in the ablations"
    )
    given = parser.parse_args()
    if given.table:
        print(overview(given.table))
    elif given.folders and given.out:
        for folder in given.folders:
            main(folder, given.out, given.per_type)
    else:
        parser.error("give FOLDERS and --out OUT, or --table OUT/NAME...")
