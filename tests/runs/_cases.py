"""What a run holds of captions, and runs of such captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from findnemo.calibration import Calibration
from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.settings import PAPER

TAU = 0.4
SETTINGS: dict[str, Any] = {
    "model": "0" * 32,
    "dtype": "float32",
    "calibration": {
        "variant": "paper",
        "similarity": "ssim",
        "samples": 10,
        "timestep": 0,
        "steps": 50,
    },
    "tau": TAU,
    "search": "gradient",
    "images": 4,
    "judges": {},
    "image_settings": {"steps": 2, "guidance": 7.0},
}
OVER = {"memorized": True, "score": 0.9, "tau": TAU, "evaluations": 2, "p": 0.1863}
UNDER = {"memorized": False, "score": 0.1, "tau": TAU, "evaluations": 10}
FOUND = {
    "score_before": 0.9,
    "score_after": 0.2,
    "reached": True,
    "neurons": {"a": [3]},
    "z": {"a:3": 9.0},
    "evaluations": 20,
    "tau": TAU,
}
GONE = {"same_seed": 0.3, "copies_before": 1.0, "copies_after": 0.0}
UNION = "feed0123"


@dataclass(frozen=True)
class Case:
    """What a run holds of a caption, and what everybody has to say of it.

    `off`: whether its neurons are off in the cleaned model. `together`: what is seen with the
    neurons of all captions off.
    """

    says: str
    is_: str | None
    off: bool
    results: tuple[dict[str, Any], ...] = ()
    failed: str | None = None
    listed: bool = False
    together: dict[str, Any] | None = None


def run_with(path: Path, cases: dict[str, Case]) -> Run:
    """A run that holds the cases, open for reading; each caption is named as its case."""
    mean, std = ({name: torch.ones(8) for name in "ab"} for _ in range(2))
    scores = torch.full((5, 9), 0.1)
    Calibration("0" * 32, "model", PAPER, TAU, mean, std, 5, scores, None).save(
        path / "calibration"
    )
    with Run.create(path, SETTINGS) as run:
        run.set_meta("source", "model")
        run.set_meta("versions", {"findnemo": "1"})
        ids = run.add([Prompt(name, k) for k, name in enumerate(cases, 1)])
        for id_, case in zip(ids, cases.values(), strict=True):
            for stage, payload in zip(("detect", "localize", "verify"), case.results, strict=False):
                run.record(id_, stage, payload, 1.0)
            if case.failed:
                run.record(id_, case.failed, {}, 1.0, "NaN")
            if case.together is not None:
                run.record(id_, f"union:{UNION}", case.together, 1.0)
        if any(case.together or case.failed == f"union:{UNION}" for case in cases.values()):
            run.set_meta("union", {"digests": [UNION]})
        run.set_meta(
            "listed", [id_ for id_, case in zip(ids, cases.values(), strict=True) if case.listed]
        )
    return Run.open(path)
