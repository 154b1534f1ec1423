"""Detection: what a caption costs, with all seeds, and with as many as it takes:

`python measurements/detect.py`.

Prints U-Net sample evaluations and seconds a caption. `--prompts FILE --staged-only` for a
long table.
"""

from __future__ import annotations

import argparse
import platform
import time
from datetime import date
from pathlib import Path

import torch

import findnemo
from findnemo import Calibration
from findnemo.detection import Detection, detect_many
from findnemo.passes.deltas import group_size


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
        Calibration.load(args.calibration) if args.calibration else findnemo.demo.calibration()
    )
    demo = [*(p.text for p in findnemo.demo.memorized()), *findnemo.demo.unrelated()[:200]]
    captions = ([p.text for p in findnemo.read_prompts(args.prompts)] if args.prompts else demo)[
        : args.limit
    ]
    print(
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, {model.device},"
        f" {model.dtype}, {model.source}"
    )
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
    for name, size in (("one at a time:", 1), ("in groups:", together)):
        if args.staged_only and size == 1:
            continue
        began = time.perf_counter()
        groups = [captions[k : k + size] for k in range(0, len(captions), size)]
        found = [
            d
            for group in groups
            for d in detect_many(model, group, calibration)
            if isinstance(d, Detection)
        ]
        seconds = time.perf_counter() - began
        cost = sum(d.evaluations for d in found)
        hits = [d.evaluations for d in found if d.memorized]
        print(
            f"{name:21s} {cost / len(captions):6.2f} evaluations, {seconds / len(captions):.3f} s;"
            f" {len(hits)} memorized at {sum(hits) / max(len(hits), 1):.2f}; {whole / seconds:.2f}"
            " times faster than all seeds",
            flush=True,
        )


if __name__ == "__main__":
    main()
