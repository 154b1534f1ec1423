"""What a run found, for comparisons of runs."""

from __future__ import annotations

from pathlib import Path

from findnemo.runs import Run, summary


def outcome(out: Path) -> dict:
    """What a run found, by caption and without the time it took."""
    with Run.open(out) as run:
        whole = summary(run)
    rows = {r["caption"]: {k: v for k, v in r.items() if k != "seconds"} for r in whole["results"]}
    return {
        **{k: whole[k] for k in ("settings", "memorized", "failed", "quality", "neurons")},
        "rows": rows,
    }
