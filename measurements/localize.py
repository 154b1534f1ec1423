"""The literal procedure and findnemo's searches side by side:

`python measurements/localize.py [--search gradient listing]`.

All on the same model and captions in one run; U-Net sample evaluations are latents through the
U-Net once (a backward pass counts two more). With the demo model the sets are also compared with
the planted neurons. `--model DIR --device cuda --prompts FILE --calibration DIR` runs it on
anything; `--decoys SHARE` turns so many of the demo's neurons into ones that react to all the
captions measured and do nothing; `--geometry sd14` makes a full-size U-Net of random weights with
memories planted in it: the cost of the real one.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import geometry
import torch
from literal import Literal
from meter import machine, wait

import findnemo
from findnemo import Calibration, Model, NeuronSet
from findnemo.localization import DEFAULT, ONE_STEP, evidence
from findnemo.localization.search import find
from findnemo.passes import Probe, spending
from findnemo.scores import SIMILARITIES
from findnemo.settings import PAPER

FRESH = range(1000, 1010)


@dataclass(frozen=True)
class Row:
    """One caption under one procedure.

    `fresh`: largest same-seed similarity on seeds that no search has seen.
    """

    caption: str
    type: str
    seconds: float
    evaluations: int
    candidates: int
    neurons: NeuronSet
    after: float
    fresh: float


def measure(
    model: Model,
    plain: Model,
    captions: list[tuple[str, str]],
    calibration: Calibration,
    searches: list[str],
    keep: float | None = None,
) -> dict[str, list[Row]]:
    """Search -> one row a caption.

    The searches take turns, so that a busy machine slows all of them alike.

    `plain`: the same model as diffusers loads it, for the literal procedure. `keep`: pairwise score
    from which a seed is searched on (default: tau, as every procedure has it).
    """
    rows: dict[str, list[Row]] = {search: [] for search in searches}
    for caption, kind in captions:
        for search in searches:
            wait(model.device)
            began = time.perf_counter()
            used = plain if search == "literal" else model
            evaluations, candidates, neurons, after = locate(
                used, caption, calibration, search, keep
            )
            wait(model.device)
            seconds = time.perf_counter() - began
            fresh = same_seed(model, caption, neurons, calibration)
            rows[search].append(
                Row(caption, kind, seconds, evaluations, candidates, neurons, after, fresh)
            )
    return rows


def locate(
    model: Model, caption: str, calibration: Calibration, search: str, keep: float | None
) -> tuple[int, int, NeuronSet, float]:
    """U-Net sample evaluations, number of candidates, neurons, same-seed
    similarity with them off.
    """
    if search == "literal":
        literal = Literal(model, caption, calibration, keep=keep).run()
        return literal.evaluations, literal.candidates, literal.neurons, literal.score_after
    if keep is None:
        found = findnemo.localize(model, caption, calibration, search)
        return found.evaluations, len(found.candidates), found.neurons, found.score_after
    with spending() as spent:
        seen = evidence(model, caption, replace(calibration, tau=keep))
        seen.replication.tau = calibration.tau
        part = find(search, seen)
        after = seen.replication.similarity(part.neurons)
    return spent.evaluations, len(part.candidates), part.neurons, after


def same_seed(model: Model, caption: str, neurons: NeuronSet, calibration: Calibration) -> float:
    probe = Probe(model, caption, calibration.settings, FRESH)
    return float(
        SIMILARITIES[calibration.settings.similarity](probe.deltas(), probe.deltas(neurons)).max()
    )


def summary(rows: list[Row], planted: dict[str, NeuronSet], tau: float) -> dict[str, float]:
    hits = sum(len(r.neurons & planted[r.caption]) for r in rows if r.caption in planted)
    found = sum(len(r.neurons) for r in rows)
    real = sum(len(g) for c, g in planted.items() if c in {r.caption for r in rows})
    result = {
        "seconds": median(r.seconds for r in rows),
        "seconds, sum": sum(r.seconds for r in rows),
        "evaluations": median(r.evaluations for r in rows),
        "evaluations, sum": sum(r.evaluations for r in rows),
        "neurons": median(len(r.neurons) for r in rows),
        "neurons, sum": found,
        "gone on the search's seeds": sum(r.after <= tau for r in rows) / len(rows),
        "gone on fresh seeds": sum(r.fresh <= tau for r in rows) / len(rows),
        "fresh same-seed similarity, mean": sum(r.fresh for r in rows) / len(rows),
    }
    if planted:
        meets = sum(bool(len(r.neurons & planted[r.caption])) for r in rows) / len(rows)
        result |= {
            "meets the planted set": meets,
            "precision": hits / max(found, 1),
            "recall": hits / max(real, 1),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument(
        "--geometry",
        choices=geometry.GEOMETRIES,
        help="networks of this size with random weights instead, and planted memories",
    )
    parser.add_argument(
        "--decoys",
        type=float,
        metavar="SHARE",
        help="share of the demo's neurons that react and do nothing",
    )
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--prompts", help="captions (default: the demo's memorized ones)")
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--samples", type=int, default=10, help="seeds (with --geometry)")
    parser.add_argument(
        "--tau",
        type=float,
        help="another threshold than the calibration's: the lower, the more neurons it takes",
    )
    parser.add_argument(
        "--search",
        nargs="+",
        default=["literal", DEFAULT, *ONE_STEP],
        choices=["literal", DEFAULT, *ONE_STEP],
    )
    parser.add_argument(
        "--compile",
        metavar="MODE",
        help="compile findnemo's passes: default, reduce-overhead (CUDA graphs), ...",
    )
    parser.add_argument("--json", type=Path, help="write every row here")
    args = parser.parse_args()
    if args.geometry:
        pipeline = geometry.pipeline(args.geometry)
        model = findnemo.load(pipeline, args.device, args.dtype)
        planted = geometry.plant(model, geometry.MEMORIES, geometry.CAPTIONS)
        settings = replace(PAPER, samples=args.samples)
        calibration = findnemo.calibrate(model, geometry.CAPTIONS, settings=settings)
        captions = [(c, "VM" if n == 1 else "TM") for c, n in geometry.MEMORIES.items()]
    else:
        model = findnemo.load(args.model, args.device, args.dtype)
        table = findnemo.read_prompts(args.prompts) if args.prompts else findnemo.demo.memorized()
        captions = [(p.text, str(p.type or "")) for p in table][: args.limit]
        if args.decoys:
            geometry.add_decoys(model, args.decoys, [c for c, _ in captions])
        calibration = _calibration(model, args)
        planted = {} if args.prompts else dict(findnemo.demo.planted())
    keep = None
    if args.tau is not None:
        keep = calibration.tau
        calibration = replace(calibration, tau=args.tau)
    captions = captions[: args.limit]
    print(machine(model))
    plain = findnemo.load(copy.deepcopy(model.pipeline))
    plain.denoiser.to(memory_format=torch.contiguous_format)
    if args.compile:
        model = findnemo.compiled(model, mode=args.compile)
    for warm in (model, plain):
        locate(warm, captions[0][0], calibration, "gradient", keep)
    rows = measure(model, plain, captions, calibration, args.search, keep)
    report(rows, planted, calibration.tau)
    if args.json:
        args.json.write_text(
            json.dumps(
                {
                    s: [{**r.__dict__, "neurons": r.neurons.to_json()} for r in part]
                    for s, part in rows.items()
                },
                indent=1,
            ),
            encoding="utf-8",
        )


def _calibration(model: Model, args: argparse.Namespace) -> Calibration:
    if args.calibration:
        return Calibration.load(args.calibration)
    return (
        findnemo.calibrate(model, findnemo.demo.holdout())
        if args.decoys
        else findnemo.demo.calibration()
    )


def report(rows: dict[str, list[Row]], planted: dict[str, NeuronSet], tau: float) -> None:
    """One line a caption, then medians over captions, then ratios to the literal procedure."""
    for caption in [r.caption for r in next(iter(rows.values()))]:
        cells = [
            f"{s} {r.seconds:6.2f} s {r.evaluations:5d} ev {r.candidates:4d} > {len(r.neurons):2d}"
            f" {r.fresh:.2f}"
            for s, part in rows.items()
            for r in part
            if r.caption == caption
        ]
        print(f"  {caption[:34]:34s} {' | '.join(cells)}")
    for kind in ("VM", "TM", ""):
        chosen = {s: [r for r in part if r.type == kind or not kind] for s, part in rows.items()}
        if not all(chosen.values()):
            continue
        table = {s: summary(part, planted, tau) for s, part in chosen.items()}
        print(
            f"\n{kind or 'all'}, n = {len(next(iter(chosen.values())))}{'':24s}"
            + "".join(f"{s:>12s}" for s in table)
        )
        for key in next(iter(table.values())):
            print(f"  {key:36s}" + "".join(f"{t[key]:12.3f}" for t in table.values()))
        if "literal" in table:
            for s, part in chosen.items():
                pairs = list(zip(chosen["literal"], part, strict=True))
                time_ratio = median(a.seconds / b.seconds for a, b in pairs)
                cost_ratio = median(a.evaluations / b.evaluations for a, b in pairs)
                many = [a.evaluations / b.evaluations for a, b in pairs if a.candidates > 100]
                extra = (
                    f", with over 100 candidates {median(many):.1f} (n = {len(many)})"
                    if many
                    else ""
                )
                print(
                    f"  literal / {s}: time {time_ratio:.1f}, evaluations {cost_ratio:.1f}{extra}"
                )


if __name__ == "__main__":
    main()
