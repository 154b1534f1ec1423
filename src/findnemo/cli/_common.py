"""What the commands share: options, consoles, progress, and how an error reaches the user."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

ModelArg = Annotated[str, typer.Argument(help="'demo', a diffusers directory, or a hub id.", metavar="MODEL")]
PromptsOpt = Annotated[
    str, typer.Option("--prompts", "-p", help="Captions: CSV, TSV, Parquet, JSON(L), text, or - for standard input.")
]
CalibrationOpt = Annotated[Path, typer.Option("--calibration", "-c", help="A directory made by `findnemo calibrate`.")]
OutOpt = Annotated[Path, typer.Option("--out", "-o", help="Directory to write to.")]
RunArg = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]
LimitOpt = Annotated[int | None, typer.Option(help="Use the first N captions only.", min=1)]
ColumnOpt = Annotated[str | None, typer.Option(help="Caption column, if it has an unusual name.")]
SeedOpt = Annotated[int, typer.Option(help="Base seed of all samples.")]
DeviceOpt = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: CUDA if there is one.")]
DtypeOpt = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16; default: float16 on CUDA, else float32.")]
CompileOpt = Annotated[
    bool,
    typer.Option(
        "--compile", help="Compile the model for scores and searches: minutes to begin with, for a GPU and many captions."
    ),
]
DescriptorOpt = Annotated[
    Path | None,
    typer.Option(
        help="TorchScript copy descriptor (SSCD) for finished images; 'demo' brings its own. It is a program: trust it."
    ),
]
ClipOpt = Annotated[
    str | None, typer.Option(help="CLIP (directory or hub id) for the images' fit with the caption; 'demo' brings its own.")
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables.")]
VariantOpt = Annotated[str, typer.Option(help="'paper', or 'released' for published thresholds and statistics.")]
FailOpt = Annotated[bool, typer.Option("--fail-on-memorized", help="Exit with status 1 if any caption is memorized.")]

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def warn(text: str) -> None:
    stderr.print(f"[yellow]warning:[/] {plain(text)}", soft_wrap=True)


def say(text: str, quiet: bool = False) -> None:
    if not quiet:
        stderr.print(plain(text), soft_wrap=True)


def plain(text: str) -> str:
    """Text of unknown origin for a terminal: one line, no control characters, no markup."""
    from rich.markup import escape

    return escape("".join(c for c in " ".join(text.split()) if c.isprintable()))


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


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
            say(f"{stage} {done}/{total}" + (f", about {left:.0f} s left" if 0 < done < total else ""))

    return update


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and advice off the terminal."""
    import os
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_model(source: str, device: str | None, dtype: str | None, quiet: bool, compile: bool = False) -> Any:
    from findnemo.engine import compiled
    from findnemo.models import load

    quiet_libraries()
    say(f"loading {source}", quiet)
    model = load(source, device, dtype, channels_last=True)
    return compiled(model) if compile else model


def read_table(source: str, column: str | None, limit: int | None, quiet: bool) -> Any:
    from findnemo.prompts import read_prompts

    table = read_prompts(source, column=column)
    if not quiet:
        for text in table.warnings():
            warn(text)
    return table.limit(limit)


def warn_long_captions(model: Any, prompts: Any) -> None:
    """Name the rows whose captions the tokenizer cuts."""
    tokenizer = getattr(model.pipeline, "tokenizer", None)
    if tokenizer is None:
        return
    for prompt in prompts:
        count = len(tokenizer(prompt.text, truncation=False, verbose=False).input_ids)
        if count > model.longest:
            warn(f"row {prompt.row}: the caption has {count} tokens, the model reads the first {model.longest}")
