"""All mitigations on members of the natural suite and on the demo, by the same captions, seeds and judges.

First, for every member, an audit and a comparison (`recipes/natural/tables.py` makes both):

`findnemo compare build/tables/lora16/model --prompts ... --out build/tables/lora16/run --mitigations LIST`

with the published hyperparameters, and on the members that are used for tuning with those of GRID too.
Then `python measurements/mitigations.py --choose build/tables/lora16/run build/tables/kv/run` prints the
hyperparameters to use on other models, for another `--mitigations`, and `python
measurements/mitigations.py build/tables/lora4/run ...` prints the table over some runs.

The rule was set before anything was measured: of the settings that leave the fewest copies, give or
take .05, the one whose images fit their captions best.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from findnemo.mitigation import MITIGATIONS, name_and_options
from findnemo.runs import Caption, Run
from findnemo.runs.compare import STAGE, compared_captions
from findnemo.runs.standing import evaluations_of
from findnemo.stats import bootstrap
from findnemo.studies.table1 import label, rows

# beside the published setting of each method, which is its name alone
GRID = (
    "embedding:target=0.5", "embedding:target=3", "embedding:target=0.5:iterations=30",
    "attention:c=2", "attention:c=4", "noise:target=2",
    "noise-batch:gamma=1.5", "noise-batch:rounds=4", "noise-batch:tau=700",
    "delayed:tau=300", "delayed:tau=700",
    "opposite:opposite=1", "opposite:opposite=4", "opposite:tau=500",
    "prss:low=1:high=2", "padding-zeros:share=0.9", "padding-zeros:share=1",
    "wanda:share=0.02", "wanda:share=0.05", "conceptprune:share=0.02", "conceptprune:share=0.05",
)  # fmt: skip
NEAR = 0.05  # copies left

Results = dict[str, list[dict[str, Any]]]  # method -> what it did, a caption each


def captions_of(places: Iterable[Path]) -> list[Caption]:
    found = []
    for place in places:
        with Run.open(place) as run:
            found += compared_captions(run.captions(stage="detect"))
    return found


def results(captions: Sequence[Caption]) -> Results:
    found: Results = {}
    for caption in captions:
        for stage, payload in caption.results.items():
            if stage.startswith(STAGE):
                found.setdefault(stage.removeprefix(STAGE), []).append(payload)
    return found


def chosen(found: Results) -> list[str]:
    """The setting of each method that has several; those for which the published one is best are
    left out.
    """
    settings: dict[str, list[str]] = {}
    for name in found:
        settings.setdefault(name_and_options(name)[0], []).append(name)
    best = []
    for base, names in settings.items():
        left = {name: mean(p["copies"] for p in found[name]) for name in names}
        near = [name for name in names if left[name] <= min(left.values()) + NEAR]
        name = max(near, key=lambda n: mean(p["a_clip"] for p in found[n]))
        if len(names) > 1:
            print(f"{base}: " + ", ".join(f"{n} {left[n]:.2f}" for n in names) + f" -> {name}")
            best += [name] * (name != base)
    return best


def table(captions: Sequence[Caption]) -> str:
    found = results(captions)
    lines = [
        "| | copies left | similarity to the original | D_SSCD | A_CLIP | evaluations an image |"
        " seconds an image | once a caption | permanent | gradients |",
        "|---|" + "---:|" * 7 + "---|---|",
    ]
    once = {"neurons": [evaluations_of(c) for c in captions]}
    once["nemo"] = [c.results["listing"]["evaluations"] for c in captions if "listing" in c.results]
    for title, names in rows(found).items():
        payloads = [p for name in names for p in found[name]]
        base = name_and_options(names[0])[0]
        method = MITIGATIONS.get(base)
        cells = [
            f"{label(names[0]) if len(names) == 1 else title}",
            interval(payloads, "copies"),
            cell(payloads, "sscd_orig", median),
            cell(payloads, "d_sscd", median),
            cell(payloads, "a_clip", mean, 3),
            cell(payloads, "evaluations", mean, 0),
            cell(payloads, "image_seconds", median),
            f"{mean(once.get(base) or [p.get('once', 0) for p in payloads]):.0f}",
            *(
                "-" if method is None else "yes" if getattr(method, key) else "no"
                for key in ("permanent", "gradients")
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(payloads: Sequence[dict[str, Any]], key: str) -> str:
    """Mean over captions with its 95 % bootstrap interval."""
    sample = torch.tensor([p[key] for p in payloads], dtype=torch.float64)
    low, high = bootstrap(lambda x: float(x.mean()), sample)
    return f"{sample.mean():.2f} [{low:.2f}, {high:.2f}]"


def cell(payloads: Sequence[dict[str, Any]], key: str, of: Any, digits: int = 2) -> str:
    values = [p[key] for p in payloads if key in p]
    return f"{of(values):.{digits}f}" if values else "-"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="directories of runs")
    parser.add_argument("--choose", action="store_true", help="choose hyperparameters by these")
    given = parser.parse_args()
    every = captions_of(given.runs)
    if given.choose:
        print(",".join(chosen(results(every))))
    else:
        print(table(every))
