"""Table 4: ablations of the published procedure, on the captions of the sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from findnemo.calibration import Calibration, calibrate
from findnemo.errors import FindnemoError, StorageError
from findnemo.neurons import NeuronSet
from findnemo.runs.standing import neurons_of
from findnemo.runs.store import Caption
from findnemo.stats.robust import median_mad
from findnemo.studies._bench import Bench, Study
from findnemo.studies._nemo import NO_SCORES, listing, with_tau
from findnemo.studies._published import TABLE4, UNRELATED
from findnemo.studies._rows import a_clip_note, comparison
from findnemo.studies._table import Cell, Table

TAUS = {"tau = mean - 1 std": -1.0, "tau = mean": 0.0, "tau = mean + 2 std": 2.0}
FACTORS = {"scaled by .75": 0.75, "scaled by .5": 0.5, "scaled by .25": 0.25}
UNRELATED_TITLE = "Captions that are not memorized"
HOLDOUT = 64  # unrelated captions on which the threshold with guidance is calibrated
NONE_KNOWN = "nobody has told which captions of this run are not memorized: give some of which that is known, --unrelated FILE"

Find = Callable[
    [Caption], "tuple[NeuronSet, float] | None"
]  # the neurons of an ablation and their factor; None where it failed


def table4(bench: Bench) -> Study:
    """Each ablation localizes with Algorithms 1 to 4 and makes images with what it finds off."""
    captions = bench.sample()
    variants, left_out, told = _variants(bench)
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
    failed: Counter[str] = Counter()
    for k, (name, find) in enumerate(variants.items()):
        bench.say("table4", k, len(variants))
        for caption in captions:
            found = find(caption)
            payload = bench.off(caption, *found) if found is not None else None
            failed[name] += found is None
            if payload is not None:
                rows.setdefault(name, {}).setdefault(caption.type or "", []).append(payload)
    bench.say("table4", len(variants), len(variants))
    note = f"tau = {bench.calibration.tau:.3f}; {'; '.join(told)}{'; ' * bool(told)}no score exceeds 1."
    note += "".join(f" Left out: {name}, for {reason}." for name, reason in left_out.items())
    note += "".join(
        f" {name}: {count} captions left out, whose localization failed."
        for name, count in failed.items()
        if count
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


def _variants(bench: Bench) -> tuple[dict[str, Find], dict[str, str], list[str]]:
    """The ablations; those that cannot be made, with the reason; and what thresholds they take, in words."""
    plain = bench.calibration
    variants: dict[str, Find] = {
        "NeMo": lambda c: _scaled(_listed(bench, c, 1), 0.0),
        "without refinement": lambda c: _scaled(_listed(bench, c, 0), 0.0),
        "without top-k": lambda c: _scaled(_found(bench, "no-top-k", c, plain, top_k=False), 0.0),
    }
    left_out, told = {}, []
    if len(bench.unrelated) > 1:
        guided = _guided(bench)
        variants["guidance in detection"] = lambda c: _scaled(
            _found(bench, "guided", c, guided), 0.0
        )
        told.append(
            f"with guidance {guided.settings.guidance:g} in detection and in calibration tau = {guided.tau:.3f}"
        )
    else:
        left_out["guidance in detection"] = (
            f"its threshold comes from captions that are not memorized, and {NONE_KNOWN}"
        )
    if len(plain.scores) > 1:
        taus = {name: with_tau(plain, deviations) for name, deviations in TAUS.items()}
        variants |= {name: _at_tau(bench, name, made) for name, made in taus.items()}
        told += [f"{name} = {made.tau:.3f}" for name, made in taus.items()]
    else:
        left_out["other thresholds"] = NO_SCORES
    variants |= {n: lambda c, f=f: _scaled(_listed(bench, c, 1), f) for n, f in FACTORS.items()}  # type: ignore[misc]
    return variants | {"findnemo's search": lambda c: (neurons_of(c), 0.0)}, left_out, told


def _scaled(neurons: NeuronSet | None, factor: float) -> tuple[NeuronSet, float] | None:
    return None if neurons is None else (neurons, factor)


def _listed(bench: Bench, caption: Caption, refined: int) -> NeuronSet | None:
    """What the listing has of a caption, before and after refinement; None where it failed."""
    found = bench.listed(caption)
    return None if found is None else found[refined]


def _found(
    bench: Bench, name: str, caption: Caption, calibration: Calibration, **options: Any
) -> NeuronSet | None:
    """Refined neurons of an ablation, computed once; None where it failed."""
    payload = bench.kept(
        f"nemo:{name}", caption, lambda c: listing(bench.model, c.text, calibration, **options)
    )
    return None if payload is None else NeuronSet(payload["refined"])


def _at_tau(bench: Bench, name: str, calibration: Calibration) -> Find:
    return lambda caption: _scaled(_found(bench, name, caption, calibration), 0.0)


def _guided(bench: Bench) -> Calibration:
    """The calibration with guidance in the noise differences: its own threshold, which the released code forgets."""
    settings = replace(bench.calibration.settings, guidance=bench.image_settings.guidance)

    def tau() -> float:
        return calibrate(
            bench.model, list(bench.unrelated[:HOLDOUT]), settings=settings, precision=None
        ).tau

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
    sizes = bench.once("unrelated", lambda: [_size(bench, prompt) for prompt in bench.unrelated])
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


def _size(bench: Bench, prompt: str) -> int | None:
    """How many neurons the listing finds for a caption; None where it fails."""
    try:
        return len(NeuronSet(listing(bench.model, prompt, bench.calibration)["refined"]))
    except StorageError:
        raise
    except FindnemoError:
        return None
