"""Figure 2: what tells memorized captions from others. a: memorization scores; b: z-scores of the neurons found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from statistics import median
from typing import TYPE_CHECKING

import torch

from findnemo.calibration import Calibration, activations
from findnemo.errors import NumericalError
from findnemo.localization.search import UNUSUAL
from findnemo.neurons import Neuron
from findnemo.passes.deltas import score
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
    """Scores of hold-out captions, of others that are not memorized and of memorized ones, with tau between them; and what they tell apart."""
    holdout, tau = bench.calibration.scores, bench.calibration.tau
    scores = bench.scores()
    kinds: dict[str, list[float]] = {}
    for caption in bench.work.run.captions():
        if caption.id in scores:
            kinds.setdefault(str(caption.type), []).append(scores[caption.id])
    known = (
        bench.once("fig2a", lambda: _scores(bench, bench.unrelated[:CAPTIONS]))
        if bench.unrelated
        else {}
    )
    others = list(known.values())
    groups = {"hold-out": holdout.tolist(), "not memorized": others, **kinds}
    rows: list[list[Cell]] = [
        ["hold-out mean", float(holdout.mean()) if len(holdout) else None, HOLDOUT[0]],
        ["hold-out std", float(holdout.std()) if len(holdout) > 1 else None, HOLDOUT[1]],
        ["tau", tau, HOLDOUT[2]],
    ]
    negative = torch.tensor(others, dtype=torch.float64) if others else holdout.double()
    for name, values in (
        ("all", [s for k in kinds.values() for s in k]),
        ("VM", kinds.get("VM", [])),
    ):
        rows += _detector(
            bench, name, torch.tensor(values, dtype=torch.float64), negative, fresh=bool(others)
        )
    text = (
        "Memorized captions give noise differences that are alike whatever the seed. Memorized are all captions with the type of a memory, those "
        "under tau too, each scored over all seeds."
    )
    table = Table(
        "Scores", ["", "this run", "paper"], rows, _about(bench, list(known), len(holdout))
    )
    return Study(
        "Figure 2a: memorization scores", text, [table], {"fig2a": _histogram(groups, tau)}
    )


def _histogram(groups: Mapping[str, Sequence[float]], tau: float) -> Figure:
    known = {kind: scores for kind, scores in groups.items() if scores}
    with figure() as (made, (axis,)):
        low = min([tau, *(s for scores in known.values() for s in scores)])
        for (kind, scores), color in zip(known.items(), cycle(COLORS), strict=False):
            share, label = [1 / len(scores)] * len(scores), f"{kind}, n = {len(scores)}"
            axis.hist(
                scores,
                bins=40,
                range=(low, max(1.0, low)),
                weights=share,
                color=color,
                alpha=0.65,
                label=label,
            )
        axis.axvline(tau, color="black", linewidth=1, linestyle="--", label=f"tau = {tau:.3f}")
        axis.set(xlabel="memorization score (largest pairwise SSIM)", ylabel="share of captions")
        axis.legend()
    return made


def _scores(bench: Bench, captions: Sequence[str]) -> dict[str, float]:
    """Caption -> memorization score over all seeds; those for which the model gives NaN are left out."""
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
    """How well the score tells memorized captions (all, or one type) from others; nothing for a type without captions. `fresh`: tau was not
    computed from the others, so that accuracy at tau says something."""
    if not len(positive):
        return []
    area, accuracy, rate = DETECTOR[name]
    tau, over = bench.calibration.tau, bench.calibration.settings.reaches
    measured = len(negative) > 0
    return [
        [f"AUROC, {name}", auroc(positive, negative) if measured else None, f"{area:g}"],
        [
            f"accuracy at .5, {name}",
            accuracy_of(positive >= HALF, negative >= HALF) if measured else None,
            f"{accuracy:g}",
        ],
        [
            f"accuracy at tau, {name}",
            accuracy_of(over(positive, tau), over(negative, tau)) if measured and fresh else None,
            None,
        ],
        [
            f"TPR at 1 % FPR, {name}",
            tpr_at_fpr(positive, negative) if measured else None,
            f"{rate:g}",
        ],
    ]


def _about(bench: Bench, others: Sequence[str], holdout: int) -> str:
    """Where the captions that are not memorized come from, and what is left out without them."""
    no_scores = (
        "" if holdout else "No hold-out scores: the statistics were imported, and tau was given. "
    )
    if others:
        return f"{no_scores}Not memorized: {bench.whence(others)}, as they come."
    if holdout:
        return "Not memorized: the hold-out captions, for this run knows no others. Accuracy at tau is left out: tau was computed from them."
    return f"{no_scores}AUROC, accuracy and TPR are left out: no captions are known not to be memorized, give --unrelated FILE."


def _shown(z: float) -> float:
    """|z|; that of a neuron which never varied on the hold-out captions is infinite, and counts as the search counts it."""
    return min(abs(z), UNUSUAL)


def fig2b(bench: Bench) -> Study:
    """z-scores of the found neurons on the captions they were found for, against captions that are not memorized."""
    own = [_shown(z) for c in bench.memorized() if c.localized for z in c.localized.z.values()]
    neurons, calibration = list(all_neurons(bench.work.run.captions())), bench.calibration
    known = [(name, i) for name, i in neurons if name in calibration.mean]
    compute = partial(_z_scores, calibration=calibration, neurons=known)
    other = [z for row in bench.over("fig2b", compute, bench.others[:CAPTIONS]) for z in row]
    top = 1.05 * max([*own, *other, 1.0])
    with figure() as (made, (axis,)):
        for values, color, label in (
            (other, GREY, "on captions that are not memorized"),
            (own, RED, "on the captions they hold"),
        ):
            if values:
                axis.hist(
                    values,
                    bins=40,
                    range=(0, top),
                    density=True,
                    color=color,
                    alpha=0.65,
                    label=label,
                )
        axis.set(xlabel="|z| of the neurons found", ylabel="density")
        axis.legend()
    rows = [
        [label, len(v), median(v) if v else None]
        for label, v in (("own captions", own), ("other captions", other))
    ]
    note = f"Other captions: {bench.whence(bench.others[:CAPTIONS])}."
    if len(known) < len(neurons):
        note += (
            f" {len(neurons) - len(known)} of the run's {len(neurons)} neurons are left out: they lie in layers that the paper does not look at, "
            "of which a calibration keeps no activations."
        )
    return Study(
        "Figure 2b: activations of memorization neurons",
        "A neuron that holds a memory is unusually active on its caption and ordinary elsewhere.",
        [Table("|z|", ["", "values", "median"], rows, note)],
        {"fig2b": made},
    )


def _z_scores(
    desk: Desk, text: str, calibration: Calibration, neurons: Sequence[Neuron]
) -> list[float]:
    """|z| of the neurons on a caption, as it is shown."""
    z = calibration.z_scores(activations(desk.model, text))
    return [_shown(float(z[name][i])) for name, i in neurons]
