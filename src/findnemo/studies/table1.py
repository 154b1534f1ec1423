"""Table 1: mitigations beside each other, for verbatim and template memorized captions."""

from __future__ import annotations

from findnemo.runs.compare import STAGE, compare, localized_captions
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Run
from findnemo.runs.whole import captions_of
from findnemo.studies._bench import Bench, Study
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
    "Deactivated neurons (NeMo)": ("neurons",),
}
COUNTED = ("Random neurons", "Deactivated neurons (NeMo)")  # rows in which neurons are off


def table1(bench: Bench) -> Study:
    """All mitigations on all localized captions of the run."""
    compare(bench.work, progress=bench.progress)
    return Study(
        "Table 1: mitigations",
        "SSCD_gen compares images with and without the mitigation on the same seed, SSCD_orig with the training image, D_SSCD images of "
        "different seeds: low is good. A_CLIP is the fit with the caption: high is good. Medians over seeds, then median ± median absolute "
        "deviation over captions.",
        [table(bench.work.run)],
    )


def table(run: Run, intervals: bool = False) -> Table:
    """Table 1 from what a run holds, with the rows that it has; `intervals`: of every median, by bootstrap over the captions."""
    captions = [c for c in localized_captions(captions_of(run)) if any(s.startswith(STAGE) for s in c.results)]
    rows: dict[str, dict[str, Payloads]] = {}
    for label, names in ROWS.items():
        for kind in dict.fromkeys(c.type or "" for c in captions):
            payloads = [
                c.results[STAGE + n] | ({"neurons": len(neurons_of(c))} if label in COUNTED else {})
                for c in captions
                for n in names
                if (c.type or "") == kind and STAGE + n in c.results
            ]
            rows.setdefault(label, {})[kind] = payloads
    images = {p["images"] for by_type in rows.values() for payloads in by_type.values() for p in payloads}
    note = f"{'/'.join(map(str, sorted(images)))} seeds a caption; random neurons: five draws, counted each by itself."
    return comparison("Mitigations", rows, TABLE1, note, intervals)
