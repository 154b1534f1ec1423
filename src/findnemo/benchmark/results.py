"""Results of the benchmark as a file that grows while it is made, and that others can add to.

{"format": "findnemo.benchmark.1", "suite": 1, "made": {...}, "members": {NAME: {...}}, "results": [{...}, ...]}
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from findnemo._version import __version__
from findnemo.benchmark.member import Member
from findnemo.benchmark.plan import SUITE_VERSION
from findnemo.benchmark.scoring import Alarm, Score, captions, from_json, to_json
from findnemo.errors import InputError

FORMAT = "findnemo.benchmark.1"
PUBLISHED = Path(__file__).parent / "results" / f"suite-{SUITE_VERSION}.json"


@dataclass(frozen=True)
class Results:
    """Scores and alarms of any members and methods. `members`: name -> fingerprint, number of memories and of those that were learned, tau.
    `made`: when and with which versions."""

    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    results: tuple[Score | Alarm, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> list[Score]:
        return [r for r in self.results if isinstance(r, Score)]

    @property
    def alarms(self) -> list[Alarm]:
        return [r for r in self.results if isinstance(r, Alarm)]

    def done(self) -> set[tuple[str, str, str]]:
        """(member, method, caption) of every result."""
        return {(r.member, r.method, r.caption) for r in self.results}

    def with_member(self, member: Member) -> Results:
        """With what is known of a member; results of another model of that name are dropped."""
        about = about_member(member)
        same = self.members.get(member.name, {}).get("fingerprint") == about["fingerprint"]
        kept = self.results if same else tuple(r for r in self.results if r.member != member.name)
        return Results({**self.members, member.name: about}, kept, self.made)

    def plus(self, more: Iterable[Score | Alarm]) -> Results:
        return Results(self.members, (*self.results, *more), self.made or made())

    def only(self, members: Iterable[str]) -> Results:
        wanted = set(members)
        return Results(
            {n: m for n, m in self.members.items() if n in wanted},
            tuple(r for r in self.results if r.member in wanted),
            self.made,
        )

    def over(self, other: Results) -> Results:
        """These and, of members that are not among these, the other's."""
        rest = other.only(set(other.members) - set(self.members))
        return Results({**rest.members, **self.members}, (*rest.results, *self.results), self.made or other.made)

    def save(self, path: str | os.PathLike) -> None:
        """One line a result; under a temporary name first."""
        path = Path(path)
        lines = ",\n".join(json.dumps(to_json(r), ensure_ascii=False) for r in self.results)
        head = {"format": FORMAT, "suite": SUITE_VERSION, "made": dict(self.made), "members": dict(self.members)}
        text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}") + ',\n "results": [\n' + lines + "\n]}\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Results:
        """Raises InputError for anything else than a results file of this version of the suite."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if (values["format"], values["suite"]) != (FORMAT, SUITE_VERSION):
                raise ValueError(f"format {values['format']!r}, suite {values['suite']!r}")
            return cls(values["members"], tuple(from_json(r) for r in values["results"]), values["made"])
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} holds no results of suite {SUITE_VERSION} ({FORMAT}): {error}") from error


def published() -> Results:
    """The results that come with findnemo."""
    return Results.load(PUBLISHED)


def about_member(member: Member) -> dict[str, Any]:
    learned, near, unusual = captions(member)
    return {
        "fingerprint": member.model.fingerprint,
        "seed": member.plan.seed,
        "tau": round(member.calibration.tau, 4),
        "memories": len(member.plan.memories),
        "learned": len(learned),
        "negatives": len(near) + len(unusual),
    }


def made() -> dict[str, Any]:
    """Date and versions."""
    import diffusers
    import torch

    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "findnemo": __version__,
        "torch": torch.__version__.split("+")[0],
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def kinds(results: Results) -> Iterator[str]:
    """Kinds of memories, in the order in which they occur."""
    yield from dict.fromkeys(s.kind for s in results.scores)
