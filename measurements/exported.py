"""Copies among finished pictures of fresh seeds with the neurons of all captions off together, as in
an export: `python measurements/exported.py build/cost/lora4-15-2 ...`.

For folders that `audit_cost.py` has made. It judges the memories that findnemo calls gone by the
same rule and on the same seeds as `audit_cost.py --judge`, which switches off the neurons of one
caption at a time.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from audit_cost import JUDGED, copies

import findnemo
from findnemo import ImageSettings, demo
from findnemo.metrics import Descriptor
from findnemo.runs import Run, all_neurons, standing


def judged(folder: Path, images: int) -> list[float]:
    """Share of copies of each memory that is gone; `folder` ends in STEPS-GUIDANCE."""
    steps, guidance = folder.resolve().name.rsplit("-", 2)[1:]
    settings = ImageSettings(steps=int(steps), guidance=float(guidance))
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["caption"]: row for row in csv.DictReader(file)}
    with Run.open(folder / "findnemo") as run:
        captions = list(run.captions())
    model = findnemo.load(folder / "model", "cpu", "float32")
    descriptor = Descriptor(demo.DESCRIPTOR, model.device)
    off = all_neurons(captions)
    print(f"{folder.name}: {len(off)} neurons off")
    shares = []
    for caption in captions:
        row = rows[caption.text]
        if not row["type"] or standing(caption) != "gone":
            continue
        seeds = range(JUDGED, JUDGED + images)
        before = findnemo.generate(model, caption.text, seeds, settings)
        with findnemo.deactivate(model, off):
            after = findnemo.generate(model, caption.text, seeds, settings)
        originals = [Path(row["image"])] if row["image"] else []
        shares.append(copies(after, before, originals, descriptor))
        print(f"  {shares[-1]:.2f} {caption.text}", flush=True)
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=10)
    args = parser.parse_args()
    shares = [share for folder in args.folders for share in judged(folder, args.images)]
    print(f"{sum(share == 0 for share in shares)} of {len(shares)} leave no copy")


if __name__ == "__main__":
    main()
