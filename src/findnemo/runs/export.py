"""A run's results as CSV and JSON: views of the store, written anew whenever asked."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from findnemo.runs.audit import all_neurons, neurons_of
from findnemo.runs.store import Caption, Run
from findnemo.runs.whole import captions_of


def row(caption: Caption) -> dict[str, Any]:
    """One flat row a caption, the columns of results.csv; `None` where a step does not concern it."""
    found, checked = caption.results.get("localize", {}), caption.results.get("verify", {})
    detected = caption.results.get("detect", {})
    return {
        "row": caption.row,
        "caption": caption.text,
        "type": caption.type,
        "status": "failed" if caption.failed else "done" if detected else "open",
        "memorized": detected.get("memorized"),
        "score": _round(found.get("score_before", detected.get("score"))),
        "tau": _round(detected.get("tau")),
        "score_after": _round(found.get("score_after")),
        "reached": found.get("reached"),
        "neurons": len(neurons_of(caption)) if found else None,
        "layers": "; ".join(f"{name}: {' '.join(map(str, idx))}" for name, idx in neurons_of(caption).layers.items()) or None,
        "fresh_score_before": checked.get("score_before"),
        "fresh_score_after": checked.get("score_after"),
        "fresh_same_seed": checked.get("same_seed"),
        **{k: checked.get(k) for k in ("sscd_gen", "sscd_orig_before", "sscd_orig_after", "d_sscd_before", "d_sscd_after")},
        **{k: checked.get(k) for k in ("copies_before", "copies_after", "grown")},
        **{k: checked.get(k) for k in ("a_clip_before", "a_clip_after")},
        "evaluations": found.get("evaluations", 0) + detected.get("evaluations", 0),
        "seconds": round(caption.seconds, 3),
        "error": "; ".join(f"{stage}: {reason}" for stage, reason in caption.failed.items()) or None,
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def summary(run: Run) -> dict[str, Any]:
    """The run in one JSON object: settings, counts, all neurons, quality, one row a caption."""
    captions = captions_of(run)
    rows = [row(c) for c in captions]
    return {
        "source": run.meta("source"),
        "settings": run.meta("settings"),
        "versions": run.meta("versions"),
        "captions": len(rows),
        "memorized": sum(r["memorized"] is True for r in rows),
        "failed": sum(r["status"] == "failed" for r in rows),
        "neurons": all_neurons(captions).to_json(),
        "quality": run.meta("quality"),
        "results": rows,
    }


def write_results(run: Run) -> tuple[Path, Path]:
    """Write results.csv and results.json into the run directory; returns their paths."""
    whole = summary(run)
    csv_path, json_path = run.path / "results.csv", run.path / "results.json"
    part = run.path / ".results.part"
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(whole["results"][0]) if whole["results"] else ["caption"])
        writer.writeheader()
        writer.writerows(_inert(r) for r in whole["results"])
    part.replace(csv_path)
    part.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(json_path)
    return csv_path, json_path


def _inert(values: dict[str, Any]) -> dict[str, Any]:
    """Captions are untrusted: a spreadsheet must not take one for a formula."""
    return {k: f"'{v}" if isinstance(v, str) and v[:1] in "=+-@\t\r" else v for k, v in values.items()}


def neurons_by_caption(captions: Iterable[Caption]) -> dict[str, dict[str, list[int]]]:
    """Caption -> neurons, of the captions that have any: the neuron file of a run."""
    return {c.text: neurons_of(c).to_json() for c in captions if len(neurons_of(c))}
