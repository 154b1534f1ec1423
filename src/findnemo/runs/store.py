"""The run store: one directory for each run.

SQLite (WAL) holds settings, captions and results, with a backup; images are PNG files.

Every result is committed in one transaction, after its files. So a process may die at any point:
committed results remain, the others are computed again. Only one process at a time writes to a run.
Every row has a checksum, which detects a flipped byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from findnemo.errors import DamageError, FindnemoError, InputError, MismatchError, StorageError
from findnemo.files.html import in_notebook
from findnemo.files.secrets import without_secrets
from findnemo.files.writing import CLOSED, atomic_write, cannot_be_written, storing, sweep
from findnemo.models.identity import EARLIER, PICTURES, kept_identity
from findnemo.prompts import Prompt
from findnemo.runs import results as stored
from findnemo.runs._lock import acquire
from findnemo.runs._places import refuse_links

SCHEMA = 2
COLUMNS = {  # what a checksum covers; it is the last column of each table
    "meta": ("key", "value"),
    "captions": ("id", "text", "row", "type", "image"),
    "results": ("caption", "stage", "status", "seconds", "payload"),
}
TABLES = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL"
        " DEFAULT '')"
    ),
    """CREATE TABLE captions (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE, row INTEGER NOT NULL, type TEXT, image TEXT,
    checksum TEXT NOT NULL DEFAULT '')""",
    """CREATE TABLE results (
    caption INTEGER NOT NULL REFERENCES captions(id), stage TEXT NOT NULL, status TEXT NOT NULL,
    seconds REAL NOT NULL, payload TEXT NOT NULL, checksum TEXT NOT NULL DEFAULT '', PRIMARY KEY (caption, stage))""",
)
WINDOW = 500  # captions read or entered at once
DATABASE = "run.sqlite"
BACKUP = "backup.sqlite"  # copy of the database from the end of a stage
COPY = "settings.json"
VARIANTS = "variants"  # folder with the images of a fine-tune audit
WATCHED = ("training.json", "training.csv")  # what a training callback saw of its checkpoints
GRID = "training.png"  # copied training pictures of a fine-tune audit
MODELS = "models.png"  # images of its models side by side
THUMBNAILS = "training"  # folder with its training pictures, small
# what may exist before the database
_BEFORE = {"calibration", ".lock", COPY, VARIANTS, *WATCHED, GRID, MODELS, THUMBNAILS}
# SQLite's errors about the bytes of a file; its other errors are about our statements
_DAMAGE = (
    *("malformed", "not a database", "unsupported file format", "string or blob too big"),
    *("could not decode to utf-8", "database corruption"),
)

Row = tuple[Any, ...]
Change = Callable[["Run", dict[str, Any], dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True)
class Caption:
    """One caption of a run, with the results committed so far.

    `results`: stage -> stored JSON object. `detected`, `localized` and `verified` are those of the
    audit as types (`typed_result`). `listed`: whether the caption is on the run's list at a false
    discovery rate. `unions`: digests of the sets of neurons off for all captions together, the
    exported set last; empty if none was looked at. `place`: the name of the run in errors.
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
    unions: tuple[str, ...] = ()
    place: str = field(default=DATABASE, compare=False, repr=False)
    _decoded: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    def typed_result(self, stage: str) -> Any:
        """The result of a stage as its type in `results.STAGES`; None if the stage is open or
        failed.

        Raises InputError for a result that lacks a value or has one of the wrong type.
        """
        if stage in self.results and stage not in self._decoded:
            kind = stored.of_key(stored.STAGES, stage)
            place = where(self.place, self.id, stage)
            self._decoded[stage] = stored.as_stored_type(kind, self.results[stage], place)
        return self._decoded.get(stage)

    @property
    def detected(self) -> stored.Detected | None:
        return self.typed_result("detect")

    @property
    def localized(self) -> stored.Localized | None:
        return self.typed_result("localize")

    @property
    def verified(self) -> stored.Verified | None:
        return self.typed_result("verify")

    @property
    def together(self) -> stored.Together | None:
        """The verification with the exported neurons of all captions off together, or a glance."""
        if not self.unions:
            return None
        looks = (self.typed_result(f"{kind}:{self.unions[-1]}") for kind in ("union", "glance"))
        return next((look for look in looks if look is not None), None)

    @property
    def further(self) -> tuple[stored.Continued, ...]:
        """What further searches found for it, one for each set that led to the exported one."""
        found = (self.typed_result(f"further:{digest}") for digest in self.unions[:-1])
        return tuple(one for one in found if one is not None)

    @property
    def score(self) -> float | None:
        """The memorization score: over all seeds if neurons were searched, else that of detection,
        which stops at a pair that reaches tau.
        """
        if self.localized is not None:
            return self.localized.score_before
        return None if self.detected is None else self.detected.score

    @property
    def p(self) -> float | None:
        """The p-value of `score`; None for a calibration without scores."""
        searched = None if self.localized is None else self.localized.p
        return self.detected.p if searched is None and self.detected is not None else searched

    @property
    def slug(self) -> str:
        """A safe file name: the number and a few letters of the caption."""
        words = re.sub(r"[^a-z0-9]+", "-", self.text.lower()).strip("-")
        return f"{self.id:05d}-{words[:40]}".rstrip("-")


def checksum(table: str, row: Sequence[Any]) -> str:
    """16 hexadecimal digits of BLAKE2b over the name of a table and the values of a row.

    All formats of a run use the same checksum, so that an older findnemo recognizes a newer run,
    and does not call it damaged.

    >>> checksum("meta", ("schema", "2"))
    '24c7237af3a1a0a6'
    """
    return hashlib.blake2b(
        json.dumps([table, *row], default=repr).encode(), digest_size=8
    ).hexdigest()


class Run:
    """A run directory, opened for writing by `Run.create` (new or resumed) or for reading by
    `Run.open`.
    """

    def __init__(self, path: Path, lock: IO[str] | None = None):
        self.path = path
        self._lock = lock
        self._changed = not (path / BACKUP).exists()  # whether rows changed since the last backup
        self._db = _connect(path / DATABASE, writes=lock is not None)
        try:
            self._refuse_code()
            self._check_pages()
            self._check_schema()
        except BaseException:
            self.close()
            raise

    def _check_pages(self) -> None:
        """Refuse a damaged database: inconsistent pages, or indices that disagree with their
        tables.
        """
        if self._lock is not None:
            self.query("PRAGMA journal_mode=WAL")
            # writes nothing, but detects a damaged header that forbids writing
            for query in ("BEGIN IMMEDIATE", "PRAGMA user_version=0", "ROLLBACK"):
                self.query(query)
        self.query("PRAGMA synchronous=FULL")  # commits survive a power cut
        self.query("PRAGMA foreign_keys=ON")
        found = self.query("PRAGMA integrity_check(1)")[0][0]
        if found != "ok":
            raise self._damaged(str(found).splitlines()[-1])

    def _refuse_code(self) -> None:
        """Refuse what SQLite would run by itself and no run holds: views, triggers, virtual
        tables.
        """
        self.query("PRAGMA trusted_schema=OFF")
        for kind, name, made in self.query("SELECT type, name, sql FROM sqlite_master"):
            if kind not in ("table", "index") or str(made).upper().startswith("CREATE VIRTUAL"):
                raise self._damaged(f"it holds a {kind} {name!r:.60}, which no run does")

    def _check_schema(self) -> None:
        """Refuse the format of a newer findnemo; a writer makes the tables of a new run."""
        begun = bool(self.query("SELECT 1 FROM sqlite_master WHERE name = 'meta'"))
        if begun:
            self._check_columns("meta")
        schema = self.meta("schema") if begun else None
        if schema is None and (self.path / COPY).exists():  # the copy exists once a run has begun
            raise self._damaged("its tables are not those of a run")
        if schema is None and self._lock is not None:
            with self.transaction():
                for table in TABLES:
                    self.query(table)
                self.put_row("meta", ("schema", json.dumps(SCHEMA)))
        elif schema != SCHEMA:
            newer = "a newer findnemo made it: update this one"
            way_out = newer if schema else "it stopped before it began: start it again"
            raise InputError(
                f"{self.path} has run format {schema}, this version of findnemo reads {SCHEMA}:"
                f" {way_out}, or"
                " take another --out"
            )
        self._check_columns(*COLUMNS)
        if self._lock is not None:
            self._check_rows()

    def _check_columns(self, *tables: str) -> None:
        """Refuse tables that lack a column, so that later errors of statements are not called
        damage.
        """
        for table in tables:
            has = {
                name for (name,) in self.query("SELECT name FROM pragma_table_info(?)", (table,))
            }
            if lacking := {*COLUMNS[table], "checksum"} - has:
                raise self._damaged(f"its table {table} has no {min(lacking)}")

    def _check_rows(self) -> None:
        """Check every row against its checksum before writing. It takes a few microseconds a
        row.
        """
        for table in COLUMNS:
            for _ in self.rows(table):
                pass

    # queries

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """All rows of a query; inside `transaction`, also of a statement that writes.

        Raises DamageError or StorageError if the file is to blame, and SQLite's own error if the
        statement is.
        """
        return list(self._rows(sql, values))

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """The rows of a query one by one, with the errors of `query`."""
        try:
            yield from self._db.execute(sql, tuple(values))
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if (plain := self._in_words(error)) is None:
                raise
            raise plain from error

    def _in_words(self, error: Exception) -> FindnemoError | None:
        """An error of SQLite in plain words; None if a statement or its values are to blame."""
        said = str(error).lower()
        if said == "no such table: asked":
            return InputError(
                f"{self.path}: no captions were asked for: call enter(run, prompts) or ask_all(run)"
                " first"
            )
        if isinstance(error, UnicodeDecodeError) or any(known in said for known in _DAMAGE):
            return self._damaged(str(error))
        if "readonly database" in said and all(
            os.access(place, os.W_OK) for place in (self.path, self.path / DATABASE)
        ):
            return self._damaged("its head says that it may not be written")
        return cannot_be_written(self.path, error)

    def _damaged(self, why: str) -> DamageError:
        file = self.path / DATABASE
        return DamageError(
            f"{file} cannot be used: {why}; if it is damaged, `findnemo repair {self.path}` keeps"
            " all that can be read; or take another --out"
        )

    def rows(self, table: str, where: str = "", values: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows of a table, without their checksums.

        Raises InputError naming a row that does not fit its checksum.
        """
        columns = COLUMNS[table]
        for *row, kept in self._rows(
            f"SELECT {', '.join(columns)}, checksum FROM {table} {where}", values
        ):
            if kept != checksum(table, row):
                raise self._damaged(f"{row_name(table, row)} does not fit its checksum")
            yield tuple(row)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything that is written in the context, or nothing."""
        try:
            self.query("BEGIN IMMEDIATE")
            yield
            self.query("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.rollback()
            raise

    def put_row(self, table: str, row: Sequence[Any]) -> None:
        """Write a row, in place of one with the same key."""
        self._changed = True
        marks = ", ".join("?" * (len(row) + 1))
        self.query(
            f"INSERT OR REPLACE INTO {table} ({', '.join(COLUMNS[table])}, checksum) VALUES"
            f" ({marks})",
            (*row, checksum(table, row)),
        )

    # opening and closing

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        settings: dict[str, Any],
        wait: bool = False,
        change: Change | None = None,
    ) -> Run:
        """Start a run, or resume one that has the same settings.

        `wait`: wait for another process that writes to it, however long. `change(run, earlier,
        settings)`: gives an existing run other settings; returns the run's settings from now on, or
        None if they cannot change.

        Raises MismatchError naming what differs, InputError if the directory holds something else,
        is damaged or in use, StorageError if it cannot be written.
        """
        path = Path(path)
        refuse_foreign(path)
        with storing(path):
            path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            lock = stack.enter_context(acquire(path, wait))
            sweep(path)
            run = cls(path, lock)
            stack.callback(run.close)
            run._settle(settings, change)
            stack.pop_all()  # no error: the run stays open
        return run

    def _settle(self, settings: dict[str, Any], change: Change | None) -> None:
        """Keep the settings of a new run; change or refuse other settings of an existing one."""
        earlier = self.meta("settings")
        if earlier is None:
            self.set_meta("settings", settings)
        elif difference := differences(earlier, settings):
            changed = None if change is None else change(self, earlier, settings)
            if changed is None:
                raise MismatchError(
                    f"{self.path} was made with other settings: {difference}; give another --out,"
                    " or the same settings"
                )
            earlier = changed
        # if one model was loaded in two ways, the first stays
        kept = settings if earlier is None else earlier
        if kept_settings(self.path) != kept:
            keep_settings(self.path, kept)

    @classmethod
    def open(cls, path: str | os.PathLike) -> Run:
        """Open an existing run for reading."""
        path = Path(path)
        if not (path / DATABASE).is_file():
            raise InputError(
                f"{path} is not a run directory: it holds no run.sqlite; make one with `findnemo"
                " audit`"
            )
        refuse_links(path, deep=False)
        run = cls(path)
        if run.meta("settings") is None:
            run.close()
            if (path / COPY).exists():
                raise run._damaged("it has lost the settings of the run")
            raise InputError(
                f"{path} is a run that stopped before it began: start it again with `findnemo"
                " audit`"
            )
        return run

    def unlock(self) -> None:
        """Stop writing: from here on only read, so that others may write to the run.

        What was committed is backed up first.
        """
        if self._lock is not None:
            self.backup()
        self.query("PRAGMA query_only=ON")
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def close(self) -> None:
        self._changed = False
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def _repr_html_(self) -> str:
        """The run in a notebook: what to do, figures, and pictures before and after."""
        with Run.open(self.path) as run:  # this object may be closed, or used by its writer
            return in_notebook(run)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Close the run; a writer that ends without an error leaves a backup."""
        try:
            if kind is None and self._lock is not None:
                self.backup()
        finally:
            self.close()

    def backup(self) -> None:
        """Keep a second copy of the database, `backup.sqlite`, for `repair`.

        Nothing is copied if no row changed since the last backup. All rows and pages are checked
        first, so that damage does not enter the backup. The last backup stays until the new one is
        on the disk. Raises DamageError, or StorageError if it cannot be written.
        """
        if not self._changed:
            return
        self._check_pages()
        self._check_rows()
        with atomic_write(self.path / BACKUP) as part:
            part.touch()
            with closing(sqlite3.connect(part)) as copy:
                copy.execute("PRAGMA journal_mode=MEMORY")  # no journal file
                self._db.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # readable without a log
        self._changed = False

    # settings and captions

    def meta(self, key: str) -> Any:
        rows = list(self.rows("meta", "WHERE key = ?", (key,)))
        return stored.meta(rows[0][1], key, str(self.path / DATABASE)) if rows else None

    def set_meta(self, key: str, value: Any) -> None:
        with self.transaction():
            self.put_row("meta", (key, json.dumps(value)))

    def add(self, prompts: Iterable[Prompt]) -> list[int]:
        """Enter new captions; return the ids of all given ones, in order.

        Secrets in the URLs of images are removed.
        """
        with self.transaction():
            return [
                self.enter(prompt) if (known := self.id_of(prompt.text)) is None else known
                for prompt in prompts
            ]

    def id_of(self, text: str) -> int | None:
        """The id of a caption; None if the run does not have it."""
        found = self.query("SELECT id FROM captions WHERE text = ?", (text,))
        return int(found[0][0]) if found else None

    def enter(self, prompt: Prompt, number: int | None = None) -> int:
        """Enter a new caption under a number, by default the next one, and return the number;
        inside `transaction`.
        """
        if number is None:
            number = 1 + self.query("SELECT coalesce(max(id), 0) FROM captions")[0][0]
        image = prompt.image and without_secrets(prompt.image)
        self.put_row("captions", (number, prompt.text, prompt.row, prompt.type, image))
        return number

    def names_pictures(self) -> bool:
        """Whether any caption names its training image."""
        return bool(self.query("SELECT 1 FROM captions WHERE image IS NOT NULL LIMIT 1"))

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
        """Commit results of captions that were answered together in one transaction; each as
        `record` takes it.
        """
        with self.transaction():
            for caption, stage, payload, seconds, error in results:
                status, kept = (
                    ("failed", {"error": without_secrets(error)}) if error else ("done", payload)
                )
                self.put_row("results", (caption, stage, status, float(seconds), json.dumps(kept)))

    def done(self, stage: str) -> set[int]:
        """Ids of the captions with an answer of a stage; failed captions have none and are tried
        again.
        """
        sql = "SELECT caption FROM results WHERE stage = ? AND status = 'done'"
        return {caption for (caption,) in self.query(sql, (stage,))}

    def result(self, caption: int, stage: str) -> dict[str, Any] | None:
        """The result of one stage for one caption; None if it is open or failed."""
        for _, _, status, _, payload in self.rows(
            "results", "WHERE caption = ? AND stage = ?", (caption, stage)
        ):
            if status == "done":
                return stored.payload(payload, where(self.path / DATABASE, caption, stage))
        return None

    def captions(
        self, ids: Iterable[int] | None = None, stage: str | None = None
    ) -> Iterator[Caption]:
        """Captions with their results in order of entry, a few hundred in memory at a time.

        `ids`: only these. `stage`: only captions with an answer of that stage.
        """
        listed = frozenset(self.meta("listed") or ())  # ids listed at a false discovery rate
        unions = tuple((self.meta("union") or {"digests": ()})["digests"])
        for window in self._windows(ids):
            yield from self._captions(window, stage, listed, unions)

    def _windows(self, ids: Iterable[int] | None) -> Iterator[list[int]]:
        """The ids in order, WINDOW at a time; without `ids`, those of all captions."""
        if ids is not None:
            wanted = iter(sorted(set(ids)))
            while window := list(islice(wanted, WINDOW)):
                yield window
            return
        last = -1
        sql = "SELECT id FROM captions WHERE id > ? ORDER BY id LIMIT ?"
        while window := [number for (number,) in self.query(sql, (last, WINDOW))]:
            yield window
            last = window[-1]

    def _captions(
        self,
        window: Sequence[int],
        stage: str | None,
        listed: frozenset[int],
        unions: tuple[str, ...],
    ) -> Iterator[Caption]:
        """The captions of one window; with a `stage`, only those with an answer of it."""
        marks = ", ".join("?" * len(window))
        results: dict[int, list[Row]] = {}
        for caption, *rest in self.rows(
            "results", f"WHERE caption IN ({marks}) ORDER BY rowid", window
        ):
            results.setdefault(caption, []).append(tuple(rest))
        chosen = f"WHERE id IN ({marks})"
        values: list[Any] = [*window]
        if stage is not None:
            chosen += " AND id IN (SELECT caption FROM results WHERE stage = ? AND status = 'done')"
            values.append(stage)
        place = str(self.path / DATABASE)
        for columns in self.rows("captions", f"{chosen} ORDER BY id", values):
            stored.check_caption(columns, place)
            number, text, row, kind, image = columns
            answers = [
                stored.answer(answer, where(place, number, str(answer[0])))
                for answer in results.get(number, ())
            ]
            done = {name: payload for name, status, _, payload in answers if status == "done"}
            failed = {
                name: found["error"] for name, status, _, found in answers if status != "done"
            }
            seconds = sum(part for _, _, part, _ in answers)
            about = (number in listed, unions, place)
            yield Caption(number, text, row, kind, image, done, failed, seconds, *about)


def settings_of(run: Run, audit: bool = True) -> dict[str, Any]:
    """The settings of an audit, or of any run. Raises InputError naming what is missing."""
    settings: dict[str, Any] = run.meta("settings") or {}
    stored.as_stored_type(
        stored.Audit if audit else stored.Detectors, settings, str(run.path / DATABASE)
    )
    return settings


def captions_of(run: Run, ids: Iterable[int] | None = None) -> list[Caption]:
    """All captions, or some, with their results checked.

    Raises InputError naming a caption with an incomplete result.
    """
    return list(each_caption(run, ids))


def captions_named(captions: Sequence[Caption], wanted: str) -> list[Caption]:
    """The captions with this row number; if there are none, those with this text in theirs.

    >>> some = [Caption(k, text, k, None, None, {}, {}, 0) for k, text in [(1, "a fox"), (2, "Foxes")]]
    >>> [c.text for c in captions_named(some, "2")], len(captions_named(some, "fox"))
    (['Foxes'], 2)
    """
    by_row = [c for c in captions if str(c.row) == wanted]
    return by_row or [c for c in captions if wanted.lower() in c.text.lower()]


def each_caption(run: Run, ids: Iterable[int] | None = None) -> Iterator[Caption]:
    """The captions of `captions_of` one by one."""
    for caption in run.captions(ids):
        for stage in caption.results:
            caption.typed_result(stage)
        yield caption


def where(place: str | Path, caption: int, stage: str) -> str:
    """The place of a stage's result, for errors."""
    return f"{place}, caption {caption!r:.40}, {stage!r:.60}"


def row_name(table: str, row: Sequence[Any]) -> str:
    """The name of a row, for errors.

    >>> row_name("results", (12, "detect", "done", 0.5, "{}"))
    "the result 'detect' of caption 12"
    """
    return {
        "meta": f"the value {row[0]!r:.60}",
        "captions": f"caption {row[0]!r:.60}",
        "results": f"the result {row[1]!r:.60} of caption {row[0]!r:.60}",
    }[table]


def _connect(file: Path, writes: bool) -> sqlite3.Connection:
    """Open a database; if it lies on a read-only disk, open it unchanged for reading."""
    still = not writes and not os.access(file.parent, os.W_OK)
    log = file.with_name(f"{file.name}-wal")
    if still and log.exists() and log.stat().st_size:
        raise StorageError(
            f"{file.parent} is read-only and holds a run that was not closed: copy it to where it"
            " can be written"
        )
    if writes and not file.exists():
        with suppress(OSError):  # SQLite's error says more
            file.touch()  # with the umask's mode: the mode of SQLite would not let a group write
    place = f"{file.absolute().as_uri()}?mode=ro&immutable=1" if still else str(file)
    try:
        return sqlite3.connect(place, timeout=30, isolation_level=None, uri=still)
    except sqlite3.Error as error:
        raise StorageError(f"{file} cannot be opened ({error}): {CLOSED}") from error


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Keep a copy of the settings next to the database: without its settings a run is worthless."""
    about = {"settings": settings, "checksum": checksum("settings", [settings])}
    with atomic_write(path / COPY) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def kept_settings(path: Path) -> dict[str, Any] | None:
    """The settings that `keep_settings` wrote; None if missing or damaged."""
    try:
        about = json.loads((path / COPY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not stored.fits(stored.SettingsCopy, about):
        return None
    settings: dict[str, Any] = about["settings"]
    return settings if about["checksum"] == checksum("settings", [settings]) else None


def refuse_foreign(path: Path) -> None:
    """Raises InputError if a path is a file, or a directory that holds something other than a
    run.
    """
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
    """The differences of two sets of settings in words; empty if there are none.

    Models are equal if their identities are.
    """
    then, now = (kept_identity(settings.get("identity")) for settings in (old, new))
    if now is None:
        models = []
    elif then is None:
        models = [f"it {EARLIER}"]
    else:
        models = now.differences(then, PICTURES[1] in {*then.parts} & {*now.parts})
    apart = ("identity",) if now is None or then is None else ("identity", "model")
    flat_old, flat_new = (
        flat({k: v for k, v in settings.items() if k not in apart}) for settings in (old, new)
    )
    keys = [k for k in {**flat_old, **flat_new} if flat_old.get(k) != flat_new.get(k)]
    values = [f"{k} {flat_old.get(k)!r}, now {flat_new.get(k)!r}" for k in keys]
    return ", ".join([*models, *values])


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings; dots join the names.

    >>> flat({"a": {"b": 1, "c": None}})
    {'a.b': 1, 'a.c': None}
    """
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        leaves |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return leaves
