"""Figure 2: what tells memorized captions from others. a: memorization scores; b: z-scores of the neurons found."""

from __future__ import annotations

from statistics import median

import torch

from findnemo.metrics.roc import auroc, tpr_at_fpr
from findnemo.runs.standing import all_neurons
from findnemo.studies._bench import Bench, Study
from findnemo.studies._figure import BLUE, GREY, RED, figure
from findnemo.studies._table import Cell, Table

CAPTIONS = 64


def fig2a(bench: Bench) -> Study:
    """Scores of hold-out captions and of memorized ones, with tau between them."""
    holdout, tau = bench.calibration.scores, bench.calibration.tau
    kinds: dict[str, list[float]] = {}
    for caption in bench.work.run.captions():
        found = caption.results.get("localize")
        if caption.type and found:
            kinds.setdefault(caption.type, []).append(found["score_before"])
    every = torch.tensor([s for scores in kinds.values() for s in scores])
    with figure() as (made, (axis,)):
        groups = {"hold-out": holdout.tolist(), **kinds}
        low, high = min([tau, *groups["hold-out"]]), 1.0
        for (kind, scores), color in zip(groups.items(), (GREY, RED, BLUE), strict=False):
            share = [1 / len(scores)] * len(scores)
            label = f"{kind}, n = {len(scores)}"
            axis.hist(scores, bins=40, range=(low, high), weights=share, color=color, alpha=0.65, label=label)
        axis.axvline(tau, color="black", linewidth=1, linestyle="--", label=f"tau = {tau:.3f}")
        axis.set(xlabel="memorization score (largest pairwise SSIM)", ylabel="share of captions")
        axis.legend()
    rows: list[list[Cell]] = [
        ["hold-out mean", float(holdout.mean()) if len(holdout) else None, 0.358],
        ["hold-out std", float(holdout.std()) if len(holdout) > 1 else None, 0.07],
        ["tau", tau, 0.428],
    ]
    if _both(every, holdout):
        rows += [["AUROC", auroc(every, holdout), 0.98], ["TPR at 1 % FPR", tpr_at_fpr(every, holdout), 0.876]]
    text = (
        "Memorized captions give noise differences that are alike whatever the seed. Memorized are the captions of a known type that were "
        "localized: those under tau are not among them, see the table of detectors for all."
    )
    return Study("Figure 2a: memorization scores", text, [Table("Scores", ["", "this run", "paper"], rows)], {"fig2a": made})


def _both(memorized: torch.Tensor, holdout: torch.Tensor) -> bool:
    return len(memorized) > 0 and len(holdout) > 1


def fig2b(bench: Bench) -> Study:
    """z-scores of the found neurons on the captions they were found for, against captions that are not memorized."""
    own = [abs(z) for c in bench.memorized() for z in c.results["localize"]["z"].values()]
    neurons = list(all_neurons(bench.work.run.captions()))
    other = [abs(float(z[name][i])) for z in map(bench.z_scores, bench.unrelated[:CAPTIONS]) for name, i in neurons]
    top = 1.05 * max([*own, *other, 1.0])
    with figure() as (made, (axis,)):
        for values, color, label in (
            (other, GREY, "on captions that are not memorized"),
            (own, RED, "on the captions they hold"),
        ):
            axis.hist(values, bins=40, range=(0, top), density=True, color=color, alpha=0.65, label=label)
        axis.set(xlabel="|z| of the neurons found", ylabel="density")
        axis.legend()
    rows = [[label, len(v), median(v) if v else None] for label, v in (("own captions", own), ("other captions", other))]
    return Study(
        "Figure 2b: activations of memorization neurons",
        "A neuron that holds a memory is unusually active on its caption and ordinary elsewhere.",
        [Table("|z|", ["", "values", "median"], rows)],
        {"fig2b": made},
    )
