"""What a whole audit costs, stage by stage, beside the released procedure with its image scripts.

    python measurements/audit_cost.py demo demo-natural build/natural/lora4 --out build/cost
    python measurements/audit_cost.py demo --out build/cost --steps 50 --guidance 7
    python measurements/audit_cost.py --model DIR --prompts FILE --holdout FILE --out build/cost
    python measurements/audit_cost.py demo --out build/cost --against ../older --rounds 3
    python measurements/audit_cost.py --out build/cost --table

Subjects: `demo`, `demo-natural`, folders of members of either suite, or any `--model`. Each is audited by
`findnemo.audit` as it is installed (procedure `findnemo`); by the released procedure (`released`):
detection by all ten seeds, Algorithms 3 and 4 as published (`literal.Literal`), and for captions
over tau ten images before and ten after by plain diffusers, in one batch each, as its script
`4_generate_images.py` makes them (10 samples, seed 2, DDIM; 50 steps and guidance 7 unless the
subject has its own usual settings; the script makes them of ordinary captions too, which is left
out here); and the search by one step alone (`gradient`), for captions known to be memorized.

Evaluations are latents that passed the denoiser, whoever called it; a gradient taken back counts
two more. Seconds are the clock's on a GPU and the processor's on a CPU (use one thread), which
other processes change little. Images of fresh seeds under both results are then judged alike
(`--judge`), at nobody's cost. `--against` times whole commands in turn with those of an older
checkout, one thread each.

Rows are kept in OUT/SUBJECT-STEPS-GUIDANCE/: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from audit_table import PROCEDURES, tables
from literal import Literal, _zero
from meter import STAGES, Row, Stages, append, metered, read, spent
from PIL import Image

import findnemo
from findnemo import Calibration, ImageSettings, Model, NeuronSet, demo, report
from findnemo.benchmark import natural_demo, open_member, open_natural
from findnemo.benchmark.planted_scoring import learned
from findnemo.calibration import calibrate_in
from findnemo.images import usual
from findnemo.metrics import Descriptor
from findnemo.metrics.copies import COPY, COPYING, TRAINED, copying
from findnemo.metrics.kind import is_memory
from findnemo.models import sampling
from findnemo.neurons import EMPTY
from findnemo.runs import standing, state
from findnemo.runs.standing import switched_off
from findnemo.settings import PAPER
from findnemo.tasks import Detecting, Listener, Output, Pictures
from findnemo.verification import nearest

HOLDOUT = 100  # hold-out captions of the shipped models and of members
FPR = 0.05  # their false alarms, as `findnemo demo` has it
SAMPLES = 10  # images of the released script, before and after
SCRIPT_SEED = 2  # of its images
JUDGED = 9000  # sample numbers from here on: no search, verification or figure has seen them


@dataclass(frozen=True)
class Caption:
    """`pictures`: the training pictures that are known. `memorized`: None where nobody knows."""

    text: str
    type: str = ""
    pictures: tuple[Path, ...] = ()
    memorized: bool | None = None


@dataclass(frozen=True)
class Subject:
    """A model by its place, its captions, and how it is audited.

    `pictures`: how finished images are made, steps and guidance always given. `published`: a
    calibration of the paper's score. `chosen`: "held out", "tuned on" or "given".
    """

    folder: Path
    place: str
    captions: Sequence[Caption]
    detecting: Detecting
    published: Calibration
    pictures: Pictures
    chosen: str
    device: str | None = None
    dtype: str | None = None

    def opened(self, plain: bool = False) -> Model:
        """The model as findnemo's commands open it, or as diffusers does."""
        model = findnemo.load(self.place, self.device, self.dtype)
        if plain:
            model.denoiser.to(memory_format=torch.contiguous_format)
        return model

    @property
    def images(self) -> ImageSettings:
        assert self.pictures.image_steps is not None
        assert self.pictures.guidance is not None
        return ImageSettings(self.pictures.image_steps, self.pictures.guidance)

    @cached_property
    def table(self) -> Path:
        """The captions as a user has them: a file. A shipped model brings its pictures."""
        file = self.folder / "captions.csv"
        with file.open("w", newline="", encoding="utf-8") as opened:
            rows = csv.writer(opened)
            rows.writerow(["caption", "type", "image"])
            for one in self.captions:
                known = one.pictures if self.place not in demo.MODELS else ()
                rows.writerow([one.text, one.type, known[0].resolve() if known else ""])
        return file

    @cached_property
    def rows(self) -> list[Row]:
        """What is measured so far."""
        return read(self.folder / "rows.jsonl")

    def keep(self, row: Row) -> None:
        append(self.folder / "rows.jsonl", row)
        self.rows.append(row)

    def keep_caption(
        self, procedure: str, caption: Caption, stages: Mapping[str, Row], **found: Any
    ) -> None:
        """A row of a caption. `found`: at least `memorized` and `neurons`."""
        known = found["memorized"] if caption.memorized is None else caption.memorized
        kind = "memorized" if known else "ordinary"
        about = {"procedure": procedure, "caption": caption.text, "kind": kind, "stages": stages}
        self.keep(about | found)

    def left(self, procedure: str) -> list[Caption]:
        """Captions of which a procedure has no row yet."""
        done = {row["caption"] for row in self.rows if row["procedure"] == procedure}
        return [one for one in self.captions if one.text not in done]


# findnemo -----------------------------------------------------------------------------------------


def audited(subject: Subject) -> None:
    """The audit with its defaults, and its report: a row a caption, and one of what is done once.

    An audit that was stopped goes on, and so do the notes of what it spent.
    """
    if not subject.left("findnemo"):
        return
    out = subject.folder / "findnemo"
    notes = subject.folder / "spent.jsonl"
    with metered(model := subject.opened()) as meter:
        stages = Stages(meter, out, lambda row: append(notes, row))
        meter.go()
        run = findnemo.audit(
            model,
            str(subject.table),
            Output(out, report=False),
            subject.detecting,
            pictures=subject.pictures,
            listener=Listener(progress=stages),
        )
        stages.put("quality" if stages.stage in STAGES else stages.stage)
        report.write(run)
        stages.put("report")
    with run:
        captions = {one.text: one for one in run.captions()}
    noted = read(notes)
    for caption in subject.left("findnemo"):
        one = captions[caption.text]
        subject.keep_caption(
            "findnemo",
            caption,
            {stage: spent(noted, stage, caption.text) for stage in STAGES},
            memorized=state(one) == "memorized",
            neurons=switched_off(one).to_json(),
            standing=standing(one),
        )
    once = dict.fromkeys(row["stage"] for row in noted if row["caption"] is None)
    stages_once = {stage: spent(noted, stage, None) for stage in once}
    subject.keep({"procedure": "findnemo", "caption": None, "stages": stages_once})


# the released procedure, and a search alone -------------------------------------------------------


def released(subject: Subject) -> None:
    """Detection, search and images as the published scripts make them: a row a caption."""
    if not (captions := subject.left("released")):
        return
    with metered(model := subject.opened(plain=True)) as meter:
        for caption in captions:
            meter.take()
            literal = Literal(model, caption.text, subject.published)
            literal.detect()
            stages = {"detect": meter.take()}
            if literal.memorized:
                literal.search()
                stages["localize"] = meter.take()
                for neurons in (EMPTY, literal.neurons):
                    script_images(model, caption.text, neurons, subject.images)
                stages["verify"] = meter.take()
            subject.keep_caption(
                "released",
                caption,
                stages,
                memorized=literal.memorized,
                neurons=literal.neurons.to_json(),
                candidates=literal.candidates,
                scripted=literal.scripted,
            )


@torch.no_grad()
def script_images(model: Model, caption: str, off: NeuronSet, images: ImageSettings) -> Any:
    """Ten pictures in one batch by the pipeline of diffusers, neurons set to zero by hooks."""
    sampler = "ddim" if "ddim" in model.samplers else None  # flows have only their own
    pipeline = model.pipeline
    pipeline.set_progress_bar_config(disable=True)
    handles = [
        model.layers_of("all")[name].register_forward_hook(_zero(list(indices)))
        for name, indices in off.layers.items()
    ]
    try:
        with sampling(model, sampler):
            return pipeline(
                [caption] * SAMPLES,
                num_inference_steps=images.steps,
                guidance_scale=images.guidance,
                generator=torch.Generator().manual_seed(SCRIPT_SEED),
            ).images
    finally:
        for handle in handles:
            handle.remove()


def searched(subject: Subject) -> None:
    """The search by one step, its own detection included: a row a memorized caption."""
    if not (captions := [one for one in subject.left("gradient") if one.memorized]):
        return
    with metered(model := subject.opened()) as meter:
        for caption in captions:
            meter.take()
            found = findnemo.localize(model, caption.text, subject.published, "gradient")
            stages = {"localize": meter.take()}
            neurons = found.neurons.to_json()
            subject.keep_caption(
                "gradient", caption, stages, memorized=found.memorized, neurons=neurons
            )


# one judge for all --------------------------------------------------------------------------------


def judged(subject: Subject, images: int) -> None:
    """Share of copies among finished pictures of fresh seeds, under what each procedure has found:
    a row a caption that is memorized.

    A copy resembles a training picture by .7, or, where most untouched pictures are copies of each
    other, an untouched one of another seed.
    """
    found: dict[str, dict[str, NeuronSet]] = {}
    for row in subject.rows:
        if row["caption"] is not None and row.get("kind") == "memorized":
            found.setdefault(row["caption"], {})[row["procedure"]] = NeuronSet(row["neurons"])
    done = {r["caption"]: set(r["copies"]) for r in subject.rows if r["procedure"] == "judge"}
    open_ = {c: sets for c, sets in found.items() if not set(sets) <= done.get(c, set())}
    if not open_:
        return
    model = subject.opened()
    own = demo.DESCRIPTOR if subject.place in demo.MODELS else None
    file = subject.pictures.descriptor or own
    descriptor = Descriptor(file, model.device) if file else None
    known = {one.text: one.pictures for one in subject.captions}
    for caption, sets in open_.items():
        shares: dict[NeuronSet, float] = {}
        before: list[Any] = []
        for neurons in (EMPTY, *sets.values()):
            if neurons in shares:
                continue
            with findnemo.deactivate(model, neurons):
                made = findnemo.generate(
                    model, caption, range(JUDGED, JUDGED + images), subject.images
                )
            before = before or made
            shares[neurons] = copies(made, before, known[caption], descriptor)
        named = {"untouched": EMPTY} | sets
        subject.keep(
            {
                "procedure": "judge",
                "caption": caption,
                "images": images,
                "copies": {name: shares[neurons] for name, neurons in named.items()},
            }
        )


def copies(
    made: list[Any], before: list[Any], pictures: Iterable[Path], descriptor: Descriptor | None
) -> float:
    """Share of images that are copies, of a training picture or of what other seeds gave."""
    alike = copying(made, before, descriptor) >= COPY
    if float((copying(before, before, descriptor) >= COPY).float().mean()) < COPYING:
        alike = torch.zeros_like(alike)
    originals = [Image.open(file).convert("RGB") for file in pictures]
    if originals and descriptor is not None:
        alike |= (nearest(made, originals, descriptor) >= TRAINED).to(alike.device)
    return round(float(alike.float().mean()), 4)


# whole commands in turn ---------------------------------------------------------------------------


def paired(subject: Subject, against: Path, rounds: int) -> None:
    """Whole `findnemo audit` commands of this code and of an older checkout in turn, one thread
    each, always in a new run directory: a row a command.
    """
    own = Path(findnemo.__file__).parents[1]
    sources = {"findnemo": own, str(against): against / "src"}
    done = {(r["round"], r["who"]) for r in subject.rows if r["procedure"] == "command"}
    arguments = [*("audit", subject.place), *("--prompts", subject.table)]
    for name, value in {
        "--holdout": subject.detecting.holdout,
        "--calibration": subject.detecting.calibration,
        "--fpr": subject.detecting.fpr,
        "--image-steps": subject.pictures.image_steps,
        "--guidance": subject.pictures.guidance,
        "--descriptor": subject.pictures.descriptor,
        "--clip": subject.pictures.clip,
        "--device": subject.device,
        "--dtype": subject.dtype,
    }.items():
        arguments += [] if value is None else [name, value]
    for k in range(rounds):
        for who in list(sources)[:: 1 if k % 2 == 0 else -1]:
            if (k, who) in done:
                continue
            row = {"procedure": "command", "caption": None, "round": k, "who": who}
            subject.keep(row | {"load": os.getloadavg()[0]} | timed(sources[who], arguments))


def timed(source: Path, arguments: list[Any]) -> Row:
    """What a findnemo command takes with the code in `source`, on one thread: seconds by the clock
    and of the processor (which other processes change little), and evaluations.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(source.resolve())}
    with tempfile.TemporaryDirectory() as folder:
        count = Path(folder) / "evaluations"
        command = [sys.executable, str(Path(__file__).with_name("counted.py")), str(count)]
        command += [*map(str, arguments), "--quiet", "--out", f"{folder}/run"]
        began = time.perf_counter()
        before = os.times()
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, encoding="utf-8"
        )
        after = os.times()
        seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"{source}: the audit failed:\n{done.stderr[-2000:]}")
        evaluations = int(count.read_text(encoding="utf-8"))
    processor = sum(after[2:4]) - sum(before[2:4])  # of children, user and system
    return {
        "seconds": round(seconds, 2),
        "processor": round(processor, 2),
        "evaluations": evaluations,
    }


# subjects -----------------------------------------------------------------------------------------


def shipped(name: str, args: argparse.Namespace) -> Subject:
    """The demo, the natural demo, or a member of suite 1 or 2 by its folder."""
    images, folder = place_of(args, Path(name).name, usual("demo"))
    held_out = False
    place = name
    if name == "demo":
        captions = [
            Caption(p.text, str(p.type), (demo.MODELS[name] / str(p.image),), True)
            for p in demo.memorized()
        ]
        published = demo.calibration()
    elif (Path(name) / "model").is_dir():  # of suite 1
        planted = open_member(name)
        place = str(Path(name) / "model")
        captions = [
            Caption(m.caption, m.type, (planted.pictures / f"{m.picture}.png",), True)
            for m in learned(planted)[0]
        ]
        published = planted.calibration
        held_out = planted.plan.held_out
    else:  # of suite 2: saved as a user has it
        member = natural_demo() if name == "demo-natural" else open_natural(name)
        place = str(folder / "model")
        if not (folder / "model" / "model_index.json").exists():
            member.model.pipeline.save_pretrained(place)
        captions = [
            Caption(m.caption, m.type, m.pictures, True) for m in member.memories if m.copied
        ]
        published = member.calibration
        held_out = member.held_out
    if name != "demo":
        images = replace(images, descriptor=demo.DESCRIPTOR, clip=str(demo.CLIP))
    holdout = folder / "holdout.txt"
    holdout.write_text("\n".join(demo.holdout()[:HOLDOUT]) + "\n", encoding="utf-8")
    detecting = Detecting(holdout=str(holdout), fpr=FPR if args.fpr is None else args.fpr)
    ordinary = [Caption(text, memorized=False) for text in demo.unrelated()[: args.ordinary]]
    asked = [*captions[: args.memorized], *ordinary]
    chosen = "held out" if held_out else "tuned on"
    on = (args.device, args.dtype)
    return Subject(folder, place, asked, detecting, published, images, chosen, *on)


def given(args: argparse.Namespace) -> Subject:
    """Any model, with its captions; those with a type of a memory are memorized."""
    if not (args.prompts and (args.holdout or args.calibration)):
        raise SystemExit("--model needs --prompts FILE, and --holdout FILE or --calibration DIR")
    images, folder = place_of(args, Path(args.model).name, usual(args.model))
    table = findnemo.read_prompts(args.prompts).prompts
    near = Path(args.prompts).parent
    typed = any(p.type for p in table)
    captions = []
    for p in table:
        known = (near / p.image,) if p.image and (near / p.image).is_file() else ()
        captions.append(Caption(p.text, p.type or "", known, is_memory(p.type) if typed else None))
    memories = [c for c in captions if c.memorized is not False][: args.memorized]
    ordinary = [c for c in captions if c.memorized is False][: args.ordinary]
    holdout = None if args.calibration else args.holdout
    detecting = Detecting(holdout, args.calibration, fpr=args.fpr)
    published = Calibration.load(args.calibration) if args.calibration else None
    if published is None or published.settings.pairs != "largest":
        if not args.holdout:
            raise SystemExit("the calibration is not of the paper's score: give --holdout as well")
        texts = [p.text for p in findnemo.read_prompts(args.holdout).prompts]
        model = findnemo.load(args.model, args.device, args.dtype)
        published = calibrate_in(folder / "published", model, texts, PAPER)
    images = replace(images, descriptor=args.descriptor, clip=args.clip)
    chosen = "held out" if args.held_out else "given"
    on = (args.device, args.dtype)
    asked = [*memories, *ordinary]
    return Subject(folder, args.model, asked, detecting, published, images, chosen, *on)


def place_of(args: argparse.Namespace, name: str, own: ImageSettings) -> tuple[Pictures, Path]:
    """How images are made, as asked for or as is usual, and the folder of what is measured so."""
    guidance = own.guidance if args.guidance is None else args.guidance
    images = Pictures(image_steps=args.steps or own.steps, guidance=guidance)
    folder = args.out / f"{name}-{images.image_steps}-{guidance:g}"
    folder.mkdir(parents=True, exist_ok=True)
    return images, folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="*", help="demo, demo-natural, or folders of members")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="any model instead, with --prompts")
    parser.add_argument("--prompts", help="its captions; a type (VM, TM) says which are memorized")
    parser.add_argument("--holdout", help="its hold-out captions")
    parser.add_argument("--calibration", help="a calibration instead of --holdout")
    parser.add_argument("--held-out", action="store_true", help="nothing was chosen on --model")
    parser.add_argument("--descriptor", type=Path, help="copy descriptor for --model")
    parser.add_argument("--clip", help="CLIP for --model")
    parser.add_argument("--memorized", type=int, help="so many memorized captions (all)")
    parser.add_argument("--ordinary", type=int, default=24, help="so many ordinary captions (24)")
    parser.add_argument("--steps", type=int, help="of finished images (the model's usual)")
    parser.add_argument("--guidance", type=float, help="of finished images (the model's usual)")
    parser.add_argument("--fpr", type=float, help="false alarms (shipped models: .05)")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--procedures", nargs="*", default=PROCEDURES, choices=PROCEDURES)
    parser.add_argument("--judge", type=int, default=10, help="pictures a set (10); 0: none")
    parser.add_argument("--against", type=Path, help="an older checkout, timed in turn")
    parser.add_argument("--rounds", type=int, default=3, help="of --against")
    parser.add_argument(
        "--table", action="store_true", help="print what OUT holds, measure nothing"
    )
    args = parser.parse_args()
    if args.table:
        print(tables(args.out))
        return
    run = {"findnemo": audited, "released": released, "gradient": searched}
    subjects = (
        [given(args)] if args.model else (shipped(n, args) for n in args.subjects or ["demo"])
    )
    for subject in subjects:
        images = subject.images
        about = {
            "chosen": subject.chosen,
            "images": f"images of {images.steps} steps, guidance {images.guidance:g}",
            "machine": f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads,"
            f" {subject.device or 'default device'}, findnemo {findnemo.__version__}.",
        }
        (subject.folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        if args.against:
            paired(subject, args.against, args.rounds)
        else:
            for procedure in args.procedures:
                run[procedure](subject)
            if args.judge > 1:
                judged(subject, args.judge)
    print(tables(args.out))


if __name__ == "__main__":
    main()
