"""The contents of the report on a run, as plain values for the template.

Nothing is measured here: stored results are counted and summarized.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from findnemo.calibration import Calibration, tau_interval
from findnemo.errors import InputError
from findnemo.localization import Scan
from findnemo.localization.trajectory import GONE
from findnemo.models import of_strength
from findnemo.neurons import Neuron
from findnemo.report import _charts as charts
from findnemo.report._attacks import attack, attempts, hardened
from findnemo.report._captions import (
    card,
    example,
    folded,
    has_card,
    line,
    ordered,
    strip,
    wanted_pictures,
)
from findnemo.report._pictures import Wanted, room, thumbnails
from findnemo.report._text import (
    ALIGNMENT,
    NONE,
    PIXELS,
    at_head,
    count,
    interval,
    minus,
    number,
    percent,
    placeless,
)
from findnemo.report._training import about_training, most_copied, training, wanted_training
from findnemo.report.sentences import of_caption, sentences
from findnemo.runs import (
    Caption,
    Run,
    all_neurons,
    captions_of,
    list_of,
    list_told,
    overview,
    p_values,
    q_values,
    settings_of,
    standing,
    state,
    switched_off,
)
from findnemo.runs.compare import own_apart, stage_in
from findnemo.runs.evidence import verdicts
from findnemo.runs.standing import WORDS, gives_copies, verification_of, whose_neurons, with_joined
from findnemo.runs.truth import truth_of
from findnemo.runs.union import sentence_on_union
from findnemo.runs.verdict import TROUBLE, Advice, advice_of, verdict_of
from findnemo.stats import bootstrap, wilson

if TYPE_CHECKING:
    from findnemo.studies import Table

# the one script of the page, which searches and sorts its captions; its hash allows no other
SCRIPT = (Path(__file__).parent / "templates" / "captions.js").read_text(encoding="utf-8")
HASH = f"sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}"
LEFT_OUT = "…"  # for folders in a command
LEAST = 5  # values that an interval needs
CARDS = 300  # captions with a card: pictures, scores and neurons
LISTED = 3000  # captions with a line; results.csv has the rest
SHARED = 15  # most shared neurons to list
QUALITY = (  # what it is, its names before and after, which values are good
    (PIXELS, None, "pixel_change", "low"),
    ("Change of pixels with random neurons off instead", None, "random_pixel_change", ""),
    ("SSCD_gen: images after the edit against those before it", None, "sscd_gen", "high"),
    ("SSCD_gen with random neurons off instead", None, "random_sscd_gen", ""),
    (ALIGNMENT, "a_clip_before", "a_clip_after", "high"),
)
UTILITY = {
    "pixel_change": PIXELS,
    "impact": "Impact: 1 \u2212 SSIM of noise differences",
    "sscd_gen": "SSCD_gen",
    "a_clip": "A_CLIP, change",
}


@dataclass(frozen=True)
class Estimate:
    """A median over `n` values with its 95 % bootstrap interval, unless there are too few values.

    `least`, `most`: extremes of the values, if known.
    """

    value: float
    n: int
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None

    def worst(self, good: str) -> float | None:
        """The value of the worst caption; None if no direction is good."""
        return {"low": self.most, "high": self.least}.get(good)


def median(values: Sequence[float]) -> Estimate | None:
    """
    >>> median([1.0, 2.0, 4.0])
    Estimate(value=2.0, n=3, low=None, high=None, least=1.0, most=4.0)
    """
    if not values:
        return None
    middle = statistics.median(values)
    if len(values) < LEAST:
        return Estimate(middle, len(values), least=min(values), most=max(values))
    numbers = torch.tensor(list(values), dtype=torch.float64)
    low, high = bootstrap(lambda x: float(x.quantile(0.5)), numbers)
    return Estimate(middle, len(values), low, high, min(values), max(values))


def facts(run: Run) -> dict[str, Any]:
    """Everything the page shows. Raises InputError for a run without a calibration."""
    if not (run.path / "calibration" / "calibration.json").is_file():
        raise InputError(
            f"{run.path} holds no audit: a report needs one (`findnemo audit`); scores of"
            " detectors: `findnemo inspect`"
        )
    calibration = Calibration.load(run.path / "calibration")
    captions = captions_of(run)
    settings = settings_of(run)
    quality = run.meta("quality")
    bases = run.meta("bases") or {}
    tau = settings["tau"]
    widths = overview.value_layers(run, captions)
    numbers = {name: k for k, name in enumerate(widths, 1)}
    advice = _without_places(advice_of(run, captions, place="RUN"))
    first = example(run.path, most_copied(run, captions), is_gone=advice.action != "hold")
    lined = ordered(captions)[:LISTED]
    carded = [c for c in lined if has_card(c)][:CARDS]
    wanted = wanted_training(run) + wanted_pictures(run.path, carded, first)
    pictures = thumbnails(wanted, room(len(lined), len(carded)))
    off = [c for c in captions if len(switched_off(c))]
    held = overview.holders(off)
    listed = list_of(run)
    checked = [c for c in off if c.verified]
    cards = {
        c.id: card(run.path, c, numbers, pictures) | {"tried": of_caption(verdicts(c, bases))}
        for c in carded
    }
    shown = [cards.get(c.id) or line(run.path, c, pictures) for c in lined]
    head = {
        "name": _name(run),
        "advice": advice,
        "verdict": verdict_of(run, captions),
        "truth": truth_of(run, captions),
        "whole": sentence_on_union(captions),
        "training": training(run, pictures),
        "trouble": _trouble(captions),
        "figures": figures(captions, widths, quality),
        "example": first and _example(run, first, pictures),
        "about": _about(run, captions, calibration),
        "tau": tau,
        "least": LEAST,
    }
    scores = {
        "distribution": _distribution(captions, calibration, tau),
        "pairs": settings["calibration"].get("pairs", "largest"),
        "holdout": _holdout(calibration, tau),
        "listed": None if listed is None else list_told(listed),
    }
    neurons = {
        "map": charts.neuron_map(widths, {neuron: len(some) for neuron, some in held.items()}),
        "numbers": numbers,
        "layers": [
            (name, width, sorted(index for layer, index in held if layer == name))
            for name, width in widths.items()
        ],
        "sizes": charts.sizes([len(with_joined(c)) for c in off]),
        "shared": _shared(held, numbers),
    }
    effect = {
        "before_after": _before_after(checked),
        "off": " or ".join(dict.fromkeys(with_ for c in checked if (with_ := whose_neurons(c)))),
        "quality": _quality(quality),
        "mitigations": _mitigations(run, captions),
        "attack": attack(run.meta("attack")),
        "attempts": attempts(run.meta("attempts")),
        "tried": sentences(run.meta("attempts"), run.meta("attack")),
        "hardened": hardened(run.meta("hardened")),
    }
    each = {
        "groups": folded(shown),
        "q": {} if listed is None else q_values(p_values(run)),
        "unlisted": len(captions) - len(shown),
        "cardless": sum(map(has_card, captions)) - len(carded),
        "pictures_left_out": len(set(wanted)) - len(pictures),
        "script": SCRIPT,
        "script_hash": HASH,
    }
    return head | scores | neurons | effect | each


def _without_places(advice: Advice) -> Advice:
    """Advice whose commands name no folder of this machine: a page goes to others."""
    commands = (map(_word, shlex.split(command)) for command in advice.next_commands)
    return advice._replace(next_commands=tuple(map(" ".join, commands)))


def _word(word: str) -> str:
    """A word of a command, quoted for a shell, with an ellipsis for the folders left out.

    >>> _word("/home/me/my photos"), _word("owner/name"), _word("--out")
    ("…/'my photos'", 'owner/name', '--out')
    """
    name = placeless(word)
    is_path = name != word and word.replace("\\", "/").rstrip("/").endswith(f"/{name}")
    return f"{LEFT_OUT}/{shlex.quote(name)}" if is_path else shlex.quote(name)


def _shared(
    held: Mapping[Neuron, list[Caption]], numbers: Mapping[str, int]
) -> list[tuple[Neuron, list[Caption]]]:
    """Neurons that several captions share, the most shared first, then by layer."""

    def place(one: tuple[Neuron, list[Caption]]) -> tuple[int, int, int]:
        (layer, index), captions = one
        return -len(captions), numbers.get(layer, 0), index

    return sorted((one for one in held.items() if len(one[1]) > 1), key=place)[:SHARED]


def _suspected(captions: Iterable[Caption]) -> list[Caption]:
    return [c for c in captions if state(c) == "suspected"]


def _example(run: Run, caption: Caption, pictures: Mapping[Wanted, str]) -> dict[str, Any]:
    shown = [(what, pictures[one]) for what, one in strip(run.path, caption) if one in pictures]
    return {"caption": caption, "standing": standing(caption), "strip": shown}


# the head of the page -----------------------------------------------------------------------------


def _trouble(captions: Sequence[Caption]) -> list[dict[str, Any]]:
    """Captions to mention first, by kind; memorized ones first within a kind."""
    by_state = sorted(captions, key=lambda c: state(c) != "memorized")
    groups = {kind: [c for c in by_state if standing(c) == kind] for kind in TROUBLE}
    if not any(c.localized for c in captions):
        groups.pop("not localized")  # there was no search: the advice says so
    return [
        {"word": WORDS[kind], "note": _note(group, kind), "captions": group}
        for kind, group in groups.items()
        if group
    ]


def _range(shares: Sequence[float]) -> str:
    low, high = percent(min(shares)), percent(max(shares))
    return low if low == high else f"{low} to {high}"


def _note(captions: Sequence[Caption], kind: str) -> str:
    """How many images of captions of a standing are copies, in words; empty if none were before."""
    checked = [v for c in captions if (v := verification_of(c)) is not None and gives_copies(c)]
    shares = [
        (v.copies_before, v.copies_after)
        for v in checked
        if v.copies_before is not None and v.copies_after is not None
    ]
    if not shares:
        return ""
    before, after = map(_range, zip(*shares, strict=True))
    off = "the found neurons off (they stay on)" if kind == "reduced" else "the neurons off"
    return f"Copies among the images: {before} before, {after} with {off}"


def figures(
    captions: Sequence[Caption], widths: Mapping[str, int], quality: dict[str, Any] | None
) -> list[dict[str, str]]:
    """The five figures at the head of the page, those of `runs.overview`, each with its meaning and
    interval.
    """
    found, worse, gone, off, _ = overview.figures(captions, quality)
    suspected = len(_suspected(captions))
    also = f"; {suspected} more only suspected" if suspected else ""
    removed = "memories without a copy once the neurons are off"
    return [
        _counted("memorized", f"captions that give copies{also}", found),
        _counted("not gone", "memories still there", worse, "bad" if worse.value else ""),
        _counted("gone on fresh seeds", removed, gone, "good" if gone.value else ""),
        _neurons_off(off, captions, widths),
        _other_captions(quality),
    ]


def _neurons_off(
    off: overview.Figure, captions: Sequence[Caption], widths: Mapping[str, int]
) -> dict[str, str]:
    label = "neurons switched off"
    if off.value is None:
        return at_head(label, NONE, "none were sought")
    whole = sum(widths.values())
    layers = f"{len(all_neurons(captions).layers)} of {count(len(widths), 'layer')}"
    means = f"{percent(off.value / whole)} of the value neurons, in {layers}"
    each = [len(with_joined(c)) for c in captions if len(switched_off(c))]
    note = f"median {statistics.median(each):g} a caption, at most {max(each)}" if each else ""
    return at_head(label, f"{off.value:,} of {whole:,}", means, note)


def _counted(label: str, means: str, figure: overview.Figure, tone: str = "") -> dict[str, str]:
    if figure.value is None:
        none = "no image was looked at" if label == "memorized" else "none was verified"
        return at_head(label, NONE, none)
    of = figure.of or 0
    return at_head(label, f"{figure.value} of {of}", means, _share(int(figure.value), of), tone)


def _share(hits: int, of: int) -> str:
    if not of:
        return "none was verified"
    ends = interval(*wilson(hits, of), percent)
    return f"{percent(hits / of)}, 95 % interval {ends}, n\u00a0=\u00a0{of}"


def _other_captions(quality: dict[str, Any] | None) -> dict[str, str]:
    label = "other captions change by"
    if not quality or not quality["prompts"]:
        return at_head(label, NONE, "not measured")
    change = median([row["pixel_change"] for row in quality.get("each", [])])
    ends = interval(change.low, change.high) if change else ""
    note = f"{f'95 % interval {ends}, ' if ends else ''}n = {quality['prompts']}"
    if change:
        note += f"; the worst changes by {number(change.most)}"
    if "a_clip_before" in quality:
        note += (
            f"; fit with the caption {number(quality['a_clip_before'])} before,"
            f" {number(quality['a_clip_after'])} after"
        )
    means = "median change of pixels, of 1, all neurons off"
    return at_head(label, number(quality["pixel_change"]), means, note)


def _about(
    run: Run, captions: Sequence[Caption], calibration: Calibration
) -> list[tuple[str, str]]:
    """What was audited and how, as pairs."""
    settings = settings_of(run)
    found = settings["calibration"]
    options = run.meta("source_options") or {}
    opened = "".join(f", {name} {overview.name_of(value)}" for name, value in options.items())
    versions = ", ".join(f"{name} {of}" for name, of in (run.meta("versions") or {}).items())
    kinds = Counter(s for s in map(standing, captions) if s in ("failed", "open"))
    rest = "".join(f", {n} {kind}" for kind, n in kinds.items())
    scope = [("Scope", _scope(settings["scope"], run.meta("scan")))] if "scope" in settings else []
    samples = "searches use samples from 0, verification samples from 1000"
    return [
        ("Model", f"{overview.name_of(run.meta('source'))}{opened}"),
        ("Fingerprint", str(settings["model"])),
        *about_training(run),
        ("Captions", f"{len(captions):,} given{rest}"),
        ("Hold-out captions", _holdout_captions(calibration)),
        ("Threshold", f"tau = {number(settings['tau'])}, {_how_tau(calibration)}"),
        ("Score", _how_scored(found)),
        ("Search", settings["search"]),
        *scope,
        ("Finished images", _how_drawn(settings)),
        ("Judges", _judges(run, captions)),
        ("Base seed", f"{found.get('seed')}; {samples}"),
        ("Precision", str(settings["dtype"])),
        ("Versions", versions or "not recorded"),
    ]


def _name(run: Run) -> str:
    """The model's name, with its LoRA."""
    source = overview.name_of(run.meta("source"))
    lora = (run.meta("source_options") or {}).get("lora")
    if lora is None:
        return source
    place, strength = of_strength(lora)
    return f"{place.rpartition('/')[2]}{f' x {strength:g}' * (strength != 1)} on {source}"


def _holdout_captions(calibration: Calibration) -> str:
    scored = len(calibration.trajectories)
    if not calibration.count:
        return "none here: imported statistics"
    few = f", {scored} of them scored" if scored < calibration.count else ""
    return f"{calibration.count:,}{few}"


def _how_scored(settings: Mapping[str, Any]) -> str:
    """How captions are scored, in words. `settings`: of a score, as a run keeps them."""
    how = f"{settings.get('pairs', 'largest')} {settings['similarity'].upper()}"
    guidance = settings.get("guidance")
    return (
        f"{how} between the noise differences of {count(settings['samples'], 'seed')}, variant"
        f" {settings['variant']}, step {settings['timestep'] + 1} of {settings['steps']}, "
        + ("no guidance" if guidance is None else f"guidance {guidance:g}")
    )


def _how_drawn(settings: Mapping[str, Any]) -> str:
    """How images are made, in words. `settings`: of a run."""
    if not settings["images"]:
        return "none"
    images = settings["image_settings"]
    sampler = overview.sampler_of(settings)
    steps = f"{count(images['steps'], 'step')}{overview.quickly(settings)}"
    how = f"{steps}, guidance {images['guidance']:g}"
    return f"{settings['images']} seeds a caption, {how}{f', sampler {sampler}' if sampler else ''}"


def _how_tau(calibration: Calibration) -> str:
    n = len(calibration.trajectories)
    confidence = calibration.confidence
    if not n:
        return "given with imported statistics"
    if calibration.fpr is not None and (bound := calibration.rate_bound()) is not None:
        sure = "" if confidence is None else f" with {percent(confidence)} confidence"
        return (
            f"for a false-positive rate of {percent(calibration.fpr)}{sure}; with these {n}"
            f" hold-out captions it is under {percent(bound)} with 95 % confidence"
        )
    ends = interval(*tau_interval(calibration.scores))
    return f"mean + 1 std of hold-out scores (95 % interval {ends}, n = {n})"


def _judges(run: Run, captions: Iterable[Caption]) -> str:
    """The judges of images, in words: those in the settings, or those that the results imply."""
    named = settings_of(run).get("judges") or {}
    checked = [c.verified for c in captions if c.verified is not None]
    copies = (
        "copy descriptor"
        if any(values.sscd_gen is not None for values in checked)
        else "no copy descriptor: copies are told by the correlation of pixels"
    )
    clip = "CLIP" if any(values.a_clip_after is not None for values in checked) else "no CLIP"
    which = [
        f"{what} {overview.name_of(named[key])}" if key in named else what
        for key, what in (("descriptor", copies), ("clip", clip))
    ]
    preprocessing = "".join(
        f"; {name}: {how}" for name, how in (run.meta("preprocessing") or {}).items()
    )
    return ", ".join(which) + preprocessing


# the charts and tables ----------------------------------------------------------------------------


def _distribution(
    captions: Sequence[Caption], calibration: Calibration, tau: float
) -> dict[str, Any]:
    holdout = calibration.scores.tolist() if len(calibration.trajectories) else []
    under = overview.scores(c for c in captions if standing(c) == "not memorized")
    groups = [
        ("hold-out", "holdout", holdout),
        ("audited, under tau", "under", under),
        ("memorized", "over", overview.scores(overview.memorized(captions))),
        ("suspected", "under", overview.scores(_suspected(captions))),
    ]
    by_rule = holdout and calibration.fpr is None
    ends = tau_interval(calibration.scores) if by_rule else None
    summary = [(label, median(values)) for label, _, values in groups if values]
    return charts.distribution(groups, tau, ends) | {"summary": summary}


def _holdout(calibration: Calibration, tau: float) -> str | None:
    """How many hold-out captions reach the threshold, in words."""
    n = len(calibration.trajectories)
    if not n:
        return None
    over = int(calibration.settings.reaches(calibration.scores, tau).sum())
    return f"{over} of {n} hold-out captions reach tau themselves ({_share(over, n)})."


def _scope(asked: str, kept: dict[str, Any] | None) -> str:
    """Where neurons were searched, and the result of a scan of the layers, in words."""
    paper = "the layers that the paper names"
    every = "all value layers"
    if asked != "auto" or kept is None:
        return {"paper": paper, "all": every}.get(asked, "by a scan of the layers, not made yet")
    scanned = Scan.from_json(kept)
    if not scanned.left:
        return (
            f"{every}: no caption that was scanned gives copies"
            if scanned.scope == "all"
            else f"{paper}: there are no others"
        )
    alike = sum(left["paper"] >= GONE for left in scanned.left.values())
    where = paper if scanned.scope == "paper" else every
    return (
        f"{where}: with all those of the paper off, {alike} of"
        f" {count(len(scanned.left), 'scanned caption')} still resembled the copy"
    )


def _before_after(captions: Sequence[Caption]) -> list[tuple[Any, ...]]:
    """Medians over captions of the measurements of verification on fresh seeds."""
    rows = []
    for measured in overview.BEFORE_AFTER:
        pairs = [pair for c in captions if (pair := measured.of(c)) is not None]
        if pairs and measured.stage == "verify":
            before = median([old for old, _ in pairs if old is not None])
            after = median([new for _, new in pairs if new is not None])
            rows.append((measured.title, before, after, measured.good))
    return rows


def _quality(quality: dict[str, Any] | None) -> dict[str, Any] | None:
    """The effect of switching off on other captions: medians if the run keeps every caption, else
    its summary.
    """
    if not quality:
        return None
    each = quality.get("each") or []
    return {
        "failed": quality["failed"],
        "neurons": quality["neurons"],
        "steps": quality.get("steps"),
        "rows": [
            (label, before and found[before], found[after], good)
            for label, before, after, good in QUALITY
            if (found := _estimates(quality, [name for name in (before, after) if name]))
        ],
        "against_random": median(
            [
                row["pixel_change"] - row["random_pixel_change"]
                for row in each
                if "random_pixel_change" in row
            ]
        ),
        "utility": _utility(quality.get("utility")),
    }


def _estimates(quality: dict[str, Any], names: Sequence[str]) -> dict[str, Estimate | None]:
    """Estimates of the quality check, all of `names` or none."""
    if quality.get("each"):
        rows = [row for row in quality["each"] if all(name in row for name in names)]
        return {name: median([row[name] for row in rows]) for name in names} if rows else {}
    if not all(isinstance(quality.get(name), float) for name in names):
        return {}
    return {name: Estimate(quality[name], quality["prompts"]) for name in names}


def _utility(utility: dict[str, Any] | None) -> dict[str, Any] | None:
    """Results of `findnemo study utility`: figure -> untouched, found and random, each with its
    interval.
    """
    if not utility:
        return None
    n = utility["captions"]

    def row(label: str, kinds: Mapping[str, Mapping[str, float]], value: str) -> tuple[Any, ...]:
        found = (kinds.get(kind) for kind in ("untouched", "found", "random"))
        return label, *(one and Estimate(one[value], n, one["low"], one["high"]) for one in found)

    rows = [row(name, kinds, "value") for name, kinds in utility["sets"].items()]
    changes = utility["changes"].items()
    rows += [row(UTILITY.get(name, name), kinds, "median") for name, kinds in changes]
    return {"n": n, "neurons": utility["neurons"], "rows": rows}


def _mitigations(run: Run, captions: Sequence[Caption]) -> list[dict[str, Any]]:
    """Table 1 of the run without the paper's columns, and the costs of mitigations; empty if none
    were compared.
    """
    own = stage_in(own_apart(run))
    if not any(stage.startswith(own) for c in captions for stage in c.results):
        return []
    from findnemo.studies.table1 import costs, table

    about = "Low is good but for A_CLIP. Below a figure is its 95 % interval. "
    return [_shown(table(run, intervals=True), about), _shown(costs(run))]


def _shown(table: Table, about: str = "") -> dict[str, Any]:
    """A table of a study without columns of the paper and without empty columns."""
    kept = [
        k
        for k, head in enumerate(table.columns)
        if not head.endswith(", paper") and any(row[k] is not None for row in table.rows)
    ]
    rows = [[_cell(row[k], k > 1) for k in kept] for row in table.rows]
    return {
        "title": table.title,
        "columns": [table.columns[k] for k in kept],
        "rows": rows,
        "note": about + table.note,
    }


def _cell(cell: Any, numeric: bool) -> tuple[str, str, str]:
    """A cell of a study's table: its value, a separator and its interval."""
    text = NONE if cell is None else str(cell)
    return (minus(text) if numeric else text).partition(" [")
