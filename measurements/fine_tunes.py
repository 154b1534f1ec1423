"""How well the audit of a fine-tune finds copies: against a judge that looks at far more images.

    python measurements/fine_tunes.py BASE LORA PHOTOS --descriptor FILE --out DIR [--judge 100]

The audit makes as many images as it does by default. The judge makes `--judge` images of each caption
with other seeds, and holds them against the same pictures. Both look at the base and at each LoRA, a
file or a directory of checkpoints, or a tuned model's directory. Printed are, for each LoRA: recall and precision of the pictures
that are called copied, one for each group of equal pictures, with 95 % intervals; what the two take;
and of checkpoints, which one is the first that copies.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from findnemo.runs.fine_tunes import Variant
from findnemo.stats import clopper_pearson
from findnemo.tasks import Detecting, FineTune, Listener, Pictures, Source
from findnemo.tasks.fine_tunes import Looks
from findnemo.tasks.tuned_input import Candidate, Material, candidates, material


def looked(
    found: list[Candidate], given: Material, out: Path, listener: Listener
) -> tuple[list[Variant], list[float]]:
    """What is seen of the base and of each LoRA, and the seconds that each took."""
    looks = Looks(given, out, listener=listener)
    variants: list[Variant] = []
    seconds = []
    for one in found:
        began = time.monotonic()
        variant = looks.at(one, variants[0] if variants else None)
        variants.append(variant)
        seconds.append(time.monotonic() - began)
    return variants, seconds


def groups_copied(variant: Variant, least: float = 0.0) -> set[int]:
    """Groups of pictures of which an image is a copy: of their own caption's, more than `least`."""
    found = set()
    for picture, group in zip(variant.judgement.pictures, variant.judgement.groups, strict=True):
        copies, of = picture.ways.get("own", (0, 0))
        if picture.state == "copied" and (least == 0.0 or (of and copies / of >= least)):
            found.add(group)
    return found


def captions_copied(variant: Variant) -> set[str]:
    """Captions of training pictures of which an image is a copy."""
    copies = (variant.rows[s.generation] for s in variant.judgement.sightings if s.copy)
    shown = (variant.shown.generations[k] for k in copies)
    return {one.prompt for one in shown if one.kind == "own"}


def share(hits: int, of: int) -> str:
    if not of:
        return "none"
    low, high = clopper_pearson(hits, of)
    return f"{hits} of {of} ({low:.2f} to {high:.2f})"


def evaluations(given: Material, candidate: Candidate) -> int:
    return sum(q.images for q in given.questions_for(candidate)) * given.settings.passes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base")
    parser.add_argument("lora", help="a LoRA, a directory of checkpoints, or a tuned model")
    parser.add_argument("photos")
    parser.add_argument("--descriptor", type=Path)
    parser.add_argument("--image-steps", type=int, default=15)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--judge", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    is_model = (Path(args.lora) / "model_index.json").is_file()
    source = Source(args.base, lora=None if is_model else args.lora)
    tuned = FineTune(args.photos, tuned=args.lora if is_model else None)
    pictures = Pictures(None, args.image_steps, args.guidance, descriptor=args.descriptor)
    listener = Listener(say=lambda text: print(f"  {text}", flush=True), warn=print)
    given = material(source, tuned, Detecting(), pictures, listener)
    own = tuple(
        replace(q, images=args.judge if q.kind == "own" else q.images)
        for q in given.questions
        if q.kind in ("own", "control")
    )
    judge = replace(given, questions=own, settings=replace(given.settings, seed=1))
    found = candidates(source, tuned)
    audit, seconds = looked(found, given, args.out / "audit", listener)
    truth, longer = looked(found, judge, args.out / "judge", listener)
    verdicts = [
        [v.judgement.verdict(base=variants[0].judgement) for v in variants]
        for variants in (audit, truth)
    ]
    rows = []
    for k, candidate in enumerate(found):
        called = groups_copied(audit[k])
        copied = groups_copied(truth[k])
        often = groups_copied(truth[k], 0.05)
        named = captions_copied(audit[k])
        true = captions_copied(truth[k])
        rows.append(
            {
                "model": candidate.name,
                "audit": len(called),
                "judge": len(copied),
                "recall": share(len(called & copied), len(copied)),
                "recall, copied in 5 % or more": share(len(called & often), len(often)),
                "precision": share(len(called & copied), len(called)),
                "recall of captions": share(len(named & true), len(true)),
                "precision of captions": share(len(named & true), len(named)),
                "verdict": verdicts[0][k],
                "verdict of the judge": verdicts[1][k],
                "evaluations": [evaluations(g, candidate) for g in (given, judge)],
                "seconds": [round(seconds[k], 1), round(longer[k], 1)],
            }
        )
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    firsts = [
        next((k for k, said in enumerate(verdict) if k and said == "copies"), None)
        for verdict in verdicts
    ]
    names = [None if k is None else found[k].name for k in firsts]
    print(f"first that copies: audit {names[0]}, judge {names[1]}")
    (args.out / "fine_tunes.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
