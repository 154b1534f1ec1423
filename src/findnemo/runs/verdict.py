"""The verdict on a run in a few sentences, the same in every face: what is not gone comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from findnemo.calibration import Calibration
from findnemo.runs.overview import memorized, value_layers
from findnemo.runs.standing import (
    WORDS,
    all_neurons,
    judged,
    seen,
    standing,
    state,
    switched_off,
    unseen,
)
from findnemo.runs.store import Caption, Run
from findnemo.stats.rates import holdout_needed

TROUBLE = [word for word, entry in WORDS.items() if entry.clause]
ALL = "SELECT id FROM captions"
_DETECTED = "SELECT caption FROM results WHERE stage = 'detect' AND status = 'done'"
RATE = 0.01  # the smallest p-value that tells; fewer hold-out captions than it takes are told of


class Verdict(NamedTuple):
    """`tone`: "good", "mixed", "bad" or "open"."""

    tone: str
    text: str


def verdict_of(run: Run, captions: Sequence[Caption], of: str = ALL) -> Verdict:
    """The verdict on the captions `of` a run (SQL for their ids); `captions` are at least those of
    them that are over the threshold.

        with Run.open("run") as run:
            print(verdict_of(run, list(run.captions())).text)
    """
    ((total, audited),) = run.query(
        f"SELECT (SELECT COUNT(*) FROM ({of})), (SELECT COUNT(*) FROM ({_DETECTED} INTERSECT {of}))"
    )
    if (run.path / "calibration" / "calibration.json").is_file():
        holdout = len(Calibration.load(run.path / "calibration").trajectories)
        neurons = sum(value_layers(run, captions).values())
    else:  # of an older findnemo, or moved without it
        holdout, neurons = 0, sum((run.meta("widths") or {}).values())
    return verdict(captions, neurons, holdout, audited, total - audited)


def verdict(
    captions: Sequence[Caption], neurons: int, holdout: int, audited: int, rest: int = 0
) -> Verdict:
    """The verdict on captions, of which `audited` were looked at, and a `rest` failed or is open.

    `captions`: those over the threshold, and others. `neurons`: of the value layers that are shown.
    `holdout`: scores that p-values come from; 0 where there are none.

    >>> under = {"memorized": False, "score": 0.1, "tau": 0.4}
    >>> verdict([Caption(1, "a cat", 1, None, None, {"detect": under}, {}, 0.1)], 8, 99, 1).text
    'None of the 1 caption looked at reaches the threshold on the seeds that were tried.'
    """
    memories = memorized(captions)
    if not audited:
        return Verdict("open", "No caption has been looked at yet.")
    doubts = _doubts(captions, holdout)
    if not memories:
        return _without_memories(captions, audited, rest, doubts)
    kinds = Counter(map(standing, memories))
    gone = kinds["gone"]
    bad = [f"{n} {WORDS[kind].clause}" for kind in TROUBLE if (n := kinds[kind])]
    of = f" of {neurons:,}" if neurons else ""
    price = f"with {len(all_neurons(captions)):,}{of} neurons switched off"
    if not bad:
        what = f"All {gone} memories are" if gone > 1 else "The one memory found is"
        lines = (f"{what} gone on the fresh seeds that were tried, {price}.", *doubts)
        return Verdict("good", " ".join(lines))
    start = f"Of {count(len(memories), 'memorized caption')}, {joined(bad)}"
    if not gone:
        return Verdict("bad", " ".join((f"{start}.", *doubts)))
    end = (
        f"{count(gone, 'memory')} {'is' if gone == 1 else 'are'} gone on the fresh seeds that were"
        " tried"
    )
    return Verdict("mixed", " ".join((f"{start}; {end}, {price}.", *doubts)))


def _without_memories(
    captions: Sequence[Caption], audited: int, rest: int, doubts: Sequence[str]
) -> Verdict:
    more = f" ({rest} more failed or are open)" if rest else ""
    if any(unseen(c) for c in captions):
        start = f"None of the {count(audited, 'caption')} looked at is known to be a memory{more}."
        return Verdict("open", " ".join((start, *doubts)))
    none = (
        "is memorized as far as its images tell"
        if doubts
        else "reaches the threshold on the seeds that were tried"
    )
    start = f"None of the {count(audited, 'caption')} looked at {none}{more}."
    return Verdict("open" if rest else "good", " ".join((start, *doubts)))


def _doubts(captions: Sequence[Caption], holdout: int) -> list[str]:
    """Sentences on captions over the threshold of which no copy was seen: those whose images are
    none, and those of which none was looked at.
    """
    suspected = [c for c in captions if state(c) == "suspected"]
    cleared = [c for c in suspected if seen(c) is False]
    open_ = [c for c in suspected if unseen(c)]
    lines = []
    if cleared:
        are, their, them = ("is", "its", "it") if len(cleared) == 1 else ("are", "their", "them")
        lines.append(
            f"{len(cleared)} {are} over the threshold and only suspected{_p(cleared)}: {their}"
            f" images are no copies, and nothing is switched off for {them}."
        )
    if open_:
        are, their = ("is", "its") if len(open_) == 1 else ("are", "their")
        lines.append(
            f"{len(open_)} {are} over the threshold and suspected{_p(open_)}: none of {their}"
            " images was looked at."
        )
        lines += _of_scores(open_)
    if suspected and 0 < holdout < holdout_needed(1, RATE):
        lines.append(f"With {holdout} hold-out captions no p-value is under 1/{holdout + 1}.")
    return lines


def _of_scores(captions: Sequence[Caption]) -> list[str]:
    """What became of the scores of captions whose neurons are off though no image was looked at."""
    off = [c for c in captions if len(switched_off(c))]
    if not off:
        return []
    back = sum(standing(c) == "back" for c in off)
    checked = [c for c in off if (v := judged(c)) is not None and v.same_seed is not None]
    number = len(all_neurons(off))
    are = "is" if number == 1 else "are"
    text = f"{count(number, 'neuron')} {are} switched off for {len(off)} of them all the same"
    if checked:
        text += (
            f"; on fresh seeds the noise differences of {back} of {len(checked)} still resemble"
            " those before"
        )
    return [f"{text}."]


def _p(captions: Sequence[Caption]) -> str:
    """The p-values of captions, in brackets; empty where there are none."""
    values = sorted(c.p for c in captions if c.p is not None)
    if not values:
        return ""
    low, high = f"{values[0]:.2g}", f"{values[-1]:.2g}"
    return f" (p = {low})" if low == high else f" (p = {low} to {high})"


def joined(parts: Sequence[str]) -> str:
    """
    >>> joined(["one"]), joined(["one", "two", "three"])
    ('one', 'one, two and three')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def count(amount: int, what: str) -> str:
    """
    >>> count(1, "neuron"), count(2000, "memory")
    ('1 neuron', '2,000 memories')
    """
    if amount != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{amount:,} {what}"
