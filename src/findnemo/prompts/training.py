"""The pictures on which a model was fine-tuned, with their captions, in the layouts of trainers.

Four layouts are read: a picture with a text file of the same name next to it (`cat.png`,
`cat.txt`); folders named `10_name class` (kohya: each picture ten times an epoch);
`metadata.jsonl`, `.csv` or `.parquet` with a `file_name` in each row (Hugging Face's ImageFolder);
and any table of captions with a column of pictures.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from findnemo.errors import InputError
from findnemo.files.sizes import within_size
from findnemo.prompts._reading import stream_prompts

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
CAPTIONS = (".txt", ".caption")
TABLES = tuple(f"metadata.{kind}" for kind in ("jsonl", "csv", "parquet"))
REPEATED = re.compile(r"(\d+)_(.+)")  # kohya's folders
MOST = 10_000  # pictures to take, at most
CAPTION_BYTES = 1 << 20
NAMED = 3  # files that a note lists


@dataclass(frozen=True)
class TrainingPicture:
    """A picture of a training set.

    `path`: its file. `caption`: None if it has none. `repeats`: how often an epoch shows it.
    `trigger`: the words that its folder gives all its pictures, if any.
    """

    path: Path
    caption: str | None = None
    repeats: int = 1
    trigger: str | None = None


@dataclass(frozen=True)
class TrainingSet:
    """Training pictures in the order of their names. `source`: the folder or table.

    `notes`: what a user should know: pictures left out, without captions, or repeated files.
    """

    source: str
    pictures: tuple[TrainingPicture, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[TrainingPicture]:
        return iter(self.pictures)

    @property
    def triggers(self) -> tuple[str, ...]:
        """Words common to all captions of the set, or to all pictures of a folder.

        They come from kohya's folders; else they are the common beginning of at least two captions.
        """
        named = tuple(dict.fromkeys(p.trigger for p in self.pictures if p.trigger))
        captions = [p.caption for p in self.pictures if p.caption]
        return named or _shared(captions)


def read_training(
    source: str | Path, column: str | None = None, most: int = MOST, seed: int = 0
) -> TrainingSet:
    """Read the pictures of a training set, and their captions. No picture is opened.

    `source`: a folder, or a table with columns of captions and of pictures (paths relative to the
    table). `column`: of the captions. `most`: of more pictures, this many are drawn by `seed`.
    Raises InputError for a source without pictures, and for a table that names a missing one.

        training = read_training("photos")
        [(picture.path.name, picture.caption) for picture in training]
    """
    path = Path(source)
    if path.is_dir():
        found = list(_of_folder(path, column))
    elif path.is_file():
        found = list(_of_table(path, column))
    else:
        raise InputError(f"no training pictures {path}: give a folder, or a table that names them")
    if not found:
        raise InputError(
            f"{path} holds no pictures ({', '.join(PICTURES)}): give the folder that the trainer read"
        )
    notes: list[str] = []
    if len(found) > most:
        kept = sorted(random.Random(seed).sample(range(len(found)), most))
        notes = [f"{path}: {most:,} of {len(found):,} training pictures are taken, drawn by chance"]
        found = [found[k] for k in kept]
    return TrainingSet(str(source), tuple(found), tuple(notes + _notes(str(path), found)))


def _notes(source: str, pictures: list[TrainingPicture]) -> list[str]:
    bare = [p.path.name for p in pictures if p.caption is None]
    notes = []
    if bare:
        named = ", ".join(bare[:NAMED]) + (", ..." if len(bare) > NAMED else "")
        notes.append(f"{source}: {len(bare)} of {len(pictures)} pictures have no caption ({named})")
    twice = [path for path, count in Counter(p.path for p in pictures).items() if count > 1]
    if twice:
        names = ", ".join(path.name for path in twice[:NAMED])
        notes.append(f"{source}: named more than once: {len(twice)} of the pictures ({names})")
    return notes


# folders --------------------------------------------------------------------------------------------


def _of_folder(folder: Path, column: str | None) -> Iterator[TrainingPicture]:
    for name in TABLES:
        if (folder / name).is_file():
            yield from _of_table(folder / name, column)
            return
    yield from _beside(folder)
    inside = (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    for inner in sorted(inside):  # a link could form a loop
        match = REPEATED.fullmatch(inner.name)
        if match is None:
            yield from _of_folder(inner, column)
            continue
        trigger = match[2].replace("_", " ").strip()
        for picture in _beside(inner):
            caption = picture.caption or trigger
            yield replace(picture, caption=caption, repeats=int(match[1]), trigger=trigger)


def _beside(folder: Path) -> Iterator[TrainingPicture]:
    """The pictures in a folder itself, each with the text file of the same name."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for file in files:
        if file.suffix.lower() in PICTURES and not file.name.startswith("."):
            yield TrainingPicture(file, _caption(file))


def _caption(picture: Path) -> str | None:
    for suffix in CAPTIONS:
        text = picture.with_suffix(suffix)
        if text.is_file():
            content = within_size(text, CAPTION_BYTES).read_bytes()
            try:
                words = " ".join(content.decode("utf-8-sig").split())
            except UnicodeDecodeError as error:
                raise InputError(f"{text} is not UTF-8 text ({error})") from None
            return words.replace("\0", "") or None
    return None


# tables ---------------------------------------------------------------------------------------------


def _of_table(path: Path, column: str | None) -> Iterator[TrainingPicture]:
    """Rows of a table, each with a picture in the table's own folder."""
    root = path.parent.resolve()
    for row in stream_prompts(path, column):
        if not row.image:
            raise InputError(
                f"{path}: row {row.row} names no picture: a table of training pictures has a column"
                " file_name or image"
            )
        file = (root / row.image).resolve()
        if not file.is_relative_to(root):
            raise InputError(f"{path}: row {row.row} names {row.image!r}, outside of {root}")
        if not file.is_file():
            raise InputError(f"{path}: row {row.row} names {row.image!r}, which is not there")
        yield TrainingPicture(file, row.text)


def _shared(captions: list[str]) -> tuple[str, ...]:
    """The words with which all captions begin.

    >>> _shared(["sks dog on a beach", "sks dog asleep"]), _shared(["a", "b"]), _shared(["one"])
    (('sks dog',), (), ())
    """
    if len(captions) < 2:
        return ()
    words = [caption.split() for caption in captions]
    count = 0
    while all(len(w) > count and w[count] == words[0][count] for w in words):
        count += 1
    return (" ".join(words[0][:count]).rstrip(",.;:"),) if count else ()
