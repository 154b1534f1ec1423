"""What `--help` shows: options in panels, the most used ones; `--help-all` shows all of them.

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

FEW = 12  # arguments and options: a command with no more shows them all
EXAMPLES = 3  # of a command, in its short help
OUTPUT = "Output"
# in the order of the help: each panel, and the groups of `findnemo.tasks.options` that it shows
PANELS: dict[str, tuple[type, ...]] = {
    "What is audited": (options.Captions,),
    "Which neurons": (options.Selecting,),
    "Threshold": (options.Detecting,),
    "Search": (options.Localizing,),
    "Images and judges": (options.Pictures,),
    "Attempts and attack": (options.Trying,),
    "Hardening": (options.HardeningOptions,),
    "Mitigations": (options.Comparing,),
    "What studies use": (options.Studying,),
    "A fine-tune": (options.FineTune,),
    "The model": (options.Source,),
    "Devices": (options.Workers,),
    OUTPUT: (options.Output,),
}
# of options that are in no group, or in another panel than their group
ELSEWHERE = {
    "prompts": "What is audited",
    "holdout": "What is audited",
    "calibration": "What is audited",
    "train_images": "What is audited",
    "model": "The model",
    "force": OUTPUT,
    "import_statistics": "Threshold",
    "tau": "Threshold",
    "out": OUTPUT,
    "help": OUTPUT,
}
# options that `--help` leaves out
RARE = frozenset(
    {
        *("column", "shard"),
        *("variant", "precision", "confidence", "seed", "fdr", "miss", "budget", "like"),
        *("search", "scope", "max_impact", "unrelated"),
        *("image_steps", "guidance", "sampler"),
        *("holdout_images", "tuned", "lora_scale", "copy_rate"),
        *("revision", "weights_variant", "config", "embedding", "dtype", "compile", "trust"),
        *("ray", "threads", "wait", "track"),
    }
)
GROUPS = {  # the commands, as `findnemo --help` lists them
    "Start": ("demo",),
    "Audit": ("audit", "watch", "calibrate", "detect", "localize", "verify"),
    "Look": ("inspect", "report", "app"),
    "Export": ("export", "harden"),
    "Compare and study": ("compare", "study", "benchmark"),
    "Maintain a run": ("merge", "repair"),
}


def panel_of(name: str) -> str:
    """The panel of an option, by its name in Python."""
    for panel, groups in PANELS.items():
        if name in (field.name for of in groups for field in dataclasses.fields(of)):
            return ELSEWHERE.get(name, panel)
    return ELSEWHERE.get(name, OUTPUT)


WHOLE = f"{__name__}.whole"  # in a context: all options are shown


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
            one.name == "model" for one in self.params if one.param_type_name == "option"
        )
        rare = RARE | {"lora"} if of_a_run else RARE  # a run knows what its model was made of
        return [one for one in self.params if one.name in rare and not one.required]

    def _shown(self, ctx: Any) -> list[Any]:
        """Arguments as they are given, then options in the order of the panels, with their panels."""
        left_out = [] if ctx.meta.get(WHOLE) else self._rare()
        shown: list[Any] = [one for one in self.get_params(ctx) if one not in left_out]
        options = [one for one in shown if one.param_type_name == "option"]
        for one in options:
            one.rich_help_panel = panel_of(one.name)
        order = [*PANELS]
        arguments = [one for one in shown if one not in options]
        return [*arguments, *sorted(options, key=lambda one: order.index(panel_of(one.name)))]


def whole_help(context: typer.Context, asked: bool) -> None:
    """What `--help-all` does: shows the help with all options and examples, and ends the command."""
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
    """The group that a command is listed in."""
    return next(group for group, names in GROUPS.items() if command in names)
