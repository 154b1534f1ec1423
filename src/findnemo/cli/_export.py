"""The command `export`: the cleaned model in several forms, the neurons, and a section for the
model card.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from findnemo.cli._common import QuietOpt, listening, warn
from findnemo.cli._options import Moved, grouped
from findnemo.errors import FAILED, InputError
from findnemo.tasks.options import Selecting, Workers, option

MOST = 10  # differences that are named


@dataclass(frozen=True)
class Writing:
    """What is written, and where."""

    to: list[str] | None = option(
        None,
        "checkpoint (default): a diffusers directory. file: one .safetensors file, for ComfyUI."
        " lora, kohya: the edit alone as a LoRA, for diffusers or ComfyUI. adapter, adapter-kohya:"
        " your LoRA, cleaned, for diffusers or ComfyUI. neurons: JSON. card: a section for the"
        " model card. You can repeat the option.",
    )
    out: Path | None = option(
        None,
        "Where to write; with several forms, a folder for all of them (default: RUN/export).",
        "--out",
        "-o",
    )
    push: str | None = option(
        None,
        "With --to card: write the section into the model card of this repository on the hub, not"
        " into a file.",
        metavar="REPO_ID",
    )
    check: Path | None = option(
        None,
        "Write nothing: compare an export, weight by weight, with what it should be: the audited"
        " model with its neurons off, or the model of --take.",
        rich_help_panel="Output",
    )
    force: bool = option(False, "Replace an earlier export.")


@dataclass(frozen=True)
class Exported(Moved):
    """The model of a run, and the dtype of its export."""

    dtype: str | None = option(
        None,
        "dtype of the written weights: float32, float16 or bfloat16. Default: that of the model's"
        " files, whatever dtype the run computed in (lora, kohya: float32).",
        rich_help_panel="Output",
    )


@grouped(source=("compile",), workers=("workers", "ray"))
def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run directory; with --neurons-file also a model.", metavar="RUN_OR_MODEL"
        ),
    ],
    selecting: Selecting = Selecting(),
    source: Exported = Exported(),
    writing: Writing = Writing(),
    workers: Workers = Workers(),
    quiet: QuietOpt = False,
) -> None:
    """Write the cleaned model as a checkpoint or LoRA, for diffusers or user interfaces. Or
    write the neurons, or a section for the model card.

    Example: `findnemo export findnemo-demo --out clean`

    Example: `findnemo export run --to file --out clean.safetensors`

    Example: `findnemo export run --check clean.safetensors`

    Example: `findnemo export run --to adapter --out adapter.safetensors`

    Example: `findnemo export run --to adapter --take "checkpoint-500 x 0.6" --out lora.safetensors`

    Example: `findnemo export run --to kohya --to card --caption 12 --caption "Living in the Light"
    --out exports`

    Example: `findnemo export run --caption 12 --neurons 16 --out milder`

    Example: `findnemo export run --neurons-file neurons.json --out by-hand`

    Example: `findnemo export run --to card --push me/my-model`
    """
    from findnemo import tasks
    from findnemo.runtime.threads import threads

    check = writing.check
    with listening(quiet) as listener, threads(workers.threads):
        if check is not None:
            if writing.to or writing.out or writing.push:
                raise InputError("--check writes nothing: leave --to, --out and --push out")
            told = tasks.check_export(run, check, selecting, source, listener)
            if told:
                for line in told[:MOST]:
                    warn(line)
                wanted = selecting.take or "model with these neurons off"
                hint = "; of a file written with --take NAME, give that here too"
                warn(
                    f"{check} is not the audited {wanted} (differences: {len(told)})"
                    f"{'' if selecting.take else hint}"
                )
                raise typer.Exit(FAILED)
            return
        forms = writing.to or ("checkpoint",)
        tasks.export(
            run, forms, writing.out, selecting, source, writing.push, writing.force, listener
        )
