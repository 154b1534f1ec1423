"""The default search on members of the natural suite, on pictures that no search has seen: `python benchmarks/natural.py build/natural dreambooth repeats`.

One line of JSON a memory, then the figures of docs/natural.md. The published listing is scored beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "natural"))
from train import base_of  # isort: skip  (before what puts other recipes on the path)
from members import Memory, member_of, memories

import findnemo
from findnemo import demo
from findnemo.benchmark._files import read_tensors
from findnemo.deltas import Probe
from findnemo.images import generate, generate_many
from findnemo.models import Model, load
from findnemo.models._difference import add_difference
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.scores import SIMILARITIES
from findnemo.verification import COPY, FRESH

SETTINGS = demo.image_settings()
HOLDOUT, ORDINARY, PICTURES = 300, 24, 12


class Judge:
    """What a set of neurons does to a memory, and to ordinary captions, on fresh seeds."""

    def __init__(self, model: Model, calibration: findnemo.Calibration):
        self.model, self.judges, captions = model, demo.judges(), list(demo.unrelated()[:ORDINARY])
        self.captions = captions
        rows = [(c, FRESH) for c in captions]
        self.probe = Probe.of_many(model, rows, calibration.settings, model.encode(captions))
        self.before = self.probe.deltas()

    def copies(self, memory: Memory, neurons: NeuronSet) -> list[float]:
        with findnemo.deactivate(self.model, neurons):
            images = generate(self.model, memory.caption, range(FRESH, FRESH + 10), SETTINGS)
        return self.judges.descriptor.similarity(images, memory.pictures()).view(10, -1).amax(1).tolist()

    def kept(self, neurons: NeuronSet) -> float:
        return float(SIMILARITIES["ssim"](self.before, self.probe.deltas(neurons), 1).mean())

    def alignment(self, neurons: NeuronSet) -> float:
        captions = self.captions[:PICTURES]
        with findnemo.deactivate(self.model, neurons):
            images = generate_many(self.model, [(c, FRESH) for c in captions], SETTINGS, PICTURES)
        return float(self.judges.alignment(images, captions).mean())


def scored(root: Path, name: str) -> dict[str, Any]:
    """The figures of a member."""
    member = member_of(name)
    base = base_of(member, root)
    add_difference(base.denoiser, read_tensors(root / name / "difference.safetensors"))
    model = load(base.pipeline)
    model.pipeline.set_progress_bar_config(disable=True)
    copied = {
        m["caption"] for m in json.loads((root / name / "truth.json").read_text(encoding="utf-8"))["memories"] if m["copied"]
    }
    calibration = findnemo.calibrate(model, demo.holdout()[:HOLDOUT])
    strict = findnemo.calibrate(model, demo.holdout()[:HOLDOUT], fpr=0.05)
    judge, rows = Judge(model, calibration), []
    for memory in memories(member):
        if memory.caption not in copied:
            continue
        found = findnemo.localize(model, memory.caption, calibration, images=SETTINGS)
        listing = findnemo.localize(model, memory.caption, calibration, "listing")
        rows.append(
            {
                "caption": memory.caption,
                "score": found.score_before,
                "over_tau": found.score_before >= calibration.tau,
                "over_5_percent": found.score_before >= strict.tau,
                "neurons": len(found.neurons),
                "evaluations": found.evaluations,
                "left": max(judge.copies(memory, found.neurons)),
                "listing_left": max(judge.copies(memory, listing.neurons)),
                "kept": judge.kept(found.neurons),
                "alignment": judge.alignment(found.neurons),
            }
        )
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    return {
        "member": name,
        "held_out": member.held_out,
        "memories": len(rows),
        "gone": sum(r["left"] < COPY for r in rows),
        "listing_gone": sum(r["listing_left"] < COPY for r in rows),
        "neurons": median(r["neurons"] for r in rows),
        "evaluations": median(r["evaluations"] for r in rows),
        "kept": round(mean(r["kept"] for r in rows), 3),
        "kept_95": sum(r["kept"] >= 0.95 for r in rows),
        "alignment": [round(judge.alignment(EMPTY), 3), round(mean(r["alignment"] for r in rows), 3)],
        "over_tau": sum(r["over_tau"] for r in rows),
        "over_5_percent": sum(r["over_5_percent"] for r in rows),
    }


if __name__ == "__main__":
    for one in sys.argv[2:]:
        print(json.dumps(scored(Path(sys.argv[1]), one), indent=1), flush=True)
