"""The output of `--help`: the most used options, in panels; `--help-all` shows all.

>>> panel_of("descriptor"), "sampler" in RARE
('Images and judges', True)
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import typer
from typer.core import TyperCommand

from findnemo.tasks import options

FEW = 12  # a command with at most so many arguments and options shows all
EXAMPLES = 3  # examples in the short help of a command
OUTPUT = "Output"
# panels in the order of the help, each with its group of `findnemo.tasks.options`
PANELS: dict[str, type] = {
    "What is audited": options.Captions,
    "Which neurons": options.Selecting,
    "Threshold": options.Detecting,
    "Search": options.Localizing,
    "Images and judges": options.Pictures,
    "Attempts and attack": options.Trying,
    "Hardening": options.HardeningOptions,
    "Mitigations": options.Comparing,
    "What studies use": options.Studying,
    "A fine-tune": options.FineTune,
    "The model": options.Source,
    "Devices": options.Workers,
    OUTPUT: options.Output,
}
# panels of options in a panel other than their group's, or other than OUTPUT without a group
ELSEWHERE = {
    "holdout": "What is audited",
    "calibration": "What is audited",
    "train_images": "What is audited",
    "lora_scale": "The model",
    "force": OUTPUT,
    "import_statistics": "Threshold",
    "tau": "Threshold",
}
# options that `--help` omits
RARE = frozenset(
    {
        *("column", "shard"),
        *("variant", "precision", "confidence", "seed", "fdr", "miss", "budget", "like"),
        *("search", "scope", "max_impact", "unrelated"),
        *("image_steps", "guidance", "sampler"),
        *("holdout_images", "tuned", "copy_rate"),
        *("revision", "weights_variant", "config", "embedding", "dtype", "compile", "trust"),
        *("ray", "threads", "wait", "track"),
    }
)
GROUPS = {  # the commands in the order of `findnemo --help`
    "Start": ("demo",),
    "Audit": ("audit", "watch", "calibrate", "detect", "localize", "verify"),
    "Look": ("inspect", "report", "app"),
    "Export": ("export", "harden"),
    "Compare and study": ("compare", "study", "benchmark"),
    "Maintain a run": ("merge", "repair"),
}


def panel_of(name: str) -> str:
    """The panel of an option, by its name in Python."""
    for panel, group in PANELS.items():
        if name in (field.name for field in dataclasses.fields(group)):
            return ELSEWHERE.get(name, panel)
    return ELSEWHERE.get(name, OUTPUT)


WHOLE = f"{__name__}.whole"  # key of the context: show all options


class Command(TyperCommand):
    """A command whose `--help` fits a screen or two."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        told = copy.copy(self)
        told.get_params = lambda _: self._shown(ctx)  # type: ignore[method-assign, assignment]
        if rare := 0 if ctx.meta.get(WHOLE) else len(self._rare()):
            told.help = shortened(self.help or "")
            told.epilog = f"{rare} more options: `{ctx.command_path} --help-all`"
        TyperCommand.format_help(told, ctx, formatter)

    def _rare(self) -> list[Any]:
        if len(self.params) <= FEW:
            return []
        of_a_run = any(
            one.name == "place" for one in self.params if one.param_type_name == "option"
        )
        rare = RARE | {"lora"} if of_a_run else RARE  # a run remembers the LoRA of its model
        return [one for one in self.params if one.name in rare and not one.required]

    def _shown(self, ctx: Any) -> list[Any]:
        """Arguments in order, then options in the order of the panels, with their panels."""
        left_out = [] if ctx.meta.get(WHOLE) else self._rare()
        shown: list[Any] = [one for one in self.get_params(ctx) if one not in left_out]
        options = [one for one in shown if one.param_type_name == "option"]
        for one in options:
            one.rich_help_panel = one.rich_help_panel or panel_of(one.name)
        order = [*PANELS]
        arguments = [one for one in shown if one not in options]
        return [*arguments, *sorted(options, key=lambda one: order.index(panel_of(one.name)))]


def whole_help(context: typer.Context, asked: bool) -> None:
    """Handle `--help-all`: show the help with all options and examples, and end the command."""
    if asked and not context.resilient_parsing:
        context.meta[WHOLE] = True
        typer.echo(context.get_help(), color=context.color)
        raise typer.Exit


def shortened(text: str) -> str:
    """A help with its first few examples only.

    >>> shortened("Audits.\\n\\nExample: `a`\\n\\nExample: `b`\\n\\nExample: `c`\\n\\nExample: `d`")
    'Audits.\\n\\nExample: `a`\\n\\nExample: `b`\\n\\nExample: `c`'
    """
    parts = text.split("\n\n")
    examples = [part for part in parts if part.strip().startswith("Example: ")]
    return "\n\n".join(part for part in parts if part not in examples[EXAMPLES:])


def group_of(command: str) -> str:
    """The group under which a command is listed."""
    return next(group for group, names in GROUPS.items() if command in names)
