"""The command `export`: the cleaned model in several forms, the neurons, and a section for the
model card.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from findnemo.cli._common import QuietOpt, listening, warn
from findnemo.cli._options import MovedModel, with_option_groups
from findnemo.errors import FAILED, InputError
from findnemo.tasks.options import Selecting, Workers, Writing, option

MOST = 10  # differences that are named


@dataclass(frozen=True)
class Exported(MovedModel):
    """The model of a run, and the dtype of its export."""

    dtype: str | None = option(
        None,
        "dtype of the written weights: float32, float16 or bfloat16. Default: that of the model's"
        " files, whatever dtype the run computed in (lora, kohya: float32).",
        rich_help_panel="Output",
    )


@with_option_groups(source=("compile",), workers=("workers", "ray"))
def export(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run directory; with --neurons-file also a model.", metavar="RUN_OR_MODEL"
        ),
    ],
    selecting: Selecting = Selecting(),
    source: Exported = Exported(),
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="checkpoint (default): a diffusers directory. file: one .safetensors file, for"
            " ComfyUI. lora, kohya: the edit alone as a LoRA, for diffusers or ComfyUI. adapter,"
            " adapter-kohya: your LoRA, cleaned, for diffusers or ComfyUI. neurons: JSON. card: a"
            " section for the model card. You can repeat the option."
        ),
    ] = None,
    writing: Writing = Writing(),
    check: Annotated[
        Path | None,
        typer.Option(
            help="Write nothing: compare an export, weight by weight, with what it should be: the"
            " audited model with its neurons off, or the model of --take.",
            rich_help_panel="Output",
        ),
    ] = None,
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

    with listening(quiet) as listener:
        if check is None:
            forms = to or ("checkpoint",)
            tasks.export(run, forms, writing, selecting, source, workers, listener)
            return
        if to or writing.out or writing.push:
            raise InputError("--check writes nothing: leave --to, --out and --push out")
        told = tasks.check_export(run, check, selecting, source, workers, listener)
        for line in told[:MOST]:
            warn(line)
        if told:
            wanted = selecting.take or "model with these neurons off"
            hint = "; of a file written with --take NAME, give that here too"
            warn(
                f"{check} is not the audited {wanted} (differences: {len(told)})"
                f"{'' if selecting.take else hint}"
            )
            raise typer.Exit(FAILED)
