"""Figure 2: what distinguishes memorized captions from others. a: memorization scores. b: z-scores
of the neurons of the first value layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from findnemo.calibration import Calibration, activations
from findnemo.errors import NumericalError
from findnemo.localization.search import UNUSUAL
from findnemo.passes import score
from findnemo.settings import Settings
from findnemo.stats.roc import accuracy_of, auroc, tpr_at_fpr
from findnemo.studies._bench import Bench, Desk, Study, by_type
from findnemo.studies.figure import BLUE, GREEN, GREY, RED, figure, ink
from findnemo.studies.published import DETECTOR, HOLDOUT
from findnemo.studies.table import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = 64
HALF = 0.5  # the threshold of appendix B.4
COLORS = (GREY, GREEN, RED, BLUE)
THETAS = (3.0, 5.0)  # z-scores; Figure 2b counts the neurons beyond each


def fig2a(bench: Bench) -> Study:
    """Scores of hold-out captions, of other captions that are not memorized, and of memorized ones,
    with tau; and how well they separate the kinds.
    """
    holdout = bench.calibration.scores
    tau = bench.calibration.tau
    scores = bench.scores()
    kinds: dict[str, list[float]] = {}
    for caption in bench.work.run.captions():
        if caption.id in scores:
            kinds.setdefault(str(caption.type), []).append(scores[caption.id])
    unrelated: dict[str, float] = {}
    if bench.unrelated:
        unrelated = bench.once("fig2a", lambda: _scores(bench, bench.unrelated))
    others = list(unrelated.values())
    groups = {"hold-out": holdout.tolist(), "not memorized": others, **kinds}
    rows: list[list[Cell]] = [
        ["hold-out mean", float(holdout.mean()) if len(holdout) else None, HOLDOUT[0]],
        ["hold-out std", float(holdout.std()) if len(holdout) > 1 else None, HOLDOUT[1]],
        ["tau", tau, HOLDOUT[2]],
    ]
    negative = torch.tensor(others, dtype=torch.float64) if others else holdout.double()
    memorized = {"all": list(chain.from_iterable(kinds.values())), "VM": kinds.get("VM", [])}
    for name, values in memorized.items():
        positive = torch.tensor(values, dtype=torch.float64)
        rows += _detector(bench, name, positive, negative, fresh=bool(others))
    text = (
        "Memorized captions give noise differences that are alike whatever the seed. Memorized are"
        " all captions with the type of a memory, those under tau too, each scored over all seeds."
    )
    note = _about(bench, list(unrelated), len(holdout))
    table = Table("Scores", ["", "this run", "paper"], rows, note)
    histogram = _histogram(groups, tau)
    return Study(text, [table], {"fig2a": histogram})


def _histogram(groups: Mapping[str, Sequence[float]], tau: float) -> Figure:
    scored = {kind: scores for kind, scores in groups.items() if scores}
    low = min([tau, *chain.from_iterable(scored.values())])
    bins: Any = {"bins": 40, "range": (low, max(1.0, low)), "histtype": "stepfilled"}
    with figure() as (sheet, (axis,)):
        for (kind, scores), color in zip(scored.items(), cycle(COLORS), strict=False):
            share = [1 / len(scores)] * len(scores)
            label = f"{kind}, n = {len(scores)}"
            faint = (color, 0.35)  # outlined, so that overlapping groups can be distinguished
            axis.hist(scores, weights=share, fc=faint, ec=color, label=label, **bins)
        axis.axvline(tau, color=ink(), linewidth=1, linestyle="--", label=f"tau = {tau:.3f}")
        axis.set(xlabel="memorization score (largest pairwise SSIM)", ylabel="share of captions")
        axis.legend()
    return sheet


def _scores(bench: Bench, captions: Sequence[str]) -> dict[str, float]:
    """Caption -> memorization score over all seeds, without captions for which the model gives
    NaN.
    """
    scores = bench.over("fig2a", partial(_score, settings=bench.calibration.settings), captions)
    return {text: s for text, s in zip(captions, scores, strict=True) if s is not None}


def _score(desk: Desk, text: str, settings: Settings) -> float | None:
    try:
        return score(desk.model, text, settings=settings)
    except NumericalError:
        return None


def _detector(
    bench: Bench, name: str, positive: torch.Tensor, negative: torch.Tensor, fresh: bool
) -> list[list[Cell]]:
    """How well the score separates memorized captions (all, or one type) from others; empty for a
    type without captions.

    `fresh`: tau was not computed from the others, so accuracy at tau is meaningful.
    """
    if not len(positive):
        return []
    area, half, rate = DETECTOR[name]
    paper = {"AUROC": area, "accuracy at .5": half, "accuracy at tau": None, "TPR at 1 % FPR": rate}
    ours: dict[str, float] = {}
    if len(negative):
        ours["AUROC"] = auroc(positive, negative)
        ours["accuracy at .5"] = accuracy_of(positive >= HALF, negative >= HALF)
        ours["TPR at 1 % FPR"] = tpr_at_fpr(positive, negative)
    if len(negative) and fresh:
        tau = bench.calibration.tau
        over = bench.calibration.settings.reaches
        ours["accuracy at tau"] = accuracy_of(over(positive, tau), over(negative, tau))
    return [
        [f"{label}, {name}", ours.get(label), None if value is None else f"{value:g}"]
        for label, value in paper.items()
    ]


def _about(bench: Bench, others: Sequence[str], holdout: int) -> str:
    """The sources of captions that are not memorized, and what is left out without them."""
    no_scores = (
        "" if holdout else "No hold-out scores: the statistics were imported, and tau was given. "
    )
    if others:
        return f"{no_scores}Not memorized: {bench.whence(others)}, as they come."
    if holdout:
        return (
            "Not memorized: the hold-out captions, for this run knows no others. Accuracy at tau is"
            " left out: tau was computed from them."
        )
    return (
        f"{no_scores}AUROC, accuracy and TPR are left out: no captions are known not to be"
        " memorized, give --unrelated FILE."
    )


def fig2b(bench: Bench) -> Study:
    """z-scores of all neurons of the first value layer, on memorized captions and on captions that
    are not memorized.
    """
    layer = next(iter(bench.calibration.mean))
    kinds = {
        k: [c.text for c in g] for k, g in by_type(bench.memorized_captions(), "memorized").items()
    }
    kinds["not memorized"] = list(bench.others[:CAPTIONS])
    compute = partial(_z_scores, calibration=bench.calibration, layer=layer)
    found = iter(bench.over("fig2b", compute, list(chain.from_iterable(kinds.values()))))
    z = {kind: np.array(list(islice(found, len(texts)))) for kind, texts in kinds.items()}
    rows: list[list[Cell]] = []
    for kind, values in z.items():
        size = np.abs(values)
        over = [float((size > theta).mean()) for theta in THETAS]
        rows.append([kind, *values.shape, float(np.median(size)), *over, float(size.max())])
    heads = ["", "captions", "neurons", "median abs. z", *(f"share over {t:g}" for t in THETAS)]
    note = (
        f"Layer: {layer}. Not memorized: {bench.whence(kinds['not memorized'])}. z-scores against"
        f" the hold-out captions; those of neurons that never varied there count as {UNUSUAL:g}."
    )
    text = (
        "In the paper some neurons of the first value layer are active far out of their"
        " distribution on memorized captions, on other captions hardly any (Algorithm 2 begins with"
        " those over 5)."
    )
    table = Table(
        "z-scores of all neurons of the first value layer", [*heads, "largest"], rows, note
    )
    return Study(text, [table], {"fig2b": _tails(z)})


def _tails(z: Mapping[str, np.ndarray]) -> Figure:
    """The distributions as outlines, as shares of all values on a logarithmic scale: they differ
    only in few values.
    """
    low, high = min(v.min() for v in z.values()), max(v.max() for v in z.values())
    bins: Any = {"bins": 60, "range": (min(low, -1.0), max(high, 1.0)), "histtype": "step"}
    colors = dict(zip(z, cycle((RED, BLUE, GREEN)), strict=False)) | {"not memorized": GREY}
    with figure() as (sheet, (axis,)):
        for kind, values in z.items():
            share = np.full(values.size, 1 / values.size)
            label = f"{kind}, n = {len(values)}"
            flat = values.ravel()
            axis.hist(flat, weights=share, color=colors[kind], label=label, linewidth=1.2, **bins)
        axis.set_yscale("log")
        axis.set(xlabel="z of the neurons of the first value layer", ylabel="share of values")
        axis.legend()
    return sheet


def _z_scores(desk: Desk, text: str, calibration: Calibration, layer: str) -> list[float]:
    """z-scores of the neurons of a layer on a caption, computed as the search does."""
    z = calibration.z_scores(activations(desk.model, text))[layer]
    return z.clamp(-UNUSUAL, UNUSUAL).tolist()
