"""The run store: one directory per run. SQLite (WAL) for settings, captions and results; images as PNG.

Every result is committed in one transaction, so a process may die at any point: what was committed is there, the rest is done
again. One process at a time writes to a run.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from findnemo.errors import InputError, MismatchError
from findnemo.prompts import Prompt

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS captions (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, row INTEGER NOT NULL, type TEXT, image TEXT);
CREATE TABLE IF NOT EXISTS results (
    caption INTEGER NOT NULL REFERENCES captions(id), stage TEXT NOT NULL, status TEXT NOT NULL,
    seconds REAL NOT NULL, payload TEXT NOT NULL, PRIMARY KEY (caption, stage));
"""
WINDOW = 500  # captions read or entered at once, however many there are
_BEFORE = {"calibration", ".lock"}  # what a run directory can hold before its database is there


@dataclass(frozen=True)
class Caption:
    """One caption of a run, with the results committed so far: stage -> payload."""

    id: int
    text: str
    row: int
    type: str | None
    image: str | None
    results: dict[str, dict[str, Any]]
    failed: dict[str, str]
    seconds: float

    @property
    def slug(self) -> str:
        """A safe file name: number and a few letters of the caption."""
        words = "".join(c if c.isascii() and c.isalnum() else "-" for c in self.text.lower())
        return f"{self.id:05d}-{'-'.join(w for w in words.split('-') if w)[:40]}".rstrip("-")


class Run:
    """A run directory, opened for writing by `Run.create` (resumes what is there) or for reading by `Run.open`."""

    def __init__(self, path: Path, lock: Any = None):
        self.path, self._lock = path, lock
        self._db = sqlite3.connect(path / "run.sqlite", timeout=30)
        try:
            self._sql("PRAGMA journal_mode=WAL")
            self._sql("PRAGMA foreign_keys=ON")
            self._check_schema()
        except InputError:
            self.close()
            raise

    def _check_schema(self) -> None:
        """Refuse what another findnemo wrote in another form; a writer makes the tables of a new run."""
        known = self.meta("schema") if self._sql("SELECT 1 FROM sqlite_master WHERE name = 'meta'") else None
        if known is None and self._lock is not None:
            with self._db:
                self._db.executescript(_TABLES)
            self.set_meta("schema", known := SCHEMA)
        if known != SCHEMA:
            raise InputError(f"{self.path} has run format {known}, this findnemo reads {SCHEMA}: take another --out")

    def _sql(self, query: str, values: tuple = ()) -> list[tuple]:
        """All rows of a query. Raises InputError if SQLite cannot read the file or write to it."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            file = self.path / "run.sqlite"
            raise InputError(f"{file} cannot be used: {error}; if it is damaged, take another --out") from error

    @classmethod
    def create(cls, path: str | os.PathLike, settings: dict[str, Any]) -> Run:
        """Start a run, or go on with one that has the same settings.

        Raises MismatchError naming what differs, InputError if the directory holds something else or is in use.
        """
        path = Path(path)
        refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, acquire(path))
        known = run.meta("settings")
        if known is None:
            run.set_meta("settings", settings)
        elif known != settings:
            run.close()
            raise MismatchError(
                f"{path} was made with other settings: {differences(known, settings)}; give another --out, or the same settings"
            )
        return run

    @classmethod
    def open(cls, path: str | os.PathLike) -> Run:
        """Open an existing run to read it."""
        path = Path(path)
        if not (path / "run.sqlite").is_file():
            raise InputError(f"{path} is not a run directory: it holds no run.sqlite; make one with `findnemo audit`")
        run = cls(path)
        if run.meta("settings") is None:
            run.close()
            raise InputError(f"{path} is a run that stopped before it began: start it again with `findnemo audit`")
        return run

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # settings and captions

    def meta(self, key: str) -> Any:
        rows = self._sql("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: Any) -> None:
        with self._db:
            self._sql("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        """All rows of a query; inside `transaction` also of a statement that writes. Raises InputError if SQLite cannot."""
        return self._sql(sql, tuple(values))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written in the context, or nothing of it."""
        with self._db:
            yield

    def add(self, prompts: Iterable[Prompt]) -> list[int]:
        """Enter captions that are new; returns the ids of all of them, in order. See `table.enter` for tables of any length."""
        ids: list[int] = []
        entries = iter(prompts)
        with self._db:
            while part := list(islice(entries, WINDOW)):
                self._db.executemany(
                    "INSERT OR IGNORE INTO captions (text, row, type, image) VALUES (?, ?, ?, ?)",
                    [(p.text, p.row, p.type, p.image) for p in part],
                )
                marks = ", ".join("?" * len(part))
                known = dict(self._sql(f"SELECT text, id FROM captions WHERE text IN ({marks})", tuple(p.text for p in part)))
                ids += [known[p.text] for p in part]
        return ids

    # results

    def record(self, caption: int, stage: str, payload: dict[str, Any], seconds: float, error: str | None = None) -> None:
        """Commit the result of one stage for one caption, or the error with which it failed."""
        self.record_all([(caption, stage, payload, seconds, error)])

    def record_all(self, results: Iterable[tuple[int, str, dict[str, Any], float, str | None]]) -> None:
        """Commit results as `record` takes them in one transaction: those of captions that were answered together."""
        with self._db:
            for caption, stage, payload, seconds, error in results:
                status, kept = ("failed", {"error": error}) if error else ("done", payload)
                self._sql(
                    "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)", (caption, stage, status, seconds, json.dumps(kept))
                )

    def done(self, stage: str) -> set[int]:
        """Ids of the captions for which a stage has been answered; failed ones are tried again."""
        return {r[0] for r in self._sql("SELECT caption FROM results WHERE stage = ? AND status = 'done'", (stage,))}

    def result(self, caption: int, stage: str) -> dict[str, Any] | None:
        """The result of one stage for one caption; None if it is open or failed."""
        query = "SELECT payload FROM results WHERE caption = ? AND stage = ? AND status = 'done'"
        rows = self._sql(query, (caption, stage))
        return json.loads(rows[0][0]) if rows else None

    def captions(self, ids: Iterable[int] | None = None, stage: str | None = None) -> Iterator[Caption]:
        """Captions with their results, in the order in which they were entered, a few hundred in memory at a time.

        `ids` picks some, `stage` those for which that stage has been answered.
        """
        if ids is None:
            yield from self._all_captions(stage)
            return
        wanted = sorted(set(ids))
        for start in range(0, len(wanted), WINDOW):
            part = wanted[start : start + WINDOW]
            yield from self._captions(f"id IN ({', '.join('?' * len(part))})", part, stage)

    def _all_captions(self, stage: str | None) -> Iterator[Caption]:
        last = -1
        while rows := self._sql("SELECT id FROM captions WHERE id > ? ORDER BY id LIMIT ?", (last, WINDOW)):
            first, last = rows[0][0], rows[-1][0]
            yield from self._captions("id BETWEEN ? AND ?", (first, last), stage)

    def _captions(self, where: str, values: Sequence[int], stage: str | None) -> Iterator[Caption]:
        """The captions of one window."""
        found = f"SELECT id FROM captions WHERE {where}"
        if stage is not None:
            where += " AND id IN (SELECT caption FROM results WHERE stage = ? AND status = 'done')"
        chosen = (*values,) if stage is None else (*values, stage)
        columns = "caption, stage, status, seconds, payload"
        results: dict[int, list[tuple]] = {}
        for caption, *rest in self._sql(f"SELECT {columns} FROM results WHERE caption IN ({found}) ORDER BY rowid", (*values,)):
            results.setdefault(caption, []).append(tuple(rest))
        for id_, text, row, kind, image in self._sql(
            f"SELECT id, text, row, type, image FROM captions WHERE {where} ORDER BY id", chosen
        ):
            mine = results.get(id_, [])
            good = {stage: json.loads(payload) for stage, status, _, payload in mine if status == "done"}
            bad = {stage: json.loads(payload)["error"] for stage, status, _, payload in mine if status == "failed"}
            yield Caption(id_, text, row, kind, image, good, bad, sum(s for _, _, s, _ in mine))


def refuse_foreign(path: Path) -> None:
    """Raises InputError if a path is a file, or a directory with something else than a run."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give a run directory")
    if path.is_dir() and not (path / "run.sqlite").exists() and {p.name for p in path.iterdir()} - _BEFORE:
        raise InputError(f"{path} is not empty and not a findnemo run: give a new or an empty directory")


def acquire(path: Path) -> Any:
    """Lock a directory for this process until the returned file is closed. Raises InputError if another process holds it."""
    lock = (path / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise InputError(f"{path} is in use by another findnemo process: wait for it, or give another --out") from error
    lock.truncate(0)
    lock.write(f"{os.getpid()} {time.time():.0f}\n")
    lock.flush()
    return lock


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two sets of settings, in words."""
    flat_old, flat_new = _flat(old), _flat(new)
    keys = [k for k in {**flat_old, **flat_new} if flat_old.get(k) != flat_new.get(k)]
    return ", ".join(f"{k} {flat_old.get(k)!r}, now {flat_new.get(k)!r}" for k in keys)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
