"""Reference pictures of the demo: for the first unrelated captions, which no stage has seen, the
scenes that they were written for, drawn by the program that drew the training data.

    python recipes/demo_model/references.py --out src/findnemo/demo/assets/references
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

from pool import held_out
from scenes import render

COUNT = 64


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["file_name", "text"])
        for k, (text, scene) in enumerate(list(held_out()["unrelated"].items())[:COUNT]):
            render(scene, rng).save(folder / f"{k:02d}.png", optimize=True)
            rows.writerow([f"{k:02d}.png", text])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    main(parser.parse_args().out)
