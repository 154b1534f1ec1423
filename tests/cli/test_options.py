"""Groups of options: what a command shows of them, and how it gets them back."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import typer
from typer.testing import CliRunner

from findnemo.cli._options import REQUIRED, Moved, Outcome, Showing, grouped
from findnemo.tasks.options import option

NOWHERE = Moved()
SHOWN = Outcome()


@dataclass(frozen=True)
class Fruit:
    """`seeds` has no help, so no command offers it."""

    kind: str = option("apple", "Which fruit.", "--kind", "-k")
    ripe: bool = option(False, "Whether it is ripe.")
    where: str | Path | None = option(None, "Where it lies.")
    seeds: int = 5


@dataclass(frozen=True)
class Basket:
    """Shares an option with `Fruit`."""

    kind: str = option("basket", "Another help.", "--other")
    handles: int = option(2, "How many handles.")


def names(command) -> list[str]:
    return list(inspect.signature(command).parameters)


def test_a_command_gets_its_groups_filled_from_single_options():
    got = []

    @grouped(fruit=("ripe",))
    def command(count: int, fruit: Fruit = Fruit(ripe=True), basket: Basket = Basket()) -> None:
        got.append((count, fruit, basket))

    assert names(command) == ["count", "kind", "where", "handles"]
    command(count=1, kind="plum", handles=3)
    assert got == [(1, Fruit("plum", True), Basket("plum", 3))]


def test_the_parser_knows_the_flags_the_help_and_the_defaults_of_a_group():
    app = typer.Typer()
    got = []

    @app.command()
    @grouped()
    def command(fruit: Fruit = Fruit(kind="pear")) -> None:
        got.append(fruit)

    def called(*arguments: str):
        return CliRunner().invoke(app, arguments)

    assert called().exit_code == called("-k", "plum", "--ripe", "--where", "tree").exit_code == 0
    assert got == [Fruit("pear"), Fruit("plum", True, Path("tree"))]
    shown = called("--help").output
    assert "Which fruit." in shown
    assert "--seeds" not in shown
    assert called("--no-ripe").exit_code == 2  # what is off needs no flag


def test_what_is_required_has_no_default():
    @grouped()
    def command(fruit: Fruit = Fruit(kind=REQUIRED)) -> None:
        raise AssertionError

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "--kind" in result.output


def test_the_model_of_a_run_is_an_option_where_that_of_an_audit_is_an_argument():
    app = typer.Typer()
    got = []

    @app.command()
    @grouped()
    def command(source: Moved = NOWHERE, showing: Outcome = SHOWN) -> None:
        got.append((source.place, showing))

    moved = CliRunner().invoke(app, ["--model", "moved/model", "-q", "--fail-on-memorized"])
    assert moved.exit_code == 0
    assert got == [("moved/model", Outcome(quiet=True, fail_on_memorized=True))]
    assert isinstance(got[0][1], Showing)
    assert CliRunner().invoke(app, ["moved/model"]).exit_code == 2
