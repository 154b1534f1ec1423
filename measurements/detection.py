"""Every detector on members of the natural suite, or on the demo:

`python measurements/detection.py build/natural full dreambooth demo`.

First the rule by which an audit seeks neurons: over tau (mean + 1 std of hold-out captions) by the
mean of pairs, and pictures in a few steps that are alike. Then a line of JSON for each detector and
member: AUROC, true-positive rate at 1 % and at 5 % false alarms, all with 95 % intervals, and U-Net
sample evaluations a caption. Memories are the captions that copy. The others are captions as users
write them, seen neither in training nor in calibration, and not chosen by any score.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "natural"))
from train import base_of  # isort: skip  (before what puts other recipes on the path)
from members import MEMBERS, member_of

import findnemo
from findnemo import demo
from findnemo.benchmark.files import read_tensors
from findnemo.detection import DETECTORS, REFERENCES
from findnemo.detection.latent_updates import CAPTIONS
from findnemo.localization.trajectory import COPIES, Copies, few_steps
from findnemo.models import Model, load
from findnemo.models.difference import add_difference
from findnemo.passes import Denoising, spending
from findnemo.stats.intervals import bootstrap, wilson
from findnemo.stats.roc import auroc, tpr_at_fpr

HOLDOUT = 200
CHOSEN_ON = slice(
    100,
    300,
    # of the demo's unrelated captions: `agreement` was chosen with these (on full, lora16 and the demo)
)


def opened(root: Path, name: str) -> tuple[Model, list[str]]:
    """A member, or the demo, and its captions that copy."""
    if name == "demo":
        return load("demo"), [p.text for p in demo.memorized()]
    base = base_of(member_of(name), root)
    add_difference(base.denoiser, read_tensors(root / name / "difference.safetensors"))
    truth = json.loads((root / name / "truth.json").read_text(encoding="utf-8"))
    return load(base.pipeline), [m["caption"] for m in truth["memories"] if m["copied"]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "root", type=Path, help="folder of the members; with --table a file of what was printed"
    )
    parser.add_argument("members", nargs="*")
    parser.add_argument("--others", type=int, default=200, help="ordinary captions")
    parser.add_argument(
        "--table", action="store_true", help="only make a table of what was printed before"
    )
    parser.add_argument("--detectors", default=",".join(DETECTORS))
    args = parser.parse_args()
    if args.table:
        print(markdown(args.root.read_text(encoding="utf-8").splitlines()))
        return
    held_out = {m.name: m.held_out for m in MEMBERS}
    for name in args.members:
        model, captions = opened(args.root, name)
        model.pipeline.set_progress_bar_config(disable=True)
        others = [c for c in demo.unrelated() if c not in demo.unrelated()[CHOSEN_ON]][
            : args.others
        ]
        print(
            json.dumps(
                {"member": name, "held_out": held_out.get(name, False)}
                | _rule(model, captions, others)
            ),
            flush=True,
        )
        for detector in filter(None, args.detectors.split(",")):
            settings = demo.image_settings()
            known = {}
            if refer := REFERENCES.get(detector):
                usual = demo.holdout()[:CAPTIONS]
                known["reference"] = [refer(model, c, settings) for c in usual]
            scored = [
                DETECTORS[detector](model, c, settings, **known) for c in (*captions, *others)
            ]
            scores = torch.tensor([s.value for s in scored], dtype=torch.float64)
            memories = scores[: len(captions)]
            rest = scores[len(captions) :]
            figures = {
                name: _figure(statistic, memories, rest) for name, statistic in STATISTICS.items()
            }
            about = {
                "member": name,
                "held_out": held_out.get(name, False),
                "detector": detector,
                "memories": len(memories),
            }
            cost = {"others": len(rest), "evaluations": mean(s.evaluations for s in scored)}
            print(json.dumps(about | cost | figures), flush=True)


def _rule(model: Model, captions: Sequence[str], others: Sequence[str]) -> dict[str, Any]:
    """How many captions of both kinds an audit seeks neurons for, with Wilson
    intervals, and what telling costs.
    """
    calibration = findnemo.calibrate(model, demo.holdout()[:HOLDOUT], "findnemo")
    images = demo.image_settings()
    found: dict[str, list[bool]] = {"memories": [], "others": []}
    over = 0
    spent = 0
    for kind, texts in (("memories", captions), ("others", others)):
        for caption in texts:
            seen = findnemo.detect(model, caption, calibration)
            spent = spent + seen.evaluations
            over = over + (seen.memorized and kind == "others")
            if seen.memorized:
                with spending() as pictures:
                    denoising = Denoising(model, caption, COPIES, images.guidance)
                    copies = Copies(denoising, few_steps(images.steps), images.steps)
                found[kind].append(copies.has_copies)
                spent += pictures.evaluations
            else:
                found[kind].append(False)
    shares = {
        f"rule_{kind}": [sum(hits), len(hits), *wilson(sum(hits), len(hits))]
        for kind, hits in found.items()
    }
    return shares | {"others_over_tau": over, "evaluations": spent / (len(captions) + len(others))}


def markdown(lines: Sequence[str]) -> str:
    """What was printed, as the table of docs/natural.md: a row a detector, a column a member;
    AUROC, and the share found at 1 % false alarms.
    """
    rows = {(r["detector"], r["member"]): r for r in map(json.loads, lines) if "detector" in r}
    members = list(dict.fromkeys(member for _, member in rows))
    heads = [
        f"`{m}`"
        + (" (held out)" if any(r["held_out"] for (_, n), r in rows.items() if n == m) else "")
        for m in members
    ]
    text = [
        f"| detector | evaluations | {' | '.join(heads)} |",
        "|---|---:|" + "---|" * len(members),
    ]
    for detector in dict.fromkeys(d for d, _ in rows):
        found = [rows.get((detector, m)) for m in members]
        cells = [
            (
                "{:.3f} [{:.3f}, {:.3f}]; {:.2f} [{:.2f}, {:.2f}]".format(*r["auroc"], *r["tpr_1"])
                if r
                else "-"
            )
            for r in found
        ]
        spent = next(r["evaluations"] for r in found if r)
        text.append(f"| `{detector}` | {spent:g} | {' | '.join(cells)} |")
    return "\n".join(text)


STATISTICS = {
    "auroc": auroc,
    "tpr_1": lambda memories, rest: tpr_at_fpr(memories, rest, 0.01),
    "tpr_5": lambda memories, rest: tpr_at_fpr(memories, rest, 0.05),
}


def _figure(statistic, memories: Tensor, rest: Tensor) -> list[float]:
    """The value and its 95 % interval."""
    return [
        round(value, 4)
        for value in (statistic(memories, rest), *bootstrap(statistic, memories, rest))
    ]


if __name__ == "__main__":
    main()
