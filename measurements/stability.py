"""Do other seeds find the same neurons? `python measurements/stability.py [--repeats 5]`.

For each search: intersection over union of the sets of several base seeds, caption by caption, and
precision and recall against the demo's planted neurons, of each seed.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import replace
from datetime import date
from statistics import mean, median

import torch

import findnemo
from findnemo import NeuronSet
from findnemo.localization import Localization, pairwise_iou
from findnemo.stats import bootstrap

FRESH = range(1000, 1010)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--search", nargs="+", default=["gradient", "listing"])
    args = parser.parse_args()
    model = findnemo.load("demo")
    calibration = findnemo.demo.calibration()
    captions = [p.text for p in findnemo.demo.memorized()][: args.limit]
    print(
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, {len(captions)}"
        f" captions, {args.repeats} seeds"
    )
    for search in args.search:
        began = time.perf_counter()
        single = {
            c: [one(model, c, calibration, search, seed) for seed in range(args.repeats)]
            for c in captions
        }
        found = {c: [f.neurons for f in fs if f.memorized] for c, fs in single.items()}
        values = [median(pairwise_iou(sets)) for sets in found.values() if len(sets) > 1]
        low, high = bootstrap(lambda x: float(x.mean()), torch.tensor(values))
        same = sum(v == 1 for v in values)
        print(
            f"\n{search}: {time.perf_counter() - began:.0f} s; memorized on"
            f" {sum(map(len, found.values()))} of {len(captions) * args.repeats}"
        )
        print(
            f"  IoU of two seeds: median {median(values):.3f}, mean {mean(values):.3f} [{low:.3f},"
            f" {high:.3f}]; the same in all: {same}"
        )
        runs = [[f[seed] for f in single.values()] for seed in range(args.repeats)]
        for k, rows in enumerate(runs):
            told(model, f"seed {k}", rows)


def one(
    model: findnemo.Model, caption: str, calibration: findnemo.Calibration, search: str, seed: int
) -> Localization:
    moved = replace(calibration, settings=replace(calibration.settings, seed=seed))
    return findnemo.localize(model, caption, moved, search)


def told(model: findnemo.Model, label: str, rows: list[Localization]) -> None:
    """Precision and recall of all sets together, how many memories are gone on seeds that no
    search has seen, and the cost.
    """
    planted = findnemo.demo.planted()
    hits = sum(len(r.neurons & planted[r.prompt]) for r in rows)
    found = sum(len(r.neurons) for r in rows)
    there = sum(len(planted[r.prompt]) for r in rows)
    gone = sum(r.reached and fresh(model, r.prompt, r.neurons) <= r.tau for r in rows)
    cost = sum(r.evaluations for r in rows) / len(rows)
    print(
        f"  {label:15s} {found:3d} neurons, precision {hits / max(found, 1):.3f}, recall"
        f" {hits / there:.3f}, gone on fresh seeds {gone}, {cost:.0f} evaluations a caption",
        flush=True,
    )


def fresh(model: findnemo.Model, caption: str, neurons: NeuronSet) -> float:
    """Largest same-seed similarity on ten seeds of a base seed that no search used."""
    from findnemo.passes.deltas import Probe
    from findnemo.scores import SIMILARITIES
    from findnemo.settings import PAPER

    probe = Probe(model, caption, replace(PAPER, seed=99), FRESH)
    return float(SIMILARITIES[PAPER.similarity](probe.deltas(), probe.deltas(neurons)).max())


if __name__ == "__main__":
    main()
