"""A run's results as CSV and JSON: views of the store, written again on every request."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

from findnemo.files.marks import marked
from findnemo.files.writing import atomic_write
from findnemo.runs.discoveries import list_of, p_values, q_values
from findnemo.runs.evidence import OFF, tried_columns, verdicts
from findnemo.runs.overview import sampler_of
from findnemo.runs.results import Verified
from findnemo.runs.standing import (
    STAGES,
    all_neurons,
    evaluations_of,
    failures,
    standing,
    state,
    unseen,
    verification_of,
    whose_neurons,
    with_joined,
)
from findnemo.runs.store import Caption, Run, each_caption
from findnemo.runs.truth import truth_of
from findnemo.runs.tuned import copies_in, training_of
from findnemo.runs.union import sentence_on_union

VERIFIED = (  # columns of results.csv that have the names of verification
    *("sscd_gen", "sscd_orig_before", "sscd_orig_after", "d_sscd_before", "d_sscd_after"),
    *("copies_before", "copies_after", "largest_before", "largest_after"),
    *("a_clip_before", "a_clip_after"),
)


def row(
    caption: Caption, q: Mapping[int, float] | None = None, bases: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The columns of results.csv for one caption; `None` where a step does not concern it.

    `layers`: the neurons found and those that joined them, layer -> indices. `q`: caption id ->
    q-value. `bases`: stage -> current basis of results of attacks (`Run.meta`).
    """
    detected = caption.detected
    found = caption.localized
    checked = verification_of(caption) or Verified()
    neurons = with_joined(caption)
    failed = failures(caption)
    is_ = state(caption)
    return {
        "row": caption.row,
        "caption": caption.text,
        "type": caption.type,
        "status": "failed" if failed else "open" if detected is None else "done",
        "memorized": None if is_ is None or unseen(caption) else is_ == "memorized",
        "state": is_,
        "standing": standing(caption),
        "score": _round(caption.score),
        "tau": _round(None if detected is None else detected.tau),
        "p": _significant(caption.p),
        "q": _significant((q or {}).get(caption.id)),
        "same_seed": _round(None if found is None else found.score_after),
        "reached": None if found is None else found.reached,
        "neurons": None if found is None else len(neurons),
        "layers": neurons.to_json() or None,
        "fresh_score_before": checked.score_before,
        "fresh_score_after": checked.score_after,
        "fresh_same_seed": checked.same_seed,
        **{name: getattr(checked, name) for name in VERIFIED},
        **tried_columns(verdicts(caption, bases or {}).get(OFF, {})),
        "checked_with": whose_neurons(caption),
        "impact": None if found is None else found.impact,
        "evaluations": evaluations_of(caption),
        "seconds": round(caption.seconds, 3),
        "error": "; ".join(f"{stage}: {reason}" for stage, reason in failed.items()) or None,
    }


def in_writing(layers: Mapping[str, Iterable[int]]) -> str:
    """Neurons as the text of a CSV cell.

    >>> in_writing({"down": [1, 2], "mid": [5]})
    'down: 1 2; mid: 5'
    """
    return "; ".join(f"{name}: {' '.join(map(str, idx))}" for name, idx in layers.items())


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _significant(value: float | None) -> float | None:
    """The value rounded to four significant digits, so that small p-values stay distinct."""
    return None if value is None else float(f"{value:.4g}")


_OVER = (
    "SELECT caption FROM results WHERE stage = 'detect' AND status = 'done' AND"
    " json_extract(payload, '$.memorized')"
)


def _failed(run: Run) -> str:
    """SQL for the captions on which a stage of the audit failed (`standing.failures`)."""
    digests = (run.meta("union") or {"digests": ()})["digests"]
    stages = (*STAGES, *(f"union:{digest}" for digest in digests[-1:]))
    return f"SELECT caption FROM results WHERE status = 'failed' AND stage IN {stages}"


def counts(run: Run, of: str = "SELECT id FROM captions") -> dict[str, int]:
    """Numbers of captions of a run: all, memorized, suspected (`standing.state`), `unseen` and
    failed.

    `unseen`: suspected ones without a looked-at image. Captions under the threshold are counted by
    the database. `of`: SQL for the ids to count; `ASKED` for those that were asked for.
    """
    ((captions, failed),) = run.query(
        f"SELECT (SELECT COUNT(*) FROM ({of})), (SELECT COUNT(*) FROM ({_failed(run)} INTERSECT"
        f" {of}))"
    )
    over = (number for (number,) in run.query(f"{_OVER} INTERSECT {of}"))
    states: Counter[str | None] = Counter()
    for caption in run.captions(over):
        states.update([state(caption), *(["unseen"] if unseen(caption) else [])])
    return {
        "captions": captions,
        "memorized": states["memorized"],
        "suspected": states["suspected"],
        "unseen": states["unseen"],
        "failed": failed,
    }


def any_failed(run: Run, numbers: Mapping[str, int]) -> bool:
    """Whether a caption of `numbers` (`counts`) or the quality check of a run failed."""
    return bool(numbers["failed"] or (run.meta("quality") or {}).get("failed"))


def any_memorized(run: Run, numbers: Mapping[str, int]) -> bool:
    """Whether a caption of `numbers` (`counts`) is memorized, or suspected without a looked-at
    image; in a fine-tune, whether the main model copies a training picture.
    """
    about = training_of(run)
    if about is not None:
        return copies_in(about)
    return bool(numbers["memorized"] or numbers["unseen"])


ASKED = "SELECT caption FROM asked"


def captions_to_show(run: Run, others: int = 8) -> list[Caption]:
    """Requested captions to show in a summary: those over the threshold, failed ones, and a few
    `others`.
    """
    rest = (
        f"SELECT caption FROM asked WHERE caption NOT IN ({_striking(run)}) ORDER BY position"
        " LIMIT ?"
    )
    known = f"SELECT caption FROM ({_striking(run)}) INTERSECT {ASKED}"
    numbers = run.query(f"{known} UNION SELECT caption FROM ({rest})", (others,))
    return list(run.captions(number for (number,) in numbers))


def striking(run: Run) -> list[Caption]:
    """The captions of a run that are over the threshold or failed."""
    return list(run.captions(number for (number,) in run.query(_striking(run))))


def _striking(run: Run) -> str:
    """SQL for the ids of `striking`."""
    return f"{_OVER} UNION {_failed(run)}"


def summary(run: Run, fdr: float | None = None) -> dict[str, Any]:
    """The run as one JSON object: settings, counts, all neurons, quality, one row a caption, and
    the list at a false discovery rate.

    `fdr`: level of the list, by default the run's own; without any there is no list.
    """
    return _about(run, fdr) | {"results": list(_rows(run))}


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    q = q_values(p_values(run))
    bases = run.meta("bases")
    return (row(c, q, bases) for c in each_caption(run))


def _about(run: Run, fdr: float | None = None) -> dict[str, Any]:
    """The summary without its rows."""
    settings = run.meta("settings")
    optional = {name: run.meta(name) for name in ("attempts", "attack", "hardened")}
    if (listed := list_of(run, fdr)) is not None:
        optional["discoveries"] = listed.to_json()
    if (truth := truth_of(run, run.captions())) is not None:
        optional["truth"] = truth.to_json()
    if (training := run.meta("training")) is not None:
        optional["training"] = training
    return {
        "source": run.meta("source"),
        "settings": {name: value for name, value in settings.items() if name != "identity"},
        "sampler": sampler_of(settings),
        "versions": run.meta("versions"),
        **counts(run),
        "neurons": all_neurons(run.captions(stage="localize")).to_json(),
        "checked": sentence_on_union(list(run.captions(stage="verify"))),
        "quality": run.meta("quality"),
        **{name: value for name, value in optional.items() if value is not None},
    }


def write_results(run: Run) -> tuple[Path, Path]:
    """Write results.csv and results.json into the run directory, row by row; return their paths."""
    csv_path = run.path / "results.csv"
    json_path = run.path / "results.json"
    with atomic_write(csv_path) as part, part.open("w", newline="", encoding="utf-8") as file:
        _write_csv(file, _rows(run))
    with atomic_write(json_path) as part, part.open("w", encoding="utf-8") as file:
        _write_json(file, _about(run), _rows(run))
    return csv_path, json_path


def _write_csv(file: IO[str], rows: Iterator[dict[str, Any]]) -> None:
    first = next(rows, None)
    writer = csv.DictWriter(file, fieldnames=["caption"] if first is None else list(first))
    writer.writeheader()
    if first is not None:
        writer.writerows(_cells(r) for r in chain([first], rows))


def _write_json(file: IO[str], about: dict[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """Write the object with `rows` under the name `results`, as `json.dumps` with an indent of 1
    would.
    """
    file.write(
        json.dumps(about, indent=1, ensure_ascii=False).removesuffix("\n}") + ',\n "results": ['
    )
    between = "\n"
    for one in rows:
        # captions may hold other line separators, but no raw line feed
        text = json.dumps(one, indent=1, ensure_ascii=False).replace("\n", "\n  ")
        file.write(f"{between}  {text}")
        between = ",\n"
    file.write("]\n}\n" if between == "\n" else "\n ]\n}\n")


def _cells(values: dict[str, Any]) -> dict[str, Any]:
    """A row as cells. Captions are untrusted: a spreadsheet must not take one for a formula.

    Reading the file as a table of captions removes the marks.
    """
    texts = {k: in_writing(v) if isinstance(v, dict) else v for k, v in values.items()}
    return {k: marked(v) if isinstance(v, str) else v for k, v in texts.items()}
