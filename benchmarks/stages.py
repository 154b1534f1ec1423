"""What each stage costs on a model: `python benchmarks/stages.py [--model demo] [--captions 6] [--holdout 20]`.

Prints seconds and U-Net sample evaluations (one latent through the U-Net once), with medians over captions.
"""

from __future__ import annotations

import argparse
import platform
import time
from statistics import median

import findnemo
from findnemo.deltas import Probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--captions", type=int, default=6)
    parser.add_argument("--holdout", type=int, default=20)
    parser.add_argument("--device")
    args = parser.parse_args()
    model = findnemo.load(args.model, args.device)
    captions = [p.text for p in findnemo.demo.memorized()][:: max(1, 24 // args.captions)][: args.captions]

    began = time.perf_counter()
    calibration = findnemo.calibrate(model, findnemo.demo.holdout()[: args.holdout])
    print(f"{platform.processor() or platform.machine()}, {model.device}, {model.dtype}, {model.source}")
    print(f"calibrate: {(time.perf_counter() - began) / args.holdout:.3f} s a caption, tau {calibration.tau:.3f}")

    began, probe = time.perf_counter(), Probe(model, captions[0])
    probe.score()
    print(f"score: {time.perf_counter() - began:.3f} s, {probe.evaluations} evaluations")

    seconds, evaluations, sizes = [], [], []
    for caption in captions:
        began = time.perf_counter()
        found = findnemo.localize(model, caption, calibration)
        seconds.append(time.perf_counter() - began)
        evaluations.append(found.evaluations)
        sizes.append(len(found.neurons))
        print(f"  {seconds[-1]:6.2f} s {evaluations[-1]:5d} evaluations {sizes[-1]:3d} neurons  {caption}")
    print(f"localize, median: {median(seconds):.2f} s, {median(evaluations):g} evaluations, {median(sizes):g} neurons")


if __name__ == "__main__":
    main()
