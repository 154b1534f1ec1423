"""What a whole audit costs, stage by stage, beside the released procedure with its image scripts.

    python measurements/audit_cost.py demo demo-natural build/natural/lora4 --out build/cost
    python measurements/audit_cost.py demo --out build/cost --steps 50 --guidance 7
    python measurements/audit_cost.py --model DIR --prompts FILE --holdout FILE --out build/cost
    python measurements/audit_cost.py demo --out build/cost --against ../older --rounds 3
    python measurements/audit_cost.py --out build/cost --table

Subjects: `demo`, `demo-natural`, folders of natural members, or any `--model`. Each is audited by
`findnemo.audit` as it is installed (procedure `findnemo`); by the released procedure (`released`):
detection by all ten seeds, Algorithms 3 and 4 as published (`literal.Literal`), and for captions
over tau ten images before and ten after by plain diffusers, in one batch each, as its script
`4_generate_images.py` makes them (10 samples, seed 2, DDIM; 50 steps and guidance 7 unless the
subject has its own usual settings; the script makes them of ordinary captions too, which is left
out here); and the search by one step alone (`gradient`), for captions known to be memorized.

Evaluations are latents that passed the denoiser, whoever called it; a gradient taken back counts
two more. Images of fresh seeds under both results are then judged alike (`--judge`), at nobody's
cost. `--against` times whole commands in turn with those of an older checkout, one thread each.

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from literal import Literal, _zero

import findnemo
from findnemo import Calibration, ImageSettings, Model, NeuronSet, demo, report
from findnemo.benchmark import natural_demo, open_natural
from findnemo.calibration import calibrate_in
from findnemo.images import usual
from findnemo.metrics import Descriptor
from findnemo.metrics.copies import COPY, COPYING, copying
from findnemo.metrics.kind import is_memory
from findnemo.models import sampling
from findnemo.runs import Run, standing, state
from findnemo.runs.standing import TRAINED, switched_off
from findnemo.settings import PAPER
from findnemo.tasks import Detecting, Listener, Output, Pictures
from findnemo.verification import nearest

STAGES = ("detect", "localize", "verify")  # what is done for a caption
PROCEDURES = ("findnemo", "released", "gradient")
HOLDOUT = 100  # hold-out captions of the shipped models and of members
FPR = 0.05  # their false alarms, as `findnemo demo` has it
SAMPLES = 10  # images of the released script, before and after
SCRIPT_SEED = 2  # of its images
JUDGED = 9000  # sample numbers from here on: no search, verification or figure has seen them

Row = dict[str, Any]


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

    `chosen`: "held out", "tuned on" or "given". `published`: a calibration of the paper's score.
    """

    name: str
    folder: Path
    place: str
    captions: tuple[Caption, ...]
    detecting: Detecting
    published: Calibration
    images: ImageSettings
    judges: Pictures
    chosen: str
    device: str | None = None
    dtype: str | None = None

    def opened(self, plain: bool = False) -> Model:
        """The model as findnemo's commands open it, or as diffusers does."""
        return findnemo.load(self.place, self.device, self.dtype, channels_last=not plain)

    @property
    def table(self) -> Path:
        """The captions as a user has them: a file."""
        file = self.folder / "captions.csv"
        with file.open("w", newline="", encoding="utf-8") as opened:
            rows = csv.writer(opened)
            rows.writerow(["caption", "type", "image"])
            shipped = self.place in demo.MODELS  # it brings its pictures
            for one in self.captions:
                picture = "" if shipped or not one.pictures else one.pictures[0].resolve()
                rows.writerow([one.text, one.type, picture])
        return file

    @property
    def options(self) -> Pictures:
        """What the audit is told of images and judges."""
        images = self.images
        return Pictures(
            image_steps=images.steps,
            guidance=images.guidance,
            sampler=images.sampler,
            descriptor=self.judges.descriptor,
            clip=self.judges.clip,
        )

    @cached_property
    def rows(self) -> list[Row]:
        """What is measured so far."""
        return read(self.folder / "rows.jsonl")

    def keep(self, row: Row) -> None:
        append(self.folder / "rows.jsonl", row)
        self.rows.append(row)

    def left(self, procedure: str, captions: Iterable[Caption]) -> list[Caption]:
        """Captions of which a procedure has no row yet."""
        done = {row["caption"] for row in self.rows if row["procedure"] == procedure}
        return [one for one in captions if one.text not in done]


def read(file: Path) -> list[Row]:
    """Rows of a file; a last line that was cut off is left out."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def append(file: Path, row: Row) -> None:
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    with file.open("r+" if file.exists() else "w", encoding="utf-8") as opened:
        opened.truncate(len(whole.encode()))
        opened.seek(0, os.SEEK_END)
        opened.write(json.dumps(row, ensure_ascii=False) + "\n")


# the meter ----------------------------------------------------------------------------------------


class Meter:
    """Evaluations and seconds since they were taken last.

    Latents are counted as they pass the denoiser, whoever calls it; a gradient that is taken back
    through a pass counts two more for each.
    """

    def __init__(self, model: Model):
        self.model = model
        self.evaluations = 0
        self.seconds = 0.0
        self.total = 0
        self.since = self._now()

    def take(self) -> Row:
        """What was spent, as a row; the meter begins anew."""
        self.pause()
        spent = {"evaluations": self.evaluations, "seconds": self.seconds}
        self.evaluations, self.seconds = 0, 0.0
        return spent

    def pause(self) -> None:
        """What passes until `go` costs no seconds."""
        now = self._now()
        self.seconds += now - self.since
        self.since = now

    def go(self) -> None:
        self.since = self._now()

    def _now(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()

    def _add(self, latents: int) -> None:
        self.evaluations += latents
        self.total += latents

    def count(self, module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """The hook on the denoiser."""
        latents = len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states")))
        self._add(latents)
        given = output if isinstance(output, torch.Tensor) else output[0]
        if given.requires_grad:
            given.register_hook(lambda gradient: self._add(2 * latents))


@contextmanager
def metered(model: Model) -> Iterator[Meter]:
    """A meter on a model while the context lasts."""
    meter = Meter(model)
    handle = model.denoiser.register_forward_hook(meter.count, with_kwargs=True)
    try:
        yield meter
    finally:
        handle.remove()


# findnemo -----------------------------------------------------------------------------------------


class Stages:
    """Puts what an audit spends down to its stages and captions, as it reports progress.

    What was spent since the last report is that of the captions of which the run has an answer
    since then, in shares of their own evaluations where answers name these. What was spent between
    two stages is that of no caption.
    """

    def __init__(self, meter: Meter, run: Path, note: Callable[[Row], None]):
        self.meter = meter
        self.run = run
        self.note = note
        self.stage = "start"
        self.known: set[int] = set()

    def __call__(self, stage: str, *progress: Any) -> None:
        self.meter.pause()
        if stage != self.stage:
            between = {"localize": "scan"}.get(stage, stage)
            self.put(self.stage if self.stage not in STAGES else between)
            self.stage = stage
            self.known = self._answered()
        elif new := self._answered() - self.known:
            self.put(stage, self._shares(new))
            self.known |= new
        self.meter.go()

    def put(self, stage: str, shares: Mapping[str, float] | None = None) -> None:
        """Note what was spent: of all captions together, or in shares."""
        spent = self.meter.take()
        for caption, share in (shares or {None: 1.0}).items():
            self.note(
                {"stage": stage, "caption": caption} | {k: share * v for k, v in spent.items()}
            )

    def _answered(self) -> set[int]:
        if self.stage not in STAGES:
            return set()
        with Run.open(self.run) as run:
            return run.done(self.stage)

    def _shares(self, ids: set[int]) -> dict[str, float]:
        with Run.open(self.run) as run:
            found = list(run.captions(sorted(ids)))
        own = [one.results[self.stage].get("evaluations", 0) for one in found]
        weights = own if all(own) else [1] * len(found)
        return {one.text: weight / sum(weights) for one, weight in zip(found, weights, strict=True)}


def audited(subject: Subject) -> None:
    """The audit with its defaults, and its report: a row a caption, and one of what is done once.

    An audit that was stopped goes on, and so do the notes of what it spent.
    """
    if not subject.left("findnemo", subject.captions):
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
            pictures=subject.options,
            listener=Listener(progress=stages),
        )
        stages.put("quality" if stages.stage in STAGES else stages.stage)
        report.write(run)
        stages.put("report")
    with run:
        captions = {one.text: one for one in run.captions()}
    for caption in subject.left("findnemo", subject.captions):
        one = captions[caption.text]
        subject.keep(
            row_of(
                subject,
                "findnemo",
                caption,
                {stage: spent(read(notes), stage, caption.text) for stage in STAGES},
                memorized=state(one) == "memorized",
                neurons=switched_off(one).to_json(),
                standing=standing(one),
            )
        )
    once = dict.fromkeys(r["stage"] for r in read(notes) if r["caption"] is None)
    costs = {stage: spent(read(notes), stage, None) for stage in once}
    subject.keep({"procedure": "findnemo", "caption": None, "stages": costs})


def spent(notes: Iterable[Row], stage: str, caption: str | None) -> Row:
    """Sum of what was noted of a stage and a caption."""
    chosen = [n for n in notes if n["stage"] == stage and n["caption"] == caption]
    return {key: round(sum(n[key] for n in chosen), 4) for key in ("evaluations", "seconds")}


def row_of(
    subject: Subject, procedure: str, caption: Caption, stages: Mapping[str, Row], **found: Any
) -> Row:
    kind = caption.memorized
    return {
        "procedure": procedure,
        "caption": caption.text,
        "kind": ("memorized" if (found["memorized"] if kind is None else kind) else "ordinary"),
        "stages": stages,
        **found,
    }


# the released procedure, and a search alone -------------------------------------------------------


def released(subject: Subject) -> None:
    """Detection, search and images as the published scripts make them: a row a caption."""
    captions = subject.left("released", subject.captions)
    if not captions:
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
            if literal.memorized:
                for neurons in (NeuronSet(), literal.neurons):
                    script_images(model, caption.text, neurons, subject.images)
            stages["verify"] = meter.take()
            subject.keep(
                row_of(
                    subject,
                    "released",
                    caption,
                    stages,
                    memorized=literal.memorized,
                    neurons=literal.neurons.to_json(),
                    candidates=literal.candidates,
                    scripted=literal.scripted,
                )
            )


@torch.no_grad()
def script_images(model: Model, caption: str, off: NeuronSet, images: ImageSettings) -> Any:
    """Ten pictures in one batch by the pipeline of diffusers, value neurons set to zero by hooks."""
    sampler = images.sampler or ("ddim" if "ddim" in model.samplers else None)
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
    captions = subject.left("gradient", [one for one in subject.captions if one.memorized])
    if not captions:
        return
    with metered(model := subject.opened()) as meter:
        for caption in captions:
            meter.take()
            found = findnemo.localize(model, caption.text, subject.published, "gradient")
            stages = {"localize": meter.take()}
            neurons = found.neurons.to_json()
            subject.keep(
                row_of(
                    subject, "gradient", caption, stages, memorized=found.memorized, neurons=neurons
                )
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
    shipped = demo.DESCRIPTOR if subject.place in demo.MODELS else None
    file = subject.judges.descriptor or shipped
    descriptor = Descriptor(file, model.device) if file else None
    known = {one.text: one.pictures for one in subject.captions}
    for caption, sets in open_.items():
        shares: dict[NeuronSet, float] = {}
        before: list[Any] = []
        for neurons in (NeuronSet(), *sets.values()):
            if neurons in shares:
                continue
            with findnemo.deactivate(model, neurons):
                made = findnemo.generate(
                    model, caption, range(JUDGED, JUDGED + images), subject.images
                )
            before = before or made
            shares[neurons] = copies(made, before, known[caption], descriptor)
        named = {"untouched": NeuronSet()} | sets
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
    from PIL import Image

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
        "--image-steps": subject.images.steps,
        "--guidance": subject.images.guidance,
        "--descriptor": subject.judges.descriptor,
        "--clip": subject.judges.clip,
        "--device": subject.device,
        "--dtype": subject.dtype,
    }.items():
        arguments += [] if value is None else [name, value]
    for k in range(rounds):
        for who in list(sources)[:: 1 if k % 2 == 0 else -1]:
            if (k, who) in done:
                continue
            load = os.getloadavg()[0]
            seconds = timed(sources[who], arguments)
            row = {"round": k, "who": who, "seconds": round(seconds, 2), "load": load}
            subject.keep({"procedure": "command", "caption": None} | row)


def timed(source: Path, arguments: list[Any]) -> float:
    """Seconds of a findnemo command with the code in `source`, on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(source.resolve())}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "findnemo", *map(str, arguments), "--quiet", "--out"]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, f"{folder}/run"], env=environment, cwd=folder, capture_output=True, text=True
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{source}: the audit failed:\n{done.stderr[-2000:]}")
    return seconds


# subjects -----------------------------------------------------------------------------------------


def subject_of(name: str, args: argparse.Namespace) -> Subject:
    """The demo, the natural demo, or a member by its folder."""
    ordinary = [Caption(text, memorized=False) for text in demo.unrelated()[: args.ordinary]]
    images = image_settings(args, usual("demo"))
    folder = folder_of(args.out, Path(name).name, images)
    judges = Pictures()
    if name == "demo":
        captions = [
            Caption(p.text, str(p.type), (demo.MODELS["demo"] / str(p.image),), True)
            for p in demo.memorized()
        ]
        place, published, chosen = "demo", demo.calibration(), "tuned on"
    else:
        member = natural_demo() if name == "demo-natural" else open_natural(name)
        captions = [
            Caption(m.caption, m.type, m.pictures, True) for m in member.memories if m.copied
        ]
        place = str(folder / "model")
        if not (folder / "model" / "model_index.json").exists():
            member.model.pipeline.save_pretrained(place)
        published = member.calibration
        chosen = "held out" if member.held_out else "tuned on"
        judges = Pictures(descriptor=demo.DESCRIPTOR, clip=str(demo.CLIP))
    holdout = folder / "holdout.txt"
    holdout.write_text("\n".join(demo.holdout()[:HOLDOUT]) + "\n", encoding="utf-8")
    detecting = Detecting(holdout=str(holdout), fpr=FPR if args.fpr is None else args.fpr)
    chosen_captions = (*captions[: args.memorized], *ordinary)
    rest = (detecting, published, images, judges, chosen, args.device, args.dtype)
    return Subject(Path(name).name, folder, place, chosen_captions, *rest)


def any_subject(args: argparse.Namespace) -> Subject:
    """A model that is given, with its captions; those with a type of a memory are memorized."""
    if not (args.prompts and (args.holdout or args.calibration)):
        raise SystemExit("--model needs --prompts FILE, and --holdout FILE or --calibration DIR")
    table = findnemo.read_prompts(args.prompts).prompts
    typed = any(p.type for p in table)
    near = Path(args.prompts).parent
    captions = [
        Caption(
            p.text,
            str(p.type or ""),
            (near / p.image,) if p.image and (near / p.image).is_file() else (),
            is_memory(p.type) if typed else None,
        )
        for p in table
    ]
    memories = [c for c in captions if c.memorized is not False][: args.memorized]
    others = [c for c in captions if c.memorized is False][: args.ordinary]
    images = image_settings(args, usual(args.model))
    folder = folder_of(args.out, Path(args.model).name, images)
    given = Calibration.load(args.calibration) if args.calibration else None
    detecting = (
        Detecting(calibration=args.calibration)
        if given
        else Detecting(holdout=args.holdout, fpr=args.fpr)
    )
    if given is None or given.settings.pairs != "largest":
        if not args.holdout:
            raise SystemExit("the calibration is not of the paper's score: give --holdout as well")
        texts = [p.text for p in findnemo.read_prompts(args.holdout).prompts]
        model = findnemo.load(args.model, args.device, args.dtype)
        given = calibrate_in(folder / "published", model, texts, PAPER)
    judges = Pictures(descriptor=args.descriptor, clip=args.clip)
    chosen = "held out" if args.held_out else "given"
    rest = (detecting, given, images, judges, chosen, args.device, args.dtype)
    return Subject(Path(args.model).name, folder, args.model, (*memories, *others), *rest)


def image_settings(args: argparse.Namespace, own: ImageSettings) -> ImageSettings:
    guidance = own.guidance if args.guidance is None else args.guidance
    return ImageSettings(args.steps or own.steps, guidance)


def folder_of(out: Path, name: str, images: ImageSettings) -> Path:
    folder = out / f"{name}-{images.steps}-{images.guidance:g}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# tables -------------------------------------------------------------------------------------------


def table(folder: Path) -> str:
    """What was measured of one subject, in Markdown."""
    rows = read(folder / "rows.jsonl")
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    parts = [f"## {folder.name} ({about['chosen']})", about["machine"]]
    parts += [costs(rows, kind) for kind in ("ordinary", "memorized")]
    parts += [once(rows), verdicts(rows), ratios(rows), commands(rows)]
    return "\n\n".join(part for part in parts if part)


def of(rows: list[Row], procedure: str, kind: str | None = None) -> list[Row]:
    """Rows of captions of a procedure."""
    return [
        r
        for r in rows
        if r["procedure"] == procedure
        and r["caption"] is not None
        and kind in (None, r.get("kind"))
    ]


def whole(row: Row, key: str, stages: Iterable[str] = STAGES) -> float:
    return sum(row["stages"].get(stage, {}).get(key, 0) for stage in stages)


def costs(rows: list[Row], kind: str) -> str:
    """Evaluations and seconds of a caption by stage."""
    lines = []
    for procedure in ("findnemo", "released"):
        chosen = of(rows, procedure, kind)
        if not chosen:
            continue
        everything = sum(whole(r, "evaluations") for r in chosen)
        for stage in (*STAGES, "all"):
            stages = STAGES if stage == "all" else (stage,)
            evaluations = [whole(r, "evaluations", stages) for r in chosen]
            seconds = [whole(r, "seconds", stages) for r in chosen]
            lines.append(
                f"| {procedure} | {stage} | {median(evaluations):.1f} | {mean(evaluations):.1f} |"
                f" {100 * sum(evaluations) / max(everything, 1):.0f} % | {median(seconds):.2f} |"
                f" {mean(seconds):.2f} |"
            )
    if not lines:
        return ""
    n = len({r["caption"] for p in PROCEDURES for r in of(rows, p, kind)})
    head = (
        f"Per {kind} caption (n = {n}):\n\n| procedure | stage | evaluations, median | mean | share"
        " | seconds, median | mean |\n|---|---|---:|---:|---:|---:|---:|\n"
    )
    return head + "\n".join(lines)


def once(rows: list[Row]) -> str:
    """What an audit spends once, on no caption."""
    found = [r["stages"] for r in rows if r["procedure"] == "findnemo" and r["caption"] is None]
    parts = [
        f"{stage} {spent['evaluations']:.0f} ({spent['seconds']:.1f} s)"
        for stage, spent in (found[-1].items() if found else ())
        if spent["evaluations"] or spent["seconds"] >= 0.05
    ]
    return f"Once an audit, evaluations: {', '.join(parts)}." if parts else ""


def verdicts(rows: list[Row]) -> str:
    """What both say of the same captions, and the copies that are left."""
    copied = {r["caption"]: r for r in rows if r["procedure"] == "judge"}
    lines = []
    for procedure in PROCEDURES:
        memories = of(rows, procedure, "memorized")
        if not memories:
            continue
        ordinary = of(rows, procedure, "ordinary")
        called = [sum(r["memorized"] for r in part) for part in (memories, ordinary)]
        sizes = [len(NeuronSet(r["neurons"])) for r in memories if r["memorized"]]
        left = [
            copied[r["caption"]]["copies"][procedure] for r in memories if r["caption"] in copied
        ]
        lines.append(
            f"| {procedure} | {called[0]} of {len(memories)} | {called[1]} of {len(ordinary)} |"
            f" {median(sizes) if sizes else 0:g} | {mean(left) if left else float('nan'):.2f} |"
            f" {sum(share == 0 for share in left)} of {len(left)} |"
        )
    untouched = [r["copies"]["untouched"] for r in copied.values()]
    if untouched:
        lines.append(f"| untouched | | | | {mean(untouched):.2f} | |")
    said = [r["standing"] for r in of(rows, "findnemo", "memorized")]
    words = ", ".join(f"{said.count(word)} {word}" for word in dict.fromkeys(said))
    head = (
        "| procedure | memories called memorized | ordinary captions called so | neurons, median"
        " | copies among fresh pictures | memories without any |\n|---|---:|---:|---:|---:|---:|\n"
    )
    told = f"\n\nfindnemo's own words for the memories: {words}." if said else ""
    return head + "\n".join(lines) + told if lines else ""


def ratios(rows: list[Row]) -> str:
    """The released procedure over findnemo, caption by caption; its search also where it removes
    the memory at all: none of the judge's pictures is a copy.
    """
    copied = {r["caption"]: r["copies"] for r in rows if r["procedure"] == "judge"}
    literal = {r["caption"]: r for r in of(rows, "released", "memorized") if r["memorized"]}
    removed = {c for c in literal if copied.get(c, {}).get("released") == 0}
    alive = {c for c in removed if copied[c]["untouched"] > 0}
    search = ("detect", "localize")
    asked = (
        ("whole audit", "findnemo", STAGES, of(rows, "released")),
        ("whole audit, memories", "findnemo", STAGES, of(rows, "released", "memorized")),
        ("default search", "findnemo", search, list(literal.values())),
        ("default search, literal removes", "findnemo", search, [literal[c] for c in alive]),
        ("search by one step", "gradient", search, list(literal.values())),
        ("search by one step, literal removes", "gradient", search, [literal[c] for c in alive]),
    )
    lines = []
    for name, procedure, stages, theirs in asked:
        ours = {r["caption"]: r for r in of(rows, procedure)}
        pairs = [
            (a, ours[a["caption"]])
            for a in theirs
            if a["caption"] in ours and whole(ours[a["caption"]], "evaluations", stages)
        ]
        if not pairs:
            continue
        cells = [
            f"{median(whole(a, key, stages) / whole(b, key, stages) for a, b in pairs):.1f} |"
            f" {sum(whole(a, key, stages) for a, _ in pairs) / sum(whole(b, key, stages) for _, b in pairs):.1f}"
            for key in ("evaluations", "seconds")
        ]
        scripted = median(
            a["scripted"] + (whole(a, "evaluations", ("verify",)) if "verify" in stages else 0)
            for a, _ in pairs
        )
        lines.append(f"| {name} | {len(pairs)} | {cells[0]} | {cells[1]} | {scripted:.0f} |")
    head = (
        "Released over findnemo, medians of ratios and ratios of sums; last, the median of"
        " evaluations that the scripts spend, which pass all seeds:\n\n| | n | evaluations | of sums"
        " | seconds | of sums | scripts |\n|---|---:|---:|---:|---:|---:|---:|\n"
    )
    return head + "\n".join(lines) if lines else ""


def commands(rows: list[Row]) -> str:
    """Whole commands in turn: seconds, and ratios of the pairs."""
    found = [r for r in rows if r["procedure"] == "command"]
    own = {r["round"]: r["seconds"] for r in found if r["who"] == "findnemo"}
    lines = []
    for who in dict.fromkeys(r["who"] for r in found if r["who"] != "findnemo"):
        other = {r["round"]: r["seconds"] for r in found if r["who"] == who}
        both = sorted(set(own) & set(other))
        if both:
            lines.append(
                f"Whole command, {len(both)} pairs on one thread each: {who}"
                f" {median(other[k] for k in both):.1f} s, this code"
                f" {median(own[k] for k in both):.1f} s, ratio"
                f" {median(other[k] / own[k] for k in both):.2f}"
                f" ({', '.join(f'{other[k] / own[k]:.2f}' for k in both)})."
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "subjects", nargs="*", help="demo, demo-natural, or folders of natural members"
    )
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
        print("\n\n".join(table(p.parent) for p in sorted(args.out.glob("*/rows.jsonl"))))
        return
    run = {"findnemo": audited, "released": released, "gradient": searched}
    chosen = [any_subject(args)] if args.model else []
    for subject in chosen or (subject_of(name, args) for name in args.subjects or ["demo"]):
        machine = (
            f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads,"
            f" {subject.device or 'default device'}, findnemo {findnemo.__version__}, images of"
            f" {subject.images.steps} steps, guidance {subject.images.guidance:g}."
        )
        about = {"chosen": subject.chosen, "machine": machine}
        (subject.folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
        if args.against:
            paired(subject, args.against, args.rounds)
        else:
            for procedure in args.procedures:
                run[procedure](subject)
            if args.judge > 1:
                judged(subject, args.judge)
        print(table(subject.folder), flush=True)


if __name__ == "__main__":
    main()
