"""Table 4: ablations of the published procedure, on the captions of the sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from findnemo.calibration import Calibration, Rule
from findnemo.errors import FindnemoError
from findnemo.neurons import NeuronSet
from findnemo.runs.calibrating import calibrate_with
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.stats.robust import median_mad
from findnemo.studies._bench import Bench, Desk, Job, Study, listed
from findnemo.studies._nemo import NO_SCORES, listing, with_tau
from findnemo.studies._published import TABLE4, UNRELATED
from findnemo.studies._rows import a_clip_note, comparison
from findnemo.studies._table import Cell, Table

TAUS = {"tau = mean - 1 std": -1.0, "tau = mean": 0.0, "tau = mean + 2 std": 2.0}
FACTORS = {"scaled by .75": 0.75, "scaled by .5": 0.5, "scaled by .25": 0.25}
UNRELATED_TITLE = "Captions that are not memorized"
HOLDOUT = 64  # unrelated captions on which the threshold with guidance is calibrated
NONE_KNOWN = "nobody has told which captions of this run are not memorized: give some of which that is known, --unrelated FILE"

Sets = list[NeuronSet | None]  # of every caption; None where its localization failed


def table4(bench: Bench) -> Study:
    """Each ablation localizes with Algorithms 1 to 4 and makes images with what it finds off."""
    captions = bench.sample()
    variants, left_out, told = _variants(bench, captions)
    cases = [
        (name, caption, neurons, factor)
        for name, (sets, factor) in variants.items()
        for caption, neurons in zip(captions, sets, strict=True)
    ]
    failed = Counter(name for name, _, neurons, _ in cases if neurons is None)
    known = [
        (name, (caption, neurons, factor))
        for name, caption, neurons, factor in cases
        if neurons is not None
    ]
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    payloads = bench.off("table4", [case for _, case in known])
    for (name, (caption, _, _)), payload in zip(known, payloads, strict=True):
        if payload is not None:
            rows.setdefault(name, {}).setdefault(caption.type or "", []).append(payload)
    note = f"tau = {bench.calibration.tau:.3f}; {'; '.join(told)}{'; ' * bool(told)}no score exceeds 1."
    note += "".join(f" Left out: {name}, for {reason}." for name, reason in left_out.items())
    note += "".join(
        f" {name}: {count} captions left out, whose localization failed."
        for name, count in failed.items()
    )
    text = (
        "What refinement, top-k candidates, the threshold and guidance contribute, and what it does to scale neurons instead of switching "
        "them off. Captions that are not memorized in an ablation count with no neuron."
    )
    tables = [
        comparison("Ablations", rows, TABLE4, note + a_clip_note(bench.work.run, rows)),
        _unrelated(bench),
    ]
    return Study("Table 4: ablations", text, tables)


def _variants(
    bench: Bench, captions: Sequence[Caption]
) -> tuple[dict[str, tuple[Sets, float]], dict[str, str], list[str]]:
    """The ablations, with the neurons of every caption and their factor; those that cannot be made, with the reason; and what thresholds
    they take, in words."""
    plain = bench.calibration
    pairs = bench.listed(captions)
    candidates, refined = ([pair and pair[which] for pair in pairs] for which in (0, 1))
    changed: dict[str, tuple[str, Calibration, bool]] = {
        "without top-k": ("no-top-k", plain, False)
    }
    left_out, told = {}, []
    if len(bench.unrelated) > 1:
        guided = _guided(bench)
        changed["guidance in detection"] = ("guided", guided, True)
        told.append(
            f"with guidance {guided.settings.guidance:g} in detection and in calibration tau = {guided.tau:.3f}"
        )
    else:
        left_out["guidance in detection"] = (
            f"its threshold comes from captions that are not memorized, and {NONE_KNOWN}"
        )
    if len(plain.scores) > 1:
        taus = {name: with_tau(plain, deviations) for name, deviations in TAUS.items()}
        changed |= {name: (name, made, True) for name, made in taus.items()}
        told += [f"{name} = {made.tau:.3f}" for name, made in taus.items()]
    else:
        left_out["other thresholds"] = NO_SCORES
    sets = {"NeMo": refined, "without refinement": candidates, **_found(bench, captions, changed)}
    variants = {name: (found, 0.0) for name, found in sets.items()}
    variants |= {name: (refined, factor) for name, factor in FACTORS.items()}
    own: Sets = [neurons_of(c) for c in captions]
    return variants | {"findnemo's search": (own, 0.0)}, left_out, told


def _found(
    bench: Bench, captions: Sequence[Caption], changed: Mapping[str, tuple[str, Calibration, bool]]
) -> dict[str, Sets]:
    """Refined neurons of the ablations of the listing. `changed`: name -> its name in the run, the calibration, whether with top-k."""
    jobs = [
        Job(f"nemo:{stage}", caption, partial(listed, calibration=calibration, top_k=top_k))
        for stage, calibration, top_k in changed.values()
        for caption in captions
    ]
    payloads = bench.results("table4, neurons", jobs)
    sets = [p if p is None else NeuronSet(p["refined"]) for p in payloads]
    n = len(captions)
    return {name: sets[k * n : (k + 1) * n] for k, name in enumerate(changed)}


def _guided(bench: Bench) -> Calibration:
    """The calibration with guidance in the noise differences: its own threshold, which the released code forgets."""
    settings = replace(bench.calibration.settings, guidance=bench.image_settings.guidance)

    def tau() -> float:
        prompts = list(bench.unrelated[:HOLDOUT])
        folder = bench.work.run.path / "calibration-guided"
        rule = Rule(precision=None)
        made = calibrate_with(bench.workers, folder, prompts, settings, rule, stop=bench.stop)
        return made.tau

    return replace(bench.calibration, settings=settings, tau=bench.once("guided tau", tau))


def _unrelated(bench: Bench) -> Table:
    """How many captions that are not memorized give neurons, and how many: captions as they come, whatever detection says of them."""
    heads = ["", "captions", "without a neuron", "median neurons of the others"]
    count, without, middle, deviation = UNRELATED
    paper: list[Cell] = ["paper", count, without, f"{middle} ± {deviation}"]
    if not bench.unrelated:
        return Table(
            UNRELATED_TITLE,
            heads,
            [["this run", None, None, None], paper],
            f"Left out: {NONE_KNOWN}.",
        )
    compute = partial(_size, calibration=bench.calibration)
    sizes = bench.once("unrelated", lambda: bench.over("unrelated", compute, bench.unrelated))
    known = [size for size in sizes if size is not None]
    some = [size for size in known if size]
    others = "{:g} ± {:g}".format(*median_mad(some)) if some else None
    failed = len(sizes) - len(known)
    note = (
        f"Captions as they come, detected or not, none of those that tau was computed from: {bench.whence(bench.unrelated)}. Algorithms 1 to 4 at "
        f"tau = {bench.calibration.tau:.3f}; median ± median absolute deviation."
        + f" On {failed} more it failed."
        * bool(failed)
    )
    rows: list[list[Cell]] = [["this run", len(known), len(known) - len(some), others], paper]
    return Table(UNRELATED_TITLE, heads, rows, note)


def _size(desk: Desk, prompt: str, calibration: Calibration) -> int | None:
    """How many neurons the listing finds for a caption; None where it fails."""
    try:
        return len(NeuronSet(listing(desk.model, prompt, calibration)["refined"]))
    except FindnemoError:
        return None
