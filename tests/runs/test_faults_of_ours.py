"""A programming error is not damage: it shows as itself, or says what to call first.

Damage is what the bytes of a file are to blame for.
"""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

import findnemo
from findnemo.calibration import Calibration
from findnemo.errors import DamageError, InputError, StorageError
from findnemo.images import intact_png, save_png
from findnemo.models.identity import Identity
from findnemo.prompts import Prompt
from findnemo.runs import (
    ASKED,
    AuditPlan,
    Run,
    Work,
    answer,
    ask_all,
    captions_to_show,
    counts,
    enter,
    repair,
    start,
)
from findnemo.runs.ranking import Ranking
from findnemo.runs.store import COLUMNS
from findnemo.settings import Settings


@pytest.fixture(scope="module")
def calibration(model):
    return findnemo.calibrate(model, ["a grey owl", "the sea"], settings=Settings(samples=3))


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", {"tau": 0.5}) as run:
        run.add([Prompt("a red fox", 1)])
        yield run


def test_answer_before_enter_says_what_to_call_first(tmp_path, model, calibration):
    plan = AuditPlan(images=0)
    with start(tmp_path / "run", model, calibration, plan) as run:
        run.add([Prompt("a red fox", 1)])
        work = Work(run, model, calibration, plan)
        for ask in (
            lambda: answer(work, ["detect"]),
            lambda: counts(run, ASKED),
            lambda: captions_to_show(run),
        ):
            with pytest.raises(
                InputError,
                match=(
                    r"no captions were asked for: call enter\(run, prompts\) or ask_all\(run\)"
                    r" first"
                ),
            ) as e:
                ask()
            assert not isinstance(e.value, DamageError)
            assert "repair" not in str(e.value)
        ask_all(run)
        assert answer(work, ["detect"])
        assert run.done("detect") == {1}
        enter(run, [Prompt("a tree", 1)])
        assert answer(work, ["detect"])
        assert run.done("detect") == {1, 2}


@pytest.mark.parametrize(
    ("sql", "values", "kind"),
    [
        ("SELECT nothing FROM captions", (), sqlite3.OperationalError),
        ("SELECT * FROM temp.open", (), sqlite3.OperationalError),
        ("SELEC 1", (), sqlite3.OperationalError),
        ("SELECT ?", (), sqlite3.ProgrammingError),
        ("SELECT ?", ([1],), (sqlite3.ProgrammingError, sqlite3.InterfaceError)),
        ("SELECT ?", (1 << 70,), OverflowError),
        ("COMMIT", (), sqlite3.OperationalError),
        (
            "INSERT INTO results VALUES (99, 'detect', 'done', 0, '{}', '')",
            (),
            sqlite3.IntegrityError,
        ),
    ],
)
def test_a_wrong_statement_is_no_damage(run, sql, values, kind):
    with pytest.raises(kind):
        run.query(sql, values)


def test_a_closed_run_is_no_damage(tmp_path):
    run = Run.create(tmp_path / "run", {})
    run.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        run.meta("settings")


@pytest.mark.parametrize("table", COLUMNS)
@pytest.mark.parametrize("how", ["DROP TABLE {}", "ALTER TABLE {} RENAME COLUMN checksum TO other"])
def test_a_database_without_a_table_or_a_column_is_damaged(tmp_path, table, how):
    Run.create(tmp_path / "run", {"tau": 0.5}).close()
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys=OFF")
        db.execute(how.format(table))
    for opens in (Run.open, lambda path: Run.create(path, {"tau": 0.5})):
        with pytest.raises(DamageError):
            opens(tmp_path / "run")


def test_what_sqlite_cannot_read_is_damage(run):
    run.query("UPDATE captions SET text = CAST(x'ff' AS TEXT)")
    with pytest.raises(DamageError, match="repair"):
        run.query("SELECT text FROM captions")
    run.query("INSERT INTO results VALUES (1, 'detect', 'done', 0, '{', '')")
    with pytest.raises(DamageError, match="malformed JSON"):
        counts(run)
    run.close()


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (Calibration, "require_whole", AttributeError),
        (Settings, "from_json", KeyError),
        (Settings, "from_json", TypeError),
        (Identity, "__init__", KeyError),
    ],
)
def test_a_fault_of_ours_while_a_calibration_is_read_shows_as_itself(
    tmp_path, calibration, monkeypatch, owner, name, error
):
    """Nor does `repair` take a calibration away that fits its digest."""
    calibration.save(tmp_path)

    def broken(*values):
        raise error("a bug of ours")

    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(error, match="a bug of ours"):
        Calibration.load(tmp_path)


def test_a_fault_of_ours_while_an_order_is_read_shows_as_itself(tmp_path, monkeypatch):
    ranking = Ranking("key", 2)
    ranking.save(tmp_path / "ranking.json")

    def broken(*values):
        raise KeyError("a bug of ours")

    monkeypatch.setattr(Ranking, "__init__", broken)
    with pytest.raises(KeyError, match="a bug of ours"):
        Ranking.load(tmp_path / "ranking.json", "key", 2)


@pytest.mark.parametrize(
    "about", [[1], {"format": 3, "layers": 7}, {"format": 1, "layers": [[1]]}, {}, "text", None]
)
def test_a_calibration_of_other_shapes_is_damage(tmp_path, calibration, about):
    calibration.save(tmp_path)
    (tmp_path / "calibration.json").write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(InputError, match=str(tmp_path)):
        Calibration.load(tmp_path)


def _newer(folder: Path) -> None:
    about = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    (folder / "calibration.json").write_text(json.dumps(about | {"format": 99}), encoding="utf-8")


def _flipped(folder: Path) -> None:
    data = bytearray((folder / "calibration.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "calibration.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("how", "aside"),
    [
        (_newer, False),
        (_flipped, True),
        (lambda folder: (folder / "calibration.safetensors").unlink(), True),
    ],
)
def test_repair_moves_a_damaged_calibration_aside_and_leaves_one_of_a_newer_findnemo(
    run, calibration, how, aside
):
    run.close()
    folder = run.path / "calibration"
    shutil.rmtree(folder, ignore_errors=True)
    calibration.save(folder)
    how(folder)
    assert bool(repair(run.path).kept) == aside
    assert folder.exists() != aside


def test_a_disk_that_is_full_during_a_repair_is_told_as_such(run, monkeypatch):
    run.close()
    path = run.path
    (path / "run.sqlite").write_bytes((path / "run.sqlite").read_bytes()[:6000])

    def full(file, tables):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sys.modules["findnemo.runs.repair"], "write_tables", full)
    with pytest.raises(StorageError, match="no space left on the device"):
        repair(path)


def test_a_picture_that_the_disk_does_not_give_is_not_called_damaged(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    save_png(Image.new("RGB", (4, 4)), file)
    assert intact_png(file)
    assert not intact_png(tmp_path / "none.png")

    def fails(*args, **options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(OSError, match="Input/output"):
        intact_png(file)
