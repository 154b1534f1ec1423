"""Damaged runs: noticed and named, all that is sound in the database or its backup recovered,
nothing wrong accepted, gaps filled again.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from findnemo.errors import DamageError, InputError
from findnemo.images import intact_png, save_png
from findnemo.prompts import Prompt
from findnemo.runs import Run, repair

SETTINGS = {"model": "abc", "tau": 0.4, "images": 0}
PROMPTS = [
    Prompt(f"caption {k} " + "of a picture " * (k % 5), k, "VM" if k % 3 else None)
    for k in range(1, 41)
]
Content = dict[str, dict[Any, tuple]]


def answer(number: int, stage: str) -> dict[str, Any]:
    random = Random(f"{number} {stage}")
    long = 900 if number % 10 == 0 else 3  # some rows go on in overflow pages
    return {
        "score": random.random(),
        "values": [random.random() for _ in range(long)],
        "prompt": PROMPTS[number - 1].text,
    }


def fill(run: Run) -> None:
    """What an audit does: enter all captions, answer what is open, a backup before each stage."""
    ids = run.add(PROMPTS)
    for stage in ("detect", "localize"):
        run.backup()
        done = run.done(stage)
        for number, prompt in zip(ids, PROMPTS, strict=True):
            if number not in done:
                run.record(number, stage, answer(prompt.row, stage), 0.5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of which all is done; its backup is of the end of the first stage, as a process
    leaves it that is killed at the end of the second.
    """
    path = tmp_path_factory.mktemp("whole") / "run"
    with Run.create(path, SETTINGS) as run:
        run.record(run.add(PROMPTS)[6], "detect", {}, 0.5, "NaN")
        run.set_meta("quality", {"prompts": 0, "failed": 1, "neurons": 0})
        fill(run)
        shutil.copy(path / "backup.sqlite", path.parent)
        run.set_meta("quality", {"prompts": 0, "failed": 0, "neurons": 0})
    shutil.move(path.parent / "backup.sqlite", path / "backup.sqlite")
    return path


def content(path: Path) -> Content:
    """All that a reader of a run is told, by caption and not by number."""
    with Run.open(path) as run:
        captions = list(run.captions())
        meta = {key: (run.meta(key),) for (key,) in run.query("SELECT key FROM meta")}
        singles = {
            (c.text, stage): (run.result(c.id, stage),) for c in captions for stage in c.results
        }
    results = {
        (c.text, stage): (value,)
        for c in captions
        for stage, value in (c.results | c.failed).items()
    }
    assert results.items() >= singles.items()
    return {
        "meta": meta,
        "captions": {c.text: (c.row, c.type, c.image) for c in captions},
        "results": results,
    }


def damaged(whole: Path, out: Path, random: Random) -> str:
    """A copy of a run with a damaged database; how it was damaged.

    In one case of four its backup is damaged or missing as well.
    """
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(whole, out)
    kind = damage(out / "run.sqlite", random)
    with_backup = random.randrange(8)
    if with_backup == 0:
        damage(out / "backup.sqlite", random)
    if with_backup == 1:
        (out / "backup.sqlite").unlink()
    return kind + ", backup too" * (with_backup < 2)


def damage(file: Path, random: Random) -> str:
    kind = random.choice(list(DAMAGES))
    file.write_bytes(DAMAGES[kind](bytearray(file.read_bytes()), random))
    return kind


def flip(data: bytearray, random: Random, count: int = 1) -> bytearray:
    for _ in range(count):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return data


def blank(data: bytearray, random: Random) -> bytearray:
    start = random.randrange(len(data))
    length = random.choice((16, 512, 4096))
    data[start : start + length] = random.randbytes(len(data[start : start + length]))
    return data


DAMAGES = {
    "one bit": flip,
    "twenty bits": lambda data, random: flip(data, random, 20),
    "two hundred bits": lambda data, random: flip(data, random, 200),
    "a stretch of noise": blank,
    "cut off": lambda data, random: data[: random.randrange(100, len(data))],
    "a page of zeros": lambda data, random: (lambda k: data[:k] + bytes(4096) + data[k + 4096 :])(
        4096 * random.randrange(len(data) // 4096)
    ),
    "a header of noise": lambda data, random: bytearray(random.randbytes(100)) + data[100:],
    "a bit of a header": lambda data, random: flip(data[:100], random) + data[100:],
    "pages swapped": lambda data, random: _swapped(
        data, *random.sample(range(len(data) // 4096), 2)
    ),
}


def _swapped(data: bytearray, a: int, b: int) -> bytearray:
    pages = [data[k : k + 4096] for k in range(0, len(data), 4096)]
    pages[a], pages[b] = pages[b], pages[a]
    return bytearray().join(pages)


def noticed(reads: Callable[[], Content], want: Content) -> str | None:
    """What is said of a damage; None if nothing was noticed, and then nothing may be different."""
    try:
        assert reads() == want
    except InputError as problem:
        return str(problem)
    return None


def check_damage(whole: Path, out: Path, random: Random, want: Content) -> tuple[str, Counter[str]]:
    """One damage: read, opened for writing, repaired, audited again.

    What was noticed and recovered.
    """
    kind = damaged(whole, out, random)
    counts = Counter[str]()
    for who, reads in (
        ("a reader", lambda: content(out)),
        ("a writer", lambda: (Run.create(out, SETTINGS).close(), content(out))[1]),
    ):
        told = noticed(reads, want)
        counts[f"noticed by {who}"] += told is not None
        assert told is None or (str(out) in told and "findnemo repair" in told)
    found = repair(out)
    have = content(out)
    for table in ("captions", "results"):
        assert have[table].items() <= want[table].items(), kind
        counts[f"{table} recovered"] += len(have[table])
        counts[f"{table} lost"] += len(want[table]) - len(have[table])
    assert have["meta"].items() <= want["meta"].items()
    assert have["meta"]["settings"] == want["meta"]["settings"]
    if have != want:
        assert found.kept
        gone = [row for text, (row, *_) in want["captions"].items() if text not in have["captions"]]
        last = max((row for row, *_ in have["captions"].values()), default=0)
        assert found.lost or all(row > last for row in gone), (
            kind,
            found,
        )  # of the last ones nothing is left that could tell
    counts["repaired"] += bool(found.kept)
    assert repair(out).text().endswith("nothing is damaged")
    with Run.create(out, SETTINGS) as run:
        fill(run)
        run.set_meta("quality", {"prompts": 0, "failed": 0, "neurons": 0})
    assert content(out) == want, kind
    assert not list(out.rglob(".*.part"))
    return kind, counts


def many(whole: Path, folder: Path, count: int, seed: int) -> dict[str, Counter[str]]:
    random = Random(seed)
    want = content(whole)
    told: dict[str, Counter[str]] = {}
    for _ in range(count):
        kind, counts = check_damage(whole, folder / "run", random, want)
        told.setdefault(kind, Counter()).update(counts + Counter(tried=1))
    return told


def show(told: dict[str, Counter[str]], capsys) -> None:
    with capsys.disabled():
        for kind, counts in told.items():
            print(f"\n{kind}: {dict(counts)}", end="")


def test_no_damage_is_taken_for_a_result_and_what_is_readable_is_recovered(whole, tmp_path, capsys):
    told = many(whole, tmp_path, 60, seed=1)
    show(told, capsys)
    total = sum(told.values(), Counter())
    assert total["tried"] == 60
    assert total["results recovered"] > total["results lost"]
    assert all(not counts["captions lost"] for kind, counts in told.items() if "backup" not in kind)


@pytest.mark.slow
def test_three_thousand_damages(whole, tmp_path, capsys):
    show(many(whole, tmp_path, 3000, seed=2), capsys)


def test_a_changed_letter_in_a_value_is_noticed_and_named(whole, tmp_path):
    """Structurally sound, but not what was written."""
    for table, column, where, said in (
        (
            "results",
            "payload",
            "caption = 3 AND stage = 'detect'",
            "the result 'detect' of caption 3",
        ),
        (
            "results",
            "seconds",
            "caption = 4 AND stage = 'localize'",
            "the result 'localize' of caption 4",
        ),
        ("captions", "type", "id = 5", "caption 5"),
        ("meta", "value", "key = 'quality'", "the value 'quality'"),
    ):
        shutil.copytree(whole, tmp_path / column / table)
        path = tmp_path / column / table
        with closing(sqlite3.connect(path / "run.sqlite", isolation_level=None)) as db:
            db.execute(
                f"UPDATE {table} SET {column} = replace({column}, substr({column}, 1, 1), '7')"
                f" WHERE {where}"
            )
        for read in (lambda path: content(path), lambda path: Run.create(path, SETTINGS)):
            with pytest.raises(
                DamageError, match=f"{said} does not fit its checksum.*findnemo repair"
            ):
                read(path)
        lost = repair(path).lost
        in_backup = (table, where) != ("meta", "key = 'quality'") and "localize" not in where
        assert lost == (() if in_backup else (said,))
        stale = content(path)
        assert stale["results"].items() <= content(whole)["results"].items()


def test_what_neither_the_database_nor_a_backup_has_is_named(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "run")
    (path / "backup.sqlite").unlink()
    with closing(sqlite3.connect(path / "run.sqlite", isolation_level=None)) as db:
        db.execute("UPDATE captions SET type = 'ZZ' WHERE id = 5")
        db.execute("UPDATE results SET payload = '{}' WHERE caption = 9 AND stage = 'detect'")
    assert repair(path).lost == (
        "caption 5",
        "the result 'detect' of caption 9",
        "the result 'detect' of caption 5, which is lost itself",
        "the result 'localize' of caption 5, which is lost itself",
    )


def test_damage_is_noticed_before_it_comes_into_the_backup(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "run")
    before = (path / "backup.sqlite").read_bytes()
    with Run.create(path, SETTINGS) as run:
        run.record(1, "detect", {"score": 0.5}, 1)
        with closing(sqlite3.connect(path / "run.sqlite")) as other, other:
            other.execute("UPDATE results SET payload = '{}' WHERE caption = 3")
        with pytest.raises(DamageError, match=r"caption 3 does not fit its checksum"):
            run.backup()
        run.record(3, "detect", answer(3, "detect"), 0.5)
        run.record(3, "localize", answer(3, "localize"), 0.5)
        assert (path / "backup.sqlite").read_bytes() == before
    assert (path / "backup.sqlite").read_bytes() != before


def test_a_backup_is_one_file_with_the_rows_of_the_run_and_is_made_where_something_was_written(
    whole, tmp_path
):
    path = shutil.copytree(whole, tmp_path / "run")
    with Run.create(path, SETTINGS) as run:
        run.record(1, "detect", answer(1, "detect"), 1)
    (path / "run.sqlite").unlink()
    assert not list(path.glob("*backup.sqlite?*"))
    before = (path / "backup.sqlite").stat()
    shutil.copy(path / "backup.sqlite", path / "run.sqlite")
    assert content(path) == content(whole)
    Run.create(path, SETTINGS).close()
    with Run.create(path, SETTINGS):
        pass
    assert (path / "backup.sqlite").stat().st_mtime_ns == before.st_mtime_ns


def test_a_writer_that_ends_with_an_error_leaves_the_last_backup(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "run")
    before = (path / "backup.sqlite").read_bytes()

    def fails() -> None:
        with Run.create(path, SETTINGS) as run:
            run.record(1, "detect", answer(1, "detect"), 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (path / "backup.sqlite").read_bytes() == before


def test_indices_in_each_others_place_are_noticed_by_a_reader(whole, tmp_path):
    """All rows are sound and pages fit together: lookups would find captions without results."""
    path = shutil.copytree(whole, tmp_path / "run")
    with closing(sqlite3.connect(path / "run.sqlite")) as db:
        names = ("sqlite_autoindex_captions_1", "sqlite_autoindex_results_1")
        query = "SELECT rootpage - 1 FROM sqlite_master WHERE name IN (?, ?)"
        (a,), (b,) = db.execute(query, names).fetchall()
    (path / "run.sqlite").write_bytes(_swapped(bytearray((path / "run.sqlite").read_bytes()), a, b))
    with closing(sqlite3.connect(path / "run.sqlite")) as db:
        assert db.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    with pytest.raises(DamageError, match=r"index.*findnemo repair"):
        content(path)


def test_an_index_that_disagrees_with_its_table_is_noticed_before_anything_is_written(
    whole, tmp_path
):
    """All rows are sound, and pages fit together: only a lookup would miss a row, and
    an audit answer it twice.
    """
    path = shutil.copytree(whole, tmp_path / "run")
    with closing(sqlite3.connect(path / "run.sqlite")) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_results_1'"
        ).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    data = bytearray((path / "run.sqlite").read_bytes())
    at = data.index(b"detect", (root - 1) * size, root * size)
    data[at : at + 6] = b"detecs"
    (path / "run.sqlite").write_bytes(data)
    with closing(sqlite3.connect(path / "run.sqlite")) as db:
        assert db.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    with pytest.raises(DamageError, match=r"index.*findnemo repair"):
        Run.create(path, SETTINGS)
    assert not repair(path).lost
    assert content(path) == content(whole)


@pytest.fixture
def killed(tmp_path) -> Path:
    """A run as a killed process leaves it: all rows in the log, and a backup of
    the end of the first stage.
    """
    with Run.create(tmp_path / "run", SETTINGS) as run:
        fill(run)
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
    return tmp_path / "killed"


def test_what_the_log_of_a_killed_process_holds_is_read_with_its_damaged_database(killed):
    """One row of the database does not fit its checksum: the rest of it, and all that
    lies in its log, is kept.
    """
    want = content(killed.with_name("run"))
    with closing(sqlite3.connect(killed / "run.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("UPDATE results SET payload = '{}' WHERE caption = 3 AND stage = 'localize'")
        shutil.copytree(killed, killed.with_name("copy"))
    found = repair(killed.with_name("copy"))
    assert found.lost == ("the result 'localize' of caption 3",)
    assert [p.name for p in found.kept] == ["run.sqlite.damaged-1"]
    have = content(killed.with_name("copy"))
    del want["results"]["caption 3 " + "of a picture " * 3, "localize"]
    assert (have["captions"], have["results"]) == (want["captions"], want["results"])


def test_where_a_database_and_its_log_are_gone_the_backup_is_there(killed):
    want = content(killed.with_name("run"))
    file = killed / "run.sqlite"
    log = killed / "run.sqlite-wal"
    file.write_bytes(b"\xff" * file.stat().st_size)
    log.write_bytes(bytes(8) + log.read_bytes()[8:])
    with pytest.raises(DamageError):
        content(killed)
    repair(killed)
    have = content(killed)
    assert have["captions"] == want["captions"]
    detected = {key: value for key, value in want["results"].items() if key[1] == "detect"}
    assert have["results"] == detected


@pytest.mark.slow
def test_a_flipped_bit_in_the_head_of_a_log_costs_what_is_in_it_and_nothing_is_wrong(killed):
    """SQLite takes such a log for an empty one: what was committed to it since is done again."""
    whole = (killed / "run.sqlite-wal").read_bytes()
    want = content(killed.with_name("run"))
    for place in range(32):
        path = shutil.copytree(killed, killed.with_name(str(place)))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        (path / "run.sqlite-wal").write_bytes(flipped)
        repair(path)
        assert content(path)["results"].items() <= want["results"].items()
        with Run.create(path, SETTINGS) as run:
            fill(run)
        assert content(path)["results"] == want["results"]


def test_a_head_that_forbids_writing_is_damage_and_no_matter_of_permissions(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "run")
    data = (path / "run.sqlite").read_bytes()
    (path / "run.sqlite").write_bytes(data[:18] + b"\x03" + data[19:])
    with pytest.raises(DamageError, match=r"may not be written.*findnemo repair"):
        Run.create(path, SETTINGS)
    repair(path)
    assert content(path)["results"] == content(whole)["results"]


def test_commits_are_flushed(whole, tmp_path):
    """`synchronous` 2, FULL:

    SQLite flushes its log with every commit, so a power cut does not take it back.
    """
    shutil.copytree(whole, tmp_path / "run")
    with Run.create(tmp_path / "run", SETTINGS) as run:
        assert run.query("PRAGMA synchronous") == [(2,)]
        assert run.query("PRAGMA journal_mode") == [("wal",)]


def test_settings_that_are_lost_come_from_their_copy_and_without_it_nothing_is_guessed(
    whole, tmp_path
):
    for copy in (True, False):
        path = tmp_path / str(copy)
        shutil.copytree(whole, path)
        with closing(sqlite3.connect(path / "run.sqlite", isolation_level=None)) as db:
            db.execute("UPDATE meta SET value = '{}' WHERE key = 'settings'")
        (path / "backup.sqlite").unlink()
        if copy:
            assert repair(path).captions == 40
            assert content(path)["meta"]["settings"] == (SETTINGS,)
        else:
            (path / "settings.json").write_text("{}")
            with pytest.raises(InputError, match="has lost the settings of the run"):
                repair(path)


def test_a_repair_that_is_killed_can_be_begun_again(whole, tmp_path):
    import os
    import signal

    import _killing as killing

    want = content(whole)
    random = Random(5)
    for attempt in range(4):
        out = tmp_path / str(attempt)
        shutil.copytree(whole, out)
        (out / "run.sqlite").write_bytes(
            blank(bytearray((out / "run.sqlite").read_bytes()), random)
        )

        def dies(out=out, attempt=attempt):
            count = 0

            def reached() -> None:
                nonlocal count
                count += 1
                if count == attempt + 1:
                    os.kill(os.getpid(), signal.SIGKILL)

            killing.watch("a rename", reached, after=attempt % 2 == 1)
            repair(out)

        killing.ended(killing.forked(dies))
        repair(out)
        have = content(out)
        assert have["results"].items() <= want["results"].items()
        assert not list(out.rglob(".*.part*"))


# pictures and calibrations ------------------------------------------------------------------------


def picture(path: Path) -> Path:
    return save_png(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)),
        path,
    )


def test_a_flipped_bit_in_a_picture_is_noticed(tmp_path):
    file = picture(tmp_path / "a.png")
    data = file.read_bytes()
    random = Random(0)
    assert intact_png(file)
    for place in random.sample(range(len(data)), 120):
        file.write_bytes(
            data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
        )
        assert not intact_png(file), place
    for length in random.sample(range(len(data)), 30):
        file.write_bytes(data[:length])
        assert not intact_png(file), length
