"""Merge the shards of one table into the run that an undivided audit would have made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from findnemo.errors import InputError, MismatchError
from findnemo.files.sizes import TENSOR_BYTES, within_size
from findnemo.models.identity import Identity, kept_identity
from findnemo.runs._lock import acquire
from findnemo.runs._same import MADE_WITH
from findnemo.runs.discoveries import keep_list
from findnemo.runs.export import counts, write_results
from findnemo.runs.store import Run, differences
from findnemo.runs.table import Shard
from findnemo.runs.trust import MARK

FOLDERS = ("images", "noise", "sheets", "originals")
# values of the run that come from the first shard
KEPT = ("source", "source_options", "versions", "folder", "preprocessing", MARK)


@dataclass(frozen=True)
class Merged:
    """A merged run: numbers of `captions`, of captions still `open` and `failed`, and the `missing`
    shards.
    """

    path: Path
    captions: int
    open: int
    failed: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """A shard that is open for reading, with what it says about itself."""

    run: Run
    shard: Shard
    settings: dict[str, Any]
    table: dict[str, Any]
    calibration: bytes
    pictures: Identity | None

    @property
    def path(self) -> Path:
        return self.run.path


def merge(
    out: str | os.PathLike, shards: Iterable[str | os.PathLike], partial: bool = False
) -> Merged:
    """Join runs made with `--shard i/n` into one.

    Captions come in table order, under the numbers of an undivided run, with their results, images,
    noise differences and sheets.

    `partial`: merge even if shards are missing. The quality check looks at all neurons together and
    is left to `verify` or `audit` on the merged run. Raises InputError (no shard, one twice, one
    missing, one in use, a directory that is not empty) or MismatchError (other settings, another
    table, another calibration) naming the run; then nothing is written.

        merge("run", ["run-1", "run-2", "run-3"])
    """
    path = Path(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is not empty: give a new directory for the merged run")
    with ExitStack() as stack:
        parts = sorted(
            (_part(Path(shard), stack) for shard in shards), key=lambda part: part.shard.index
        )
        missing = _checked(parts, partial)
        # if two processes merge into it, one finds it not empty
        building = path.parent / f".{path.name}.{os.getpid()}.part"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        try:
            numbers = _built(building, parts, missing)
            try:
                if path.exists():
                    path.rmdir()
                building.replace(path)
            except OSError as error:
                raise InputError(
                    f"{path} is not empty any more ({error.strerror}): give a new directory for the"
                    " merged run"
                ) from error
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return Merged(path, *numbers, missing)


def _part(path: Path, stack: ExitStack) -> _Part:
    """Open a shard for reading, and lock it against writers meanwhile."""
    run = stack.enter_context(Run.open(path))
    settings = run.meta("settings")
    table = run.meta("table")
    pictures = kept_identity(run.meta(MADE_WITH))
    if "shard" not in settings or table is None:
        raise InputError(f"{path} is not a shard: it was made without --shard")
    stack.enter_context(acquire(path))
    calibration = path / "calibration" / "calibration.safetensors"
    if not calibration.is_file():
        raise InputError(f"{path} has lost its calibration ({calibration})")
    shard = Shard.of(settings.pop("shard"))
    statistics = within_size(calibration, TENSOR_BYTES).read_bytes()
    return _Part(run, shard, settings, table, statistics, pictures)


def _checked(parts: Sequence[_Part], partial: bool) -> tuple[str, ...]:
    """The missing shards. Raises an error for shards that do not belong together."""
    if not parts:
        raise InputError("no shards: give the run directories that were made with --shard")
    first = parts[0]
    pictures = [part.pictures for part in parts if part.pictures is not None]
    for before, part in pairwise(parts):
        if part.shard.count != first.shard.count:
            raise MismatchError(
                f"{first.path} is shard {first.shard}, {part.path} is shard {part.shard}: they"
                " belong to different divisions of the table"
            )
        if difference := differences(first.settings, part.settings):
            raise MismatchError(
                f"{part.path} has different settings from {first.path}: {difference}"
            )
        if part.pictures is not None and (others := part.pictures.differences(pictures[0])):
            raise MismatchError(
                f"the pictures of {part.path} were not made like those of other shards:"
                f" {'; '.join(others)}"
            )
        if part.table != first.table:
            raise MismatchError(
                f"{part.path} is a shard of another table of captions than {first.path}"
            )
        if part.calibration != first.calibration:
            raise MismatchError(
                f"{part.path} has a different calibration from {first.path}: its results cannot be"
                " compared"
            )
        if part.shard == before.shard:
            raise InputError(
                f"{before.path} and {part.path} are both shard {part.shard}: leave one out"
            )
    have = {part.shard.index for part in parts}
    missing = tuple(
        f"{k}/{first.shard.count}" for k in range(1, first.shard.count + 1) if k not in have
    )
    if missing and not partial:
        raise InputError(
            f"shards {', '.join(missing)} are missing: give them too, or --partial to merge"
            " without them"
        )
    return missing


def _built(path: Path, parts: Sequence[_Part], missing: Sequence[str]) -> tuple[int, int, int]:
    """Make the run in a directory; return its numbers of captions, open and failed ones."""
    shutil.copytree(parts[0].path / "calibration", path / "calibration", ignore=_no_links)
    with Run.create(path, parts[0].settings) as run:
        for key in KEPT:
            if (value := parts[0].run.meta(key)) is not None:
                run.set_meta(key, value)
        if pictures := [part.pictures for part in parts if part.pictures is not None]:
            run.set_meta(MADE_WITH, pictures[0].to_json())
        run.set_meta(
            "merged", {"shards": [str(part.shard) for part in parts], "missing": list(missing)}
        )
        for part in parts:
            _take(run, part.run)
        keep_list(run)
        write_results(run)
        numbers = counts(run)
        sql = "SELECT COUNT(DISTINCT caption) FROM results WHERE stage = 'detect'"
        answered = run.query(sql)[0][0]
    return numbers["captions"], numbers["captions"] - answered, numbers["failed"]


def _take(run: Run, shard: Run) -> None:
    """Take over the captions, results and files of a shard."""
    with run.transaction():
        for table in ("captions", "results"):
            for row in shard.rows(table):
                run.put_row(table, row)
    for folder in FOLDERS:
        source = shard.path / folder
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, run.path / folder, ignore=_no_links, dirs_exist_ok=True)


def _no_links(folder: str, names: list[str]) -> list[str]:
    """Links are not followed: they may lead out of the run."""
    return [name for name in names if (Path(folder) / name).is_symlink()]
