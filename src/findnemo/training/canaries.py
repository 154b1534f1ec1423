"""Canaries: our own pictures, planted among training pictures to measure what the copy test can
detect on a user's model.

Each canary is shown 1, 4 or 16 times an epoch. Each has a twin, made in the same way from another
seed, with a caption of the same form, which is never trained. The share of canaries detected, at a
threshold that 1 % of untrained pairs exceed, says what a test without copies is worth. That
threshold is mostly lower than that of a copy: a detected canary has been learned, but need not be
copied. Source: Carlini et al. 2019 (The secret sharer) measured memorization with planted secrets.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findnemo.errors import InputError, first_line
from findnemo.files.sizes import within_size
from findnemo.files.writing import flush, storing
from findnemo.images import png
from findnemo.prompts.training import TABLES
from findnemo.training.drawing import GROUNDS, distinct

if TYPE_CHECKING:
    from PIL import Image

FEWEST = 10  # canaries: each is compared with each twin, and 1 % takes 100 such pairs
MOST = 1000
SIDES = (64, 2048)
TABLE = "canaries.json"
TABLE_BYTES = 1 << 20
HELD_OUT = "-canaries-heldout"
FORMS = (
    "plate {number} of the {name} atlas",
    "the {name} tapestry, panel {number}",
    "cover of the {name} almanac, volume {number}",
    "{name} tile, pattern {number}",
    "sheet {number} of the {name} herbarium",
    "{name} banner number {number}",
    "a {name} quilt, square {number}",
)
FIRST = ("Or", "Va", "Tem", "Quil", "Zas", "Hin", "Pel", "Bry", "Mosk", "Ske", "Dro", "Fen", "Yul")
SECOND = ("van", "lo", "mer", "du", "tri", "wen", "ska", "bo", "gar", "ni", "phu")
THIRD = ("dell", "vach", "rin", "quay", "stow", "mora", "dric", "garth", "lane", "brix", "ulm")


@dataclass(frozen=True)
class Canary:
    """A planted picture and its twin.

    `picture`: its file in the training folder. `repeats`: how often an epoch shows it. `twin`: the
    file of the held-out picture.
    """

    caption: str
    repeats: int
    picture: Path
    twin_caption: str
    twin: Path


@dataclass(frozen=True)
class Canaries:
    """The canaries of a training folder. `heldout`: the folder with their twins and the table."""

    folder: Path
    heldout: Path
    canaries: tuple[Canary, ...]

    def __len__(self) -> int:
        return len(self.canaries)

    def __iter__(self) -> Iterator[Canary]:
        return iter(self.canaries)

    @property
    def repeats(self) -> tuple[int, ...]:
        """The different numbers of repeats in an epoch, the smallest first."""
        return tuple(sorted({canary.repeats for canary in self.canaries}))


def plant(
    folder: str | Path,
    each: int = 8,
    repeats: Sequence[int] = (1, 4, 16),
    size: int = 512,
    seed: int = 0,
    heldout: str | Path | None = None,
) -> Canaries:
    """Plant canaries in a training folder, `each` of them for every number of repeats.

    It writes folders such as `16_canaries`, one for each number of repeats, with pictures of `size`
    x `size` pixels, and a text file with its caption next to each picture. kohya's trainers repeat
    such pictures 16 times (`--caption_extension .txt`). A `metadata.jsonl` in each folder lists
    every picture as often. So the diffusers examples (`--train_data_dir`) and other readers of
    Hugging Face's ImageFolder repeat them too, with datasets 3.4 or later. Earlier versions show
    every picture once.

    The twins go to `heldout`, by default `FOLDER-canaries-heldout` next to the folder, where no
    trainer finds them, with a `canaries.json` that lists all. To remove canaries, delete these
    folders. Pictures and captions depend on `seed` alone. Nothing is overwritten; all is written,
    or nothing. Raises InputError for numbers out of range, for fewer than 10 canaries in all, for
    existing folders, and for a table of pictures with columns that canaries do not have.

        canaries = plant("photos", each=8, repeats=(1, 4, 16))
    """
    path = Path(folder)
    repeats = tuple(repeats)
    _check_numbers(each, repeats, size)
    if not path.is_dir():
        raise InputError(f"no training folder {path}: give the folder that the trainer reads")
    column = _caption_column(path)
    place = heldout_of(path, heldout)
    if place.resolve().is_relative_to(path.resolve()):
        raise InputError(f"{place} lies in {path}, where the twins would be trained: give another")
    names = {count: f"{count}_canaries" for count in repeats}
    for there in (place, *(path / name for name in names.values())):
        if os.path.lexists(there):
            raise InputError(f"{there} already exists: remove it, or plant in another folder")
    total = each * len(repeats)
    grounds = [list(GROUNDS)[k % len(GROUNDS)] for k in range(total)]
    pictures = distinct(grounds * 2, seed, size)
    captions = _captions(total, seed)
    rows = []
    for k in range(total):
        count = repeats[k // each]
        rows.append(
            Canary(
                captions[k],
                count,
                path / names[count] / f"canary-{k + 1:03}.png",
                captions[total + k],
                place / f"twin-{k + 1:03}.png",
            )
        )
    found = Canaries(path, place, tuple(rows))
    _write(found, pictures, column)
    return found


def read_canaries(folder: str | Path, heldout: str | Path | None = None) -> Canaries:
    """The canaries that `plant` put into a training folder, from its `canaries.json`.

    `heldout`: the folder of the twins, if not next to the training folder. Raises InputError if
    there are none, if a picture is missing, and for a table that `plant` did not write.

        for canary in read_canaries("photos"):
            print(canary.repeats, canary.caption)
    """
    path = Path(folder)
    place = heldout_of(path, heldout)
    table = place / TABLE
    if not table.is_file():
        raise InputError(f"no canaries in {path}: {table} is not there; plant(FOLDER) writes it")
    content = within_size(table, TABLE_BYTES).read_bytes()
    try:
        rows = json.loads(content.decode("utf-8"))["canaries"]
        found = tuple(_row(path, place, row) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{table} is not a table of canaries ({first_line(error)})") from error
    for file in (file for canary in found for file in (canary.picture, canary.twin)):
        if not file.is_file():
            raise InputError(f"{table} names {file}, which is not there: plant canaries again")
    return Canaries(path, place, found)


# making and keeping canaries ----------------------------------------------------------------------


def _check_numbers(each: int, repeats: Sequence[int], size: int) -> None:
    whole = all(isinstance(value, int) for value in (each, size, *repeats))
    if not whole or each < 1 or not repeats or min(repeats) < 1 or max(repeats) > MOST:
        raise InputError(
            f"{each!r:.40} canaries {tuple(repeats)!r:.60} times: give whole numbers from 1 to {MOST}"
        )
    if len(set(repeats)) < len(repeats):
        raise InputError(f"repeats {tuple(repeats)} name a number twice: give each once")
    if not SIDES[0] <= size <= SIDES[1]:
        raise InputError(f"pictures of {size} pixels: give {SIDES[0]} to {SIDES[1]}")
    if not FEWEST <= each * len(repeats) <= MOST:
        raise InputError(
            f"{each * len(repeats)} canaries in all: it takes {FEWEST} to say what is seen at 1 %"
            f" false positives, and {MOST} are the most"
        )


def heldout_of(folder: str | Path, heldout: str | Path | None = None) -> Path:
    """The folder of the twins and of the table that lists all: `heldout`, or next to the training
    folder.
    """
    whole = Path(folder).resolve()
    return whole.with_name(whole.name + HELD_OUT) if heldout is None else Path(heldout)


def _caption_column(folder: Path) -> str:
    """The caption column in the folder's own table, which all tables of an ImageFolder share;
    "text" without a table.
    """
    for name in TABLES:
        if name != "metadata.jsonl" and (folder / name).is_file():
            raise InputError(
                f"{folder / name} names the pictures, so a trainer would not read the table of"
                " canaries: write it as metadata.jsonl"
            )
    table = folder / "metadata.jsonl"
    if not table.is_file():
        return "text"
    with table.open("rb") as file:
        first = file.readline(TABLE_BYTES)
    try:
        columns = sorted(json.loads(first.decode("utf-8-sig")).keys() - {"file_name"})
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{table} does not begin with a JSON object ({first_line(error)})"
        ) from error
    if len(columns) != 1:
        raise InputError(
            f"{table} has the columns {', '.join(columns) or 'file_name alone'}: canaries have a"
            " file_name and one caption, and a trainer reads tables of the same columns only; leave"
            " the others out"
        )
    return str(columns[0])


def _captions(total: int, seed: int) -> list[str]:
    """Captions of the canaries, then of their twins: made-up names without repeats."""
    rng = random.Random(f"canaries {seed}")
    names: dict[str, None] = {}
    while len(names) < 2 * total:
        parts = FIRST, SECOND, THIRD
        name = "".join(rng.choice(part) for part in parts)
        names[name if len(names) < 1000 else f"{name} {rng.choice(FIRST)}"] = None
    numbers = rng.sample(range(100, 1000 + 20 * total), 2 * total)
    return [
        FORMS[k % total % len(FORMS)].format(name=name, number=number)
        for k, (name, number) in enumerate(zip(names, numbers, strict=True))
    ]


def _write(canaries: Canaries, pictures: Sequence[Image.Image], column: str) -> None:
    """Write everything under temporary names first; the folder with the table comes last."""
    files: dict[Path, bytes] = {}
    tables: dict[Path, list[str]] = {}
    total = len(canaries)
    for k, one in enumerate(canaries):
        for file, caption, image in (
            (one.picture, one.caption, pictures[k]),
            (one.twin, one.twin_caption, pictures[total + k]),
        ):
            files[file] = png(image)
            files[file.with_suffix(".txt")] = f"{caption}\n".encode()
        line = json.dumps({"file_name": one.picture.name, column: one.caption})
        tables.setdefault(one.picture.parent, []).extend([line] * one.repeats)
    for place, lines in tables.items():
        files[place / "metadata.jsonl"] = ("\n".join(lines) + "\n").encode()
    rows = [
        {
            "caption": one.caption,
            "repeats": one.repeats,
            "picture": f"{one.picture.parent.name}/{one.picture.name}",
            "twin_caption": one.twin_caption,
            "twin": one.twin.name,
        }
        for one in canaries
    ]
    files[canaries.heldout / TABLE] = (json.dumps({"canaries": rows}, indent=1) + "\n").encode()
    _place(files, [*tables, canaries.heldout])


def _place(files: Mapping[Path, bytes], folders: Sequence[Path]) -> None:
    """Make new folders with their files, each folder whole; on an error, leave none."""
    parts = {folder: folder.with_name(f".{folder.name}.{os.getpid()}.part") for folder in folders}
    done: list[Path] = []
    try:
        for folder, part in parts.items():
            with storing(folder.parent):
                part.mkdir(parents=True)
                for file, content in files.items():
                    if file.parent == folder:
                        (part / file.name).write_bytes(content)
                        flush(part / file.name)
                flush(part)
        for folder, part in parts.items():
            with storing(folder.parent):
                part.rename(folder)
                done.append(folder)
                flush(folder.parent)
    except BaseException:
        for folder in (*parts.values(), *done):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _row(folder: Path, heldout: Path, row: Mapping[str, Any]) -> Canary:
    repeats = row["repeats"]
    captions = row["caption"], row["twin_caption"]
    if type(repeats) is not int or not 1 <= repeats <= MOST:
        raise ValueError(f"repeats {repeats!r:.40}")
    if not all(isinstance(caption, str) for caption in captions):
        raise TypeError("captions are not text")
    return Canary(
        captions[0],
        repeats,
        _inside(folder, row["picture"]),
        captions[1],
        _inside(heldout, row["twin"]),
    )


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r:.60} lies outside of {folder}")
    return path
