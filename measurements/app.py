"""How long the app takes for a click, on a synthetic run of 20,000 captions: no model is
loaded, nothing is drawn.

python measurements/app.py
python measurements/app.py --captions 5000 --memorized 0.1
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from findnemo.app import events, subject
from findnemo.prompts import Prompt
from findnemo.runs import Run

TAU = 0.4
LAYERS = 7
TIMES = 5
SETTINGS = {"model": "0" * 32, "dtype": "float32", "image_settings": {"steps": 2, "guidance": 7.0}}


def results(k: int, memorized: bool) -> list[tuple[str, dict[str, Any]]]:
    """What an audit keeps of a caption, by stage."""
    score = 0.9 if memorized else 0.1 + k % 100 / 1000
    common = {"prompt": f"caption {k}", "tau": TAU, "memorized": memorized, "p": 0.5}
    detected = common | {"score": score, "evaluations": 10, "samples": 10}
    if not memorized:
        return [("detect", detected)]
    neurons = {f"layer {k % LAYERS}": [k % 300, 300 + k % 300]}
    z = {f"{name}:{i}": 5.0 for name, indices in neurons.items() for i in indices}
    found = common | {"neurons": neurons, "candidates": neurons, "z": z, "reached": True}
    found |= {"score_before": score, "score_after": 0.2, "evaluations": 30}
    checked = {"same_seed": 0.2, "replicating": 10, "score_before": score, "score_after": 0.1}
    checked |= {"copies_before": 1.0, "copies_after": 0.0, "sscd_gen": 0.2}
    return [("detect", detected), ("localize", found), ("verify", checked)]


def synthetic(path: Path, captions: int, share: float) -> None:
    """A run of so many captions, of which a share is memorized, localized and verified."""
    every = max(round(1 / share), 1)
    with Run.create(path, SETTINGS) as run:
        ids = run.add(
            Prompt(f"caption {k}: a photograph of the {k}th harbour", k)
            for k in range(1, captions + 1)
        )
        run.record_all(
            (id_, stage, payload, 0.1, None)
            for id_ in ids
            for stage, payload in results(id_, id_ % every == 0)
        )


def seconds(action: Callable[[], Any]) -> float:
    """Median seconds of an action."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        action()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--memorized", type=float, default=0.05, help="share of the captions")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        synthetic(path, args.captions, args.memorized)
        widths = {f"layer {k}": 640 for k in range(LAYERS)}
        model: Any = SimpleNamespace(source="no demo model", widths=lambda scope: widths)
        shown: Any = SimpleNamespace(run=path, model=model)
        found = events.matching(shown, "", "all", "worst first")
        id_ = events.matching(shown, "", "memorized", "row")[0].id
        clicks: dict[str, Callable[[], Any]] = {
            "open the run": lambda: Run.open(path).close(),
            "a caption by its id": lambda: subject.caption_of(shown, id_),
            "the thumbnails of the first": lambda: events.cards(shown, found),
            "what a caption's page shows": lambda: events.detail(shown, id_),
            "a search among all captions": lambda: events.matching(shown, "99th", "all", "row"),
        }
        print(f"| {args.captions:,} captions | seconds, median of {TIMES} |\n|---|---:|")
        for name, action in clicks.items():
            print(f"| {name} | {seconds(action):.3f} |")


if __name__ == "__main__":
    main()
