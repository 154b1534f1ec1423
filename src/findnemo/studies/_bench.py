"""What a study works on: a run with its model, and results that are computed once and then kept in the run."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findnemo.calibration import Calibration, activations
from findnemo.edits import deactivate
from findnemo.errors import FindnemoError, StorageError
from findnemo.images import ImageSettings
from findnemo.metrics.kind import is_memory
from findnemo.neurons import NeuronSet
from findnemo.passes.deltas import score
from findnemo.runs.audit import Work
from findnemo.runs.calibrating import as_published
from findnemo.runs.compare import LISTING, judged, localized_captions, made, untouched
from findnemo.runs.stages import Progress, no_progress
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.runs.workers import Serial
from findnemo.studies._nemo import listing
from findnemo.studies._table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from findnemo.models import Model


NONE_THERE = "this run has none, give --unrelated FILE"


@dataclass(frozen=True)
class Study:
    """What a study gives: `figures` by file name; `text`: what it shows, in a few sentences for a reader who knows the paper."""

    title: str
    text: str
    tables: Sequence[Table] = ()
    figures: dict[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """A run to study. `limit`: memorized captions per type in costly studies.

    `unrelated`: captions that are known not to be memorized, as they come, whatever detection says of them (`runs.ordinary`), and none of
    the hold-out captions. `under`: captions of unknown kind under tau, where there are no others: they show what edits cost, and say nothing
    about detection, which has chosen them.
    """

    work: Work
    unrelated: Sequence[str]
    limit: int | None = None
    progress: Progress = no_progress
    under: Sequence[str] = ()

    @property
    def model(self) -> Model:
        return self.work.model

    @cached_property
    def calibration(self) -> Calibration:
        """That of the run, with a published score: studies are of the paper's procedure."""
        return as_published(self.work.run, Serial(self.model), self.work.calibration)

    @property
    def image_settings(self) -> ImageSettings:
        return self.work.plan.image_settings

    @property
    def others(self) -> Sequence[str]:
        """Captions that are not memorized: those that are known to be none; without such those under tau."""
        return self.unrelated or self.under

    def whence(self, captions: Sequence[str]) -> str:
        """Where captions of `others` come from: `20 of this run, 40 given`."""
        if not self.unrelated and captions:
            return f"{len(captions)} of this run under tau (it knows the kind of no caption)"
        own = {c.text for c in self.work.run.captions()}
        counts = Counter(
            "of this run, without the type of a memory" if text in own else "of other sources"
            for text in captions
        )
        return ", ".join(f"{n} {where}" for where, n in counts.items()) or "none"

    def memorized(self) -> list[Caption]:
        """Captions of the run with neurons, in order; those with a type, where some have one."""
        return localized_captions(self.work.run.captions())

    def sample(self) -> list[Caption]:
        """The first `limit` of each type: what costly studies are done on."""
        chosen: list[Caption] = []
        for kind in dict.fromkeys(c.type for c in self.memorized()):
            chosen += [c for c in self.memorized() if c.type == kind][: self.limit]
        return chosen

    def each(
        self, name: str, captions: Sequence[Caption], compute: Callable[[Caption], dict[str, Any]]
    ) -> dict[int, dict[str, Any]]:
        """`compute` for every caption that has no result of this name in the run; all results, by caption id.

        A caption for which it fails is recorded with the reason and left out.
        """
        results = {}
        for k, caption in enumerate(captions):
            self.say(name, k, len(captions))
            payload = self.kept(name, caption, compute)
            if payload is not None:
                results[caption.id] = payload
        self.say(name, len(captions), len(captions))
        return results

    def kept(
        self, name: str, caption: Caption, compute: Callable[[Caption], dict[str, Any]]
    ) -> dict[str, Any] | None:
        """The same for one caption; None where it fails."""
        stage, run = f"study:{name}", self.work.run
        payload = run.result(caption.id, stage)
        if payload is None:
            began = time.monotonic()
            try:
                payload = compute(caption)
                run.record(caption.id, stage, payload, time.monotonic() - began)
            except StorageError:
                raise  # of the disk, not of the caption
            except FindnemoError as problem:
                run.record(caption.id, stage, {}, time.monotonic() - began, str(problem))
        return payload

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """`compute()` unless the run has a result of this name for the same neurons and captions."""
        basis = {
            "neurons": {str(c.id): neurons_of(c).to_json() for c in self.memorized()},
            "unrelated": list(self.others),
            "limit": self.limit,
        }
        known = self.work.run.meta(f"study:{name}")
        if known is None or known["basis"] != basis:
            self.say(name, 0, 1)
            known = {"basis": basis, "result": compute()}
            self.work.run.set_meta(f"study:{name}", known)
        self.say(name, 1, 1)
        return known["result"]

    def say(self, name: str, done: int, total: int) -> None:
        self.progress(name, done, total)

    def off(
        self, caption: Caption, neurons: NeuronSet, factor: float = 0.0
    ) -> dict[str, Any] | None:
        """What the images of a caption are like with `neurons` scaled by `factor`, as in a comparison of mitigations."""
        digest = hashlib.sha256(
            json.dumps([neurons.to_json(), factor], sort_keys=True).encode()
        ).hexdigest()[:16]

        def compute(caption: Caption) -> dict[str, Any]:
            context = deactivate(self.model, neurons, factor)
            after = made(self.work, caption, context)
            return judged(self.work, caption, after, untouched(self.work, caption)) | {
                "neurons": len(neurons)
            }

        return self.kept(f"off:{digest}", caption, compute)

    def listed(self, caption: Caption) -> tuple[NeuronSet, NeuronSet] | None:
        """Candidates and refined neurons of the listing, as a comparison of mitigations has found them, or found now; None where it fails."""
        known = self.work.run.result(caption.id, LISTING)
        if known is not None:
            return NeuronSet(known["candidates"]), NeuronSet(known["neurons"])
        payload = self.kept(
            "nemo:listing", caption, lambda c: listing(self.model, c.text, self.calibration)
        )
        return (
            None
            if payload is None
            else (NeuronSet(payload["candidates"]), NeuronSet(payload["refined"]))
        )

    def scores(self) -> dict[int, float]:
        """Memorization scores over all seeds of the captions with the type of a memory, found or missed, by caption id."""
        typed = [c for c in self.work.run.captions() if is_memory(c.type)]
        return {
            i: payload["score"] for i, payload in self.each("score", typed, self._scored).items()
        }

    def _scored(self, caption: Caption) -> dict[str, Any]:
        found, seen = caption.localized, caption.detected
        own = self.work.calibration.settings == self.calibration.settings
        if found is not None and own:
            return {"score": found.score_before}
        settings = self.calibration.settings
        if own and seen is not None and seen.samples == settings.samples:
            return {"score": seen.score}
        return {"score": score(self.model, caption.text, settings=settings)}

    def z_scores(self, caption: str) -> dict[str, Any]:
        return self.calibration.z_scores(activations(self.model, caption))


def write(study: Study, folder: Path, name: str) -> None:
    """`name`.md with the text, the tables and the figures; the tables as CSV and LaTeX, the figures as PNG and SVG."""
    from findnemo.studies._figure import write_figure

    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {study.title}\n", study.text + "\n"]
    for k, table in enumerate(study.tables, 1):
        stem = name if len(study.tables) == 1 else f"{name}-{k}"
        (folder / f"{stem}.csv").write_text(table.csv(), encoding="utf-8")
        (folder / f"{stem}.tex").write_text(table.latex(), encoding="utf-8")
        parts.append(table.markdown())
    for stem, figure in study.figures.items():
        write_figure(figure, folder / stem)
        parts.append(f"![{stem}]({stem}.png)\n")
    (folder / f"{name}.md").write_text("\n".join(parts), encoding="utf-8")
