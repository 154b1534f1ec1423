"""Groups of options: a command takes dataclasses, and its user sees their fields."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import typer
from typer.testing import CliRunner

from findnemo.cli._options import REQUIRED, MovedModel, StatusOptions, with_option_groups
from findnemo.tasks.options import ARGUMENT, option

NOWHERE = MovedModel()
SHOWN = StatusOptions()


@dataclass(frozen=True)
class Table:
    file: str = option("none.csv", "A file.", ARGUMENT)
    column: str | None = option(None, "A column.")
    rows: int = option(4, "How many rows.", min=1)
    inner: int = field(default=7)


@dataclass(frozen=True)
class Holdout:
    column: str | None = option(None, "A column.")
    mix: bool = option(False, "Mix them.")


@pytest.fixture
def asked():
    """Runs a command of two groups with arguments, and gives what reached it."""
    app = typer.Typer()
    got = []

    @app.command()
    @with_option_groups(table=("rows",))
    def command(table: Table = Table(REQUIRED, rows=9), holdout: Holdout = Holdout()) -> None:
        got.append((table, holdout))

    def run(*arguments: str):
        result = CliRunner().invoke(app, arguments)
        return result, got.pop() if got else None

    return run


def test_an_option_that_groups_share_is_asked_for_once_and_reaches_both(asked):
    _, (table, holdout) = asked("a.csv", "--column", "text", "--mix")
    assert (table.file, table.column) == ("a.csv", "text")
    assert holdout == Holdout("text", mix=True)
    assert asked("--help")[0].output.count("--column") == 1


def test_what_is_left_out_or_has_no_help_keeps_its_default_and_is_no_option(asked):
    _, (table, _) = asked("a.csv")
    assert (table.rows, table.inner) == (9, 7)
    for name in ("--rows", "--inner", "--no-mix"):
        result, got = asked("a.csv", name, "3")
        assert (result.exit_code, got) == (2, None), name


def test_an_argument_without_a_default_must_be_given(asked):
    result, got = asked()
    assert (result.exit_code, got) == (2, None)
    assert "Missing argument" in result.output


def test_the_model_of_a_run_is_an_option_where_that_of_an_audit_is_an_argument():
    app = typer.Typer()
    got = []

    @app.command()
    @with_option_groups()
    def command(source: MovedModel = NOWHERE, showing: StatusOptions = SHOWN) -> None:
        got.append((source.place, showing))

    moved = CliRunner().invoke(app, ["--model", "moved/model", "-q", "--fail-on-memorized"])
    assert moved.exit_code == 0
    assert got == [("moved/model", StatusOptions(quiet=True, fail_on_memorized=True))]
    assert CliRunner().invoke(app, ["moved/model"]).exit_code == 2
