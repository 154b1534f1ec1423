"""Results of the benchmark as a file that grows while it is made, and that others can add to.

{"format": "findnemo.benchmark.1", "suite": "1.1", "made": {...}, "members": {NAME: {...}},
"results": [{...}, ...]}
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from findnemo._version import __version__
from findnemo.benchmark.files import read_json
from findnemo.benchmark.natural import NaturalMember
from findnemo.benchmark.plan import SUITE_VERSION
from findnemo.benchmark.scoring import Alarm, Result, judge_of
from findnemo.benchmark.truth import Member
from findnemo.files.writing import atomic_write

FORMAT = "findnemo.benchmark.1"
PUBLISHED = Path(__file__).parent / "results"


class ResultsFile(TypedDict):
    """The content of a results file."""

    format: str
    suite: str
    made: dict[str, Any]
    members: dict[str, dict[str, Any]]
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Results:
    """Scores and alarms of any members and methods of a suite.

    `members`: name -> fingerprint, number of memories and of learned ones, tau; in joined files
    (`over`) also its own `made`. `made`: date and versions of the whole. `suite`: its version.
    """

    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    results: tuple[Result, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    suite: str = SUITE_VERSION

    @property
    def scores(self) -> list[Any]:
        return [r for r in self.results if not isinstance(r, Alarm)]

    @property
    def alarms(self) -> list[Alarm]:
        return [r for r in self.results if isinstance(r, Alarm)]

    def done(self) -> set[tuple[str, str, str]]:
        """(member, method, caption) of every result."""
        return {(r.member, r.method, r.caption) for r in self.results}

    def with_member(self, member: Member | NaturalMember) -> Results:
        """The results with facts about a member; results of another model of that name are
        dropped.
        """
        about = judge_of(member).about()
        same = self.members.get(member.name, {}).get("fingerprint") == about["fingerprint"]
        kept = self.results if same else tuple(r for r in self.results if r.member != member.name)
        return replace(self, members={**self.members, member.name: about}, results=kept)

    def plus(self, more: Iterable[Result]) -> Results:
        return replace(self, results=(*self.results, *more), made=self.made or provenance())

    def only(self, members: Iterable[str]) -> Results:
        wanted = set(members)
        return replace(
            self,
            members={n: m for n, m in self.members.items() if n in wanted},
            results=tuple(r for r in self.results if r.member in wanted),
        )

    def over(self, other: Results) -> Results:
        """These results, and those of `other` for members that are missing here, each with its
        `made`.
        """
        rest = other.only(set(other.members) - set(self.members))
        return replace(
            self,
            members={
                name: {"made": dict(of.made), **about}
                for of in (rest, self)
                for name, about in of.members.items()
            },
            results=(*rest.results, *self.results),
            made=self.made or other.made,
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write one line for each result; the file appears whole or not at all."""
        head = {
            "format": FORMAT,
            "suite": self.suite,
            "made": dict(self.made),
            "members": dict(self.members),
        }
        start = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
        lines = ",\n".join(json.dumps(asdict(r), ensure_ascii=False) for r in self.results)
        with atomic_write(path) as part:
            part.write_text(f'{start},\n "results": [\n{lines}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike, suite: str = SUITE_VERSION) -> Results:
        """Read a results file. Raises InputError for any other file or version of the suite."""
        refusal = f"holds no results of suite {suite} ({FORMAT})"
        heads = {"format": (FORMAT,), "suite": (suite,)}
        file: ResultsFile = read_json(Path(path), ResultsFile, refusal, heads)
        return cls(file["members"], file["results"], file["made"], suite)


def place(suite: str = SUITE_VERSION) -> Path:
    """The place of the published results of a suite."""
    return PUBLISHED / f"suite-{suite}.json"


def published(suite: str = SUITE_VERSION) -> Results:
    """The results shipped with findnemo."""
    return Results.load(place(suite), suite)


def provenance() -> dict[str, Any]:
    """Date and versions for results made now."""
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
