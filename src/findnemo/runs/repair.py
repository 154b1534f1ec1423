"""Repair a damaged run: make a new database of the sound rows of the old one and of its backup.

The next audit answers what both lack.

print(repair("run").text())
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import IO, Any

from findnemo.calibration import Calibration
from findnemo.errors import DamageError, InputError
from findnemo.files.sizes import JSON_BYTES, TENSOR_BYTES, within_size
from findnemo.files.writing import atomic_write, flush, storing, sweep
from findnemo.images import intact_png
from findnemo.runs import results as stored
from findnemo.runs import store
from findnemo.runs._lock import acquire
from findnemo.runs.changing import PICTURED
from findnemo.runs.compare import picture_file
from findnemo.runs.standing import folder_of, image_name
from findnemo.runs.store import Caption, Run
from findnemo.runs.table import Shard

KEPT = ".damaged"  # suffix, with a number, under which damaged files and directories are kept
# folders of pictures of captions; of other settings with @ and a digest behind
FOLDERS = ("images", "noise", "sheets", "compare", "cleaned")
COMPARED = re.compile("compare(@[0-9a-f]+)?:")  # stages of mitigations
# values of the run that are made again if any value is lost
DERIVED = ("quality", "quality_basis", "listed", "union")
# what a damaged file raises: the second where SQLite names something in it that is no text
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
NAMED = 20  # losses listed one by one

Table = dict[Any, tuple[int, tuple[Any, ...]]]  # key -> row number and row with its checksum


@dataclass(frozen=True)
class Repair:
    """The result of a repair.

    `kept`: where the damaged files lie, empty if the database was whole. `captions`, `results`:
    rows that the run holds now. `lost`: what is gone or could not be trusted, in words. `open`:
    results that the next audit makes again because their pictures are damaged or missing.
    """

    path: Path
    kept: tuple[Path, ...]
    captions: int
    results: int
    lost: tuple[str, ...] = ()
    open: tuple[str, ...] = ()

    def text(self) -> str:
        """The result in words, a line each."""
        have = f"{self.path} holds {self.captions} captions and {self.results} results"
        if not self.kept and not self.open:
            return f"{have}: nothing is damaged"
        lines = [have, *(f"kept as it was: {path}" for path in self.kept)]
        lines += (
            _some("lost: ", self.lost)
            if self.lost
            else ["lost: nothing that can be told from what is left"] * bool(self.kept)
        )
        lines += _some("to be made again: ", self.open)
        return "\n".join([*lines, "run the same audit again: it answers what is missing"])


def _some(head: str, items: tuple[str, ...]) -> list[str]:
    more = [f"{head}{len(items) - NAMED} more"] if len(items) > NAMED else []
    return [*(head + item for item in items[:NAMED]), *more]


def repair(path: str | os.PathLike) -> Repair:
    """Check a run directory, and repair its database, pictures and calibration.

    An undamaged run stays unchanged. A damaged database is replaced by a new one with every row
    that SQLite reads and that fits its checksum. Rows that it lacks come from its backup. The
    damaged file stays next to the new one. The next audit makes results again whose pictures are
    damaged or missing, and a damaged calibration, which is moved aside.

    Raises InputError if `path` is not a run directory, is in use, is of a newer version of
    findnemo, or has lost its settings; StorageError where nothing can be written.
    """
    path = Path(path)
    if not (path / store.DATABASE).is_file():
        raise InputError(f"{path} is not a run directory: it holds no {store.DATABASE}")
    with acquire(path) as lock:
        sweep(path)
        run, kept, lost = _database(path, lock)
        with run:
            kept += _calibration(path)
            open_ = _pictures(run)
            sql = "SELECT (SELECT count(*) FROM captions), (SELECT count(*) FROM results)"
            captions, results = run.query(sql)[0]
            return Repair(path, tuple(kept), captions, results, tuple(lost), tuple(open_))


# the database -------------------------------------------------------------------------------------


def _database(path: Path, lock: IO[str]) -> tuple[Run, list[Path], list[str]]:
    """Replace a damaged database; return the run, the copies of the damaged files, and the
    losses.
    """
    try:
        # a copy of the lock, for a run that cannot be opened lets go of it
        return Run(path, os.fdopen(os.dup(lock.fileno()), "a", encoding="utf-8")), [], []
    except DamageError:
        pass
    kept = _keep(path)
    tables, lost = _salvage(path)
    for name in (store.BACKUP, store.DATABASE):
        with atomic_write(path / name) as part:
            write_tables(part, tables)
            if name == store.DATABASE:
                for end in ("-wal", "-shm"):  # a log belongs to the database that wrote it
                    path.joinpath(store.DATABASE + end).unlink(missing_ok=True)
    return Run(path, lock), kept, lost


def _keep(path: Path) -> list[Path]:
    """Copy a database and its log under new names."""
    aside = _aside(path / store.DATABASE)
    copies = []
    for end in ("-wal", ""):
        file = path / f"{store.DATABASE}{end}"
        if file.is_file() and (file.name == store.DATABASE or file.stat().st_size):
            copy = path / f"{aside.name}{end}"
            with atomic_write(copy) as part:
                shutil.copyfile(file, part)
            copies.append(copy)
    return copies[::-1]


def _aside(path: Path) -> Path:
    """An unused name next to a damaged file or directory."""
    names = (path.with_name(f"{path.name}{KEPT}-{k}") for k in count(1))
    return next(name for name in names if not name.exists())


def _salvage(path: Path) -> tuple[dict[str, Table], list[str]]:
    """All rows that fit their checksum, and the losses in words.

    Rows come from the damaged database; those that it lacks come from the backup.
    """
    tables: dict[str, Table] = {table: {} for table in store.COLUMNS}
    spoilt = set()
    for file in (path / store.DATABASE, path / store.BACKUP):
        for table in store.COLUMNS:
            for number, row in _readable(file, table):
                if row[-1] == store.checksum(table, row[:-1]):
                    key = row[:2] if table == "results" else row[:1]
                    tables[table].setdefault(key, (number, row))
                else:
                    spoilt.add(store.row_name(table, row))
        if file.name == store.DATABASE:
            own = set(tables["meta"])
    _settle(tables["meta"], own, path)
    kept = {
        store.row_name(table, row) for table, rows in tables.items() for _, row in rows.values()
    }
    lost = sorted(spoilt - kept)
    return tables, [*lost, *(line for line in _without_strays(tables) if line not in lost)]


def _readable(file: Path, table: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Row number and row with its checksum, for all rows of a table that SQLite can read.

    Reads from the first row up to the damage, then from the last row back.
    """
    if not file.is_file():
        return
    query = f"SELECT rowid, {', '.join(store.COLUMNS[table])}, checksum FROM {table} ORDER BY rowid"
    with closing(sqlite3.connect(file)) as db, suppress(*UNREADABLE):
        db.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        db.execute("PRAGMA trusted_schema=OFF")
        real = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND name = ?"
        if not db.execute(real, (table,)).fetchall():  # a view or a virtual table could run code
            return
        for order in ("ASC", "DESC"):
            with suppress(*UNREADABLE):
                for number, *row in db.execute(f"{query} {order}"):
                    yield int(number), tuple(row)
                return


def _settle(meta: Table, own: set[Any], path: Path) -> None:
    """Keep the values that a run needs, and drop those that may be older than the rest.

    `own`: keys that the damaged database still had.
    """
    settings = store.kept_settings(path)
    if ("settings",) not in meta and settings is not None:
        meta["settings",] = (0, _row("meta", ("settings", json.dumps(settings))))
    if ("settings",) not in meta:
        raise InputError(
            f"{path / store.DATABASE} has lost the settings of the run, without which its results"
            " say nothing: take another --out"
        )
    if set(meta) != own:
        for key in DERIVED:
            meta.pop((key,), None)
    meta["schema",] = (0, _row("meta", ("schema", json.dumps(store.SCHEMA))))


def _row(table: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*values, store.checksum(table, values))


def _without_strays(tables: dict[str, Table]) -> list[str]:
    """Remove results of lost captions; return these, and gaps in the numbers of captions, in
    words.
    """
    captions = tables["captions"]
    results = tables["results"]
    numbers = {number for (number,) in captions}
    strays = [key for key in results if key[0] not in numbers]
    most = max([*numbers, *(key[0] for key in strays)], default=0)
    for key in strays:
        del results[key]
    mine = _holds(tables["meta"])
    gone = [f"caption {k}" for k in range(1, most + 1) if k not in numbers and mine(k)]
    return gone + [
        f"the result {stage!r} of caption {number}, which is lost itself"
        for number, stage in strays
    ]


def _holds(meta: Table) -> Callable[[int], bool]:
    """A function that says whether a run has a caption of a number.

    A shard has those of its groups. A run merged without some shards lacks theirs. If that is
    unknown, the run has all.
    """

    def value(key: str) -> dict[str, Any]:
        return (
            stored.meta(meta[key,][1][1], key, store.DATABASE) if (key,) in meta else None
        ) or {}

    try:
        shard = value("settings").get("shard")
        own = None if shard is None else Shard.of(str(shard))
        missing = [Shard.of(text) for text in value("merged").get("missing", ())]
        group = value("table").get("group", 1)
    except InputError:  # a run can come from anywhere
        return lambda number: True
    if group < 1:
        return lambda number: True
    if own is not None:
        return lambda number: own.holds((number - 1) // group)
    return lambda number: not any(shard.holds((number - 1) // group) for shard in missing)


def write_tables(file: Path, tables: dict[str, Table]) -> None:
    """Write a new database of these rows, in the order of their numbers."""
    file.touch()  # with the umask's mode: the mode of SQLite would not let a group write
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=OFF")  # nobody sees it before it is whole
        db.execute("BEGIN")
        for table in store.TABLES:
            db.execute(table)
        for table, columns in store.COLUMNS.items():
            marks = ", ".join("?" * (len(columns) + 1))
            rows = [row for _, row in sorted(tables[table].values(), key=lambda one: one[0])]
            db.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}, checksum) VALUES ({marks})", rows
            )
        db.execute("COMMIT")


# files --------------------------------------------------------------------------------------------


def _calibration(path: Path) -> list[Path]:
    """Move a damaged calibration aside; the next audit makes it again from the same captions."""
    folder = path / "calibration"
    if not (folder / "calibration.json").is_file() or not _is_damaged(folder):
        return []
    with storing(path):
        aside = folder.rename(_aside(folder))
        flush(path)
    return [aside]


def _is_damaged(folder: Path) -> bool:
    """Whether a calibration lacks a part or does not fit its digest.

    A calibration of another version of findnemo does not count as damaged.
    """
    try:
        within_size(folder / "calibration.json", JSON_BYTES)
        within_size(folder / "calibration.safetensors", TENSOR_BYTES)
    except InputError:
        return True
    try:
        Calibration.load(folder)
    except InputError as error:
        return isinstance(error, DamageError)
    return False


def _pictures(run: Run) -> list[str]:
    """Remove damaged pictures, and results whose pictures are damaged or missing; return those in
    words.
    """
    folders = (found for name in FOLDERS for found in run.path.glob(f"{name}*"))
    pictures = (file for folder in folders for file in folder.rglob("*.png"))
    broken = {file for file in pictures if not intact_png(file)}
    images = (run.meta("settings") or {}).get("images", 0)
    opened = [
        (c.id, stage) for c in run.captions() for stage in _spoilt(run.path, c, broken, images)
    ]
    for file in broken:
        with suppress(OSError):
            file.unlink()
    with run.transaction():
        for number, stage in opened:
            run.query("DELETE FROM results WHERE caption = ? AND stage = ?", (number, stage))
    return [store.row_name("results", one) for one in opened]


def _spoilt(path: Path, caption: Caption, broken: set[Path], images: int) -> list[str]:
    """Stages of a caption that have a damaged or missing picture."""

    def lacks(file: str) -> bool:
        return path / file in broken or not (path / file).is_file()

    stages = []
    slug = caption.slug
    alone = replace(caption, unions=())
    looks = {"verify": alone, PICTURED: alone}
    looks |= {f"union:{digest}": caption for digest in caption.unions[-1:]}
    for stage, looked in looks.items():
        if stage not in caption.results or not images:
            continue
        root = folder_of(looked)
        kinds = [image_name(looked, when, stage) for when in ("before", "after")]
        names = [f"{name}-{k:02d}" for name in kinds for k in range(images)]
        files = [f"{root}/images/{slug}/{name}.png" for name in names]
        folders = (path / root / at / slug for at in ("images", "noise"))
        others = (file for folder in folders for file in folder.glob("*.png"))
        if any(map(lacks, [*files, f"{root}/sheets/{slug}.png"])) or broken.intersection(others):
            stages.append(stage)
    compared = (stage for stage in caption.results if COMPARED.match(stage))
    return stages + [stage for stage in compared if lacks(picture_file(stage, slug))]
