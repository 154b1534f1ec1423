"""What the report says of a run, as plain values for the template. Nothing here is measured: stored results are counted and summed up."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from findnemo.calibration import Calibration, tau_interval
from findnemo.errors import InputError
from findnemo.localization import Scan
from findnemo.localization.trajectory import GONE
from findnemo.neurons import Neuron
from findnemo.report import _charts as charts
from findnemo.report._attacks import attack, attempts, hardened
from findnemo.report._captions import cards, example, wanted_pictures
from findnemo.report._pictures import thumbnails
from findnemo.report._text import NONE, clipped, count, number, percent
from findnemo.report.sentences import sentences
from findnemo.runs import (
    Caption,
    Run,
    all_neurons,
    captions_of,
    list_of,
    list_told,
    neurons_of,
    overview,
    p_values,
    q_values,
    settings_of,
    standing,
    state,
    switched_off,
)
from findnemo.runs.compare import STAGE
from findnemo.runs.standing import WORDS
from findnemo.stats import bootstrap, wilson

LEAST = 5  # values from which an interval says something
LISTED = 200  # captions that are not memorized, by name; results.csv has the rest
SHARED = 15  # most shared neurons that are listed
MEMORIZED = [word for word in WORDS if word not in ("open", "suspected", "not memorized")]
TROUBLE = [word for word in WORDS if WORDS[word].clause]
QUALITY = (
    ("Change of pixels, of 1", None, "pixel_change", "low"),
    ("Change of pixels with random neurons off instead", None, "random_pixel_change", ""),
    ("SSCD_gen: images with against without the edit", None, "sscd_gen", "high"),
    ("SSCD_gen with random neurons off instead", None, "random_sscd_gen", ""),
    ("A_CLIP: fit with the caption", "a_clip_before", "a_clip_after", "high"),
)


@dataclass(frozen=True)
class Estimate:
    """A median over `n` values with its 95 % bootstrap interval; without one where there are too few values."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None


def median(values: Sequence[float]) -> Estimate | None:
    """
    >>> median([1.0, 2.0, 4.0])
    Estimate(value=2.0, n=3, low=None, high=None)
    """
    if not values:
        return None
    middle = statistics.median(values)
    if len(values) < LEAST:
        return Estimate(middle, len(values))
    low, high = bootstrap(
        lambda x: float(x.quantile(0.5)), torch.tensor(list(values), dtype=torch.float64)
    )
    return Estimate(middle, len(values), low, high)


def facts(run: Run) -> dict[str, Any]:
    """Everything the page shows. Raises InputError for a run without a calibration."""
    if not (run.path / "calibration" / "calibration.json").is_file():
        raise InputError(
            f"{run.path} holds no audit: a report needs one (`findnemo audit`); scores of detectors: `findnemo inspect`"
        )
    calibration, captions = Calibration.load(run.path / "calibration"), captions_of(run)
    settings = settings_of(run)
    tau = settings["tau"]
    stand = {c.id: standing(c) for c in captions}
    memorized = [
        c for kind in MEMORIZED for c in captions if stand[c.id] == kind and state(c) == "memorized"
    ]
    suspected = [c for c in captions if stand[c.id] == "suspected"]
    widths = overview.layers_shown(
        run, captions, {name: len(mean) for name, mean in calibration.mean.items()}
    )
    numbers = {name: k for k, name in enumerate(widths, 1)}
    first = example(run.path, captions, stand)
    wanted = wanted_pictures(run.path, [*memorized, *suspected], first)
    pictures = thumbnails(wanted)
    held = overview.holders(c for c in captions if len(switched_off(c)))
    known = {
        "tau": tau,
        "calibration": calibration,
        "captions": captions,
        "stand": stand,
        "memorized": memorized,
        "suspected": suspected,
        "widths": widths,
    }
    return {
        "name": overview.name_of(run.meta("source")),
        "about": _about(run, known),
        "verdict": verdict(known),
        "trouble": _trouble(memorized, captions, stand, tau),
        "figures": figures(known, run.meta("quality")),
        "example": first and cards(run.path, [first], stand, numbers, pictures, large=True)[0],
        "tau": tau,
        "suspected": len(suspected),
        "least": LEAST,
        "distribution": _distribution(known),
        "pairs": settings["calibration"].get("pairs", "largest"),
        "holdout": _holdout(calibration, tau),
        "listed": list_told(listed) if (listed := list_of(run)) is not None else None,
        "map": charts.neuron_map(widths, {neuron: len(held[neuron]) for neuron in held}),
        "layers": _layers(widths, held),
        "sizes": charts.sizes([len(neurons_of(c)) for c in memorized if len(switched_off(c))]),
        "shared": _shared(held, numbers),
        "before_after": _before_after(
            [c for c in memorized if c.verified and stand[c.id] != "out of reach"]
        ),
        "quality": _quality(run.meta("quality")),
        "mitigations": _mitigations(run, captions),
        "attack": attack(run.meta("attack")),
        "attempts": attempts(run.meta("attempts")),
        "tried": sentences(run.meta("attempts"), run.meta("attack")),
        "hardened": hardened(run.meta("hardened")),
        "cards": cards(
            run.path, [*memorized, *suspected], stand, numbers, pictures, q=q_values(p_values(run))
        ),
        "others": _others(captions, stand, tau),
        "pictures_left_out": len(wanted) - len(pictures),
    }


# the head of the page ---------------------------------------------------------------------------------------------------------


def verdict(known: dict[str, Any]) -> dict[str, str]:
    """One sentence, and its tone: good, bad or open. What is not gone comes first."""
    stand, memorized, captions = known["stand"], known["memorized"], known["captions"]
    doubtful = _suspected(known["suspected"])
    audited = [c for c in captions if c.detected is not None]
    kinds = Counter(stand[c.id] for c in memorized)
    if not audited:
        return {"tone": "open", "text": "No caption has been looked at yet."}
    if not memorized:
        few = (
            f" ({len(captions) - len(audited)} more failed or are open)"
            if len(audited) < len(captions)
            else ""
        )
        none = f"None of the {count(len(audited), 'caption')} looked at "
        none += (
            "is memorized as far as its images tell"
            if doubtful
            else "reaches the threshold on the seeds that were tried"
        )
        return {"tone": "good" if not few else "open", "text": f"{none}{few}.{doubtful}"}
    bad = [f"{n} {WORDS[kind].clause}" for kind in TROUBLE if (n := kinds[kind])]
    off, whole = len(all_neurons(captions)), sum(known["widths"].values())
    gone = kinds["gone"]
    if not bad:
        what = f"All {gone} memories are" if gone > 1 else "The one memory found is"
        text = f"{what} gone on the fresh seeds that were tried, with {off:,} of {count(whole, 'neuron')} switched off."
        return {"tone": "good", "text": text + doubtful}
    start = f"Of {count(len(memorized), 'memorized caption')}, {_joined(bad)}"
    if not gone:
        return {"tone": "bad", "text": f"{start}.{doubtful}"}
    end = f"{count(gone, 'memory')} {'is' if gone == 1 else 'are'} gone on the fresh seeds that were tried"
    return {
        "tone": "mixed",
        "text": f"{start}; {end}, with {off:,} of {count(whole, 'neuron')} switched off.{doubtful}",
    }


def _suspected(captions: Sequence[Caption]) -> str:
    """A sentence on the captions that are only suspected; empty where there are none."""
    if not captions:
        return ""
    one = len(captions) == 1
    return (
        f" {len(captions)} more {'is' if one else 'are'} over the threshold and only suspected: {'its' if one else 'their'} images are no copies, "
        f"and nothing is switched off for {'it' if one else 'them'}."
    )


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _trouble(
    memorized: Sequence[Caption], captions: Sequence[Caption], stand: dict[int, str], tau: float
) -> list[dict[str, Any]]:
    """Captions of which something is to be said first, by kind."""
    failed = [c for c in captions if stand[c.id] == "failed" and c not in memorized]
    groups = [(kind, [c for c in [*memorized, *failed] if stand[c.id] == kind]) for kind in TROUBLE]
    return [
        {
            "kind": WORDS[kind].clause,
            "what": WORDS[kind].means,
            "note": _note(kind, group, tau),
            "captions": [
                {"id": c.id, "text": c.text, "linked": c in memorized} for c in group[:LISTED]
            ],
            "n": len(group),
        }
        for kind, group in groups
        if group
    ]


def _note(kind: str, group: Sequence[Caption], tau: float) -> str:
    scores = [s for c in group if (s := c.score) is not None]
    if kind == "out of reach" and scores:
        near = (
            f"{number(min(scores))} to {number(max(scores))}"
            if len(scores) > 1
            else number(scores[0])
        )
        return f"Score {near}, tau {number(tau)}: where a score lies just over tau, the caption may be no memory but a false alarm"
    if kind == "copies":
        checked = [c.verified for c in group if c.verified is not None]
        shares = sorted(v.copies_after for v in checked if v.copies_after is not None)
        most = f" to {percent(shares[-1])}" if len(shares) > 1 else ""
        return f"{percent(shares[0])}{most} of the images with the neurons off" if shares else ""
    return ""


def figures(known: dict[str, Any], quality: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The five figures at the head of the page: those of `runs.overview`, with their intervals."""
    memorized, captions = known["memorized"], known["captions"]
    found, worse, gone, off, _ = overview.figures(captions, quality)
    whole, neurons = sum(known["widths"].values()), all_neurons(captions)
    each = [len(neurons_of(c)) for c in memorized if len(switched_off(c))]
    note = f"{percent(len(neurons) / whole)} of the value neurons, in {len(neurons.layers)} of {count(len(known['widths']), 'layer')}"
    note += f"; median {statistics.median(each):g} a caption (n = {len(each)})" if each else ""
    return [
        {"label": "memorized", "tone": ""} | _of(found),
        {"label": "out of reach, back or still copied", "tone": "bad" if worse.value else ""}
        | _of(worse),
        {"label": "gone on fresh seeds", "tone": "good" if gone.value else ""} | _of(gone),
        {
            "label": "neurons switched off",
            "value": f"{off.value or 0:,} of {whole:,}",
            "note": note,
            "tone": "",
        },
        _other_captions(quality),
    ]


def _of(figure: overview.Figure) -> dict[str, str]:
    if figure.value is None:
        return {"value": NONE, "note": "none was verified"}
    return {
        "value": f"{figure.value} of {figure.of}",
        "note": _share(int(figure.value), figure.of or 0),
    }


def _share(hits: int, of: int) -> str:
    if not of:
        return "none was verified"
    low, high = wilson(hits, of)
    return (
        f"{percent(hits / of)}, 95 % interval {percent(low)} to {percent(high)}, n\u00a0=\u00a0{of}"
    )


def _other_captions(quality: dict[str, Any] | None) -> dict[str, Any]:
    label = "other captions, all neurons off"
    if not quality or not quality["prompts"]:
        return {"label": label, "value": NONE, "note": "not measured", "tone": ""}
    change = median([row["pixel_change"] for row in quality.get("each", [])])
    note = f"median change of pixels, of 1{_interval(change)}, n = {quality['prompts']}"
    if "a_clip_before" in quality:
        note = f"{note}; fit with the caption {number(quality['a_clip_before'])} before, {number(quality['a_clip_after'])} after"
    return {"label": label, "value": number(quality["pixel_change"]), "note": note, "tone": ""}


def _interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None:
        return ""
    return f", 95 % interval {number(estimate.low)} to {number(estimate.high)}"


def _about(run: Run, known: dict[str, Any]) -> list[tuple[str, str]]:
    """What was audited and how, as pairs."""
    settings, versions = settings_of(run), run.meta("versions") or {}
    calibration, found, images = (
        known["calibration"],
        settings["calibration"],
        settings["image_settings"],
    )
    captions, stand = known["captions"], known["stand"]
    options = run.meta("source_options") or {}
    opened = "".join(f", {name} {overview.name_of(value)}" for name, value in options.items())
    kinds = Counter(stand[c.id] for c in captions if stand[c.id] in ("failed", "open"))
    rest = "".join(f", {n} {kind}" for kind, n in kinds.items())
    scored = (
        f", {len(calibration.trajectories)} of them scored"
        if len(calibration.trajectories) < calibration.count
        else ""
    )
    sampled = overview.sampler_of(settings)
    sampler = f", sampler {sampled}" if sampled else ""
    rows = [
        ("Model", f"{overview.name_of(run.meta('source'))}{opened}"),
        ("Fingerprint", str(settings["model"])),
        ("Captions", f"{len(captions):,} given{rest}"),
        (
            "Hold-out captions",
            f"{calibration.count:,}{scored}"
            if calibration.count
            else "none here: imported statistics",
        ),
        ("Threshold", f"tau = {number(known['tau'])}, {_how_tau(calibration)}"),
        (
            "Score",
            f"{found.get('pairs', 'largest')} {found['similarity'].upper()} between the noise differences of {count(found['samples'], 'seed')}, variant "
            f"{found['variant']}, step {found['timestep'] + 1} of {found['steps']}"
            + (
                f", guidance {found['guidance']:g}"
                if found.get("guidance") is not None
                else ", no guidance"
            ),
        ),
        ("Search", settings["search"]),
        *([("Scope", _scope(settings["scope"], run.meta("scan")))] if "scope" in settings else []),
        (
            "Finished images",
            f"{settings['images']} seeds a caption, {count(images['steps'], 'step')}, guidance {images['guidance']:g}{sampler}"
            if settings["images"]
            else "none",
        ),
        ("Judges", _judges(run, captions)),
        (
            "Base seed",
            f"{found.get('seed')}; searches use samples from 0, verification samples from 1000",
        ),
        ("Precision", str(settings["dtype"])),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded",
        ),
    ]
    return rows


def _how_tau(calibration: Calibration) -> str:
    if not len(calibration.trajectories):
        return "given with imported statistics"
    if calibration.fpr is not None and (bound := calibration.rate_bound()) is not None:
        sure = (
            ""
            if calibration.confidence is None
            else f" with {percent(calibration.confidence)} confidence"
        )
        return (
            f"for a false-positive rate of {percent(calibration.fpr)}{sure}; with these {len(calibration.trajectories)} hold-out captions it is "
            f"under {percent(bound)} with 95 % confidence"
        )
    low, high = tau_interval(calibration.scores)
    return f"mean + 1 std of hold-out scores (95 % interval {number(low)} to {number(high)}, n = {len(calibration.trajectories)})"


def _judges(run: Run, captions: Iterable[Caption]) -> str:
    """What images were judged with: what the settings name, or what the results show was there."""
    named = settings_of(run).get("judges") or {}
    checked = [c.verified for c in captions if c.verified is not None]
    copies = (
        "copy descriptor"
        if any(values.sscd_gen is not None for values in checked)
        else "no copy descriptor: copies are told by the correlation of pixels"
    )
    seen = any(values.a_clip_after is not None for values in checked)
    clip = "CLIP" if seen else "no CLIP"
    which = [
        f"{what} {overview.name_of(named[key])}" if key in named else what
        for key, what in (("descriptor", copies), ("clip", clip))
    ]
    preprocessing = "".join(
        f"; {name}: {how}" for name, how in (run.meta("preprocessing") or {}).items()
    )
    return ", ".join(which) + preprocessing


# the charts and tables --------------------------------------------------------------------------------------------------------


def _distribution(known: dict[str, Any]) -> dict[str, Any]:
    calibration, stand = known["calibration"], known["stand"]
    holdout = calibration.scores.tolist() if len(calibration.trajectories) else []
    under = [
        s
        for c in known["captions"]
        if stand[c.id] == "not memorized" and (s := c.score) is not None
    ]
    over = [s for c in known["memorized"] if (s := c.score) is not None]
    doubtful = [s for c in known["suspected"] if (s := c.score) is not None]
    groups = [
        ("hold-out", "holdout", holdout),
        ("audited, under tau", "under", under),
        ("memorized", "over", over),
    ]
    groups += [("suspected", "under", doubtful)] if doubtful else []
    interval = tau_interval(calibration.scores) if holdout and calibration.fpr is None else None
    made = charts.distribution(groups, known["tau"], interval)
    return made | {
        "summary": [
            (label, median(values), min(values), max(values))
            for label, _, values in groups
            if len(values)
        ]
    }


def _holdout(calibration: Calibration, tau: float) -> str | None:
    """How many hold-out captions the threshold would call memorized."""
    if not len(calibration.trajectories):
        return None
    over = int(calibration.settings.reaches(calibration.scores, tau).sum())
    return f"{over} of {len(calibration.trajectories)} hold-out captions reach tau themselves ({_share(over, len(calibration.trajectories))})."


def _scope(asked: str, kept: dict[str, Any] | None) -> str:
    """Where neurons were sought, and what a scan of the layers saw."""
    if asked != "auto" or kept is None:
        return {"paper": "the layers that the paper names", "all": "all value layers"}.get(
            asked, "by a scan of the layers, not made yet"
        )
    scanned = Scan.from_json(kept)
    if not scanned.left:
        return (
            "all value layers: no caption that was scanned gives copies"
            if scanned.scope == "all"
            else "the layers that the paper names: there are no others"
        )
    standing = sum(left["paper"] >= GONE for left in scanned.left.values())
    where = "the layers that the paper names" if scanned.scope == "paper" else "all value layers"
    return f"{where}: with all those of the paper off, {standing} of {count(len(scanned.left), 'scanned caption')} still resembled the copy"


def _layers(widths: dict[str, int], held: dict[Neuron, list[Caption]]) -> list[dict[str, Any]]:
    return [
        {
            "number": k,
            "name": name,
            "width": width,
            "neurons": sorted(index for layer, index in held if layer == name),
        }
        for k, (name, width) in enumerate(widths.items(), 1)
    ]


def _shared(held: dict[Neuron, list[Caption]], numbers: dict[str, int]) -> list[dict[str, Any]]:
    shared = {neuron: captions for neuron, captions in held.items() if len(captions) > 1}
    ranked = sorted(shared, key=lambda n: (-len(shared[n]), numbers.get(n[0], 0), n[1]))
    return [
        {
            "layer": numbers.get(neuron[0], neuron[0]),
            "index": neuron[1],
            "n": len(shared[neuron]),
            "captions": [{"id": c.id, "text": c.text} for c in shared[neuron][:8]],
        }
        for neuron in ranked[:SHARED]
    ]


def _before_after(captions: Sequence[Caption]) -> list[dict[str, Any]]:
    """Medians over captions of what verification measured on fresh seeds."""
    rows = []
    for measured in overview.BEFORE_AFTER:
        known = [pair for c in captions if (pair := measured.of(c)) is not None]
        if known and measured.stage == "verify":
            before = median([old for old, _ in known if old is not None])
            after = median([new for _, new in known])
            rows.append(
                {"label": measured.title, "before": before, "after": after, "good": measured.good}
            )
    return rows


def _quality(quality: dict[str, Any] | None) -> dict[str, Any] | None:
    if not quality:
        return None
    whole = {key: value for key, value in quality.items() if isinstance(value, float)}
    rows = _rows(QUALITY, quality["each"]) if quality.get("each") else [
        {"label": label, "before": Estimate(whole[b], quality["prompts"]) if b else None, "after": Estimate(whole[a], quality["prompts"]), "good": good}
        for label, b, a, good in QUALITY
        if a in whole
    ]  # fmt: skip
    about = {"n": quality["prompts"], "failed": quality["failed"], "neurons": quality["neurons"]}
    return about | {
        "rows": rows,
        "against_random": _against_random(quality.get("each", [])),
        "utility": _utility(quality.get("utility")),
    }


def _against_random(each: Sequence[dict[str, float]]) -> Estimate | None:
    """How much more pixels change than with random neurons off: median over captions of the difference."""
    return median(
        [
            row["pixel_change"] - row["random_pixel_change"]
            for row in each
            if "random_pixel_change" in row
        ]
    )


def _utility(utility: dict[str, Any] | None) -> dict[str, Any] | None:
    """What `findnemo study utility` has measured: figure -> untouched, found and random, each with its interval."""
    if not utility:
        return None

    def of(one: dict[str, float] | None, value: str = "value") -> Estimate | None:
        return (
            None
            if one is None
            else Estimate(one[value], utility["captions"], one["low"], one["high"])
        )

    sets = [
        (name, *(of(by_kind.get(kind)) for kind in ("untouched", "found", "random")))
        for name, by_kind in utility["sets"].items()
    ]
    names = {
        "pixel_change": "Change of pixels, of 1",
        "impact": "Impact: 1 \u2212 SSIM of noise differences",
        "sscd_gen": "SSCD_gen",
        "a_clip": "A_CLIP, change",
    }
    changes = [
        (
            names.get(key, key),
            None,
            of(kinds.get("found"), "median"),
            of(kinds.get("random"), "median"),
        )
        for key, kinds in utility["changes"].items()
    ]
    return {"n": utility["captions"], "neurons": utility["neurons"], "rows": [*sets, *changes]}


def _rows(
    table: Sequence[tuple[str, str | None, str, str]], results: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    rows = []
    for label, before, after, good in table:
        known = [r for r in results if after in r and (before is None or before in r)]
        if known:
            old = median([r[before] for r in known]) if before else None
            rows.append(
                {
                    "label": label,
                    "before": old,
                    "after": median([r[after] for r in known]),
                    "good": good,
                }
            )
    return rows


def _mitigations(run: Run, captions: Sequence[Caption]) -> dict[str, Any] | None:
    """Table 1 from what the run holds, without the columns of the paper."""
    if not any(stage.startswith(STAGE) for c in captions for stage in c.results):
        return None
    from findnemo.studies.table1 import table

    made = table(run, intervals=True, beside=False)
    kept = [
        k
        for k, head in enumerate(made.columns)
        if not head.endswith(", paper") and any(row[k] is not None for row in made.rows)
    ]
    rows = [[_cell(row[k], k > 1) for k in kept] for row in made.rows]
    return {"columns": [made.columns[k] for k in kept], "rows": rows, "note": made.note}


def _cell(cell: Any, numeric: bool) -> tuple[str, str, str]:
    """A cell of a study's table as its value, a separator and its interval."""
    text = NONE if cell is None else str(cell)
    return (text.replace("-", "\u2212") if numeric else text).partition(" [")


def _others(captions: Sequence[Caption], stand: dict[int, str], tau: float) -> dict[str, Any]:
    """Captions that are not memorized, the nearest to tau first, and those that failed or are open."""
    under = sorted(
        (c for c in captions if stand[c.id] == "not memorized"), key=lambda c: -(c.score or 0.0)
    )
    rest = [c for c in captions if stand[c.id] in ("failed", "open") and state(c) != "memorized"]
    rows = [
        {
            "row": c.row,
            "text": clipped(c.text),
            "score": c.score,
            "standing": stand[c.id],
            "seeds": c.detected and c.detected.samples,
            "reason": "; ".join(f"{stage}: {reason}" for stage, reason in c.failed.items()),
        }
        for c in [*rest, *under][:LISTED]
    ]
    return {
        "rows": rows,
        "n": len(under),
        "more": len(under) + len(rest) - len(rows),
        "rest": len(rest),
    }
