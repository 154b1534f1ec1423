"""Do quick pictures tell what finished ones do?

`python measurements/verdicts.py RUN [--model DIR] [--every 3] [--steps 50]`.

Of every caption that a run has searched, and of several sets of neurons (those found, a shorter
prefix of the order in which they went off, for every third caption as many random ones),
`findnemo.verify` as it is made by default is held against images in all steps: image by image, is it
a copy of what another seed gave, and for the caption as a whole, are there copies before and after.
Images in all steps that the run holds are taken from it. `--out FILE` keeps what was measured, and
goes on from it; `--table FILE ...` prints the table of such files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from findnemo import demo, load
from findnemo.edits import deactivate
from findnemo.errors import EditError
from findnemo.files.originals import picture
from findnemo.images import ImageSettings, generate
from findnemo.metrics.copies import COPY, copies_in, shares, similarities
from findnemo.mitigation import Case
from findnemo.mitigation.neurons import drawn_neurons
from findnemo.models import Model
from findnemo.neurons import EMPTY, NeuronSet
from findnemo.runs import Caption, Run
from findnemo.runs.standing import neurons_of
from findnemo.seeds import FRESH
from findnemo.stats.intervals import clopper_pearson
from findnemo.tasks.opening import beginning_of
from findnemo.verification import verify


def sets_of(model: Model, caption: Caption) -> Iterator[tuple[str, NeuronSet]]:
    """Names and sets of neurons that a caption is verified with: the first set alone, where a
    caption has no neurons.
    """
    found = neurons_of(caption)
    localized = caption.localized
    assert localized is not None
    yield "found", found
    if len(localized.points) > 1:
        size = localized.points[-2 - caption.id % 2 * (len(localized.points) > 3)].neurons
        yield f"first {size}", NeuronSet.of(localized.order[:size])
    if found and caption.id % 3 == 0:
        with suppress(EditError):  # more than half of a layer was found
            yield "random", drawn_neurons(model, Case(caption.text, found, 0), 1)


def verdict(
    values: dict[str, float], alike: dict[str, Any], evaluations: float, quick: bool
) -> dict[str, Any]:
    """What a verification says, of the caption and of each image."""
    whens = ("before", "after")
    return {
        **{when: copies_in(values, when) for when in whens},
        "seeds": {when: (alike[f"copies_{when}"] >= COPY).tolist() for when in whens},
        "evaluations": evaluations,
        "quick": quick,
    }


def images_in(run: Run, caption: Caption, count: int, same: bool, when: str) -> list[Any]:
    """The images in all steps that a run holds, if they are made the `same` way; none where it made
    quick ones.
    """
    folder = run.path / "images" / caption.slug
    files = [folder / f"{when}-{k:02d}.png" for k in range(count)]
    return [picture(file) for file in files] if same and all(f.is_file() for f in files) else []


def in_all_steps(
    model: Model, caption: Caption, count: int, images: ImageSettings, neurons: NeuronSet
) -> list[Any]:
    with deactivate(model, neurons):
        return generate(model, caption.text, range(FRESH, FRESH + count), images)


def measure(run: Run, model: Model, args: argparse.Namespace, known: list[Any]) -> Iterator[Any]:
    """A row a caption and set that is not known yet."""
    kept = beginning_of(run.path)
    settings = kept.calibration.settings
    own = kept.plan.image_settings
    images = replace(own, steps=args.steps or own.steps, guidance=args.guidance or own.guidance)
    count = kept.plan.images
    judges = replace(demo.judges(), alignment=None)
    folder = Path(run.meta("folder") or ".")
    done = {(row["caption"], row["set"]) for row in known}
    captions = [c for c in run.captions() if c.localized is not None]
    for caption in captions[:: args.every]:
        original = None
        if model.source in demo.MODELS:
            original = demo.training_image(caption.text, model.source)
        elif caption.image:
            original = picture(folder / caption.image)
        judge = replace(judges, original=original)
        kept_images = partial(images_in, run, caption, count, images == own)
        made = partial(in_all_steps, model, caption, count, images)
        before: list[Any] = []
        for name, neurons in sets_of(model, caption):
            if (caption.id, name) in done:
                continue
            if not before:
                before = kept_images("before") or made(EMPTY)
            after = (name == "found" and kept_images("after")) or made(neurons)
            alike = similarities(before, after, judge)
            cost = 2 * (count * images.passes + settings.samples)
            quick = verify(
                model, caption.text, neurons, settings, count, images, judge, kept.calibration.tau
            )
            looked = quick.looked
            yield {
                "caption": caption.id,
                "set": name,
                "neurons": len(neurons),
                "quick": verdict(
                    quick.values,
                    looked.alike,
                    quick.values["evaluations"],
                    looked.steps is not None,
                ),
                "thorough": verdict(shares(alike), alike, cost, False),
            }


def share(same: list[bool]) -> str:
    """How many agree, with the Clopper-Pearson interval (95 %)."""
    low, high = clopper_pearson(sum(same), len(same))
    return f"{sum(same)} of {len(same)} [{low:.3f}, {high:.3f}]"


def table(files: list[Path]) -> Iterator[str]:
    """A Markdown table, a line a file and two for all together: with all sets, and with those that
    were found. Images are those of sets that were quick to the end, captions' verdicts all.
    """
    yield "| | sets | quick to the end | their images | captions' verdicts | evaluations, median |"
    yield "|---|---:|---:|---|---|---:|"
    every = [(file.stem, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    together = [row for _, rows in every for row in rows]
    own = [row for row in together if row["set"] == "found"]
    for name, rows in [*every, ("all", together), ("all, neurons that were found", own)]:
        both = [
            (row["quick"], row["thorough"], when)
            for row in rows
            for when in ("before", "after")
            if when == "after" or row["set"] == "found"  # the images before are the same
        ]
        images = [
            one == other
            for quick, thorough, when in both
            if quick["quick"]
            for one, other in zip(quick["seeds"][when], thorough["seeds"][when], strict=True)
        ]
        verdicts = [quick[when] == thorough[when] for quick, thorough, when in both]
        stood = sum(row["quick"]["quick"] for row in rows)
        cost = [median(row[how]["evaluations"] for row in rows) for how in ("quick", "thorough")]
        yield (
            f"| {name} | {len(rows)} | {stood} | {share(images)} | {share(verdicts)} |"
            f" {cost[0]:.0f} instead of {cost[1]:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", help="a run that has localized its captions")
    parser.add_argument("--model", help="where its model is, if not where the run found it")
    parser.add_argument("--every", type=int, default=1, help="of so many captions the first")
    parser.add_argument("--steps", type=int, help="of finished images, other than the run's")
    parser.add_argument("--guidance", type=float, help="likewise")
    parser.add_argument("--out", type=Path, help="JSON file to keep rows in, and to go on from")
    parser.add_argument("--table", nargs="+", type=Path, help="print the table of such files")
    args = parser.parse_args()
    if args.table:
        print("\n".join(table(args.table)))
        return
    with Run.open(args.run) as run:
        place = args.model or str(run.meta("source"))
        model = load(place)
        known = (
            json.loads(args.out.read_text(encoding="utf-8"))
            if args.out and args.out.exists()
            else []
        )
        for row in measure(run, model, args, known):
            known.append(row)
            print(json.dumps(row), flush=True)
            if args.out:
                args.out.write_text(json.dumps(known), encoding="utf-8")


if __name__ == "__main__":
    main()
