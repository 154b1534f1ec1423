"""Put captions in the order in which to look at them: `--budget`, `--like`."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from findnemo.calibration import Calibration
from findnemo.detection import Drives, Unusual
from findnemo.detection.by_text import require_ordinary, require_text_alone
from findnemo.errors import InputError
from findnemo.files.marks import marked
from findnemo.files.writing import atomic_write
from findnemo.neurons import NeuronSet
from findnemo.prompts import PromptTable
from findnemo.runs import Pool, Run, Serial, settings_of, switched_off
from findnemo.runs.export import in_writing
from findnemo.runs.ranking import RANKING, Meter, Ranked, Score, left_told, rank_table, what_is_left
from findnemo.runs.workers import answer_of
from findnemo.tasks.listening import Listener
from findnemo.tasks.options import Detecting

SIBLINGS = 1000  # captions to look at if there is no budget
LEAST = 2  # evaluations of a caption, at least
LIKE = "like.csv"

Memories = Mapping[str, NeuronSet]  # caption -> its neurons


def refuse_order(detecting: Detecting, shard: Any) -> None:
    """Raises InputError for an impossible budget, or for a shard."""
    if detecting.budget is not None and detecting.budget < LEAST:
        raise InputError(
            f"--budget {detecting.budget}: a caption takes {LEAST} evaluations or more"
        )
    if shard is not None and is_ordered(detecting):
        raise InputError(
            "--shard takes captions as they come, --budget and --like put the whole table in order:"
            " leave one of them out"
        )


def check_order(pool: Pool, calibration: Calibration, detecting: Detecting) -> None:
    """Raises an error if captions cannot be put in order.

    MismatchError: the run to be like is of another model. InputError: the calibration keeps no
    captions. ModelError: the text alone says nothing in this model.
    """
    if detecting.like is not None:
        Calibration.load(Path(detecting.like) / "calibration").check(pool.model)
    require_ordinary(calibration.ordinary)
    if isinstance(pool, Serial):
        require_text_alone(pool.model)


def is_ordered(detecting: Detecting) -> bool:
    return detecting.budget is not None or detecting.like is not None


def memories_of(like: str | Path) -> Memories:
    """The captions of a run whose neurons are switched off, with their neurons.

    Raises InputError for a run without any.
    """
    with Run.open(like) as run:
        settings_of(run)
        found = {c.text: switched_off(c) for c in run.captions(stage="localize")}
    memories = {text: neurons for text, neurons in found.items() if neurons}
    if not memories:
        raise InputError(
            f"{like} has found no neurons, so no caption can be like its memories: run `findnemo"
            " localize` or `findnemo audit` on it first"
        )
    return memories


def in_order(
    out: Path,
    pool: Pool,
    calibration: Calibration,
    detecting: Detecting,
    table: Any,
    listener: Listener,
) -> tuple[list[Ranked], int] | None:
    """A table in order of likelihood, and its number of different captions; None if stopped.

    `table`: from `opening.table_of`. Progress is kept in `out`.
    """
    memories = {} if detecting.like is None else memories_of(detecting.like)
    ordinary = calibration.ordinary
    most = SIBLINGS if detecting.budget is None else detecting.budget // LEAST
    rows = (prompt for prompt in islice(iter(table), table.most) if prompt.text not in memories)
    total = _rows(table)
    listener.say(f"putting {total} captions in order by their text")
    alike = [(text, neurons.to_json()) for text, neurons in memories.items()]
    about = (pool.model.fingerprint, ordinary, alike, table.most)
    found = rank_table(
        out / RANKING,
        hashlib.sha256(repr(about).encode("utf-8", "surrogatepass")).hexdigest(),
        rows,
        _score(pool, ordinary, memories),
        most,
        lambda done: listener.progress("order", done, total),
        listener.stop,
    )
    if found is None:
        return None
    # siblings are as many as requested, without randomly drawn captions
    order = found.order(0)[:most] if memories else found.order()
    return order, found.distinct()


def _rows(table: Any) -> int:
    rows = len(table) if isinstance(table, PromptTable) else table.rows - table.missing
    return rows if table.most is None else min(rows, table.most)


def _score(pool: Pool, ordinary: Sequence[str], memories: Memories) -> Score:
    """How likely captions are, computed in this process or by a worker that has the model."""
    if isinstance(pool, Serial):
        return scorer(pool.model, ordinary, memories)
    scoring = partial(_scored, ordinary=ordinary, memories=memories)
    return lambda texts: answer_of(pool, scoring, tuple(texts), "order of the captions")


def scorer(model: Any, ordinary: Sequence[str], memories: Memories) -> Drives | Unusual:
    """How strongly a caption drives the neurons of memories; without any, how unusual it is."""
    return Drives(model, memories, ordinary) if memories else Unusual(model, ordinary)


def _scored(
    model: Any, texts: Sequence[str], ordinary: Sequence[str], memories: Memories
) -> list[float]:
    return scorer(model, ordinary, memories)(texts).tolist()


def keep_order(
    run: Run,
    pool: Pool,
    calibration: Calibration,
    detecting: Detecting,
    order: Sequence[Ranked],
    captions: int,
    meter: Meter,
    listener: Listener,
) -> None:
    """After detection, keep what the budget has found, or which captions are like the memories.

    `captions`: number of different ones in the table.
    """
    detected = {c.text: c.detected for c in run.captions(stage="detect") if c.detected is not None}
    if detecting.like is not None:
        memories = memories_of(detecting.like)
        told = _likenesses(pool, calibration.ordinary, memories, order)
        _write_like(run.path / LIKE, told, order, detected)
        looked = [one for one in order if one.prompt.text in detected]
        over = sum(detected[one.prompt.text].memorized for one in looked)
        listener.say(
            f"{over} of the {len(looked)} likeliest captions are over the threshold: see"
            f" {run.path / LIKE}"
        )
        return
    memorized: dict[str, bool | None] = {
        c.text: None for c in run.captions() if "detect" in c.failed
    }
    memorized |= {text: found.memorized for text, found in detected.items()}
    left = what_is_left(order, memorized, captions)
    budget = detecting.budget or 0
    run.set_meta("budget", {"budget": budget, "spent": meter(), **left.to_json()})
    listener.say(left_told(left, budget, meter()))


def _likenesses(
    pool: Pool, ordinary: Sequence[str], memories: Memories, order: Sequence[Ranked]
) -> list[tuple[float, str, NeuronSet]]:
    texts = tuple(one.prompt.text for one in order)
    if not texts:
        return []
    driving = partial(_driven, ordinary=ordinary, memories=memories)
    found: list[tuple[float, str, NeuronSet]] = answer_of(pool, driving, texts, "likenesses")
    return found


def _driven(
    model: Any, texts: Sequence[str], ordinary: Sequence[str], memories: Memories
) -> list[tuple[float, str, NeuronSet]]:
    return Drives(model, memories, ordinary).largest_drives(texts)


def _write_like(
    file: Path,
    told: Sequence[tuple[float, str, NeuronSet]],
    order: Sequence[Ranked],
    detected: Mapping[str, Any],
) -> None:
    """Write captions from the likeliest down: the memory that each is like, the neurons it drives,
    and its score if detected.
    """
    with atomic_write(file) as part, part.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["caption", "row", "drive", "like", "neurons", "score", "over_tau"])
        for one, (drive, memory, neurons) in zip(order, told, strict=True):
            found = detected.get(one.prompt.text)
            writer.writerow(
                [
                    marked(one.prompt.text),
                    one.prompt.row,
                    round(drive, 4),
                    marked(memory),
                    in_writing(neurons.layers),
                    "" if found is None else round(found.score, 4),
                    "" if found is None else found.memorized,
                ]
            )
