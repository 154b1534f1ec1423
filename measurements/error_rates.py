"""How often detection is wrong, on captions that no stage of the demo model has seen:

`python measurements/error_rates.py --keep FOLDER`.

Draws captions from the generator of the demo's training captions, without those it was trained,
calibrated or tested on, and scores all of them with all ten seeds (about .1 s each). Splits them at
random, again and again, into captions to calibrate on and captions to test, and prints the share of
false alarms at every rate beside what was promised, and what lists of a controlled false discovery
rate hold. `--keep`: where the scores stay, so that they are computed once; an interrupted run goes
on.
"""

from __future__ import annotations

import argparse
import platform
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path

import torch
from scipy.stats import betabinom
from torch import Tensor

import findnemo
from findnemo import Calibration
from findnemo.calibration import Rule, calibrate_in, threshold
from findnemo.settings import PAPER
from findnemo.stats import clopper_pearson
from findnemo.stats.rates import adjusted, p_value, rank, rate_bound

RATES = (0.001, 0.01, 0.05, 0.1)
LEVELS = (0.05, 0.1, 0.2)

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "demo_model"))


def training_captions(workers: int) -> frozenset[str]:
    """Every caption of the demo's training pool, drawn again from its seeds (minutes: its
    pictures are drawn with them).
    """
    from pool import SCENES, _scene_part, held_out_captions

    held_out = frozenset(text for table in held_out_captions().values() for text in table)
    with ProcessPoolExecutor(workers) as pool:
        parts = pool.map(
            partial(_scene_part, count=SCENES // 24, excluded=held_out), range(1000, 1024)
        )
        return held_out | {text for _, captions in parts for text in captions}


def unseen_captions(count: int, seed: int, workers: int) -> list[str]:
    """Distinct captions outside all of that, shuffled: every split into two
    parts is then exchangeable.
    """
    from scenes import caption, random_scene

    rng = random.Random(seed)
    seen = training_captions(workers)
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        text = caption(random_scene(rng), rng)
        if text not in seen:
            drawn[text] = None
    captions = list(drawn)
    rng.shuffle(captions)
    return captions


def trajectories(model: findnemo.Model, captions: list[str], folder: Path) -> Tensor:
    """(n, samples - 1) scores after 2, 3, ... seeds, kept in `folder`."""
    if not (folder / "calibration.json").exists():
        calibrate_in(folder, model, captions, PAPER, Rule(precision=None))
    return Calibration.load(folder).trajectories.double()


def splits(scores: Tensor, calibrate: int, repeats: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(scores to calibrate on, scores to test), the same captions split at random again and
    again; the first split is the order drawn.
    """
    generator = torch.Generator().manual_seed(0)
    for k in range(repeats):
        order = (
            torch.arange(len(scores))
            if k == 0
            else torch.randperm(len(scores), generator=generator)
        )
        yield scores[order[:calibrate]], scores[order[calibrate:]]


def show_rates(scores: Tensor, calibrate: int, repeats: int) -> None:
    """A line a threshold: promise, rate of the first split with its interval, mean and range over
    splits, how often the bound held.

    The bound is of the rate over captions without number; over a finite test it should hold as
    often as a beta-binomial count stays under it.
    """
    print(
        f"\n{len(scores) - calibrate} captions to test, {calibrate} to calibrate on, {repeats}"
        " splits"
    )
    print(
        "| threshold | promised | first split [95 %] | mean of splits | 5 to 95 % of splits | bound"
        " | splits under it (expected) |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    pairs = list(splits(scores, calibrate, repeats))
    of = len(scores) - calibrate
    kinds: list[tuple[str, float | None, float | None]] = [("mean + 1 std (paper)", None, None)]
    kinds += [(f"--fpr {fpr:g}", fpr, None) for fpr in RATES]
    kinds += [(f"--fpr {fpr:g} --confidence .95", fpr, 0.95) for fpr in RATES[1:]]
    for label, fpr, confidence in kinds:
        rates = torch.tensor(
            [
                float((test >= threshold(fit, fpr, confidence)).double().mean())
                for fit, test in pairs
            ]
        )
        hits = round(float(rates[0]) * of)
        low, high = (100 * x for x in clopper_pearson(hits, of))
        least, most = (100 * float(rates.quantile(q)) for q in (0.05, 0.95))
        held = "| |" if fpr is None else _held(rates, calibrate, of, fpr, confidence)
        promised = "" if fpr is None else f"{100 * fpr:g} %"
        print(
            f"| {label} | {promised} | {hits} of {of}: {100 * hits / of:.2f} % [{low:.2f},"
            f" {high:.2f}] | {100 * float(rates.mean()):.3f} % | {least:.2f} to {most:.2f} % {held}"
        )


def show_shipped(scores: Tensor, shipped: Tensor) -> None:
    """The same with the demo's own hold-out captions to calibrate on: another draw from the
    generator, as a user's hold-out captions are.
    """
    print(
        f"\n{len(scores)} unseen captions, thresholds of the {len(shipped)} hold-out captions that"
        " come with the demo"
    )
    for fpr in (None, *(fpr for fpr in RATES if fpr * (len(shipped) + 1) >= 1)):
        hits = int((scores >= threshold(shipped, fpr)).sum())
        low, high = (100 * x for x in clopper_pearson(hits, len(scores)))
        bound = (
            ""
            if fpr is None
            else f", bound {100 * rate_bound(len(shipped), rank(len(shipped), fpr, None)):.2f} %"
        )
        print(
            f"{fpr or 'mean + 1 std'}: {hits} = {100 * hits / len(scores):.2f} % [{low:.2f},"
            f" {high:.2f}]{bound}"
        )


def _held(rates: Tensor, calibrate: int, of: int, fpr: float, confidence: float | None) -> str:
    """The bound of a threshold, and how many splits stay under it."""
    k = rank(calibrate, fpr, confidence)
    bound = fpr if confidence else rate_bound(calibrate, k)
    expected = betabinom.cdf(int(bound * of + 1e-9), of, calibrate + 1 - k, k)
    return (
        f"| {100 * bound:.2f} % | {100 * float((rates <= bound + 1e-9).double().mean()):.1f} %"
        f" ({100 * expected:.1f} %) |"
    )


def show_lists(scores: Tensor, memorized: Tensor, repeats: int) -> None:
    """A line a list: 24 memorized captions among ordinary ones; how many of them are listed, and
    how much of the list is ordinary.
    """
    print(
        "\n| hold-out | ordinary in the table | level | memorized listed (of 24) | listed in all |"
        " false share, mean ± standard error | at most |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for holdout, ordinary in (
        (100, 24),
        (600, 24),
        (600, 976),
        (1000, 976),
        (3000, 976),
        (5000, 976),
    ):
        for level in LEVELS:
            rows = [
                _listed(fit, test[:ordinary], memorized, level)
                for fit, test in splits(scores, holdout, repeats)
            ]
            right, false = torch.tensor(rows, dtype=torch.float64).T
            share = 100 * false / (right + false).clamp(min=1)
            print(
                f"| {holdout} | {ordinary} | {level:g} | {right.mean():.2f} |"
                f" {(right + false).mean():.2f} | {share.mean():.1f} ±"
                f" {share.std() / repeats**0.5:.1f} % |"
                f" {100 * level * ordinary / (ordinary + len(memorized)):.1f} % |",
                flush=True,
            )


def show_memorized(rows: Tensor, scores: Tensor) -> None:
    """p-values of the memorized captions (n, samples - 1) with all unseen ones for hold-out: of
    all seeds, and of the first two.
    """
    for seeds, column in ((rows.shape[1] + 1, -1), (2, 0)):
        p = sorted(p_value(float(s), scores) for s in rows[:, column])
        print(f"p-values of memorized captions, {seeds} seeds: {', '.join(f'{x:.2g}' for x in p)}")


def _listed(fit: Tensor, ordinary: Tensor, memorized: Tensor, level: float) -> tuple[int, int]:
    """(memorized captions, ordinary captions) listed at a level."""
    q = (
        torch.tensor(adjusted([p_value(float(s), fit) for s in torch.cat([memorized, ordinary])]))
        <= level
    )
    return int(q[: len(memorized)].sum()), int(q[len(memorized) :].sum())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, default=Path("build/error-rates"))
    parser.add_argument("--captions", type=int, default=6000)
    parser.add_argument("--calibrate", type=int, default=1000)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    args.keep.mkdir(parents=True, exist_ok=True)
    table = args.keep / "captions.txt"
    if not table.exists():
        table.write_text(
            "\n".join(unseen_captions(args.captions, 1, args.workers)) + "\n", encoding="utf-8"
        )
    captions = table.read_text(encoding="utf-8").splitlines()
    model = findnemo.load("demo")
    scores = trajectories(model, captions, args.keep / "unseen")[:, -1]
    memorized = trajectories(
        model, [p.text for p in findnemo.demo.memorized()], args.keep / "memorized"
    )
    print(
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads: {len(scores)}"
        f" unseen captions, {scores.unique().numel()} values"
    )
    print(
        f"scores {scores.min():.3f} to {scores.max():.3f}, mean {scores.mean():.3f}, std"
        f" {scores.std():.3f}"
    )
    print(
        f"memorized captions, all seeds {memorized[:, -1].min():.3f} to"
        f" {memorized[:, -1].max():.3f}"
    )
    show_memorized(memorized, scores)
    show_rates(scores, args.calibrate, args.splits)
    show_shipped(scores, findnemo.demo.calibration().scores.double())
    show_lists(scores, memorized[:, -1], min(args.splits, 400))


if __name__ == "__main__":
    main()
