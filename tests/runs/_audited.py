"""A small model, captions, and audits of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from _tiny import SMALL, made_loud, tiny_pipeline

import findnemo
from findnemo.images import ImageSettings
from findnemo.prompts import Prompt
from findnemo.runs import AuditPlan, Run, Work, audit, start, summary, write_results
from findnemo.settings import Settings

SETTINGS = Settings(samples=4)
PLAN = AuditPlan("gradient", images=2, image_settings=ImageSettings(steps=2))
TEXTS = ("a red fox", "a grey owl", "=1+1", "a tree", "the sea", "a moon")
PROMPTS = tuple(Prompt(text, k, None if k % 2 else "VM") for k, text in enumerate(TEXTS, 1))


def small_model(seed: int = 0) -> findnemo.Model:
    """16 neurons in two value layers, made loud so that captions differ and neurons matter."""
    return made_loud(findnemo.load(tiny_pipeline(seed=seed, **SMALL)))


def calibrated(model: findnemo.Model) -> findnemo.Calibration:
    """With tau so that three of the six captions reach it."""
    made = findnemo.calibrate(model, ["hold out a", "hold out b", "hold out c"], settings=SETTINGS)
    scores = sorted(findnemo.score(model, text, settings=SETTINGS) for text in TEXTS)
    return replace(made, tau=(scores[2] + scores[3]) / 2)


def run_audit(out, model, calibration, prompts=PROMPTS, plan=PLAN, **options):
    with start(out, model, calibration, plan) as run:
        captions = audit(Work(run, model, calibration, plan), prompts, **options)
        write_results(run)
    return captions


def outcome(out: Path) -> dict:
    """What a run found, in an order of its own, without what time and order decide."""
    with Run.open(out) as run:
        whole = summary(run)
        captions = {c.text: (c.results, c.failed) for c in run.captions()}
        quality = run.meta("quality")
    rows = {r["caption"]: {k: v for k, v in r.items() if k != "seconds"} for r in whole["results"]}
    return {"rows": rows, "captions": captions, "quality": quality, "settings": whole["settings"]}
