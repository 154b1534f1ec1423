"""The finished run that a shipped model brings, which `findnemo app demo` opens on.

    findnemo demo --out findnemo-demo
    python recipes/app_run.py findnemo-demo
    findnemo demo --natural --out findnemo-natural
    python recipes/app_run.py findnemo-natural

Keeps all results of the run, its calibration, and of its pictures those that the app shows: of
each caption the first seeds, before and after. Writes to `run/` in the assets of the run's model.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from findnemo import demo
from findnemo.runs import Run
from findnemo.runs.standing import folder_of, image_name
from findnemo.runs.store import COPY, DATABASE
from findnemo.runs.trust import MARK

LARGEST = 1_500_000  # bytes of a run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a finished audit of a shipped model")
    parser.add_argument("--seeds", type=int, default=4, help="pictures of a caption to keep")
    asked = parser.parse_args()
    with Run.open(asked.run) as run:
        source = str(run.meta("source"))
        if source not in demo.MODELS:
            raise SystemExit(
                f"{asked.run} is of {source}: give a run of {' or '.join(demo.MODELS)}"
            )
        pictures = list(pictures_of(run, asked.seeds))
    out = demo.MODELS[source] / "run"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(asked.run / "calibration", out / "calibration")
    shutil.copyfile(asked.run / COPY, out / COPY)
    for picture in pictures:
        kept = out / picture
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(asked.run / picture, kept)
    copy_database(asked.run / DATABASE, out / DATABASE)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{out}: {len(pictures)} pictures, {size} bytes")
    if size > LARGEST:
        raise SystemExit(f"more than {LARGEST} bytes: give fewer --seeds")


def pictures_of(run: Run, seeds: int) -> Iterator[Path]:
    """The pictures of every caption that the app shows, relative to the run directory."""
    for caption in run.captions():
        folder = Path(folder_of(caption), "images", caption.slug)
        for when in ("before", "after"):
            for seed in range(seeds):
                file = folder / f"{image_name(caption, when)}-{seed:02d}.png"
                if (run.path / file).is_file():
                    yield file


def copy_database(source: Path, target: Path) -> None:
    """A database as one small file, without the mark of the user who made it."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        new.execute("DELETE FROM meta WHERE key = ?", (MARK,))
        new.commit()
        new.execute("PRAGMA journal_mode=DELETE")
        new.execute("VACUUM")


if __name__ == "__main__":
    main()
