"""The paper's table, figures and ablations on trained members: `python recipes/natural/tables.py build/natural/lora4 --out build/tables`.

Saves each member as a model directory, then runs what a user would: audit, compare, study. Run it again and it goes on.
Then `python recipes/natural/tables.py --table build/tables` prints Table 1 over all that is there.
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
    """The member as a user has it: a diffusers directory, a table of captions with pictures, and ordinary captions."""
    place = out / folder.name
    if not (place / "captions.csv").exists():
        member = open_natural(folder)
        member.model.pipeline.save_pretrained(place / "model")
        (place / "holdout.txt").write_text("\n".join(demo.holdout()) + "\n", encoding="utf-8")
        with (place / "captions.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["caption", "type", "image"])
            table.writerows([m.caption, m.type, m.pictures[0].resolve()] for m in member.memories if m.copied)
    return place


def findnemo(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "findnemo", *map(str, arguments)], check=True)


def main(folder: Path, out: Path, per_type: int) -> None:
    place = saved(folder, out)
    run = place / "run"
    captions, holdout = ["--prompts", place / "captions.csv"], ["--holdout", place / "holdout.txt", "--fpr", "0.05"]
    judges = ["--descriptor", demo.DESCRIPTOR, "--clip", demo.CLIP]
    findnemo("audit", place / "model", *captions, *holdout, *IMAGES, *judges, "--out", run, "--quiet")
    findnemo("compare", place / "model", *captions, "--out", run, "--quiet")
    findnemo("study", STUDIES, run, "--per-type", per_type, "--quiet")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-type", type=int, default=2, help="captions of each type in the ablations")
    given = parser.parse_args()
    for folder in given.folders:
        main(folder, given.out, given.per_type)
