"""Groups of options as the command line shows them: a command takes `findnemo.tasks` dataclasses, its user sees their fields."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

KINDS = {
    Any: str | None
}  # of values that Python may give in other forms: on the command line a text


def grouped(**left_out: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose parameters of a group of options, each with a default, are filled from the command line.

    `left_out`: parameter -> fields of its group that this command does not offer; they keep their defaults. Fields without help are
    never offered. What several groups have in common, a column say, is given once.

    >>> from findnemo.tasks import Workers
    >>> @grouped(crew=("ray", "threads"))
    ... def command(crew: Workers = Workers()) -> None:
    ...     print(crew)
    >>> command(workers=2)
    Workers(workers=2, ray=None, threads=None)
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        groups = {n: p for n, p in own.parameters.items() if dataclasses.is_dataclass(p.annotation)}
        fields = {
            name: {
                f.name
                for f in dataclasses.fields(typing.cast(Any, p.annotation))
                if "help" in f.metadata and f.name not in left_out.get(name, ())
            }
            for name, p in groups.items()
        }
        shown: dict[str, inspect.Parameter] = {}
        for name, parameter in own.parameters.items():
            if name not in groups:
                shown[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                continue
            kinds = typing.get_type_hints(parameter.annotation)
            for field in dataclasses.fields(parameter.annotation):
                if field.name in fields[name]:
                    shown.setdefault(
                        field.name, _parameter(field, kinds[field.name], parameter.default)
                    )

        @wraps(command)
        def run(**given: Any) -> None:
            filled = {
                name: dataclasses.replace(
                    p.default, **{f: given[f] for f in fields[name] if f in given}
                )
                for name, p in groups.items()
            }
            plain = {name: given[name] for name in given if name in own.parameters}
            command(**plain | filled)

        run.__signature__ = own.replace(parameters=list(shown.values()))  # type: ignore[attr-defined]
        run.__annotations__ = {name: p.annotation for name, p in shown.items()}
        return run

    return decorate


def _parameter(field: dataclasses.Field, kind: Any, group: Any) -> inspect.Parameter:
    """A field as an option, with the default of the `group` that the command begins with."""
    about = field.metadata
    option = typer.Option(*about["flags"], help=about["help"], **about["limits"])
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=getattr(group, field.name),
        annotation=Annotated[KINDS.get(kind, kind), option],
    )
