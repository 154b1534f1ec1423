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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from findnemo._secrets import hidden
from findnemo.errors import InputError, MismatchError
from findnemo.prompts import Prompt
from findnemo.runs import _shapes
from findnemo.runs._places import refuse_links

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS captions (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, row INTEGER NOT NULL, type TEXT, image TEXT);
CREATE TABLE IF NOT EXISTS results (
    caption INTEGER NOT NULL REFERENCES captions(id), stage TEXT NOT NULL, status TEXT NOT NULL,
    seconds REAL NOT NULL, payload TEXT NOT NULL, PRIMARY KEY (caption, stage));
"""
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
            self._refuse_code()
            self._sql("PRAGMA journal_mode=WAL")
            self._sql("PRAGMA foreign_keys=ON")
            self._check_schema()
        except InputError:
            self.close()
            raise

    def _refuse_code(self) -> None:
        """Refuse what SQLite would act on by itself, which a run never holds: views, triggers, virtual tables."""
        self._sql("PRAGMA trusted_schema=OFF")
        for kind, name, made in self._sql("SELECT type, name, sql FROM sqlite_master"):
            if kind not in ("table", "index") or str(made).upper().startswith("CREATE VIRTUAL"):
                raise InputError(f"{self.path / 'run.sqlite'} holds a {kind} {name!r:.60}, which no run does: it is not used")

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
                f"{path} was made with other settings: {_differences(known, settings)}; give another --out, or the same settings"
            )
        return run

    @classmethod
    def open(cls, path: str | os.PathLike) -> Run:
        """Open an existing run to read it."""
        path = Path(path)
        if not (path / "run.sqlite").is_file():
            raise InputError(f"{path} is not a run directory: it holds no run.sqlite; make one with `findnemo audit`")
        refuse_links(path, deep=False)
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
        return _shapes.meta(rows[0][0], key, str(self.path / "run.sqlite")) if rows else None

    def set_meta(self, key: str, value: Any) -> None:
        with self._db:
            self._sql("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def add(self, prompts: Iterable[Prompt]) -> list[int]:
        """Enter captions that are new; returns the ids of all of them, in order. Secrets in the URLs of images stay out."""
        prompts = list(prompts)
        with self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO captions (text, row, type, image) VALUES (?, ?, ?, ?)",
                [(p.text, p.row, p.type, p.image and hidden(p.image)) for p in prompts],
            )
        return [self._sql("SELECT id FROM captions WHERE text = ?", (p.text,))[0][0] for p in prompts]

    def names_pictures(self) -> bool:
        """Whether any caption names its training image."""
        return bool(self._sql("SELECT 1 FROM captions WHERE image IS NOT NULL LIMIT 1"))

    # results

    def record(self, caption: int, stage: str, payload: dict[str, Any], seconds: float, error: str | None = None) -> None:
        """Commit the result of one stage for one caption, or the error with which it failed."""
        with self._db:
            self._sql(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?)",
                (
                    caption,
                    stage,
                    "failed" if error else "done",
                    seconds,
                    json.dumps(payload if error is None else {"error": hidden(error)}),
                ),
            )

    def done(self, stage: str) -> set[int]:
        """Ids of the captions for which a stage has been answered; failed ones are tried again."""
        return {r[0] for r in self._sql("SELECT caption FROM results WHERE stage = ? AND status = 'done'", (stage,))}

    def result(self, caption: int, stage: str) -> dict[str, Any] | None:
        """The result of one stage for one caption; None if it is open or failed."""
        query = "SELECT payload FROM results WHERE caption = ? AND stage = ? AND status = 'done'"
        rows = self._sql(query, (caption, stage))
        return _shapes.payload(rows[0][0], stage, self._where(caption, stage)) if rows else None

    def _where(self, caption: int, stage: str) -> str:
        return f"{self.path / 'run.sqlite'}, caption {caption!r:.40}, {stage!r:.60}"

    def captions(self, ids: Iterable[int] | None = None) -> Iterator[Caption]:
        """Captions with their results, in the order in which they were entered; `ids` picks some."""
        results: dict[int, list[tuple]] = {}
        for caption, *rest in self._sql("SELECT caption, stage, status, seconds, payload FROM results ORDER BY rowid"):
            results.setdefault(caption, []).append(tuple(rest))
        wanted = None if ids is None else set(ids)
        for id_, text, row, kind, image in self._sql("SELECT id, text, row, type, image FROM captions ORDER BY id"):
            if wanted is None or id_ in wanted:
                mine = results.get(id_, [])
                _shapes.caption((id_, text, row, kind, image), str(self.path / "run.sqlite"))
                checked = [_shapes.answer(one, self._where(id_, str(one[0]))) for one in mine]
                good = {stage: payload for stage, status, _, payload in checked if status == "done"}
                bad = {stage: payload["error"] for stage, status, _, payload in checked if status == "failed"}
                yield Caption(id_, text, row, kind, image, good, bad, sum(s for _, _, s, _ in mine))


def refuse_foreign(path: Path) -> None:
    """Raises InputError if a path is a file, or a directory with something else than a run."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give a run directory")
    if path.is_dir() and not (path / "run.sqlite").exists() and {p.name for p in path.iterdir()} - _BEFORE:
        raise InputError(f"{path} is not empty and not a findnemo run: give a new or an empty directory")


def acquire(path: Path) -> Any:
    """Lock a directory for this process until the returned file is closed. Raises InputError if another process holds it."""
    refuse_links(path)
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


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    flat_old, flat_new = _flat(old), _flat(new)
    keys = [k for k in {**flat_old, **flat_new} if flat_old.get(k) != flat_new.get(k)]
    return ", ".join(f"{k} {flat_old.get(k)!r}, now {flat_new.get(k)!r}" for k in keys)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
