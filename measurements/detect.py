"""Detection: what a caption costs, with all seeds, and with as many as it takes; what an early end
loses; and how many captions a second the text encoder puts in order:

`python measurements/detect.py`.

Prints U-Net sample evaluations and seconds a caption. `--prompts FILE --staged-only` for a
long table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from meter import machine

import findnemo
from findnemo import Calibration
from findnemo.detection import Detection, Unusual, detect_many
from findnemo.passes.deltas import group_size
from findnemo.stats.intervals import clopper_pearson


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device")
    parser.add_argument(
        "--prompts", help="captions (default: the demo's memorized and 200 of its unrelated ones)"
    )
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--staged-only",
        action="store_true",
        help="leave out the runs that are slow on a long table",
    )
    args = parser.parse_args()
    model = findnemo.load(args.model, args.device)
    calibration = (
        Calibration.load(args.calibration)
        if args.calibration
        else findnemo.calibrate(model, findnemo.demo.holdout(), "findnemo")
    )
    demo = [*(p.text for p in findnemo.demo.memorized()), *findnemo.demo.unrelated()[:200]]
    captions = ([p.text for p in findnemo.read_prompts(args.prompts)] if args.prompts else demo)[
        : args.limit
    ]
    print(machine(model))
    print(f"{len(captions)} captions")
    whole = 0.0
    seeds = calibration.settings.samples
    together = group_size(model)
    detect_many(model, captions[:together], calibration)  # warm-up
    if not args.staged_only:
        began = time.perf_counter()
        scores = [findnemo.score(model, c, settings=calibration.settings) for c in captions]
        whole = time.perf_counter() - began
        memorized = sum(s >= calibration.tau for s in scores)
        print(
            f"all seeds:            {seeds:6.2f} evaluations, {whole / len(captions):.3f} s;"
            f" {memorized} memorized"
        )
    answers = {}
    ways = {
        "one at a time:": (1, False),
        "in groups:": (together, False),
        "in groups, all seeds:": (together, True),
    }
    for name, (size, all_seeds) in ways.items():
        if args.staged_only and size == 1:
            continue
        began = time.perf_counter()
        groups = [captions[k : k + size] for k in range(0, len(captions), size)]
        found = [
            d
            for group in groups
            for d in detect_many(model, group, calibration, all_seeds)
            if isinstance(d, Detection)
        ]
        seconds = time.perf_counter() - began
        answers[name] = found
        hits = [d.evaluations for d in found if d.memorized]
        others = [d.evaluations for d in found if not d.memorized]
        print(
            f"{name:21s} {mean([*hits, *others]):6.2f} evaluations, {seconds / len(captions):.3f} s;"
            f" {len(hits)} memorized at {mean(hits):.2f}, the others at {mean(others):.2f}; {whole / seconds:.2f}"
            " times faster than all seeds",
            flush=True,
        )
    told(answers["in groups:"], answers["in groups, all seeds:"])
    order_rate(model, calibration, captions)


def mean(values: list[int]) -> float:
    return sum(values) / max(len(values), 1)


def told(early: list[Detection], full: list[Detection]) -> None:
    """What an early end lost of what all seeds find."""
    over = [(e, f) for e, f in zip(early, full, strict=True) if f.memorized]
    lost = sum(not e.memorized for e, _ in over)
    high = clopper_pearson(lost, len(over))[1] if over else 1.0
    print(f"{len(over)} over tau with all seeds, {lost} of them lost (95 %: at most {high:.4f})")


def order_rate(model: findnemo.models.Model, calibration: Calibration, captions: list[str]) -> None:
    """Captions a second that are put in order by their text."""
    unusual = Unusual(model, calibration.ordinary)
    many = (captions * (2048 // len(captions) + 1))[:2048]
    began, busy = time.perf_counter(), time.process_time()
    unusual(many)
    print(
        f"order by text: {len(many) / (time.perf_counter() - began):.0f} captions a second,"
        f" {len(many) / (time.process_time() - busy):.0f} a second of processor time"
    )


if __name__ == "__main__":
    main()
