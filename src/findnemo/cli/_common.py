"""What the commands share: options, consoles, progress, and how an error reaches the user."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from findnemo.cli._streams import encoding_of, shown
from findnemo.errors import InputError
from findnemo.files.secrets import hidden
from findnemo.runtime.quiet import quiet_libraries

if TYPE_CHECKING:
    from findnemo.runs.stopping import Stopping

ModelArg = Annotated[
    str,
    typer.Argument(
        help="'demo', a diffusers directory, a hub id, or a .safetensors file.", metavar="MODEL"
    ),
]
MovedOpt = Annotated[
    str | None,
    typer.Option("--model", help="The model, if it is no longer where the run found it."),
]
PromptsOpt = Annotated[
    str,
    typer.Option(
        "--prompts",
        "-p",
        help="Captions: CSV, TSV, Parquet, JSON(L), text; - for standard input, hf:OWNER/NAME for a data set.",
    ),
]
CalibrationOpt = Annotated[
    Path, typer.Option("--calibration", "-c", help="A directory made by `findnemo calibrate`.")
]
OutOpt = Annotated[Path, typer.Option("--out", "-o", help="Directory to write to.")]
RunArg = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
LimitOpt = Annotated[int | None, typer.Option(help="Use the first N captions only.", min=1)]
ColumnOpt = Annotated[str | None, typer.Option(help="Caption column, if it has an unusual name.")]
SeedOpt = Annotated[int, typer.Option(help="Base seed of all samples.")]
DeviceOpt = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: CUDA if there is one.")
]
DtypeOpt = Annotated[
    str | None,
    typer.Option(help="float32, float16 or bfloat16; default: float16 on CUDA, else float32."),
]
CompileOpt = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the model for scores and searches: minutes to begin with, for a GPU and many captions.",
    ),
]
DescriptorOpt = Annotated[
    Path | None,
    typer.Option(
        help="TorchScript copy descriptor (SSCD) for finished images; 'demo' brings its own. It is a program: trust it."
    ),
]
ClipOpt = Annotated[
    str | None,
    typer.Option(
        help="CLIP (directory or hub id) for the images' fit with the caption, openai/clip-vit-base-patch32 in the paper; 'demo' brings its own."
    ),
]
TrustOpt = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Open what a run of somebody else names: model, descriptor (a program), CLIP, pictures.",
    ),
]
TrackOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[=FOLDER]",
        help="Log settings, figures and images to tensorboard, wandb, trackio or mlflow (in RUN/tracking).",
    ),
]
JsonOpt = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output.")
]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables.")]
VariantOpt = Annotated[
    str,
    typer.Option(
        help="Detection: 'findnemo', 'paper', or 'released' for published thresholds and statistics."
    ),
]
FailOpt = Annotated[
    bool,
    typer.Option("--fail-on-memorized", help="Exit with status 1 if any caption is memorized."),
]


LONG = 20  # captions that are too long and are named


@dataclass
class Global:
    """Options that stand before the command. The one value that the entry point and the parser share."""

    debug: bool = False


stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def warn(text: str) -> None:
    stderr.print(f"[yellow]warning:[/] {plain(text)}", soft_wrap=True)


def say(text: str, quiet: bool = False) -> None:
    if not quiet:
        stderr.print(plain(text), soft_wrap=True)


def plain(text: str) -> str:
    """Text of unknown origin for a terminal: one line, no control characters, no markup, no secrets."""
    from rich.markup import escape

    return escape("".join(c for c in shown(hidden(" ".join(text.split()))) if c.isprintable()))


def print_json(value: Any) -> None:
    """JSON that can be read back whatever the encoding of standard output is: pure ASCII where that is not UTF-8."""
    text = json.dumps(value, indent=1, ensure_ascii=encoding_of(sys.stdout) != "utf-8")
    sys.stdout.write(shown(text) + "\n")  # half of a surrogate pair becomes what JSON writes for it


@contextmanager
def bar(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar with the remaining time on standard error; yields `update(stage, done, total)`."""
    if quiet or not stderr.is_terminal:
        yield (lambda stage, done, total: None) if quiet else _lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, TimeRemainingColumn(compact=True), console=stderr) as progress:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield update


def _lines() -> Callable[[str, int, int], None]:
    """Without a terminal (a log file, CI): a plain line about every tenth of a stage, with the time left."""
    import time

    began: dict[str, float] = {}
    shown: dict[str, int] = {}

    def update(stage: str, done: int, total: int) -> None:
        start = began.setdefault(stage, time.monotonic())
        tenth = 10 * done // total if total else 10
        if total and shown.get(stage) != tenth:
            shown[stage] = tenth
            left = (time.monotonic() - start) / done * (total - done) if done else 0
            say(
                f"{stage} {done}/{total}"
                + (f", about {left:.0f} s left" if 0 < done < total else "")
            )

    return update


@contextmanager
def stoppable() -> Iterator[Stopping]:
    """Work that Ctrl-C and SIGTERM stop between two pieces of it: yields what says so. At the end of the context the command ends too."""
    from findnemo.errors import StoppedError
    from findnemo.runs.stopping import stopping

    with stopping(say) as stop, suppress(StoppedError):
        yield stop
    if stop.asked:
        raise SystemExit(stop.status)


@dataclass(frozen=True)
class Source:
    """Where a command's model comes from: `place`, and the options of `findnemo.load` that go with it."""

    place: str | None
    revision: str | None = None
    variant: str | None = None
    config: str | None = None

    def __str__(self) -> str:
        return str(self.place)

    @property
    def options(self) -> dict[str, str]:
        return {
            name: value
            for name in ("revision", "variant", "config")
            if (value := getattr(self, name)) is not None
        }

    def of_run(self, run: Any, trust: bool = False, opens: tuple[str, ...] | None = None) -> Source:
        """This one where a place was given, else the one that a run remembers, with what is given beside it.

        Raises InputError for a run of somebody else that names things to open, unless `trust`. `opens`: which of them are (default: all).
        """
        from findnemo.runs.trust import NAMED, require

        wanted = NAMED if opens is None else opens
        require(
            run,
            trust,
            wanted if self.place is None else tuple(name for name in wanted if name != "model"),
        )
        return (
            self
            if self.place is not None
            else Source(
                run.meta("source"), **{**(run.meta("source_options") or {}), **self.options}
            )
        )


OF_RUN = Source(None)  # where the run found it
SOURCE_OPTIONS = {
    "revision": Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")],
    "weights_variant": Annotated[
        str | None,
        typer.Option(help="Weight files of that name (fp16), of a hub id or a directory."),
    ],
    "config": Annotated[
        str | None,
        typer.Option(
            help="Diffusers directory or hub id that gives a single file its configuration and tokenizer."
        ),
    ],
}


def opens_model(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `model` is a `Source`, as one that takes it from the command line.

    That is MODEL, or `--model` where the source is that of a run unless told; with `--revision`, `--weights-variant`, `--config`.
    """
    own = inspect.signature(command, eval_str=True)
    kind = MovedOpt if own.parameters["model"].default is OF_RUN else ModelArg
    model = own.parameters["model"].replace(
        annotation=kind, default=None if kind is MovedOpt else inspect.Parameter.empty
    )
    more = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=a)
        for n, a in SOURCE_OPTIONS.items()
    ]
    shown = own.replace(parameters=[*({**own.parameters, "model": model}).values(), *more])

    @wraps(command)
    def run(
        *args: Any,
        revision: str | None = None,
        weights_variant: str | None = None,
        config: str | None = None,
        **others: Any,
    ) -> None:
        given = own.bind(*args, **others)
        given.apply_defaults()
        told = given.arguments["model"]
        given.arguments["model"] = (
            told if isinstance(told, Source) else Source(told, revision, weights_variant, config)
        )
        command(*given.args, **given.kwargs)

    run.__signature__ = shown  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in shown.parameters.items()}
    return run


@dataclass(frozen=True)
class Crew:
    """Who does a command's work: this process, or `workers` on this machine or on a Ray cluster; `threads`: of each on a CPU."""

    workers: int | None = None
    ray: str | None = None
    threads: int | None = None

    @property
    def many(self) -> bool:
        return self.workers is not None or self.ray is not None


ALONE = Crew()
CREW_OPTIONS = {
    "workers": Annotated[
        int | None,
        typer.Option(
            help="So many processes with a model each, one a GPU where there are any (needs findnemo[ray]).",
            min=1,
        ),
    ],
    "ray": Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Workers on this Ray cluster ('auto', 'HOST:6379', 'ray://HOST:10001').",
        ),
    ],
    "threads": Annotated[
        int | None,
        typer.Option(
            help="CPU threads of a process; of workers 1. The last bits of a score depend on it.",
            min=1,
        ),
    ],
}
ShardOpt = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Part I of N of the captions; join the parts with `findnemo merge`.",
    ),
]


def takes_workers(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameter `crew` is a `Crew`, as one that takes `--workers`, `--ray` and `--threads` from the command line."""
    own = inspect.signature(command, eval_str=True)
    kept = [p for p in own.parameters.values() if p.name != "crew"]
    more = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=a)
        for n, a in CREW_OPTIONS.items()
    ]
    shown = own.replace(parameters=[*kept, *more])

    @wraps(command)
    def run(
        *args: Any,
        workers: int | None = None,
        ray: str | None = None,
        threads: int | None = None,
        crew: Crew | None = None,
        **others: Any,
    ) -> None:
        command(*args, **others, crew=crew or Crew(workers, ray, threads))

    run.__signature__ = shown  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in shown.parameters.items()}
    return run


@contextmanager
def at_work(
    source: Source,
    crew: Crew,
    device: str | None,
    dtype: str | None,
    quiet: bool,
    compile: bool = False,
) -> Iterator[Any]:
    """A pool of workers that have loaded the model, or of this process alone; says at the end which of them had to be replaced."""
    from findnemo.runs import Loader, Serial

    if not crew.many:
        if crew.threads is not None:
            import torch

            torch.set_num_threads(crew.threads)
        yield Serial(load_model(source, device, dtype, quiet, compile))
        return
    from findnemo.runs.cluster import RayPool

    if device is not None and ":" in device:
        raise InputError(
            f"--device {device} with several workers: each gets a device of its own, leave the number out"
        )
    say(f"loading {source} in workers", quiet)
    loader = Loader(str(source), device, dtype, source.options, compile)
    with RayPool(loader, crew.workers, crew.ray, crew.threads or 1) as pool:
        say(
            f"{pool.size} workers, {'a GPU each' if pool.gpus else f'{pool.threads} CPU threads each'}",
            quiet,
        )
        try:
            yield pool
        finally:
            if pool.replaced:
                warn(
                    f"{pool.replaced} workers died and were replaced; {pool.alive} of {pool.size} are alive at the end"
                )


def load_model(
    source: Source, device: str | None, dtype: str | None, quiet: bool, compile: bool = False
) -> Any:
    from findnemo.models import load
    from findnemo.passes.engine import compiled
    from findnemo.runtime.notices import told_to

    quiet_libraries()
    say(f"loading {source}", quiet)
    with told_to(warn):
        model = load(str(source), device, dtype, channels_last=True, **source.options)
    model.tell = warn
    return compiled(model) if compile else model


def read_table(source: str, column: str | None, limit: int | None, quiet: bool) -> Any:
    from findnemo.prompts import read_prompts

    table = read_prompts(source, column=column)
    if not quiet:
        for text in table.warnings():
            warn(text)
    return table.limit(limit)


def stream_table(source: str, column: str | None, limit: int | None, quiet: bool) -> Any:
    """The captions of a table of any length, checked from its first row to its last; repeats are told of by `tell_repeats`."""
    from findnemo.prompts import stream_prompts

    stream = stream_prompts(source, column=column)
    if not quiet:
        for text in stream.warnings():
            warn(text)
    return stream.limit(limit)


def tell_repeats(table: Any, entered: Any, quiet: bool) -> None:
    """Warn of rows with the caption of an earlier row."""
    from findnemo.prompts import repeated

    for text in () if quiet else repeated(table.source, entered.repeats, entered.some):
        warn(text)


def warn_long_captions(
    model: Any, prompts: Any, most: int | None = None, of: str = "", readers: Sequence[Any] = ()
) -> None:
    """Name the first rows with captions that a text encoder, or another of `readers`, does not read to their end.

    `most`: look at so many captions. `of`: what is said before a row's number.
    """
    from findnemo.models import cut

    many = 0
    for prompt in islice(prompts, most):
        if what := cut([*model.readers, *readers], prompt.text):
            many += 1
            model.told.add(prompt.text)
            if many <= LONG:
                warn(f"{of}row {prompt.row}: {what}")
    if many > LONG:
        warn(f"{many - LONG} more {of}captions have more tokens than the model reads")
