"""Attack classes that regulators and courts name, each with what a run has on it.

A row is made from the run's own results. A new row is a function and its place in `ROWS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch

from findnemo.calibration import threshold
from findnemo.metrics.copies import COPY, TRAINED
from findnemo.metrics.kind import is_memory
from findnemo.report._attacks import bounded
from findnemo.report._evidence_row import (
    AUDIT,
    Figure,
    Row,
    RunContents,
    figure,
    in_words,
    middle,
    number_of,
    share,
    verifying,
    with_figures,
)
from findnemo.report._text import count, number, percent
from findnemo.report.sentences import sentences
from findnemo.robustness.curves import strongest
from findnemo.runs import Caption, list_of, state, switched_off
from findnemo.runs.detectors import HOLDOUT
from findnemo.runs.detectors import STAGE as DETECTOR
from findnemo.runs.evidence import (
    ATTACK,
    EMBEDDING,
    GIVEN,
    HARDENED,
    OFF,
    UNTOUCHED,
    counted,
    labelled,
    verdicts,
)
from findnemo.runs.overview import quickly
from findnemo.runs.standing import copies, in_cleaned_model, verification_of
from findnemo.runs.tuned import different, training_of
from findnemo.stats import auroc, bootstrap, tpr_at_fpr
from findnemo.training import share as interval_of

FPR = 0.01
EDITED = (OFF, HARDENED)  # states of the model that are compared with the untouched one
STATES = {  # state of the model in an attack -> its name here
    UNTOUCHED: "untouched model",
    OFF: "neurons off",
    HARDENED: "hardened model",
    f"{OFF}, never seen": "control, pictures never seen, neurons off",
}

# membership inference -----------------------------------------------------------------------------


def membership(held: RunContents) -> Row:
    """Detectors as tests that distinguish captions of memorized pictures from others."""
    sizes: dict[tuple[int, int, str], list[str]] = {}
    figures: list[Figure] = []
    for name, scores, holdout in _scored(held):
        positive = [v for c, v in scores if is_memory(c.type)]
        others = [v for c, v in scores if not is_memory(c.type)]
        negative = others or holdout
        if positive and negative:
            kind = "other captions of the table" if others else "hold-out captions"
            figures += _ranked(name, positive, negative)
            sizes.setdefault((len(positive), len(negative), kind), []).append(name)
    told = [text for size, names in sizes.items() for text in _comparison(size, names)]
    if "audit score" in chain.from_iterable(sizes.values()) and (early := _ended_early(held)):
        told.append(
            f"audit score: of {count(early, 'caption')} under tau the score is that of the few seeds which"
            " said so, not of all seeds as of the others and of hold-out captions: AUROC is not that"
            " of whole scores."
        )
    figures += _at_tau(held)
    row = Row(
        "Membership inference",
        "how well a score tells captions of memorized pictures from others: AUROC, and true"
        " positives at 1 % false positives",
        (
            "Whether the captions called memorized were in the training data, and the others were"
            " not: the run takes the table's word.",
            "Members that are not memorized.",
            "Attacks with shadow models.",
            "Attribute inference.",
        ),
    )
    if not figures:
        typed = any(is_memory(c.type) for c in held.captions)
        lacks = (
            "there are no scores of other captions"
            if typed
            else "no caption of the table has a type that says what is memorized"
        )
        return replace(
            row,
            why=f"no score of the run can be set against known answers: {lacks}",
            command="findnemo detect MODEL --prompts FILE --detector ssim,one-step --out RUN",
        )
    how = (
        "Captions of memorized pictures are what the type in the table says. AUROC: how often one of"
        " them scores over one of the others.",
        "The interval of true positives takes the threshold, which comes from the others, as known.",
    )
    return with_figures(row, figures, told, how)


def _comparison(size: tuple[int, int, str], names: Sequence[str]) -> Iterator[str]:
    """Sentences on which scores were compared with which."""
    positives, negatives, kind = size
    yield (
        f"{', '.join(names)}: {positives} captions that the table calls memorized, against"
        f" {negatives} {kind}."
    )
    if negatives * FPR < 1:
        yield (
            f"1 % of {negatives} is less than one caption: the true positives are those over every"
            " one of these others."
        )


def _scored(held: RunContents) -> Iterable[tuple[str, list[tuple[Caption, float]], list[float]]]:
    """Every score of the run: its name, captions with values, and hold-out values."""
    whole = [c for c in held.captions if c.score is not None]
    # detection in an audit stops at tau: only a search scores such a caption completely
    if held.calibration is not None and all(
        c.localized is not None or not (c.detected and c.detected.memorized) for c in whole
    ):
        scores = [(c, c.score) for c in whole if c.score is not None]
        yield "audit score", scores, held.calibration.scores.tolist()
    for name in held.run.meta("detectors") or []:
        values = [
            (c, float(c.typed_result(DETECTOR + name)["value"]))
            for c in held.captions
            if DETECTOR + name in c.results
        ]
        yield f"detector {name}", values, list((held.run.meta(HOLDOUT + name) or {}).values())


def _ended_early(held: RunContents) -> int:
    """Number of captions known to be under tau before all seeds were computed."""
    if held.calibration is None:
        return 0
    whole = held.calibration.settings.samples
    seen = [c.detected for c in held.captions if c.detected is not None]
    return sum(not one.memorized and (one.samples or whole) < whole for one in seen)


def _ranked(name: str, positive: Sequence[float], negative: Sequence[float]) -> list[Figure]:
    high, low = (torch.tensor(v, dtype=torch.float64) for v in (positive, negative))
    area = auroc(high, low)
    # if the scores of both kinds do not overlap, resampling gives no interval
    ends = bootstrap(auroc, high, low) if 0 < area < 1 else None
    hits = round(tpr_at_fpr(high, low, FPR) * len(high))
    n = len(high) + len(low)
    return [
        figure(f"{name}: AUROC", area, n, ends, "bootstrap over captions"),
        share(f"{name}: true positives at 1 % false positives", hits, len(high)),
    ]


def _at_tau(held: RunContents) -> list[Figure]:
    """The calibrated threshold of an audit, on captions with a known answer."""
    seen = [c for c in held.captions if c.detected is not None]
    memories = [c for c in seen if is_memory(c.type)]
    others = [c for c in seen if not is_memory(c.type)]
    if not memories or held.calibration is None:
        return []
    kinds = (("true positives", memories), ("false positives", others))
    return [
        share(f"audit, at tau: {name}", number_of(some, _over), len(some))
        for name, some in kinds
        if some
    ]


def _over(caption: Caption) -> bool:
    return caption.detected is not None and caption.detected.memorized


# regurgitation ------------------------------------------------------------------------------------


def regurgitation(held: RunContents) -> Row:
    """Finished images of unchanged captions, before and with the neurons off."""
    looked = [(c, in_cleaned_model(c)) for c in held.captions]
    seen = [(c, v) for c, v in looked if v is not None and copies(v, "before") is not None]
    shown, checks = [c for c, _ in seen], [v for _, v in seen]
    row = Row(
        "Regurgitation",
        "finished images of plain captions on fresh seeds: copies before, and with neurons off",
        (
            "Captions in other words: see the next row.",
            "Captions under the threshold, of which no image was made.",
            "Copies of a part of a picture, and of style.",
            "More seeds than were drawn.",
        ),
    )
    if not seen:
        return replace(row, why="no finished images were judged", command=verifying(held))
    figures = _before_after("captions that give copies", shown)
    for kind in ("VM", "TM"):
        if some := [c for c in shown if c.type == kind]:
            figures += _before_after(f"of type {kind}: captions that give copies", some)
    known = [v for v in checks if v.sscd_orig_before is not None and v.sscd_orig_after is not None]
    for when in ("before", "after"):
        likeness = [getattr(v, f"sscd_orig_{when}") for v in known]
        if likeness:
            figures += middle(f"SSCD_orig, similarity to the training image, {when}", likeness)
            near = sum(value >= TRAINED for value in likeness)
            name = f"captions with SSCD_orig of {TRAINED} or more, {when}"
            figures.append(share(name, near, len(known)))
    for when in ("before", "after"):
        shares = [getattr(v, f"copies_{when}") for v in checks]
        figures += middle(f"share of a caption's images that are copies, {when}", shares)
    images = held.settings.get("images") or 0
    drawn = held.settings["image_settings"]
    descriptor = any(v.sscd_gen is not None for v in checks)
    how = (
        f"{count(len(shown), 'caption')} over the threshold, as they stand in the table;"
        f" {count(images, 'image')} each before and after,"
        f" {count(drawn['steps'], 'step')}{quickly(held.settings)},"
        f" guidance {drawn['guidance']:g}, on seeds that no search has seen.",
        "A copy: an image as near to an untouched image of another seed as"
        f" {COPY}, or to the training image as {TRAINED} (median), by "
        + ("a copy descriptor." if descriptor else "the correlation of pixels: no descriptor."),
        f"After: {_off(shown)}. A caption for which nothing is switched off counts as before, unless"
        " those of others were off too.",
        f"The training image is known of {len(known)} of them.",
    )
    off = sum(len(switched_off(c)) == 0 for c in shown)
    left = (f"For {off} of them nothing is switched off.",) if off else ()
    return with_figures(row, figures, left, how)


def training_pictures(held: RunContents) -> Row:
    """Images of a fine-tuned model, each compared with every training picture."""
    row = Row(
        "Regurgitation of training pictures",
        "images by captions of the training pictures, trigger words and no prompt, each compared"
        " with every training picture",
        (
            "Prompts that are not captions of the training pictures, unless they were given.",
            "Copies of a part of a picture, and of style.",
            "More seeds than were drawn.",
        ),
    )
    about = training_of(held.run)
    if about is None:
        way = "findnemo audit BASE --lora FILE --train-images DIR --out RUN"
        return replace(row, why="the run was not given the training pictures", command=way)
    many = different(about)
    figures = []
    for one in about["variants"]:
        name = one["name"]
        figures.append(share(f"{name}: training pictures copied", one["copied"], many))
        if one["of"]:
            figures.append(_of_images(f"{name}: images that are copies", one["copies"], one["of"]))
        hits, of = one["controls"]
        if of:
            figures.append(_of_images(f"{name}: controls as like a training picture", hits, of))
    main = f"{about['main']}: "
    first = [one for one in figures if one["name"].startswith(main)]
    result = tuple(f"{one['name']}: {in_words(one)}" for one in first[:2])
    how = (
        f"{count(many, 'training picture')}, equal ones once. A copy: an image as near to a training picture, or its"
        f" mirror image, as {COPY}, and so much nearer than controls that it is no chance, by "
        + ("a copy descriptor." if about["descriptor"] else "the correlation of pixels."),
        "Controls: the base model's images for the same prompts and seeds, other training"
        " pictures.",
    )
    return with_figures(row, figures, (), how, result)


def _of_images(name: str, hits: int, of: int) -> Figure:
    """A share of images with the interval of the audit."""
    return figure(name, hits / of, of, interval_of(hits, of), "Clopper-Pearson", hits)


def _before_after(name: str, captions: Sequence[Caption]) -> list[Figure]:
    n = len(captions)
    return [
        share(f"{name}, untouched model", number_of(captions, _copied), n),
        share(f"{name}, neurons off", number_of(captions, _still_copied), n),
    ]


def _off(captions: Sequence[Caption]) -> str:
    """What was off when captions were judged, in words."""
    whole = sum(c.together is not None for c in captions)
    if not whole:
        return "with the neurons found for the caption off"
    rest = "" if whole == len(captions) else f" for {whole} of them, its own for the others"
    return f"with the neurons of all captions off, as they are exported{rest}"


def _copied(caption: Caption) -> bool:
    return bool((seen := verification_of(caption)) and copies(seen, "before"))


def _still_copied(caption: Caption) -> bool:
    """Whether the cleaned model copies a caption; for some captions nothing is off in it."""
    return bool((seen := in_cleaned_model(caption)) and copies(seen, "after"))


def other_words(held: RunContents) -> Row:
    """Attempts with other words, seeds, samplers and starts."""
    found = held.run.meta("attempts") or {"columns": [], "table": {}}
    row = Row(
        "Regurgitation, other ways to ask",
        "other seeds, samplers, steps, guidance, words, letters and tokens, and the picture itself"
        " as a start",
        (
            "Prompts that were sought to fit the model, and those of people who know it.",
            "Pictures whose captions are not in the table.",
        ),
    )
    figures = [
        share(f"{attempt}; {column}", hits, of)
        for attempt, columns in found["table"].items()
        for column, cell in columns.items()
        for hits, of in (_hits(column, cell),)
        if of >= 1
    ]
    if not figures:
        return replace(row, why="no such attempts were made", command=verifying(held))
    how = (
        "Captions of which an image is as near as a copy to the picture, or to what the untouched"
        " model gives; each attempt beside the untouched model and, where they were tried, ordinary"
        " captions.",
        "An edited model is judged on the captions for which the same attempt gives a copy on the"
        " untouched model; of others it tells nothing.",
        "Image to image is given the picture: what it gives back it was partly given.",
    )
    result = []
    asked = [f for f in figures if not f["name"].startswith(GIVEN)]
    for column in (UNTOUCHED, OFF):
        if those := [f for f in asked if f["name"].endswith(f"; {column}")]:
            most = max(those, key=lambda f: f["value"])
            called = f" ({most['name'].removesuffix(f'; {column}')})" if most["hits"] else ""
            of = f"{STATES[column]}, the attempt that gets most{called}"
            result.append(f"{of}: {in_words(most)}")
    return with_figures(row, figures, sentences(found, None), how, tuple(result))


def _hits(column: str, cell: Mapping[str, Any]) -> tuple[int, int]:
    """(captions copied, captions counted), see `counted`; (0, 0) if no control is known."""
    told = None if column in EDITED and "told" not in cell else counted(cell)
    return (0, 0) if told is None else (int(told["back"]), int(told["works"]))


# extraction ---------------------------------------------------------------------------------------


def exfiltration(held: RunContents) -> Row:
    """The search over the list of captions."""
    row = Row(
        "Exfiltration (extraction of training pictures)",
        "search over a list of captions for those whose picture comes out",
        (
            "Pictures whose captions are not in the list.",
            "Pictures without captions.",
            "Theft of the weights.",
        ),
    )
    seen = [c for c in held.captions if c.detected is not None]
    figures = []
    if seen:
        counted = (
            ("score at or over tau", _over),
            ("memorized: over tau, and copies were seen or it is listed", _is("memorized")),
            ("suspected: over tau, and no copy was seen", _is("suspected")),
            ("copies seen in finished images of the untouched model", _copied),
        )
        figures = [share(name, number_of(seen, holds), len(seen)) for name, holds in counted]
    figures += [
        share(f"{name}: at or over mean + 1 std of hold-out scores", _reach(scores, kept), n)
        for name, scores, kept in _scored(held)
        if name.startswith("detector ") and (n := len(scores)) and len(kept) >= 2
    ]
    if not figures:
        return replace(row, why="no caption was scanned", command=AUDIT)
    told = []
    if held.calibration is not None:
        listed = list_of(held.run)
        if listed is not None and listed.tested:
            name = f"listed at a false discovery rate of {percent(listed.level)}"
            figures.append(share(name, len(listed.listed), listed.tested))
        bound = held.calibration.rate_bound()
        told = [
            f"tau is {number(held.settings['tau'])}, "
            + (
                "mean + 1 std of hold-out scores: about one ordinary caption in eight reaches such"
                " a threshold."
                if held.calibration.fpr is None
                else f"for a false-positive rate of {percent(held.calibration.fpr)}"
                + ("." if bound is None else f"; under {percent(bound)} with 95 % confidence.")
            )
        ]
    left = len(held.captions) - len(seen) if seen else 0
    how = (
        f"{count(len(held.captions), 'caption')} in the table"
        + (f"; {left} of them without a result." if left else "."),
        "A score looks at one noisy step of a few seeds. Images were made of captions over tau.",
    )
    return with_figures(row, figures, told, how)


def _is(word: str) -> Callable[[Caption], bool]:
    return lambda caption: state(caption) == word


def _reach(scores: Sequence[tuple[Caption, float]], holdout: Sequence[float]) -> int:
    tau = threshold(torch.tensor(holdout, dtype=torch.float64))
    return sum(value >= tau for _, value in scores)


# inversion and reconstruction ---------------------------------------------------------------------


def inversion(held: RunContents) -> Row:
    """The attack on an embedding as curves, compared with its controls."""
    stored = held.run.meta("attack") or {"curves": {}}
    found = labelled(stored)
    row = Row(
        "Inversion",
        "a text embedding optimized for a picture (Kowalczuk et al. 2025): curve over its steps,"
        " beside the untouched model and pictures never seen",
        (
            "Access to gradients during training.",
            "More steps, more starts and other losses than were tried.",
            "Attackers who do not have the picture.",
        ),
    )
    figures: list[Figure] = []
    for name, gaps in (found.get("gaps") or {}).items():
        figures += [_at(f"gap, {name}", *point) for point in gaps]
    for name, points in bounded(found).items():
        figures += [_at(f"mean similarity, {name}", *point) for point in points]
    if not figures:
        return replace(row, why="no embedding was optimized", command=verifying(held))
    told = sentences(None, stored)
    control = found["curves"].get("own picture, untouched")
    if control:
        (first, start), (last, end) = control[0], control[-1]
        told = [
            "Positive control: in the untouched model the same attack, begun without the caption,"
            f" goes from {number(start)} {_when(first)} to {number(end)} {_when(last)}.",
            *told,
        ]
    else:
        told = ["No positive control: the untouched model was not attacked.", *told]
    how = (
        f"{count(int(found['n']), 'caption')} with neurons off; the training image is known of"
        f" {found.get('known') or 0} of them, for the others an image of the untouched model stands"
        " in.",
        "A gap is the similarity to the captions' own pictures less that to controls: the embedding itself carries information, so"
        " that pictures never seen come near, too. Gaps are of the captions for which the attack"
        " gives a copy on the untouched model; where it gives none there, it tells nothing.",
    )
    return with_figures(row, figures, told, how, tuple(told[:2]))


def _at(name: str, step: float, value: float, low: float | None, high: float | None) -> Figure:
    ends = None if low is None or high is None else (low, high)
    return figure(f"{name}, {_when(step)}", value, None, ends, "Student's t over captions")


def _when(step: float) -> str:
    """
    >>> _when(0), _when(50)
    ('at the start', 'after 50 steps')
    """
    return f"after {step:g} steps" if step else "at the start"


def reconstruction(held: RunContents) -> Row:
    """How many training pictures the attack brings back, and how hardening changes that."""
    row = Row(
        "Reconstruction",
        "known training pictures that an optimized embedding brings back at its last step, of the"
        " untouched, the edited and the hardened model",
        (
            "Searches for noise or latents instead of embeddings.",
            "Fine-tuning of the model on the pictures.",
            "Fewer or more steps than the last one here.",
        ),
    )
    bases = held.run.meta("bases") or {}
    figures: list[Figure] = []
    told: list[str] = []
    for name, called in STATES.items():
        every = _nearest(held.captions, ATTACK + name, bases)
        telling = [c for c in held.captions if name not in EDITED or _tells(c, name, bases)]
        nearest = _nearest(telling, ATTACK + name, bases)
        silent = len(every) - len(nearest)
        if silent:
            told.append(
                f"{called}: of {count(silent, 'picture')} the attack tells nothing, for it gives"
                f" {'it' if silent == 1 else 'them'} back from the untouched model neither."
            )
        for step in sorted({step for step, _ in nearest}):
            at = [near for reached, near in nearest if reached == step]
            text = f"{called}: as near as a copy within {count(step, 'step')}"
            figures.append(share(text, sum(near >= COPY for near in at), len(at)))
    if all(f["name"].startswith("control") for f in figures):
        return replace(
            row,
            why="no embedding was optimized for a known training picture",
            command=f"{verifying(held)} (with a table that names the pictures)",
        )
    if (held.run.meta("hardened") or {}).get("quality"):
        told.append("The hardened model is another one than the cleaned one: `findnemo harden`.")
    else:
        told.append("Hardening was not executed: `findnemo harden RUN`.")
    how = (
        "Mean similarity of the images of a step to the training picture, the attacker's best step;"
        f" from {COPY} on it counts as a copy. Without a copy descriptor it is the correlation of"
        " pixels.",
        "That an edited model does not give a picture back counts where the attack gives it back"
        " from the untouched model, begun without the caption; else it tells nothing.",
        "The attacker has the weights and the picture.",
    )
    return with_figures(row, figures, told, how)


def _tells(caption: Caption, state: str, bases: Mapping[str, str]) -> bool:
    """Whether the attack is conclusive for a caption in a state of the model."""
    found = verdicts(caption, bases).get(state, {}).get(EMBEDDING)
    return found is not None and found.word != "tells nothing"


def _nearest(
    captions: Iterable[Caption], stage: str, bases: Mapping[str, str]
) -> list[tuple[int, float]]:
    """Last step and its similarity, of captions over the threshold with a known training picture."""
    found = []
    for caption in captions:
        payload = caption.typed_result(stage) or {}
        stands = payload.get("basis") == bases.get(stage)
        curves = payload.get("curves") or {}
        is_whole = any(curves.values()) and all(v for c in curves.values() for v in c.values())
        if _over(caption) and stands and payload.get("known") and is_whole:
            line = strongest(curves)
            last = max(line)
            found.append((last, line[last]))
    return found


def attributes(held: RunContents) -> Row:
    """Attribute inference, for which findnemo has no test."""
    return Row(
        "Attribute and PII inference",
        "none",
        ("All of it: names, faces, places and other facts about people.",),
        why="findnemo has no test of it",
    )


# the attacks of a pack, in order
ROWS: tuple[Callable[[RunContents], Row], ...] = (
    membership,
    regurgitation,
    training_pictures,
    other_words,
    exfiltration,
    inversion,
    reconstruction,
    attributes,
)
