"""What a run holds, or what it knows about some of its captions; no model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from findnemo.errors import InputError
from findnemo.runs.detectors import Detectors, kept_detectors
from findnemo.runs.discoveries import Discoveries, check_level, list_of, p_values, q_values
from findnemo.runs.export import row, summary
from findnemo.runs.store import Caption, Run, captions_named, captions_of


@dataclass(frozen=True)
class Inspection:
    """What a run holds.

    `captions`: all of the run. `chosen`: those that were asked for; None if the whole run was.
    `listed`: the list at the false discovery rate `fdr`, None without one. `q`: caption id ->
    q-value. `detectors`: the results of detectors, in a run that holds no audit; else None.
    """

    run: Run
    captions: Sequence[Caption]
    chosen: Sequence[Caption] | None = None
    fdr: float | None = None
    listed: Discoveries | None = None
    q: Mapping[int, float] = field(default_factory=dict)
    detectors: Detectors | None = None

    def to_json(self) -> Any:
        """The summary of the run, the rows of the chosen captions, or the figures of detectors."""
        if self.detectors is not None:
            return self.detectors.to_json()
        if self.chosen is None:
            return summary(self.run, self.fdr)
        return [row(c, self.q, self.run.meta("bases")) for c in self.chosen]


def inspect(run: Run, caption: str | None = None, fdr: float | None = None) -> Inspection:
    """Read what a run holds: an audit, or the results of detectors.

    What `findnemo inspect` does. `caption`: a row number, or a part of the text of captions
    (`captions_named`); by default the whole run. `fdr`: the level of the list, by default the run's
    own. Raises InputError for a caption that the run does not have, for a level that is no rate,
    and for a run without results.

        with Run.open("run") as run:
            print(findnemo.runs.inspect(run, "a red fox").to_json())
    """
    check_level(fdr)
    if caption is None and not (run.path / "calibration").is_dir():
        found = kept_detectors(run)
        return Inspection(run, found.captions, detectors=found)
    captions = captions_of(run)
    chosen = None if caption is None else captions_named(captions, caption)
    if chosen == []:
        raise InputError(
            f"no caption {caption!r} in {run.path}: give a row number or a part of a caption"
        )
    listed = list_of(run, fdr)
    return Inspection(run, captions, chosen, fdr, listed, q_values(p_values(run)))
