"""Groups of options on the command line: a command takes dataclasses of `findnemo.tasks`, and its
user sees their fields as options.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from findnemo.cli._help import FEW, RARE, whole_help
from findnemo.tasks.options import ARGUMENT, Output, Source, option

HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--help-all",
            callback=whole_help,
            is_eager=True,
            help="Show all options and examples, and exit.",
        ),
    ],
)
# types whose values are text on the command line, though Python may pass other forms
KINDS = {Any: str | None, str | Path: Path, str | Path | None: Path | None}
# the default of an option that must be given: `Output(REQUIRED)`
REQUIRED: Any = ...


@dataclass(frozen=True)
class Showing:
    """What a command prints."""

    json: bool = option(False, "Print the result as JSON on standard output.")
    quiet: bool = option(False, "Show no progress and no tables.", "--quiet", "-q")


@dataclass(frozen=True)
class StatusOptions(Showing):
    """What a command prints, and its exit status."""

    fail_on_memorized: bool = option(
        False,
        "Exit with status 1 if a caption is memorized, or if it is over the threshold and no"
        " images clear it.",
    )


@dataclass(frozen=True)
class RunOptions(StatusOptions, Output):
    """The folder of a run and its files, and what the command prints."""


@dataclass(frozen=True)
class MovedModel(Source):
    """The model of a run, if it has moved."""

    place: str | None = option(None, "The model, if it has moved since the run.", "--model")


def with_option_groups(
    **left_out: tuple[str, ...],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose parameters include groups of options, to be filled from the command
    line.

    `left_out`: parameter -> fields of its group that this command does not offer; they keep their
    defaults. Fields without help are never offered. An option that several groups share, such as a
    column, appears once.

    >>> from findnemo.tasks import Workers
    >>> @with_option_groups(crew=("ray", "threads"))
    ... def command(crew: Workers = Workers()) -> None:
    ...     print(crew)
    >>> command(workers=2)
    Workers(workers=2, ray=None, threads=None)
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        defaults: dict[str, Any] = {name: p.default for name, p in own.parameters.items()}
        groups = {name: of for name, of in defaults.items() if dataclasses.is_dataclass(type(of))}
        fields = {
            name: [
                field
                for field in dataclasses.fields(group)
                if "help" in field.metadata and field.name not in left_out.get(name, ())
            ]
            for name, group in groups.items()
        }
        shown: dict[str, inspect.Parameter] = {}
        for name, parameter in own.parameters.items():
            if name not in groups:
                shown[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for field in fields.get(name, ()):
                shown.setdefault(field.name, _parameter(field, groups[name]))
        if RARE & {*shown} and len(shown) > FEW:
            shown["help_all"] = HELP_ALL

        @wraps(command)
        def run(**given: Any) -> None:
            arguments = {name: given[name] for name in given if name in own.parameters}
            for name, group in groups.items():
                values = {f.name: given[f.name] for f in fields[name] if f.name in given}
                arguments[name] = dataclasses.replace(group, **values)
            command(**arguments)

        run.__signature__ = own.replace(parameters=list(shown.values()))  # type: ignore[attr-defined]
        run.__annotations__ = {name: p.annotation for name, p in shown.items()}
        return run

    return decorate


def _parameter(field: dataclasses.Field, group: Any) -> inspect.Parameter:
    """A field as an option, with the default of the `group` in the command's signature."""
    about = field.metadata
    kind = typing.get_type_hints(type(group))[field.name]
    flags = about["flags"]
    if flags == (ARGUMENT,):
        told = typer.Argument(help=about["help"], **about["limits"])
    else:
        if field.default is False and not flags:
            flags = (f"--{field.name.replace('_', '-')}",)
        told = typer.Option(*flags, help=about["help"], **about["limits"])
    default = getattr(group, field.name)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is REQUIRED else default,
        annotation=Annotated[KINDS.get(kind, kind), told],
    )
