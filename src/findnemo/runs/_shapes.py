"""What a run's database may hold. It may come from somebody else: every value is looked at before anything is done with it.

A value is told by a kind (below); a mapping by a table of names and kinds. A name that is not in the table may have any value, since newer
versions and studies add theirs; a kind in `Maybe` may be missing or None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from findnemo.errors import InputError
from findnemo.neurons import NeuronSet

LONGEST = 64 << 20  # characters of one stored value
LARGEST = 1e9  # no figure of a run is larger
Kind = Callable[[Any], bool]


@dataclass(frozen=True)
class Maybe:
    """A value that may be missing, or None."""

    kind: Any


def text(value: Any) -> bool:
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def number(value: Any) -> bool:
    """A finite figure of an ordinary size."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) <= LARGEST
    )


def deviation(value: Any) -> bool:
    """A z-score: infinite for a neuron that never varied on hold-out captions."""
    return number(value) or (isinstance(value, float) and not math.isnan(value))


def count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def neurons(value: Any) -> bool:
    try:
        return (
            all(map(text, value))
            and all(isinstance(i, list) for i in value.values())
            and NeuronSet(value) is not None
        )
    except (InputError, TypeError, AttributeError):
        return False


def each(kind: Any) -> Kind:
    """A mapping from names to values of one kind."""
    return lambda value: (
        isinstance(value, dict) and all(text(n) and _is(kind, v) for n, v in value.items())
    )


def many(kind: Any) -> Kind:
    """A list of values of one kind."""
    return lambda value: isinstance(value, list) and all(_is(kind, v) for v in value)


def anything(value: Any) -> bool:
    return True


def row(*kinds: Any) -> Kind:
    """A list with one value of each kind."""
    return lambda value: (
        isinstance(value, list) and len(value) == len(kinds) and all(map(_is, kinds, value))
    )


DETECTED = {
    "memorized": flag,
    "score": number,
    "tau": Maybe(number),
    "evaluations": Maybe(count),
    "samples": Maybe(count),
}
LOCALIZED = {
    **{
        "neurons": neurons,
        "candidates": Maybe(neurons),
        "z": Maybe(each(deviation)),
        "reached": flag,
        "memorized": Maybe(flag),
    },
    **{
        "score_before": number,
        "score_after": number,
        "tau": Maybe(number),
        "evaluations": Maybe(count),
    },
    **{
        "copy_before": Maybe(number),
        "order": Maybe(many(row(text, count))),
        "points": Maybe(many(row(count, number, Maybe(number)))),
    },
    "diagnosis": Maybe(
        {"sentence": text, **dict.fromkeys(("left", "kept", "words"), each(number))}
    ),
}
VERIFIED = {
    **{
        "same_seed": Maybe(number),  # missing where no fresh seed replicates
        "replicating": Maybe(count),
        "score_before": Maybe(number),
        "score_after": Maybe(number),
        "neurons": Maybe(neurons),
        "grown": Maybe(count),
    },
    **{"z": Maybe(each(deviation))},
    **dict.fromkeys(
        ("sscd_gen", "sscd_orig_before", "sscd_orig_after", "d_sscd_before", "d_sscd_after"),
        Maybe(number),
    ),
    **dict.fromkeys(
        ("a_clip_before", "a_clip_after", "copies_before", "copies_after"), Maybe(number)
    ),
}
COMPARED = {
    "images": count,
    **dict.fromkeys(
        ("copies", "sscd_gen", "sscd_orig", "d_sscd", "a_clip", "neurons"), Maybe(number)
    ),
}
BY_STEP: Kind = lambda value: each(many(number))(value) and all(step.isdecimal() for step in value)  # noqa: E731
TRIED = {"basis": text, "known": flag}
STAGES: dict[str, Mapping[str, Any]] = {
    **{"detect": DETECTED, "localize": LOCALIZED, "listing": LOCALIZED, "verify": VERIFIED},
    **{
        "compare:": COMPARED,
        "detect:": {"value": number, "evaluations": count, "seconds": number},
    },  # and a name
    **{
        "attack:": {**TRIED, "curves": each(BY_STEP)},
        "attempts:": {**TRIED, "closeness": each(many(number))},
    },
}
CALIBRATED = {
    **{
        "variant": text,
        "similarity": text,
        "samples": count,
        "timestep": count,
        "steps": count,
        "seed": Maybe(number),
    },
    **{"guidance": Maybe(number), "pairs": Maybe(text)},
}
FINISHED = {"steps": count, "guidance": number, "seed": Maybe(number), "sampler": Maybe(text)}
AUDIT = {  # settings of an audit; a run of detectors has the first three only
    **{
        "model": text,
        "identity": Maybe(each(each(anything))),
        "dtype": text,
        "image_settings": FINISHED,
    },
    **{
        "calibration": CALIBRATED,
        "tau": number,
        "search": text,
        "images": count,
        "judges": each(text),
        "grow": Maybe(flag),
    },
    "screen": Maybe({"below": number, "samples": count}),
    **{
        "fdr": Maybe(number),
        "consensus": Maybe(count),
        "max_impact": Maybe(number),
        "unrelated": Maybe(many(text)),
        "shard": Maybe(text),
    },
}
DETECTORS = {name: AUDIT[name] for name in ("model", "dtype", "image_settings")}
CHANGES = dict.fromkeys(
    ("pixel_change", "sscd_gen", "a_clip_before", "a_clip_after"), Maybe(number)
)
QUALITY = {
    "prompts": count,
    "failed": count,
    "neurons": count,
    **CHANGES,
    "each": Maybe(many(CHANGES | {"pixel_change": number})),
}
PAIR, BAND, POINT = (
    row(number, number),
    row(number, number, number),
    row(number, number, Maybe(number), Maybe(number)),
)
SHARE = dict.fromkeys(("images", "captions", "n", "low", "high"), number)
META: dict[str, Any] = {
    **{
        "schema": anything,
        "source": Maybe(text),
        "source_options": Maybe(each(text)),
        "versions": Maybe(each(text)),
    },
    **{
        "folder": Maybe(text),
        "detectors": Maybe(many(text)),
        "holdout:": Maybe(each(number)),
        "quality": Maybe(QUALITY),
    },
    **{"preprocessing": Maybe(each(each(anything))), "settings": Maybe(each(anything))},
    "attack": Maybe(
        {
            **{"x": text, "y": text, "n": count, "known": Maybe(count), "curves": each(many(PAIR))},
            **{"bands": Maybe(each(many(BAND))), "gaps": Maybe(each(many(POINT)))},
        }
    ),
    **{
        "table": Maybe({"captions": count, "digest": text, "group": count}),
        "merged": Maybe({"shards": many(text), "missing": many(text)}),
    },
    **{
        "attempts": Maybe({"columns": many(text), "table": each(each(SHARE))}),
        "bases": Maybe(each(text)),
    },
    "hardened_from": Maybe(text),
    "listed": Maybe(many(count)),
    "pictures": Maybe(each(each(anything))),
    "hardened": Maybe({"prompts": count, "images": count, "quality": each(each(many(number)))}),
}


def payload(stored: Any, where: str) -> dict[str, Any]:
    """The result of a stage as it is stored: an object. Raises InputError naming `where`."""
    value = parsed(stored, where)
    if not isinstance(value, dict):
        raise _damaged(where, "no object")
    return value


def kinds(stage: str) -> Mapping[str, Any]:
    return STAGES.get(stage, STAGES.get(stage.partition(":")[0] + ":", {}))


def require(value: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Raises InputError naming what is missing of what a face shows, or of another kind."""
    for name, kind in known.items():
        if not (_is(kind, value[name]) if name in value else isinstance(kind, Maybe)):
            raise _damaged(
                where, f"{name!r} is {'of another kind' if name in value else 'missing'}"
            )


def answer(row: tuple[Any, ...], where: str) -> tuple[str, str, float, dict[str, Any]]:
    """A row of results as it is stored, with its payload. Raises InputError naming `where` and what is wrong."""
    stage, status, seconds, stored = row
    if not (text(stage) and status in ("done", "failed") and number(seconds)):
        raise _damaged(where, "stage, status or seconds are of another kind")
    if status == "done":
        return stage, status, seconds, payload(stored, where)
    value = parsed(stored, where)
    if not _is({"error": text}, value):
        raise _damaged(where, "a failure without its reason")
    return stage, status, seconds, value


def meta(stored: Any, key: str, where: str) -> Any:
    """A value of the run as it is stored. Raises InputError naming `where` and what is wrong."""
    value = parsed(stored, where)
    kind = META.get(key, META.get(key.partition(":")[0] + ":", anything))
    if not _is(kind, value):
        raise _damaged(where, f"{key!r} is not what a run keeps under that name")
    return value


def caption(values: Iterable[Any], where: str) -> None:
    """Raises InputError unless (id, text, row, type, image) are of their types: SQLite keeps anything in any column."""
    id_, words, row, kind, image = values
    if not (
        isinstance(id_, int)
        and text(words)
        and isinstance(row, int)
        and _is(Maybe(text), kind)
        and _is(Maybe(text), image)
    ):
        raise _damaged(where, f"caption {id_!r:.40} has columns of other types")


def parsed(stored: Any, where: str) -> Any:
    """JSON of a column. Raises InputError for anything else, and for more than LONGEST characters."""
    if not isinstance(stored, str) or len(stored) > LONGEST:
        raise _damaged(
            where,
            "a value is no text"
            if not isinstance(stored, str)
            else f"a value has over {LONGEST} characters",
        )
    try:
        return json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise _damaged(where, f"broken JSON ({error!s:.100})") from None


def _is(kind: Any, value: Any) -> bool:
    if isinstance(kind, Maybe):
        return value is None or _is(kind.kind, value)
    if isinstance(kind, Mapping):
        return isinstance(value, dict) and all(
            _is(k, value[n]) if n in value else isinstance(k, Maybe) for n, k in kind.items()
        )
    return bool(kind(value))


def _damaged(where: str, what: str) -> InputError:
    return InputError(
        f"{where} is damaged or not made by findnemo: {what}; take another --out, or a copy of the run"
    )
