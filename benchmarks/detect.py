"""Detection: what a caption costs, with all seeds, with as many as it takes, and with a screen: `python benchmarks/detect.py`.

Prints U-Net sample evaluations and seconds a caption, and the captions on which the screen differs from the exact answer.
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
from findnemo.detection import detect, screen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device")
    parser.add_argument("--prompts", help="captions (default: the demo's memorized and 200 of its unrelated ones)")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    model = findnemo.load(args.model, args.device)
    calibration = Calibration.load(args.calibration) if args.calibration else findnemo.demo.calibration()
    demo = [*(p.text for p in findnemo.demo.memorized()), *findnemo.demo.unrelated()[:200]]
    captions = ([p.text for p in findnemo.read_prompts(args.prompts)] if args.prompts else demo)[: args.limit]
    print(
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, {model.device}, {model.dtype}, {model.source}"
    )
    made = screen(calibration)
    print(
        f"{len(captions)} captions; screen: under {made.below:.3f} after {made.samples} seeds, recall {made.recall:.3f} on hold-out"
    )
    detect(model, captions[0], calibration)  # warm-up

    began = time.perf_counter()
    scores = [findnemo.score(model, c, settings=calibration.settings) for c in captions]
    exact = [s >= calibration.tau for s in scores]
    whole, seeds = time.perf_counter() - began, calibration.settings.samples
    print(f"all seeds:            {seeds:6.2f} evaluations, {whole / len(captions):.3f} s; {sum(exact)} memorized")
    for name, chosen in (("as many as it takes:", None), ("with a screen:", made)):
        began = time.perf_counter()
        found = [detect(model, c, calibration, chosen) for c in captions]
        seconds = time.perf_counter() - began
        cost = sum(d.evaluations for d in found)
        hits = [d.evaluations for d in found if d.memorized]
        missed = sum(e and not d.memorized for e, d in zip(exact, found, strict=True))
        wrong = sum(d.memorized and not e for e, d in zip(exact, found, strict=True))
        print(
            f"{name:21s} {cost / len(captions):6.2f} evaluations, {seconds / len(captions):.3f} s; {len(hits)} memorized at "
            f"{sum(hits) / max(len(hits), 1):.2f}; {missed} missed, {wrong} added; {whole / seconds:.2f} times faster"
        )


if __name__ == "__main__":
    main()
