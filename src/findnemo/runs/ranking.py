"""Put the captions of a table in the order in which to look at them: the likeliest memories first.

The table may have any length. It is read once, and only the likeliest captions are kept. Others are
drawn at random among them, to estimate how many memories remain in the part that nobody looks at.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from findnemo.errors import DamageError, MismatchError, NumericalError
from findnemo.files.shapes import as_type
from findnemo.files.sizes import TENSOR_BYTES, within_size
from findnemo.files.writing import atomic_write
from findnemo.prompts import Prompt
from findnemo.runs.store import Run
from findnemo.stats.intervals import clopper_pearson

RANKING = "ranking.json"  # file in a run: the order of its table
CHUNK = 2048  # captions that are encoded together
SAVE_EVERY = 16  # chunks
DRAWN = 10  # one caption in so many is drawn at random

Score = Callable[[Sequence[str]], Iterable[float]]


@dataclass(frozen=True, order=True)
class Ranked:
    """A caption of a table with its likelihood `value` and its random place `chance`, from 0 to 1.

    `chance` is a function of the text. `drawn`: it was drawn at random, not for its likelihood.
    """

    value: float
    chance: float
    prompt: Prompt = field(compare=False)
    drawn: bool = field(default=False, compare=False)

    def to_json(self) -> list[Any]:
        return [self.value, self.chance, asdict(self.prompt)]

    @classmethod
    def from_json(cls, values: tuple[float, float, Prompt]) -> Ranked:
        return cls(*values)


class _RankingFile(TypedDict):
    """The file of a `Ranking`."""

    key: str
    most: int
    captions: int
    digest: str
    likely: list[tuple[float, float, Prompt]]
    drawn: list[tuple[float, float, Prompt]]


@dataclass
class Ranking:
    """What is known about a table so far.

    `most`: captions kept of each kind: `likely` ones (a heap, the least likely first) and `drawn`
    ones (a heap, the last in the random order first). `captions`: rows read. `digest`: of those
    rows, to recognize a continuation.
    """

    key: str
    most: int
    captions: int = 0
    digest: str = ""
    likely: list[tuple[float, float, Ranked]] = field(default_factory=list)
    drawn: list[tuple[float, float, Ranked]] = field(default_factory=list)

    def take(self, prompts: Sequence[Prompt], values: Iterable[float]) -> None:
        """Take the next captions of the table, with the likelihood of each."""
        known = {one.prompt.text for heap in (self.likely, self.drawn) for *_, one in heap}
        for prompt, value in zip(prompts, values, strict=True):
            if prompt.text in known:
                continue
            one = Ranked(float(value), chance_of(prompt.text), prompt)
            known.add(prompt.text)
            _keep(self.likely, (one.value, -one.chance, one), self.most)
            _keep(self.drawn, (-one.chance, one.value, one), self.most)
        self.captions += len(prompts)
        self.digest = digest_of(self.digest, prompts)

    def distinct(self) -> int:
        """The number of different captions read: `captions` without repeated rows.

        It is exact if all captions are kept. Otherwise it is estimated from the smallest random
        places (the k-th smallest of N is k / (N + 1) on average; Bar-Yossef et al. 2002), unless
        they give no sign of repeats.
        """
        if len(self.drawn) < self.most:
            return len(self.drawn)
        estimate = (self.most - 1) / max(-self.drawn[0][0], 2**-48)
        no_sign = self.captions <= estimate * (1 + 3 / math.sqrt(self.most))
        return self.captions if no_sign else max(round(estimate), len(self.drawn))

    def order(self, every: int = DRAWN) -> list[Ranked]:
        """At most `most` captions: the likeliest first, with a randomly drawn one as every
        `every`-th.

        `every`=0: none drawn at random. The order for a smaller `most` is a prefix of this one.
        """
        likely = (one for *_, one in sorted(self.likely, reverse=True))
        drawn = (one for *_, one in sorted(self.drawn, reverse=True))
        taken: set[str] = set()
        order: list[Ranked] = []
        while len(order) < self.most:
            by_chance = every > 0 and len(order) % every == every - 1
            source = drawn if by_chance else likely
            found = next((one for one in source if one.prompt.text not in taken), None)
            if found is None:
                break
            taken.add(found.prompt.text)
            order.append(Ranked(found.value, found.chance, found.prompt, by_chance))
        return order

    def save(self, path: Path) -> None:
        kept = {
            "key": self.key,
            "most": self.most,
            "captions": self.captions,
            "digest": self.digest,
            "likely": [one.to_json() for *_, one in self.likely],
            "drawn": [one.to_json() for *_, one in self.drawn],
        }
        with atomic_write(path) as part:
            part.write_text(json.dumps(kept) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path, key: str, most: int) -> Ranking:
        """Read what `save` wrote for the same scores and at least `most` captions; else start
        afresh.
        """
        if not path.exists():
            return cls(key, most)
        try:
            stored = json.loads(within_size(path, TENSOR_BYTES).read_text(encoding="utf-8"))
            kept: _RankingFile = as_type(_RankingFile, stored)
        except (OSError, ValueError, RecursionError) as error:
            raise DamageError(
                f"{path} is not an order of captions ({error!s:.200}): remove it, and it is made"
                " again"
            ) from error
        if kept["key"] != key or kept["most"] < most:
            return cls(key, most)
        likely = [Ranked.from_json(one) for one in kept["likely"]]
        drawn = [Ranked.from_json(one) for one in kept["drawn"]]
        found = cls(key, kept["most"], kept["captions"], kept["digest"])
        found.likely = [(one.value, -one.chance, one) for one in likely]
        found.drawn = [(-one.chance, one.value, one) for one in drawn]
        for heap in (found.likely, found.drawn):
            heapq.heapify(heap)
        return found


def _keep(
    heap: list[tuple[float, float, Ranked]], one: tuple[float, float, Ranked], most: int
) -> None:
    if len(heap) < most:
        heapq.heappush(heap, one)
    else:
        heapq.heappushpop(heap, one)


def chance_of(text: str) -> float:
    """The place of a caption in a random order that follows from its text.

    >>> 0 <= chance_of("a cat") < 1, chance_of("a cat") == chance_of("a cat")
    (True, True)
    """
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "big") / 2**48


def digest_of(digest: str, prompts: Iterable[Prompt]) -> str:
    """The digest of the captions read so far, extended by those of one more chunk."""
    state = hashlib.sha256(digest.encode())
    for prompt in prompts:
        state.update(prompt.text.encode("utf-8", "surrogatepass") + b"\0")
    return state.hexdigest()


def rank_table(
    path: Path,
    key: str,
    table: Iterable[Prompt],
    score: Score,
    most: int,
    progress: Callable[[int], None] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> Ranking | None:
    """Read a table to its end and rank it; None if `stop` ended it early.

    Progress is kept in the file `path`, and the same call resumes after an interruption. `key`:
    identity of what `score` depends on. Raises MismatchError if the table is not the one that was
    begun.
    """
    ranking = Ranking.load(path, key, most)
    done = ranking.captions
    seen = 0
    digest = ""
    try:
        for number, chunk in enumerate(_chunks(table)):
            seen += len(chunk)
            digest = digest_of(digest, chunk)
            if (seen == done and digest != ranking.digest) or seen > done > seen - len(chunk):
                raise MismatchError(
                    f"{path} is the order of another table, of which {done} captions were read:"
                    " give that table, or another --out"
                )
            if seen <= done:
                continue
            if stop():
                ranking.save(path)
                return None
            ranking.take(chunk, _finite(chunk, score([prompt.text for prompt in chunk])))
            progress(ranking.captions)
            if number % SAVE_EVERY == SAVE_EVERY - 1:
                ranking.save(path)
    except MismatchError:
        raise
    except BaseException:
        ranking.save(path)
        raise
    if seen < done:
        raise MismatchError(f"the table has {seen} captions, {done} were read of it before")
    ranking.save(path)
    return ranking


def _finite(chunk: Sequence[Prompt], values: Iterable[float]) -> list[float]:
    found = [float(value) for value in values]
    for prompt, value in zip(chunk, found, strict=True):
        if not math.isfinite(value):
            raise NumericalError(
                f"the text encoder gives no numbers for row {prompt.row} ({prompt.text!r:.60}): check"
                " the checkpoint, or load it with dtype float32"
            )
    return found


def _chunks(table: Iterable[Prompt]) -> Iterator[tuple[Prompt, ...]]:
    rows = iter(table)
    while chunk := tuple(islice(rows, CHUNK)):
        yield chunk


# the budget ---------------------------------------------------------------------------------------


class Meter:
    """Counts the U-Net sample evaluations of detection in a run.

    Each call reads only what was committed since the last one.
    """

    def __init__(self, run: Run):
        self.run = run
        self.last = 0
        self.total = 0

    def __call__(self) -> int:
        sql = (
            "SELECT max(rowid), sum(json_extract(payload, '$.evaluations')) FROM results WHERE"
            " rowid > ? AND stage = 'detect' AND status = 'done'"
        )
        last, more = self.run.query(sql, (self.last,))[0]
        self.last = self.last if last is None else int(last)
        self.total += int(more or 0)
        return self.total


@dataclass(frozen=True)
class Remainder:
    """What is known about a table of which only a part was looked at.

    `captions`: in the table. `looked`: captions looked at. `found`: those of them over tau. `left`:
    estimate of how many the rest holds, with `low` and `high` (95 %); None if none of the rest was
    drawn at random.
    """

    captions: int
    looked: int
    found: int
    left: float | None = None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def what_is_left(
    order: Sequence[Ranked], memorized: Mapping[str, bool | None], captions: int
) -> Remainder:
    """Estimate how many captions over tau remain in the part of a table that was not looked at.

    `order`: from `Ranking.order`. `memorized`: caption -> whether it is memorized, of those looked
    at; None where detection failed. `captions`: number of different captions in the table
    (`Ranking.distinct`). Captions behind the first that was not looked at do not count: an earlier
    run may have looked at them in another order.

    Let v be the likelihood of the last caption that was chosen for its likelihood. All likelier
    captions were looked at. Of the R others, those drawn at random are a random sample: s of them,
    x over tau. So on average x / s of the rest are over tau. The interval is Clopper and Pearson's,
    for x of s. It makes no assumption about the order.

    >>> prompts = [Prompt(f"caption {k}", k) for k in range(6)]
    >>> order = [Ranked(9 - k, 0.1, p, k % 3 == 2) for k, p in enumerate(prompts)]
    >>> left = what_is_left(order, {p.text: p.row == 5 for p in prompts}, captions=101)
    >>> left.found, left.left
    (1, 95.0)
    """
    reached = takewhile(lambda one: one.prompt.text in memorized, order)
    seen = [one for one in reached if memorized[one.prompt.text] is not None]
    found = sum(bool(memorized[one.prompt.text]) for one in seen)
    likely = [one for one in seen if not one.drawn]
    border = min((_key(one) for one in likely), default=(math.inf, 0.0))
    below = [one for one in seen if _key(one) < border]
    rest = captions - len(seen)
    if rest <= 0:
        return Remainder(captions, len(seen), found, 0.0, 0.0, 0.0)
    if not below:
        return Remainder(captions, len(seen), found)
    hits = sum(bool(memorized[one.prompt.text]) for one in below)
    low, high = clopper_pearson(hits, len(below))
    return Remainder(
        captions, len(seen), found, rest * hits / len(below), max(rest * low, 0.0), rest * high
    )


def _key(one: Ranked) -> tuple[float, float]:
    return one.value, -one.chance


def left_told(about: Remainder, budget: int, used: int) -> str:
    """What was found within a budget, in a sentence or two.

    >>> left_told(Remainder(1000, 100, 7, 3.4, 0.1, 20.2), 300, 310)
    'Of 1000 captions 100 were looked at, in 310 of 300 evaluations: 7 are over the threshold. The others hold about 3 more (95 %: 0 to 21).'
    """
    text = (
        f"Of {about.captions} captions {about.looked} were looked at, in {used} of {budget}"
        f" evaluations: {about.found} are over the threshold."
    )
    if about.left is None or about.low is None or about.high is None:
        return (
            f"{text} How many the others hold cannot be said: too few of them were drawn by chance."
        )
    if about.looked >= about.captions:
        return text
    return (
        f"{text} The others hold about {about.left:.0f} more (95 %: {about.low:.0f} to"
        f" {about.high + 0.5:.0f})."
    )
