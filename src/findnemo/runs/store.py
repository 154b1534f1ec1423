"""The run store: one directory per run. SQLite (WAL) for settings, captions and results; images as PNG.

Every result is committed in one transaction, after the files that belong to it, so a process may die at any point: what was committed
is there, the rest is done again. One process at a time writes to a run. Every row has a checksum: a flipped byte is noticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from findnemo.errors import DamageError, FindnemoError, InputError, MismatchError, StorageError
from findnemo.files.secrets import hidden
from findnemo.files.writing import CLOSED, FAILS, FULL, storing, sweep, written
from findnemo.models._identity import EARLIER, PICTURES, kept_identity
from findnemo.prompts import Prompt
from findnemo.runs import results as stored
from findnemo.runs._lock import acquire
from findnemo.runs._places import refuse_links
from findnemo.runs.results import Audit, Detected, Detectors, Localized, Verified

SCHEMA = 2
COLUMNS = {  # what a checksum covers; it is the last column of each table
    "meta": ("key", "value"),
    "captions": ("id", "text", "row", "type", "image"),
    "results": ("caption", "stage", "status", "seconds", "payload"),
}
TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL DEFAULT '')",
    """CREATE TABLE captions (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, row INTEGER NOT NULL, type TEXT, image TEXT,
    checksum TEXT NOT NULL DEFAULT '')""",
    """CREATE TABLE results (
    caption INTEGER NOT NULL REFERENCES captions(id), stage TEXT NOT NULL, status TEXT NOT NULL,
    seconds REAL NOT NULL, payload TEXT NOT NULL, checksum TEXT NOT NULL DEFAULT '', PRIMARY KEY (caption, stage))""",
)
WINDOW = 500  # captions read or entered at once, however many there are
DATABASE, COPY = "run.sqlite", "settings.json"
_BEFORE = {
    "calibration",
    ".lock",
    COPY,
}  # what a run directory can hold before its database is there
_STORAGE = {  # what SQLite says of a disk -> the reason and the way out
    "database or disk is full": ("no space left on the device", FULL),
    "readonly database": ("it is read-only", CLOSED),
    "unable to open database file": ("no permission", CLOSED),
    "disk I/O error": ("the disk reports an error, or has no room", FAILS),
    "database is locked": (
        "another process holds it",
        "wait for it, then run the same command again",
    ),
}
_DAMAGE = (  # what SQLite says of the bytes of a file; all else that it says is of a statement, which is ours
    *("malformed", "not a database", "unsupported file format", "string or blob too big"),
    *("could not decode to utf-8", "database corruption"),
)
_UNASKED = "no such table: asked"

DECODED = {"detect": "detected", "localize": "localized", "verify": "verified"}

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Caption:
    """One caption of a run, with the results committed so far.

    `results`: stage -> JSON object as it is stored; those of the audit are decoded by `detected`, `localized` and `verified`, which are None
    for a stage that is open or failed, and raise InputError for an object that lacks something. `listed`: whether the caption is on the run's
    list at a false discovery rate. `place`: what errors call the run.
    """

    id: int
    text: str
    row: int
    type: str | None
    image: str | None
    results: dict[str, dict[str, Any]]
    failed: dict[str, str]
    seconds: float
    listed: bool = False
    place: str = field(default=DATABASE, compare=False, repr=False)

    @cached_property
    def detected(self) -> Detected | None:
        return self._decoded("detect")

    @cached_property
    def localized(self) -> Localized | None:
        return self._decoded("localize")

    @cached_property
    def verified(self) -> Verified | None:
        return self._decoded("verify")

    def _decoded(self, stage: str) -> Any:
        payload = self.results.get(stage)
        if payload is None:
            return None
        return stored.decoded(
            stored.of_key(stored.STAGES, stage), payload, where(self.place, self.id, stage)
        )

    @property
    def score(self) -> float | None:
        """The memorization score: over all seeds where neurons were sought, else that of detection, which stops at a pair that reaches tau."""
        if self.localized is not None:
            return self.localized.score_before
        return None if self.detected is None else self.detected.score

    @property
    def p(self) -> float | None:
        """The p-value of `score`; None for a calibration without scores."""
        known = None if self.localized is None else self.localized.p
        return self.detected.p if known is None and self.detected is not None else known

    @property
    def slug(self) -> str:
        """A safe file name: number and a few letters of the caption."""
        words = "".join(c if c.isascii() and c.isalnum() else "-" for c in self.text.lower())
        return f"{self.id:05d}-{'-'.join(w for w in words.split('-') if w)[:40]}".rstrip("-")


def checksum(table: str, row: Sequence[Any]) -> str:
    """Of a row of a table, the same in all formats to come, so that an older findnemo sees that a run is newer, not damaged: 16 hexadecimal digits of BLAKE2b over its name and values.

    >>> checksum("meta", ("schema", "2"))
    '24c7237af3a1a0a6'
    """
    return hashlib.blake2b(
        json.dumps([table, *row], default=repr).encode(), digest_size=8
    ).hexdigest()


class Run:
    """A run directory, opened for writing by `Run.create` (resumes what is there) or for reading by `Run.open`."""

    def __init__(self, path: Path, lock: IO[str] | None = None):
        self.path, self._lock, self._schema = path, lock, SCHEMA
        for name, sound in (
            (DATABASE, _database_head),
            (f"{DATABASE}-wal", _log_head),
        ):  # SQLite removes a log that it cannot read
            if not sound(_head(path / name)):
                raise self._damaged(f"{name} does not begin as such a file does")
        self._db = _connect(path / DATABASE, writes=lock is not None)
        try:
            self._refuse_code()
            self._check_pages()
            self._check_schema()
        except BaseException:
            self.close()
            raise

    def _check_pages(self) -> None:
        """Refuse a damaged database: pages that do not fit together; before writing, indices that disagree with their tables as well."""
        if self._lock is not None:
            self._sql("PRAGMA journal_mode=WAL")
        self._sql("PRAGMA synchronous=FULL")  # what is committed is there after a power cut
        self._sql("PRAGMA foreign_keys=ON")
        told = self._sql(
            "PRAGMA quick_check(1)" if self._lock is None else "PRAGMA integrity_check(1)"
        )[0][0]
        if told != "ok":
            raise self._damaged(str(told).splitlines()[-1])

    def _refuse_code(self) -> None:
        """Refuse what SQLite would act on by itself, which a run never holds: views, triggers, virtual tables."""
        self._sql("PRAGMA trusted_schema=OFF")
        for kind, name, made in self._sql("SELECT type, name, sql FROM sqlite_master"):
            if kind not in ("table", "index") or str(made).upper().startswith("CREATE VIRTUAL"):
                raise self._damaged(f"it holds a {kind} {name!r:.60}, which no run does")

    def _check_schema(self) -> None:
        """Refuse what a newer findnemo wrote; a writer makes the tables of a new run, and brings an older one to the present form."""
        columns = {name for (name,) in self._sql("SELECT name FROM pragma_table_info('meta')")}
        self._schema = SCHEMA if "checksum" in columns else 1
        known = self.meta("schema") if columns else None
        if (self._schema == 1 or known is None) and (
            self.path / COPY
        ).exists():  # written once a run of format 2 has begun
            raise self._damaged("its tables are not those of a run")
        if known is None and self._lock is not None:
            self._make_tables()
        elif known == 1 and self._schema == 1:
            if self._lock is not None:
                self._migrate()
        elif known != SCHEMA or self._schema != SCHEMA:
            way_out = (
                "a newer findnemo made it: update this one"
                if known
                else "it stopped before it began: start it again"
            )
            raise InputError(
                f"{self.path} has run format {known}, this findnemo reads {SCHEMA}: {way_out}, or take another --out"
            )
        self._check_columns()
        if self._lock is not None:
            self._check_rows()

    def _check_columns(self) -> None:
        """Refuse tables that lack a column: what a statement of ours misses later is then no damage."""
        for table, columns in COLUMNS.items():
            wanted = {*columns, *(("checksum",) if self._schema >= SCHEMA else ())}
            if lacking := wanted - {
                name for (name,) in self._sql("SELECT name FROM pragma_table_info(?)", (table,))
            }:
                raise self._damaged(f"its table {table} has no {min(lacking)}")

    def _make_tables(self) -> None:
        with self.transaction():
            for table in TABLES:
                self._sql(table)
            self._schema = SCHEMA
            self.put("meta", ("schema", json.dumps(SCHEMA)))

    def _migrate(self) -> None:
        """From format 1, which had no checksums, in one transaction."""
        with self.transaction():
            for table in COLUMNS:
                self._sql(f"ALTER TABLE {table} ADD COLUMN checksum TEXT NOT NULL DEFAULT ''")
                columns = ", ".join(COLUMNS[table])
                for number, *row in self._rows(f"SELECT rowid, {columns} FROM {table}"):
                    self._sql(
                        f"UPDATE {table} SET checksum = ? WHERE rowid = ?",
                        (checksum(table, row), number),
                    )
            self._schema = SCHEMA
            self.put("meta", ("schema", json.dumps(SCHEMA)))

    def _check_rows(self) -> None:
        """Before writing: every row against its checksum. A few microseconds a row."""
        for table in COLUMNS:
            for _ in self.rows(table):
                pass

    # queries

    def _sql(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query. Raises DamageError if SQLite cannot read the file, StorageError if it cannot write to it."""
        return list(self._rows(query, values))

    def _rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """The same one by one."""
        try:
            yield from self._db.execute(query, tuple(values))
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if (told := self._told(error)) is None:
                raise
            raise told from error

    def _told(self, error: Exception) -> FindnemoError | None:
        """An error of SQLite in plain words; None for one of a statement or its values, which is no fault of the file."""
        said = str(error).lower()
        if said == _UNASKED:
            return InputError(
                f"{self.path}: no captions were asked for: call enter(run, prompts) or ask_all(run) first"
            )
        if isinstance(error, UnicodeDecodeError) or any(known in said for known in _DAMAGE):
            return self._damaged(str(error))
        return cannot_be_written(self.path, error)

    def _damaged(self, why: str) -> DamageError:
        file = self.path / DATABASE
        return DamageError(
            f"{file} cannot be used: {why}; if it is damaged, `findnemo repair {self.path}` keeps all that can be read; "
            "or take another --out"
        )

    def rows(self, table: str, where: str = "", values: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows of a table, without their checksums. Raises InputError naming one that does not fit its checksum."""
        columns = COLUMNS[table]
        last = "checksum" if self._schema >= SCHEMA else "NULL"
        for *row, known in self._rows(
            f"SELECT {', '.join(columns)}, {last} FROM {table} {where}", values
        ):
            if known is not None and known != checksum(table, row):
                raise self._damaged(f"{named(table, row)} does not fit its checksum")
            yield tuple(row)

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query; inside `transaction` also of a statement that writes. Raises DamageError or StorageError where the file is to
        blame, what SQLite raises where the statement is."""
        return self._sql(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written in the context, or nothing of it."""
        try:
            self._sql("BEGIN IMMEDIATE")
            yield
            self._sql("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.rollback()
            raise

    def put(self, table: str, row: Sequence[Any]) -> None:
        """Write a row in the place of the one that has its key."""
        if self._schema < SCHEMA:
            raise StorageError(
                f"{self.path} has run format {self._schema} and is only read: go on with it (`findnemo audit`) first"
            )
        marks = ", ".join("?" * (len(row) + 1))
        self._sql(
            f"INSERT OR REPLACE INTO {table} ({', '.join(COLUMNS[table])}, checksum) VALUES ({marks})",
            (*row, checksum(table, row)),
        )

    # opening and closing

    @classmethod
    def create(cls, path: str | os.PathLike, settings: dict[str, Any], wait: bool = False) -> Run:
        """Start a run, or go on with one that has the same settings. `wait`: for another process that writes to it, however long.

        Raises MismatchError naming what differs, InputError if the directory holds something else, is damaged or in use, StorageError if it
        cannot be written.
        """
        path = Path(path)
        refuse_foreign(path)
        with storing(path):
            path.mkdir(parents=True, exist_ok=True)
        lock = acquire(path, wait)
        try:
            sweep(path)
            run = cls(path, lock)
        except BaseException:
            lock.close()
            raise
        try:
            run._settle(settings)
        except BaseException:
            run.close()
            raise
        return run

    def _settle(self, settings: dict[str, Any]) -> None:
        """Keep the settings of a new run; refuse others than those of an old one."""
        known = self.meta("settings")
        if known is None:
            self.set_meta("settings", settings)
        elif told := differences(known, settings):
            raise MismatchError(
                f"{self.path} was made with other settings: {told}; give another --out, or the same settings"
            )
        kept = (
            settings if known is None else known
        )  # of one model loaded in two ways the first stays
        if kept_settings(self.path) != kept:
            keep_settings(self.path, kept)

    @classmethod
    def open(cls, path: str | os.PathLike) -> Run:
        """Open an existing run to read it."""
        path = Path(path)
        if not (path / DATABASE).is_file():
            raise InputError(
                f"{path} is not a run directory: it holds no run.sqlite; make one with `findnemo audit`"
            )
        refuse_links(path, deep=False)
        run = cls(path)
        if run.meta("settings") is None:
            run.close()
            if (path / COPY).exists():
                raise run._damaged("it has lost the settings of the run")
            raise InputError(
                f"{path} is a run that stopped before it began: start it again with `findnemo audit`"
            )
        return run

    def unlock(self) -> None:
        """Only read from here on, so that others may write to the run."""
        self._sql("PRAGMA query_only=ON")
        if self._lock is not None:
            self._lock.close()
            self._lock = None

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
        rows = list(self.rows("meta", "WHERE key = ?", (key,)))
        return stored.meta(rows[0][1], key, str(self.path / DATABASE)) if rows else None

    def set_meta(self, key: str, value: Any) -> None:
        with self.transaction():
            self.put("meta", (key, json.dumps(value)))

    def add(self, prompts: Iterable[Prompt]) -> list[int]:
        """Enter captions that are new; returns the ids of all of them, in order. Secrets in the URLs of images stay out."""
        ids: list[int] = []
        entries = iter(prompts)
        with self.transaction():
            last = self._sql("SELECT coalesce(max(id), 0) FROM captions")[0][0]
            while part := list(islice(entries, WINDOW)):
                marks = ", ".join("?" * len(part))
                texts = [p.text for p in part]
                known = dict(
                    self._sql(f"SELECT text, id FROM captions WHERE text IN ({marks})", texts)
                )
                for p in part:
                    if p.text not in known:
                        known[p.text] = last = last + 1
                        self.put(
                            "captions", (last, p.text, p.row, p.type, p.image and hidden(p.image))
                        )
                ids += [known[text] for text in texts]
        return ids

    def names_pictures(self) -> bool:
        """Whether any caption names its training image."""
        return bool(self._sql("SELECT 1 FROM captions WHERE image IS NOT NULL LIMIT 1"))

    # results

    def record(
        self,
        caption: int,
        stage: str,
        payload: dict[str, Any],
        seconds: float,
        error: str | None = None,
    ) -> None:
        """Commit the result of one stage for one caption, or the error with which it failed."""
        self.record_all([(caption, stage, payload, seconds, error)])

    def record_all(
        self, results: Iterable[tuple[int, str, dict[str, Any], float, str | None]]
    ) -> None:
        """Commit results as `record` takes them in one transaction: those of captions that were answered together."""
        with self.transaction():
            for caption, stage, payload, seconds, error in results:
                status, kept = ("failed", {"error": hidden(error)}) if error else ("done", payload)
                self.put("results", (caption, stage, status, float(seconds), json.dumps(kept)))

    def done(self, stage: str) -> set[int]:
        """Ids of the captions for which a stage has been answered; failed ones are tried again."""
        return {
            r[0]
            for r in self._sql(
                "SELECT caption FROM results WHERE stage = ? AND status = 'done'", (stage,)
            )
        }

    def result(self, caption: int, stage: str) -> dict[str, Any] | None:
        """The result of one stage for one caption; None if it is open or failed."""
        rows = list(self.rows("results", "WHERE caption = ? AND stage = ?", (caption, stage)))
        return (
            stored.payload(rows[0][4], where(self.path / DATABASE, caption, stage))
            if rows and rows[0][2] == "done"
            else None
        )

    def captions(
        self, ids: Iterable[int] | None = None, stage: str | None = None
    ) -> Iterator[Caption]:
        """Captions with their results, in the order in which they were entered, a few hundred in memory at a time.

        `ids` picks some, `stage` those for which that stage has been answered.
        """
        if ids is None:
            yield from self._all_captions(stage)
            return
        wanted, listed = sorted(set(ids)), self._listed()
        for start in range(0, len(wanted), WINDOW):
            part = wanted[start : start + WINDOW]
            yield from self._captions(f"id IN ({', '.join('?' * len(part))})", part, stage, listed)

    def _listed(self) -> frozenset[int]:
        """Ids of the captions on the run's list (`audit.keep_list`)."""
        return frozenset(self.meta("listed") or ())

    def _all_captions(self, stage: str | None) -> Iterator[Caption]:
        last, listed = -1, self._listed()
        while rows := self._sql(
            "SELECT id FROM captions WHERE id > ? ORDER BY id LIMIT ?", (last, WINDOW)
        ):
            first, last = rows[0][0], rows[-1][0]
            yield from self._captions("id BETWEEN ? AND ?", (first, last), stage, listed)

    def _captions(
        self, chosen_by: str, values: Sequence[int], stage: str | None, listed: frozenset[int]
    ) -> Iterator[Caption]:
        """The captions of one window."""
        found = f"SELECT id FROM captions WHERE {chosen_by}"
        if stage is not None:
            chosen_by += (
                " AND id IN (SELECT caption FROM results WHERE stage = ? AND status = 'done')"
            )
        chosen = (*values,) if stage is None else (*values, stage)
        results: dict[int, list[tuple]] = {}
        for caption, *rest in self.rows(
            "results", f"WHERE caption IN ({found}) ORDER BY rowid", values
        ):
            results.setdefault(caption, []).append(tuple(rest))
        place = str(self.path / DATABASE)
        for id_, text, row, kind, image in self.rows(
            "captions", f"WHERE {chosen_by} ORDER BY id", chosen
        ):
            mine = results.get(id_, [])
            stored.check_caption((id_, text, row, kind, image), place)
            checked = [stored.answer(one, where(place, id_, str(one[0]))) for one in mine]
            good = {stage: payload for stage, status, _, payload in checked if status == "done"}
            bad = {
                stage: payload["error"]
                for stage, status, _, payload in checked
                if status == "failed"
            }
            seconds = sum(s for _, _, s, _ in mine)
            yield Caption(id_, text, row, kind, image, good, bad, seconds, id_ in listed, place)


def settings_of(run: Run, audit: bool = True) -> dict[str, Any]:
    """The settings of an audit, or of any run. Raises InputError naming what is missing."""
    known: dict[str, Any] = run.meta("settings") or {}
    stored.decoded(Audit if audit else Detectors, known, str(run.path / DATABASE))
    return known


def captions_of(run: Run, ids: Iterable[int] | None = None) -> list[Caption]:
    """All captions, or some, as faces show them. Raises InputError naming a caption of which a result lacks something."""
    return list(each_caption(run, ids))


def each_caption(run: Run, ids: Iterable[int] | None = None) -> Iterator[Caption]:
    """The captions of `captions_of` one by one."""
    for caption in run.captions(ids):
        for stage, result in caption.results.items():
            if stage in DECODED:
                getattr(caption, DECODED[stage])
            else:
                stored.decoded(
                    stored.of_key(stored.STAGES, stage),
                    result,
                    where(caption.place, caption.id, stage),
                )
        yield caption


def where(place: str | Path, caption: int, stage: str) -> str:
    """Where the result of a stage lies, for errors."""
    return f"{place}, caption {caption!r:.40}, {stage!r:.60}"


def named(table: str, row: Sequence[Any]) -> str:
    """A row for a reader.

    >>> named("results", (12, "detect", "done", 0.5, "{}"))
    "the result 'detect' of caption 12"
    """
    return {
        "meta": f"the value {row[0]!r:.60}",
        "captions": f"caption {row[0]!r:.60}",
        "results": f"the result {row[1]!r:.60} of caption {row[0]!r:.60}",
    }[table]


def cannot_be_written(place: Path, error: Exception) -> StorageError | None:
    """What SQLite says of the disk, in plain words; None for an error of another kind."""
    for said, (reason, way_out) in _STORAGE.items():
        if said.lower() in str(error).lower():
            return StorageError(f"{place} cannot be written: {reason}; {way_out}")
    return None


def _connect(file: Path, writes: bool) -> sqlite3.Connection:
    """Open a database; one that lies where nothing can be written is read as it is."""
    still = not writes and not os.access(file.parent, os.W_OK)
    log = file.with_name(f"{file.name}-wal")
    if still and log.exists() and log.stat().st_size:
        raise StorageError(
            f"{file.parent} is read-only and holds a run that was not closed: copy it to where it can be written"
        )
    place = f"{file.absolute().as_uri()}?mode=ro&immutable=1" if still else str(file)
    try:
        return sqlite3.connect(place, timeout=30, isolation_level=None, uri=still)
    except sqlite3.Error as error:
        raise StorageError(f"{file} cannot be opened ({error}): {CLOSED}") from error


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(32)
    except FileNotFoundError:
        return b""


def _database_head(head: bytes) -> bool:
    """Whether the first 32 bytes are those of a database: the magic text, a version that can be written, and three fixed numbers."""
    return not head or (
        head.startswith(b"SQLite format 3\0")
        and {*head[18:20]} <= {1, 2}
        and head[21:24] == bytes((64, 32, 32))
    )


def _log_head(head: bytes) -> bool:
    """Whether the 32 bytes before the frames of a write-ahead log fit their checksum, as SQLite computes it."""
    if len(head) < 32:
        return True  # nothing was committed to it
    order: Literal["big", "little"] = "big" if head[3] & 1 else "little"
    numbers = [int.from_bytes(head[k : k + 4], order) for k in range(0, 24, 4)]
    first = second = 0
    for a, b in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + a + second) % 2**32
        second = (second + b + first) % 2**32
    return head[:3] == b"\x37\x7f\x06" and head[24:] == first.to_bytes(4, "big") + second.to_bytes(
        4, "big"
    )


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """A copy of the settings beside the database: results without the settings that they were made with are worth nothing."""
    about = {"settings": settings, "checksum": checksum("settings", [settings])}
    with written(path / COPY) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def kept_settings(path: Path) -> dict[str, Any] | None:
    """What `keep_settings` wrote; None if it is not there or damaged."""
    try:
        about = json.loads((path / COPY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not stored.fits(stored.SettingsCopy, about):
        return None
    settings: dict[str, Any] = about["settings"]
    return settings if about["checksum"] == checksum("settings", [settings]) else None


def refuse_foreign(path: Path) -> None:
    """Raises InputError if a path is a file, or a directory with something else than a run."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give a run directory")
    if (
        path.is_dir()
        and not (path / DATABASE).exists()
        and {p.name for p in path.iterdir() if p.suffix != ".part"} - _BEFORE
    ):
        raise InputError(
            f"{path} is not empty and not a findnemo run: give a new or an empty directory"
        )


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two sets of settings, in words; nothing where nothing does. Models are the same if their identities say so."""
    then, now = (kept_identity(settings.get("identity")) for settings in (old, new))
    told = (
        []
        if now is None
        else [f"it {EARLIER}"]
        if then is None
        else now.differences(then, PICTURES[1] in {*then.parts} & {*now.parts})
    )
    known = ("identity",) if now is None or then is None else ("identity", "model")
    flat_old, flat_new = (
        _flat({k: v for k, v in settings.items() if k not in known}) for settings in (old, new)
    )
    keys = [k for k in {**flat_old, **flat_new} if flat_old.get(k) != flat_new.get(k)]
    return ", ".join([*told, *(f"{k} {flat_old.get(k)!r}, now {flat_new.get(k)!r}" for k in keys)])


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
