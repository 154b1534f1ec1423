"""Table 1: mitigations beside each other, for verbatim and template memorized captions."""

from __future__ import annotations

from collections.abc import Sequence

from findnemo.errors import StoppedError
from findnemo.metrics.kind import is_memory
from findnemo.runs.compare import LISTING, NEMO, SWITCHED, compare, localized_captions, stage_in
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption, Run, captions_of, settings_of
from findnemo.studies._bench import Bench, Study, by_type
from findnemo.studies._published import TABLE1
from findnemo.studies._rows import Payloads, comparison
from findnemo.studies._table import Table

ROWS = {  # the paper's row names, then what it does not have
    "All neurons active": ("none",),
    "Random neurons": tuple(f"random-{k}" for k in range(1, 6)),
    "Embedding adjustment (Wen et al.)": ("embedding",),
    "Attention scaling (Ren et al.)": ("attention",),
    "1 random token": ("tokens-1",),
    "4 random tokens": ("tokens-4",),
    "10 random tokens": ("tokens-10",),
    "1 random number": ("numbers-1",),
    "4 random numbers": ("numbers-4",),
    "10 random numbers": ("numbers-10",),
    "1 repeated word": ("repeats-1",),
    "4 repeated words": ("repeats-4",),
    "10 repeated words": ("repeats-10",),
    "Wanda pruning": ("wanda",),
    "ConceptPrune": ("conceptprune",),
    "Deactivated neurons (NeMo)": (NEMO,),
    "Deactivated neurons (findnemo)": ("neurons",),
}


def table1(bench: Bench) -> Study:
    """All mitigations on all localized captions of the run."""
    bench.untouched(bench.memorized())
    compare(bench.work, progress=bench.progress, pool=bench.workers, stop=bench.stop)
    if bench.stop():
        raise StoppedError("stopped before all mitigations were compared")
    return Study(
        "SSCD_gen compares images with and without the mitigation on the same seed, SSCD_orig with"
        " the training image, D_SSCD images of different seeds: low is good. A_CLIP is the fit with"
        " the caption: high is good. Medians over seeds, then median ± median absolute deviation"
        " over captions.",
        [table(bench.work.run, clip=bench.clip, apart=bench.apart)],
    )


def table(run: Run, intervals: bool = False, clip: str | None = None, apart: str = "") -> Table:
    """Table 1 from what a run holds, with the rows that it has; `intervals`: of every median, by
    bootstrap over the captions.

    `clip`: the CLIP of these figures, where the published numbers are shown beside them. `apart`:
    of which settings (`runs.compare.apart`).
    """
    stage_of = stage_in(apart)
    every = captions_of(run)
    captions = [
        c for c in localized_captions(every) if any(s.startswith(stage_of) for s in c.results)
    ]
    groups = by_type(captions)
    rows: dict[str, dict[str, Payloads]] = {
        label: {kind: _payloads(group, names, stage_of) for kind, group in groups.items()}
        for label, names in ROWS.items()
    }
    images = {p["images"] for kinds in rows.values() for row in kinds.values() for p in row}
    seeds = f"{'/'.join(map(str, sorted(images)))} seeds a caption, at which no search has looked. "
    return comparison("Mitigations", rows, TABLE1, seeds + _about(run, every), intervals, clip)


def _payloads(captions: Sequence[Caption], names: Sequence[str], stage_of: str) -> Payloads:
    """What the run has of some mitigations of captions; where a result of one that switches
    neurons off has no number, the run's own.
    """
    return [
        ({"neurons": len(neurons_of(c))} if name in SWITCHED else {}) | c.results[stage_of + name]
        for c in captions
        for name in names
        if stage_of + name in c.results
    ]


def _about(run: Run, captions: list[Caption]) -> str:
    """What the rows with neurons are, and which captions are not in the table."""
    settings = settings_of(run)
    text = (
        "NeMo: the listing as published (Algorithms 1 to 4), nothing added. Random neurons: as"
        " many of each layer as NeMo's (all others of a layer of which NeMo has more than half),"
        " each draw counted by itself. findnemo: what this run found (search"
        f" {settings['search']!r})."
    )
    listings = [c.results[LISTING] for c in captions if LISTING in c.results]
    if unlisted := sum(listing.get("memorized") is False for listing in listings):
        text += (
            f" {unlisted} captions are under the threshold of the paper's score: for them NeMo"
            " switches nothing off."
        )
    if missed := sum(is_memory(c.type) and not neurons_of(c) and bool(c.results) for c in captions):
        text += f" {missed} captions with the type of a memory got no neurons and are in no row."
    return text
