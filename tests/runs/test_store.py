"""The run store: what is committed survives a dead process, one process writes, others read,
foreign things are refused.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import findnemo
from findnemo.errors import InputError, MismatchError
from findnemo.prompts import Prompt
from findnemo.runs import Run
from findnemo.runs.store import SCHEMA, checksum

SETTINGS = {"model": "abc", "calibration": {"samples": 10, "seed": 0}, "tau": 0.4}
PROMPTS = [Prompt("a red fox", 1, "VM", "fox.png"), Prompt("a grey owl", 3)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def made(path: Path) -> Path:
    """A finished run of two captions, one of which failed."""
    with Run.create(path, SETTINGS) as run:
        fox, owl = run.add(PROMPTS)
        run.record(fox, "detect", {"score": 0.1 + 0.2, "memorized": True}, 1.5)
        run.record(fox, "localize", {"neurons": {"mid": [3, 1]}}, 0.5)
        run.record(owl, "detect", {}, 0.25, "NaN")
    return path


# What is committed


def test_results_come_back_as_they_were_recorded(tmp_path):
    with Run.open(made(tmp_path / "run")) as run:
        fox, owl = run.captions()
        assert run.meta("settings") == SETTINGS
    assert (fox.text, fox.row, fox.type, fox.image) == ("a red fox", 1, "VM", "fox.png")
    assert fox.results == {
        "detect": {"score": 0.1 + 0.2, "memorized": True},
        "localize": {"neurons": {"mid": [3, 1]}},
    }
    assert (fox.failed, fox.seconds) == ({}, 2.0)
    assert (owl.results, owl.failed, owl.type, owl.image) == ({}, {"detect": "NaN"}, None, None)


def test_a_result_is_there_as_soon_as_it_is_recorded(tmp_path):
    with Run.create(tmp_path / "run", SETTINGS) as run:
        run.record(run.add(PROMPTS)[0], "detect", {"score": 1.0}, 0)
        with Run.open(tmp_path / "run") as reader:
            assert reader.done("detect") == {1}


def test_a_run_goes_on(tmp_path):
    with Run.create(made(tmp_path / "run"), dict(SETTINGS)) as run:
        assert run.add([Prompt("new", 9), *reversed(PROMPTS)]) == [3, 2, 1]
        assert run.done("detect") == {1}  # what failed is not done
        run.record(2, "detect", {"score": 0.5}, 1)
        assert run.done("detect") == {1, 2}
        (owl,) = run.captions([2])
        assert (owl.results, owl.failed) == ({"detect": {"score": 0.5}}, {})
        assert [c.text for c in run.captions([3, 1])] == ["a red fox", "new"]


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    value=st.floats(allow_nan=False),
)
@settings(max_examples=30, deadline=None, database=None)
def test_any_caption_and_any_number_come_back(tmp_path_factory, text, value):
    with Run.create(tmp_path_factory.mktemp("any") / "run", SETTINGS) as run:
        (number,) = run.add([Prompt(text, 1)])
        run.record(number, "detect", {"score": value, "prompt": text}, 0)
        assert [(c.text, c.results) for c in run.captions()] == [
            (text, {"detect": {"score": value, "prompt": text}})
        ]


@pytest.mark.parametrize(
    "text",
    ["../../etc/passwd", "a/b\\c:d*?", "...", "CON", "日本語", "x" * 500, "-rf", "\x1b[31m\n"],
)
def test_a_caption_makes_a_safe_file_name(tmp_path, text):
    with Run.create(tmp_path / "run", SETTINGS) as run:
        run.add([Prompt(text, 1)])
        slug = next(run.captions()).slug
    assert slug.startswith("00001")
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(slug) <= 46


# What is refused


def test_other_settings_are_refused_and_named(tmp_path):
    made(tmp_path / "run")
    before = list(_rows(tmp_path / "run"))
    other = {
        "model": "abc",
        "calibration": {"samples": 10, "seed": 7},
        "tau": 0.5,
        "search": "listing",
    }
    with pytest.raises(MismatchError) as caught:
        Run.create(tmp_path / "run", other)
    text = str(caught.value)
    assert "calibration.seed 0, now 7" in text
    assert "tau 0.4, now 0.5" in text
    assert "search None, now 'listing'" in text
    assert "model" not in text
    assert "samples" not in text
    assert list(_rows(tmp_path / "run")) == before
    Run.create(tmp_path / "run", SETTINGS).close()  # the refusal let go of the lock


def _rows(folder: Path) -> list[tuple]:
    with Run.open(folder) as run:
        return [(c.text, c.results, c.failed, c.seconds) for c in run.captions()]


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = files(tmp_path)
    with pytest.raises(
        InputError, match="is not empty and not a findnemo run: give a new or an empty directory"
    ):
        Run.create(tmp_path, SETTINGS)
    with pytest.raises(InputError, match="is a file: give a run directory"):
        Run.create(tmp_path / "thesis.tex", SETTINGS)
    with pytest.raises(InputError, match=r"is not a run directory: it holds no run\.sqlite"):
        Run.open(tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("content", [[], ["calibration"], [".lock", "calibration"]])
def test_a_directory_that_a_run_can_begin_in(tmp_path, content):
    for name in content:
        (tmp_path / name).mkdir() if name == "calibration" else (tmp_path / name).touch()
    Run.create(tmp_path, SETTINGS).close()


def test_one_run_is_written_once_at_a_time(tmp_path):
    with Run.create(tmp_path / "run", SETTINGS):
        with pytest.raises(
            InputError,
            match="in use by another findnemo process: wait for it, or give another --out",
        ):
            Run.create(tmp_path / "run", SETTINGS)
        Run.open(tmp_path / "run").close()
    Run.create(tmp_path / "run", SETTINGS).close()


@pytest.mark.parametrize("schema", [SCHEMA + 1, "2.0"])
@pytest.mark.parametrize(
    "opens", [Run.open, lambda path: Run.create(path, SETTINGS)], ids=["open", "create"]
)
def test_a_newer_format_is_refused_and_left_alone(tmp_path, opens, schema):
    path = tmp_path / "run"
    path.mkdir()
    with sqlite3.connect(path / "run.sqlite") as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT)")
        for row in (("schema", json.dumps(schema)), ("settings", json.dumps(SETTINGS))):
            db.execute("INSERT INTO meta VALUES (?, ?, ?)", (*row, checksum("meta", row)))
    with pytest.raises(
        InputError, match=f"has run format {schema}, this version of findnemo reads {SCHEMA}"
    ):
        opens(path)
    with sqlite3.connect(path / "run.sqlite") as db:
        assert [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ] == ["meta"]


DAMAGES = {
    "no database": lambda data: b"this is not SQLite " * 50,
    "broken header": lambda data: b"\0" * 100 + data[100:],
    "first page lost": lambda data: data[:100] + b"\xff" * 3996 + data[4096:],
    "cut off": lambda data: data[:6000],
    "later pages lost": lambda data: data[:4096] + b"\xff" * (len(data) - 4096),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "opens", [Run.open, lambda path: Run.create(path, SETTINGS)], ids=["open", "create"]
)
def test_a_damaged_database_is_an_input_error(tmp_path, opens, damage):
    file = made(tmp_path / "run") / "run.sqlite"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    for _ in range(2):  # the second time shows that the first let go of the lock
        with (
            pytest.raises(InputError, match=r"run\.sqlite cannot be used: .*take another --out"),
            opens(file.parent) as run,
        ):
            list(run.captions())


@pytest.mark.parametrize("killed", ["before the tables", "before the settings"])
def test_a_run_killed_as_it_began_can_be_started_but_not_read(tmp_path, killed):
    path = tmp_path / "run"
    path.mkdir()
    (path / ".lock").touch()
    (path / "run.sqlite").touch()
    if killed == "before the settings":
        Run(path, (path / ".lock").open()).close()
    with pytest.raises(InputError, match=r"run format None|stopped before it began"):
        Run.open(path)
    with Run.create(path, SETTINGS) as run:
        assert run.meta("settings") == SETTINGS


# Two processes

WRITER = """
import sys
from findnemo.prompts import Prompt
from findnemo.runs import Run

run = Run.create(sys.argv[1], {"model": "abc"})
ids = run.add(Prompt(f"caption {k}", k) for k in range(20_000))
print("holds it", flush=True)
for number in ids:
    run.record(number, "detect", {"score": number / 2, "padding": "x" * 500}, 0.5)
"""


@pytest.mark.slow
def test_one_process_writes_another_reads_and_what_was_committed_survives_sigkill(tmp_path):
    path = tmp_path / "run"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(findnemo.__file__).parents[1]),
        "HF_HUB_OFFLINE": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=environment
    ) as writer:
        try:
            assert writer.stdout.readline() == b"holds it\n"
            with pytest.raises(InputError, match="in use by another findnemo process"):
                Run.create(path, {"model": "abc"})
            counts = _read_while_it_grows(path)
            assert writer.poll() is None
        finally:
            writer.send_signal(signal.SIGKILL)
    with Run.create(path, {"model": "abc"}) as run:
        done = run.done("detect")
        assert max(counts) <= len(done) < 20_000
        assert done == set(range(1, len(done) + 1))
        _all_whole(run)
        run.record(len(done) + 1, "detect", {"score": 0}, 0)


def _read_while_it_grows(path: Path) -> list[int]:
    """Open, read, close while the other process writes; the number of results seen each time."""
    counts = []
    until = time.monotonic() + 60
    while len(set(counts)) < 5 and time.monotonic() < until:
        with Run.open(path) as run:
            counts.append(_all_whole(run))
    assert len(set(counts)) >= 5
    assert counts == sorted(counts)
    return counts


def _all_whole(run: Run) -> int:
    results = [(c.id, c.results["detect"]) for c in run.captions() if c.results]
    assert all(r == {"score": number / 2, "padding": "x" * 500} for number, r in results)
    return len(results)
