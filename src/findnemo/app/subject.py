"""The subject of the app: a model, and a run if there is one.

All sessions share it, and never change it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from findnemo import demo
from findnemo.app.edit import Edit
from findnemo.app.jobs import Jobs
from findnemo.calibration import Calibration
from findnemo.edits import deactivate
from findnemo.errors import InputError, MismatchError
from findnemo.files.fetch import RefusedError
from findnemo.files.originals import kept_name, picture
from findnemo.images import ImageSettings, generate, usual
from findnemo.metrics import Descriptor
from findnemo.models import Model, load
from findnemo.models.identity import kept_identity, refuse_other
from findnemo.runs import Caption, Run, captions_of, settings_of
from findnemo.runs.standing import folder_of, image_name
from findnemo.runs.store import DATABASE
from findnemo.runs.trust import require

if TYPE_CHECKING:
    from PIL import Image

MOST = 32  # images of a caption to show
KEPT = 64  # latest sets of images to keep
NO_CAPTION = "no such caption in this run: choose one of the run"


@dataclass(frozen=True)
class Subject:
    """The model and run that the app shows.

    `run`: its directory, or None. `calibration`: None if captions can only be scored. `folder`: of
    exports. `made(caption, seeds, edit)`: makes images of a caption; the latest ones are kept.
    `descriptor`: for copies, None if pixels are compared. `shipped`: whether the run is a copy of
    one shipped with the model.
    """

    model: Model
    run: Path | None
    calibration: Calibration | None
    image_settings: ImageSettings
    folder: Path
    made: Callable[[str, range, Edit], list[Image.Image]]
    descriptor: Descriptor | None = None
    shipped: bool = False
    jobs: Jobs = field(default_factory=Jobs)


def is_run(place: str | os.PathLike) -> bool:
    return (Path(place) / "run.sqlite").is_file()


def open_subject(
    place: str | os.PathLike,
    folder: str | os.PathLike,
    calibration: str | os.PathLike | None = None,
    model: Model | None = None,
) -> Subject:
    """Open a run directory, or anything that `findnemo.load` takes, for the app; exports are made
    in `folder`.

    A shipped model is opened on its shipped run, which is copied to `folder`. `calibration`: a
    directory made by `findnemo calibrate`; a run and the demo model have their own. `model`: the
    model of `place`, if already loaded. Raises InputError for a place that is neither,
    MismatchError for a model that is not that of the run or the calibration.
    """
    run = Path(place) if is_run(place) else None
    shipped = None
    if run is None:
        model = model or load(str(place))
        settings = usual(model.source)
        shipped = shipped_run(model, Path(folder))
    else:
        model, settings = _of_run(run, model)
    threshold = _calibration(calibration, run, model.source)
    if threshold is not None:
        threshold.check(model)
    is_demo = model.source in demo.MODELS
    return Subject(
        model,
        run or shipped,
        threshold,
        settings,
        Path(folder),
        _maker(model, settings),
        Descriptor(demo.DESCRIPTOR) if is_demo else None,
        shipped is not None,
    )


def _maker(
    model: Model, settings: ImageSettings
) -> Callable[[str, range, Edit], list[Image.Image]]:
    """A function that makes the images of a caption with an edit, and keeps the latest sets."""

    @lru_cache(KEPT)
    def kept(whole: str, caption: str, seeds: range, edit: Edit) -> list[Image.Image]:
        with deactivate(model, edit.off), deactivate(model, edit.scaled, edit.factor):
            return generate(model, caption, seeds, settings)

    return lambda caption, seeds, edit: kept(model.identity.whole, caption, seeds, edit)


def shipped_run(model: Model, folder: Path) -> Path | None:
    """A copy of the run shipped with a model; None if there is none, or if loading changed the
    model.
    """
    source = demo.MODELS.get(model.source, Path()) / "run"
    if not is_run(source):
        return None
    with Run.open(source) as opened:
        settings = settings_of(opened, audit=False)
    try:
        refuse_other(
            model, str(settings.get("model")), kept_identity(settings.get("identity")), "", ""
        )
    except MismatchError:
        return None
    return Path(shutil.copytree(source, folder / "run"))


def _calibration(
    given: str | os.PathLike | None, run: Path | None, source: str
) -> Calibration | None:
    """The given calibration, else that of the run or of a demo model; None if there is none."""
    if given is not None:
        return Calibration.load(given)
    if run is not None:
        own = run / "calibration"
        return Calibration.load(own) if own.is_dir() else None
    return demo.calibration(source, "findnemo") if source in demo.MODELS else None


def _of_run(run: Path, model: Model | None) -> tuple[Model, ImageSettings]:
    with Run.open(run) as opened:
        settings = settings_of(opened, audit=False)
        options = opened.meta("source_options") or {}
        source = opened.meta("source")
        if model is None:
            require(opened, opens=("model",))
    model = model or load(source, None, settings.get("dtype"), **options)
    kept = kept_identity(settings.get("identity"))
    way_out = "give the audited one with --model"
    refuse_other(model, str(settings.get("model")), kept, str(run), way_out)
    return model, ImageSettings.from_json(settings.get("image_settings") or {})


def captions(subject: Subject) -> list[Caption]:
    """The captions of the run as they are now, because an audit may still be adding some.

    They are read again only after the run has changed. Empty without a run.
    """
    return [] if subject.run is None else list(_read(subject.run, _stamp(subject.run)))


@lru_cache(maxsize=1)
def _read(run: Path, stamp: tuple[tuple[int, int], ...]) -> tuple[Caption, ...]:
    """The captions of a run whose database has a `stamp`."""
    with Run.open(run) as opened:
        return tuple(captions_of(opened))


def _stamp(run: Path) -> tuple[tuple[int, int], ...]:
    """Size and time of change of the database of a run and of its log: every commit changes them."""
    files = (run / DATABASE, run / f"{DATABASE}-wal")
    found = (file.stat() for file in files if file.is_file())
    return tuple((about.st_size, about.st_mtime_ns) for about in found)


def caption_of(subject: Subject, id_: object) -> Caption:
    """One caption of the run; no other is read. Raises InputError if it has no such caption."""
    if subject.run is not None and isinstance(id_, int) and 0 <= id_ < 2**63:
        with Run.open(subject.run) as run:
            for caption in captions_of(run, [id_]):
                return caption
    raise InputError(NO_CAPTION)


# pictures, only from the run directory, whatever its rows and links say ---------------------------


def run_images(
    subject: Subject, caption: Caption, most: int = MOST
) -> dict[str, list[Image.Image]]:
    """The audit's images of a caption: `before` and `after`, in the order of their seeds.

    They may be quick ones. `most`: of each.
    """
    folder = (folder_of(caption), "images", caption.slug)
    return {
        kind: [
            image
            for k in range(most)
            if (image := _picture(subject, *folder, f"{image_name(caption, kind)}-{k:02d}.png"))
            is not None
        ]
        for kind in ("before", "after")
    }


def training_image(
    subject: Subject, text: str, caption: Caption | None = None
) -> Image.Image | None:
    """The training image of a caption, from the demo model or the run directory; nothing is
    fetched.

    `caption`: that of the run, if it is one.
    """
    if subject.model.source in demo.MODELS:
        return demo.training_image(text, subject.model.source)
    if caption is None or not caption.image:
        return None
    return _picture(subject, "originals", kept_name(caption.image)) or _picture(
        subject, caption.image
    )


def sheet(subject: Subject, caption: Caption) -> Image.Image | None:
    """The audit's picture sheet of a caption, which shows the training image if the audit had
    it.
    """
    return _picture(subject, folder_of(caption), "sheets", f"{caption.slug}.png")


def _picture(subject: Subject, *parts: str) -> Image.Image | None:
    """A picture in the run directory; None if it is missing, unreadable, or outside."""
    path = confined(subject.run, *parts) if subject.run is not None else None
    if path is None:
        return None
    try:
        return picture(path)
    except RefusedError:
        return None


def confined(folder: Path, *parts: str) -> Path | None:
    """The file that `parts` name in `folder`; None if there is none, or if `..`, a link or an
    absolute path leads out of it.

    >>> confined(demo.ASSETS, "images", "moon.png").name, confined(demo.ASSETS, "../__init__.py"), confined(demo.ASSETS, "/etc/passwd")
    ('moon.png', None, None)
    """
    try:
        path = folder.joinpath(*parts).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):  # a NUL, a too long name, circular links
        return None
