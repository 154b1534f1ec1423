"""The parts of `gpu.py`, each run in a process of its own: `python gpu_parts.py PART FILE SECONDS`.

A part is a list of items. Each writes its row into the part's JSON file as soon as it is done, is
cut off when its time is up, and may fail without the others.
"""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geometry
import torch
from literal import Literal
from meter import Meter, wait
from rate import matrix_rate, timed
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import findnemo
from findnemo import Calibration, Model, NeuronSet
from findnemo.benchmark.files import write_json
from findnemo.localization import TrajectorySearch
from findnemo.passes import Probe, compiled
from findnemo.settings import PAPER, settings_for
from findnemo.tasks import Detecting, Listener, Output, Pictures

EMERGE = Path(__file__).parents[1] / "recipes" / "emergence" / "emerge.py"
KINDS = ("VM", "TM")  # of the first two planted memories
IMAGES = 4  # findnemo's own, before and after
AFFORDED = 1.5  # times its share of what is left of a part that an item may take

Row = dict[str, Any]
Item = Callable[[Row], None]  # fills its row in
# word in the name of an item -> its weight when time is shared; others have 1
WEIGHTS = {"calibrate": 2, "literal": 3, "trajectory": 3, "audit": 8, "image": 2, "compiled": 3}


@dataclass(frozen=True)
class Size:
    """What is asked of a model: geometries (real, small), image settings, captions to calibrate
    on, memories that are measured, compiled batches.
    """

    geometry: str
    small: str
    guidance: float
    steps: int = 50
    holdout: int = 16
    memories: int = 2
    compiled: tuple[tuple[str, int], ...] = (("default", 1), ("default", 8), ("reduce-overhead", 1))


SIZES = {
    "sd14": Size("sd14", "small", 7.0),
    "xl": Size("xl", "small-xl", 7.0),
    "flux": Size("flux", "small-flux", 3.5, 28, 8, 1, compiled=(("default", 1),)),
}


class TimeUpError(Exception):
    """An item's time is up."""


class Clock(Meter):
    """Counts what passes a denoiser, each pass of which asks whether the time is up."""

    ends = float("inf")

    def count(self, *passed: Any) -> None:
        if time.monotonic() > self.ends:
            raise TimeUpError
        super().count(*passed)


@dataclass
class Bench:
    """A model with planted memories, and what its items need.

    `rate`: FLOP/s of a matrix product in its dtype. `flop`: of a pass of one latent.
    """

    size: Size
    small: bool
    folder: Path
    model: Model
    planted: dict[str, NeuronSet]
    clock: Clock
    hook: Any  # the clock's on the denoiser
    rate: float
    flop: int
    steps: int
    own: Calibration | None = None
    paper: Calibration | None = None

    @property
    def cases(self) -> list[tuple[str, str]]:
        """(kind, caption) of the memories that are measured."""
        return list(zip(KINDS, self.planted, strict=False))[
            : 1 if self.small else self.size.memories
        ]

    @property
    def holdout(self) -> list[str]:
        return geometry.CAPTIONS[: 4 if self.small else self.size.holdout]


# the file of a part -------------------------------------------------------------------------------


def read(file: Path) -> Row:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"rows": {}}


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def no_model() -> Clock:
    """The clock of a part that has no model of its own."""
    return Clock(SimpleNamespace(device=device()))  # type: ignore[arg-type]


def run(items: list[tuple[str, Item]], file: Path, ends: float, clock: Clock) -> None:
    """Do the items that have no row yet, each within its share of the time."""
    record = read(file)
    record["card"] = torch.cuda.get_device_name() if device().type == "cuda" else "CPU"
    record["torch"] = torch.__version__
    left = [(name, item) for name, item in items if name not in record["rows"]]
    for k, (name, item) in enumerate(left):
        now = time.monotonic()
        if now >= ends:
            return
        share = weight(name) / sum(weight(other) for other, _ in left[k:])
        clock.ends = now + min(1.0, AFFORDED * share) * (ends - now)
        record["rows"][name] = done(item, clock)
        write_json(record, file)
        print(f"{file.stem} {name}: {json.dumps(record['rows'][name])[:150]}", flush=True)
    record["whole"] = True
    write_json(record, file)


def weight(name: str) -> int:
    return max(WEIGHTS.get(word, 1) for word in name.split())


def done(item: Item, clock: Clock) -> Row:
    """The row of an item: its seconds, evaluations and peak memory, and why it ended early if
    it did.
    """
    row: Row = {}
    spent = clock.evaluations
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    try:
        item(row)
        wait(device())
    except TimeUpError:
        row["cut"] = True
    except Exception as error:  # a missing kernel, memory: told, and the next item has its turn
        row["failed"] = why(error)
    row = {"seconds": time.perf_counter() - began, "evaluations": clock.evaluations - spent} | row
    if device().type == "cuda":
        row["gib"] = torch.cuda.max_memory_allocated() / 2**30
    gc.collect()
    torch.cuda.empty_cache()
    return row


def why(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


# a model ------------------------------------------------------------------------------------------


def bench(name: str, dtype: torch.dtype, folder: Path, small: bool, rows: Row) -> Bench:
    """Build a model on the device and plant memories in it; what that takes goes to `rows`."""
    size = SIZES[name]
    where = device()

    def clocked(key: str, do: Callable[[], Any], **more: Any) -> Any:
        began = time.perf_counter()
        made = do()
        wait(where)
        rows[key] = {"seconds": time.perf_counter() - began, **more}
        return made

    chosen = size.small if small else size.geometry
    pipeline = clocked("build", lambda: geometry.pipeline(chosen, str(where), dtype))
    model = findnemo.load(pipeline)
    clock = Clock(model)
    hook = model.denoiser.register_forward_hook(clock.count, with_kwargs=True)
    memories = dict(list(geometry.MEMORIES.items())[: len(KINDS)])
    planted = clocked("plant", lambda: geometry.plant(model, memories, geometry.CAPTIONS))
    networks = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    held = sum(p.numel() for network in networks for p in network.parameters())
    clocked("identity", lambda: model.identity, billions=held / 1e9)
    peak = matrix_rate(where, dtype, 512 if small else 8192)
    steps = 3 if small else size.steps
    made = Bench(size, small, folder, model, planted, clock, hook, peak, flop(model), steps)
    rows["identity"] |= {"rate": peak, "flop": made.flop}
    return made


def flop(model: Model) -> int:
    """FLOP of one latent's pass, attention as the matrix products that it is."""
    probe = Probe(model, geometry.CAPTIONS[0], samples=[0])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        probe.deltas()
    return int(counter.get_total_flops())


def items_of(made: Bench) -> Iterator[tuple[str, Item]]:
    """The items of a model, in the order of what they tell."""
    yield "calibrate", partial(calibrate, made)
    for count in (1, 2) if made.small else (1, 2, 4, 8):
        yield f"pass {count}", partial(one_pass, made, made.model, count)
    for kind, caption in made.cases:
        for search in ("gradient", "literal", "trajectory"):
            yield f"{kind} {search}", partial(locate, made, caption, search)
    yield "audit", partial(audit, made)
    yield "image", partial(image, made)
    for count in () if made.small else (16, 32, 64):
        yield f"pass {count}", partial(one_pass, made, made.model, count)
    # capturing a graph takes long on a CPU: one model is enough
    modes = made.size.compiled if not made.small or made.size.geometry == "sd14" else ()
    for mode, count in modes[: 1 if made.small else None]:
        yield f"compiled {mode} {count}", partial(compile_, made, mode, count)


def calibrate(made: Bench, row: Row) -> None:
    own = settings_for("findnemo")
    made.own = findnemo.calibrate(made.model, made.holdout, settings=own)
    paper = replace(PAPER, samples=3) if made.small else PAPER
    made.paper = findnemo.calibrate(made.model, made.holdout, settings=paper)
    row |= {"tau": made.own.tau, "captions": len(made.holdout)}
    row["scores"] = [findnemo.score(made.model, c, settings=own) for c in made.planted]


def one_pass(made: Bench, model: Model, count: int, row: Row) -> None:
    """Noise differences of so many latents in one pass, and the share of the matrix rate."""
    probe = Probe(model, geometry.CAPTIONS[0], samples=range(count))
    began = time.perf_counter()
    probe.deltas()
    wait(made.model.device)
    first = time.perf_counter() - began
    row["first"] = first
    repeats = max(1, min(9, int(3 / first)))
    row["pass"] = timed(probe.deltas, made.model.device, repeats)
    row["latents"] = count
    row["share"] = count * made.flop / row["pass"] / made.rate
    if probe.batches.size < count:
        row["split"] = probe.batches.size


def locate(made: Bench, caption: str, search: str, row: Row) -> None:
    """One search of one caption: by one step (10 seeds, as published), literally, or to the
    picture.
    """
    if made.own is None or made.paper is None:
        calibrate(made, {})
    if search == "literal":
        found: Any = Literal(made.model, caption, made.paper).run()
        reached = found.score_after <= made.paper.tau
    elif search == "gradient":
        found = findnemo.localize(made.model, caption, made.paper, search)
        reached = found.reached
    else:
        images = findnemo.ImageSettings(made.steps, made.size.guidance)
        whole = TrajectorySearch(images)
        found = findnemo.localize(made.model, caption, made.own, whole)
        reached = found.reached
    row |= {
        "memorized": bool(found.memorized),
        "reached": bool(reached),
        "neurons": len(found.neurons),
        "planted": len(found.neurons & made.planted[caption]),
    }


def audit(made: Bench, row: Row) -> None:
    """A whole audit of planted and ordinary captions: seconds and evaluations by stage."""
    if made.own is None:
        calibrate(made, {})
    captions = [caption for _, caption in made.cases]
    ordinary = geometry.CAPTIONS[-2 if made.small else -6 :]
    row |= {"ordinary": len(ordinary), "memorized": len(captions)}
    out = made.folder / f"run-{made.size.geometry}"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    spent = made.clock.evaluations
    marks: dict[str, list[float]] = {}

    def progress(stage: str, done: int = 0, total: int = 1) -> None:
        wait(made.model.device)
        row["answered"] = row.get("answered", False) or (stage == "verify" and done == total)
        marks[stage] = [time.perf_counter() - began, made.clock.evaluations - spent]
        row["stages"] = _differences(marks)

    run = findnemo.audit(
        made.model,
        [*captions, *ordinary],
        Output(out),
        Detecting(calibration=made.own),
        pictures=Pictures(images=IMAGES, image_steps=made.steps, guidance=made.size.guidance),
        listener=Listener(progress=progress),
    )
    progress("quality and report")
    row["memorized"] = sum(bool(c.detected and c.detected.memorized) for c in run.captions())
    row["standing"] = {c.text: findnemo.runs.standing(c) for c in run.captions(stage="localize")}
    run.close()


def _differences(marks: dict[str, list[float]]) -> dict[str, list[float]]:
    ends = [[0.0, 0.0], *marks.values()]
    pairs = zip(marks, ends, ends[1:], strict=False)
    return {stage: [b - a for a, b in zip(old, new, strict=True)] for stage, old, new in pairs}


def image(made: Bench, row: Row) -> None:
    """Finished images of plain diffusers, of which the released scripts make ten before and ten
    after a caption.
    """
    count = 1 if made.small else 2
    caption = made.cases[0][1]
    pipeline = made.model.pipeline
    pipeline(
        caption,
        num_images_per_prompt=count,
        num_inference_steps=made.steps,
        guidance_scale=made.size.guidance,
        generator=[torch.Generator().manual_seed(k) for k in range(count)],
        **made.model.size,
    )
    row["images"] = count


def compile_(made: Bench, mode: str, count: int, row: Row) -> None:
    """The same pass compiled; on the CPU only its graph is captured."""
    made.hook.remove()  # not to be compiled with the rest
    options = {"backend": "eager"} if made.small else {"mode": mode}
    one_pass(made, compiled(made.model, **options), count, row)


# the other parts ----------------------------------------------------------------------------------


def rates(small: bool) -> Iterator[tuple[str, Item]]:
    """The card's matrix rate in each precision: the yardstick of all shares."""

    def measured(dtype: torch.dtype, precision: str, row: Row) -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            row["rate"] = matrix_rate(device(), dtype, 128 if small else 8192)
        finally:
            torch.set_float32_matmul_precision(before)

    yield "float16", partial(measured, torch.float16, "highest")
    yield "bfloat16", partial(measured, torch.bfloat16, "highest")
    yield "tf32", partial(measured, torch.float32, "high")
    yield "float32", partial(measured, torch.float32, "highest")


def emergence(folder: Path, small: bool, ends: float) -> Iterator[tuple[str, Item]]:
    """The emergence recipe for one width; it goes on from its last checkpoint."""
    options = "--widths 64 --repeats 300 --at 3000 --scenes 4000 --captions 8 --holdout 100"
    if small:
        options = "--widths 16 --repeats 5 --at 1 --scenes 4 --captions 1 --holdout 2 --batch 2"

    def trained(row: Row) -> None:
        out = folder / "emergence"
        command = [sys.executable, str(EMERGE), "--out", str(out), *options.split()]
        try:
            subprocess.run(
                command,
                check=True,
                timeout=ends - time.monotonic(),
                capture_output=True,
                encoding="utf-8",
            )
        except subprocess.TimeoutExpired:
            raise TimeUpError from None
        except subprocess.CalledProcessError as error:
            raise RuntimeError(error.stderr.strip().splitlines()[-1]) from error
        row["table"] = (out / "emergence.md").read_text(encoding="utf-8")

    yield "recipe", trained


def main(part: str, file: Path, seconds: float, small: bool) -> None:
    ends = time.monotonic() + seconds
    if part == "rate":
        run(list(rates(small)), file, ends, no_model())
    elif part == "emergence":
        run(list(emergence(file.parent, small, ends)), file, ends, no_model())
    else:
        name, _, dtype = part.partition("-")
        record = read(file)
        rows = record["rows"]
        try:
            made = bench(name, getattr(torch, dtype), file.parent, small, rows)
        except Exception as error:
            rows["build"] = {"failed": why(error)}
            write_json(record, file)
            return
        write_json(record, file)
        run(list(items_of(made)), file, ends, made.clock)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), "--rehearse" in sys.argv)
