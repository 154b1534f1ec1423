"""Every detector on members of the natural suite, or on the demo: `python benchmarks/detection.py build/natural full dreambooth demo`.

A line of JSON for each detector and member: AUROC, true-positive rate at 1 % and at 5 % false alarms, all with 95 % intervals, and U-Net sample
evaluations a caption. Memories are the captions that copy. The others are captions as users write them, seen neither in training nor in calibration,
and not chosen by any score.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "natural"))
from train import base_of  # isort: skip  (before what puts other recipes on the path)
from members import MEMBERS, member_of

from findnemo import demo
from findnemo.benchmark._files import read_tensors
from findnemo.detection import DETECTORS
from findnemo.metrics.intervals import bootstrap
from findnemo.metrics.roc import auroc, tpr_at_fpr
from findnemo.models import Model, load
from findnemo.models._difference import add_difference

CHOSEN_ON = slice(100, 300)  # of the demo's unrelated captions: `agreement` was chosen with these (on full, lora16 and the demo)


def opened(root: Path, name: str) -> tuple[Model, list[str]]:
    """A member, or the demo, and its captions that copy."""
    if name == "demo":
        return load("demo"), [p.text for p in demo.memorized()]
    base = base_of(member_of(name), root)
    add_difference(base.denoiser, read_tensors(root / name / "difference.safetensors"))
    truth = json.loads((root / name / "truth.json").read_text(encoding="utf-8"))
    return load(base.pipeline), [m["caption"] for m in truth["memories"] if m["copied"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("members", nargs="+")
    parser.add_argument("--detectors", default=",".join(DETECTORS))
    args = parser.parse_args()
    held_out = {m.name: m.held_out for m in MEMBERS}
    for name in args.members:
        model, captions = opened(args.root, name)
        model.pipeline.set_progress_bar_config(disable=True)
        others = [c for c in demo.unrelated() if c not in demo.unrelated()[CHOSEN_ON]]
        for detector in args.detectors.split(","):
            scored = [DETECTORS[detector](model, c, demo.image_settings()) for c in (*captions, *others)]
            scores = torch.tensor([s.value for s in scored], dtype=torch.float64)
            memories, rest = scores[: len(captions)], scores[len(captions) :]
            figures = {name: _figure(statistic, memories, rest) for name, statistic in STATISTICS.items()}
            about = {"member": name, "held_out": held_out.get(name, False), "detector": detector, "memories": len(memories)}
            cost = {"others": len(rest), "evaluations": mean(s.evaluations for s in scored)}
            print(json.dumps(about | cost | figures), flush=True)


STATISTICS = {
    "auroc": auroc,
    "tpr_1": lambda memories, rest: tpr_at_fpr(memories, rest, 0.01),
    "tpr_5": lambda memories, rest: tpr_at_fpr(memories, rest, 0.05),
}


def _figure(statistic, memories: Tensor, rest: Tensor) -> list[float]:
    """The value and its 95 % interval."""
    return [round(value, 4) for value in (statistic(memories, rest), *bootstrap(statistic, memories, rest))]


if __name__ == "__main__":
    main()
