"""Figure 2: what tells memorized captions from others. a: memorization scores; b:
z-scores of the neurons found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, cycle
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from findnemo.calibration import Calibration, activations
from findnemo.errors import NumericalError
from findnemo.localization.search import UNUSUAL
from findnemo.neurons import Neuron
from findnemo.passes import score
from findnemo.runs.standing import all_neurons
from findnemo.settings import Settings
from findnemo.stats.roc import accuracy_of, auroc, tpr_at_fpr
from findnemo.studies._bench import Bench, Desk, Study
from findnemo.studies._figure import BLUE, GREEN, GREY, RED, figure
from findnemo.studies._published import DETECTOR, HOLDOUT
from findnemo.studies._table import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = 64
HALF = 0.5  # the threshold of appendix B.4
COLORS = (GREY, GREEN, RED, BLUE)


def fig2a(bench: Bench) -> Study:
    """Scores of hold-out captions, of others that are not memorized and of memorized ones, with
    tau between them; and what they tell apart.
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
        unrelated = bench.once("fig2a", lambda: _scores(bench, bench.unrelated[:CAPTIONS]))
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
    bins: Any = {"bins": 40, "range": (low, max(1.0, low)), "alpha": 0.65}
    with figure() as (sheet, (axis,)):
        for (kind, scores), color in zip(scored.items(), cycle(COLORS), strict=False):
            share = [1 / len(scores)] * len(scores)
            label = f"{kind}, n = {len(scores)}"
            axis.hist(scores, weights=share, color=color, label=label, **bins)
        axis.axvline(tau, color="black", linewidth=1, linestyle="--", label=f"tau = {tau:.3f}")
        axis.set(xlabel="memorization score (largest pairwise SSIM)", ylabel="share of captions")
        axis.legend()
    return sheet


def _scores(bench: Bench, captions: Sequence[str]) -> dict[str, float]:
    """Caption -> memorization score over all seeds; those for which the
    model gives NaN are left out.
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
    """How well the score tells memorized captions (all, or one type) from others; nothing for
    a type without captions. `fresh`: tau was not computed from the others, so that
    accuracy at tau says something.
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
    """Where the captions that are not memorized come from, and what is left out without them."""
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


def _shown(z: float) -> float:
    """|z|; that of a neuron which never varied on the hold-out captions is infinite, and counts
    as the search counts it.
    """
    return min(abs(z), UNUSUAL)


def fig2b(bench: Bench) -> Study:
    """z-scores of the found neurons on the captions they were found for, against
    captions that are not memorized.
    """
    own = [_shown(z) for c in bench.memorized() if c.localized for z in c.localized.z.values()]
    neurons = list(all_neurons(bench.work.run.captions()))
    calibration = bench.calibration
    calibrated = [(name, i) for name, i in neurons if name in calibration.mean]
    compute = partial(_z_scores, calibration=calibration, neurons=calibrated)
    other = [z for row in bench.over("fig2b", compute, bench.others[:CAPTIONS]) for z in row]
    top = 1.05 * max([*own, *other, 1.0])
    bins: Any = {"bins": 40, "range": (0, top), "density": True, "alpha": 0.65}
    with figure() as (sheet, (axis,)):
        if other:
            axis.hist(other, color=GREY, label="on captions that are not memorized", **bins)
        if own:
            axis.hist(own, color=RED, label="on the captions they hold", **bins)
        axis.set(xlabel="|z| of the neurons found", ylabel="density")
        axis.legend()
    rows = [
        [label, len(v), median(v) if v else None]
        for label, v in (("own captions", own), ("other captions", other))
    ]
    note = f"Other captions: {bench.whence(bench.others[:CAPTIONS])}."
    if len(calibrated) < len(neurons):
        note += (
            f" {len(neurons) - len(calibrated)} of the run's {len(neurons)} neurons are left out:"
            " they lie in layers that the paper does not look at, of which a calibration keeps no"
            " activations."
        )
    return Study(
        "A neuron that holds a memory is unusually active on its caption and ordinary elsewhere.",
        [Table("|z|", ["", "values", "median"], rows, note)],
        {"fig2b": sheet},
    )


def _z_scores(
    desk: Desk, text: str, calibration: Calibration, neurons: Sequence[Neuron]
) -> list[float]:
    """|z| of the neurons on a caption, as it is shown."""
    z = calibration.z_scores(activations(desk.model, text))
    return [_shown(float(z[name][i])) for name, i in neurons]
