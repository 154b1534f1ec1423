"""Table 4: ablations of the published procedure, on the captions of the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from findnemo.calibration import Calibration, Rule
from findnemo.errors import FindnemoError
from findnemo.neurons import NeuronSet
from findnemo.runs.calibrating import calibrate_with
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.runs.wording import count
from findnemo.stats.robust import median_mad
from findnemo.studies._bench import Bench, Desk, Job, Study, by_type, listing_answer
from findnemo.studies.nemo import NO_SCORES, listing, with_tau
from findnemo.studies.published import TABLE4, UNRELATED
from findnemo.studies.rows import comparison
from findnemo.studies.table import Cell, Table

TAUS = {"tau = mean - 1 std": -1.0, "tau = mean": 0.0, "tau = mean + 2 std": 2.0}
FACTORS = {"scaled by .75": 0.75, "scaled by .5": 0.5, "scaled by .25": 0.25}
UNRELATED_TITLE = "Captions that are not memorized"
HOLDOUT = 64  # unrelated captions that calibrate the threshold with guidance
NONE_KNOWN = (
    "nobody has told which captions of this run are not memorized: give some of which that is"
    " known, --unrelated FILE"
)

Sets = Mapping[int, NeuronSet]  # caption id -> neurons; without it the localization failed


def table4(bench: Bench) -> Study:
    """Localize with Algorithms 1 to 4 under each ablation, and make images with the neurons found
    off.
    """
    captions = bench.sample()
    ablations, note = _ablations(bench, captions)
    cases = {
        (name, c.id): (c, sets[c.id], factor)
        for name, (sets, factor) in ablations.items()
        for c in captions
        if c.id in sets
    }
    found = bench.off("table4", cases)
    rows = {
        name: {
            kind: [found[name, c.id] for c in group if (name, c.id) in found]
            for kind, group in by_type(captions).items()
        }
        for name in ablations
    }
    for name, (sets, _) in ablations.items():
        if failed := len(captions) - len(sets):
            note += f" {name}: {count(failed, 'caption')} left out, whose localization failed."
    text = (
        "What refinement, top-k candidates, the threshold and guidance contribute, and what it does"
        " to scale neurons instead of switching them off. Captions that are not memorized in an"
        " ablation count with no neuron."
    )
    table = comparison("Ablations", rows, TABLE4, note, clip=bench.clip)
    return Study(text, [table, _unrelated(bench)])


def _ablations(
    bench: Bench, captions: Sequence[Caption]
) -> tuple[dict[str, tuple[Sets, float]], str]:
    """Name -> neurons of the captions, and the factor that they are scaled by; and in words the
    thresholds, and what is left out.
    """
    plain = bench.calibration
    thresholds = [f"tau = {plain.tau:.3f}"]
    left_out = []
    changed = {
        "without top-k": ("no-top-k", partial(listing_answer, calibration=plain, top_k=False))
    }
    if len(bench.unrelated) > 1:
        guided = _guided(bench)
        changed["guidance in detection"] = "guided", partial(listing_answer, calibration=guided)
        thresholds.append(
            f"with guidance {guided.settings.guidance:g} in detection and in calibration tau ="
            f" {guided.tau:.3f}"
        )
    else:
        left_out.append(
            " Left out: guidance in detection, for its threshold comes from captions that are not"
            f" memorized, and {NONE_KNOWN}."
        )
    if len(plain.scores) > 1:
        for name, deviations in TAUS.items():
            moved = with_tau(plain, deviations)
            changed[name] = name, partial(listing_answer, calibration=moved)
            thresholds.append(f"{name} = {moved.tau:.3f}")
    else:
        left_out.append(f" Left out: other thresholds, for {NO_SCORES}.")
    jobs = {
        (name, c.id): Job(f"nemo:{stage}", c, compute)
        for name, (stage, compute) in changed.items()
        for c in captions
    }
    pairs = bench.listed_neurons(captions)
    found = bench.results("table4, neurons", jobs)
    refined = {i: after for i, (_, after) in pairs.items()}
    sets: dict[str, Sets] = {
        "NeMo": refined,
        "without refinement": {i: before for i, (before, _) in pairs.items()},
    }
    for name in changed:
        sets[name] = {i: NeuronSet(p["refined"]) for (of, i), p in found.items() if of == name}
    rows = {name: (of_captions, 0.0) for name, of_captions in sets.items()}
    rows |= {name: (refined, factor) for name, factor in FACTORS.items()}
    rows["findnemo's search"] = {c.id: neurons_of(c) for c in captions}, 0.0
    return rows, "; ".join([*thresholds, "no score exceeds 1."]) + "".join(left_out)


def _guided(bench: Bench) -> Calibration:
    """The calibration with guidance in the noise differences.

    It has a threshold of its own, which the released code forgets.
    """
    settings = replace(bench.calibration.settings, guidance=bench.image_settings.guidance)

    def tau() -> float:
        prompts = list(bench.unrelated[:HOLDOUT])
        folder = bench.work.run.path / "calibration-guided"
        rule = Rule(precision=None)
        return calibrate_with(bench.workers, folder, prompts, settings, rule, stop=bench.stop).tau

    return replace(bench.calibration, settings=settings, tau=bench.once("guided tau", tau))


def _unrelated(bench: Bench) -> Table:
    """How many captions that are not memorized give neurons, and how many neurons.

    The captions come unselected, whatever detection says about them.
    """
    heads = ["", "captions", "without a neuron", "median neurons of the others"]
    count, without, middle, deviation = UNRELATED
    paper: list[Cell] = ["paper", count, without, f"{middle} ± {deviation}"]
    if not bench.unrelated:
        ours: list[Cell] = ["this run", None, None, None]
        return Table(UNRELATED_TITLE, heads, [ours, paper], f"Left out: {NONE_KNOWN}.")
    compute = partial(_size, calibration=bench.calibration)
    sizes = bench.once("unrelated", lambda: bench.over("unrelated", compute, bench.unrelated))
    counted = [size for size in sizes if size is not None]
    some = [size for size in counted if size]
    others = "{:g} ± {:g}".format(*median_mad(some)) if some else None
    note = (
        "Captions as they come, detected or not, none of those that tau was computed from:"
        f" {bench.whence(bench.unrelated)}. Algorithms 1 to 4 at tau = {bench.calibration.tau:.3f};"
        " median ± median absolute deviation."
    )
    if failed := len(sizes) - len(counted):
        note += f" On {failed} more it failed."
    ours = ["this run", len(counted), len(counted) - len(some), others]
    return Table(UNRELATED_TITLE, heads, [ours, paper], note)


def _size(desk: Desk, prompt: str, calibration: Calibration) -> int | None:
    """How many neurons the listing finds for a caption; None if it fails."""
    try:
        return len(NeuronSet(listing(desk.model, prompt, calibration)["refined"]))
    except FindnemoError:
        return None
