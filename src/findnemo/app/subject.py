"""What the app shows: a model, and a run if there is one.

Shared by all sessions, and never changed by them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from findnemo import demo
from findnemo.app.jobs import Jobs
from findnemo.calibration import Calibration
from findnemo.errors import InputError
from findnemo.files.fetch import RefusedError
from findnemo.files.originals import kept_name, picture
from findnemo.images import ImageSettings, generate, usual
from findnemo.models import Model, load
from findnemo.models._identity import kept_identity, refuse_other
from findnemo.runs import Caption, Run, captions_of, settings_of
from findnemo.runs.standing import folder_of, image_name
from findnemo.runs.trust import require

if TYPE_CHECKING:
    from PIL import Image

MOST = 32  # images of a caption that are shown
KEPT = 64  # untouched images, to compare edited ones with
NO_CAPTION = "no such caption in this run: choose one from the list"


@dataclass(frozen=True)
class Subject:
    """`run`: its directory, or None.

    `calibration`: None if captions can be scored, but not judged. `folder`: where exports are made.
    `untouched(caption, seed)`: the image without an edit; the last ones are kept.
    """

    model: Model
    run: Path | None
    calibration: Calibration | None
    image_settings: ImageSettings
    folder: Path
    untouched: Callable[[str, int], Image.Image]
    jobs: Jobs = field(default_factory=Jobs)


def is_run(place: str | os.PathLike) -> bool:
    return (Path(place) / "run.sqlite").is_file()


def open_subject(
    place: str | os.PathLike,
    folder: str | os.PathLike,
    calibration: str | os.PathLike | None = None,
    model: Model | None = None,
) -> Subject:
    """A run directory, or whatever `findnemo.load` takes, for the app;
    exports are made in `folder`.

    `calibration`: a directory made by `findnemo calibrate`; a run and the demo model bring their
    own. `model`: the model of `place`, if it is loaded already. Raises InputError for what is
    neither, MismatchError for a model that is not that of the run or the calibration.
    """
    run = Path(place) if is_run(place) else None
    if run is None:
        model = model or load(str(place), channels_last=True)
        settings = usual(model.source)
    else:
        model, settings = _of_run(run, model)
    threshold = _calibration(calibration, run, model.source)
    if threshold is not None:
        threshold.check(model)
    images = lru_cache(KEPT)(
        lambda whole, caption, seed: generate(model, caption, [seed], settings)[0]
    )

    def untouched(caption: str, seed: int) -> Image.Image:
        return images(model.identity.whole, caption, seed)

    return Subject(model, run, threshold, settings, Path(folder), untouched)


def _calibration(
    given: str | os.PathLike | None, run: Path | None, source: str
) -> Calibration | None:
    """The calibration that is given, else that of the run or of a demo model;
    None where there is none.
    """
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
    model = model or load(source, None, settings.get("dtype"), channels_last=True, **options)
    kept = kept_identity(settings.get("identity"))
    way_out = "give the audited one with --model"
    refuse_other(model, str(settings.get("model")), kept, str(run), way_out)
    return model, ImageSettings.from_json(settings.get("image_settings") or {})


def captions(subject: Subject) -> list[Caption]:
    """The captions of the run as they are now: an audit may still be adding to it.

    None without a run.
    """
    if subject.run is None:
        return []
    with Run.open(subject.run) as run:
        return captions_of(run)


def caption_of(subject: Subject, id_: int | None) -> Caption:
    """One caption of the run; no other is read. Raises InputError if it has no such caption."""
    if subject.run is not None and isinstance(id_, int) and 0 <= id_ < 2**63:
        with Run.open(subject.run) as run:
            for caption in captions_of(run, [id_]):
                return caption
    raise InputError(NO_CAPTION)


def numbered(subject: Subject, row: str) -> list[tuple[int, str]]:
    """(id, text) of the captions that have a row number; nothing else of the run is read."""
    if subject.run is None or not row.isascii():
        return []
    with Run.open(subject.run) as run:
        found = run.rows("captions", "WHERE CAST(row AS TEXT) = ? ORDER BY id", (row,))
        return [(id_, str(text)) for id_, text, *_ in found]


# pictures: of the run directory only, whatever its rows and links say -----------------------------


def run_images(subject: Subject, caption: Caption) -> dict[str, list[Image.Image]]:
    """The audit's images of a caption: `before` and `after`, in the order of their seeds; in few
    steps, where the audit made them so.
    """
    folder = (folder_of(caption), "images", caption.slug)
    return {
        kind: [
            image
            for k in range(MOST)
            if (image := _picture(subject, *folder, f"{image_name(caption, kind)}-{k:02d}.png"))
            is not None
        ]
        for kind in ("before", "after")
    }


def training_image(subject: Subject, caption: Caption) -> Image.Image | None:
    """The training image of a caption, if the demo model brings it or the run directory
    holds it; nothing is fetched.
    """
    if subject.model.source in demo.MODELS:
        return demo.training_image(caption.text, subject.model.source)
    if not caption.image:
        return None
    return _picture(subject, "originals", kept_name(caption.image)) or _picture(
        subject, caption.image
    )


def sheet(subject: Subject, caption: Caption) -> Image.Image | None:
    """The audit's picture sheet of a caption, which shows the training
    image where the audit had it.
    """
    return _picture(subject, folder_of(caption), "sheets", f"{caption.slug}.png")


def _picture(subject: Subject, *parts: str) -> Image.Image | None:
    """A picture of the run directory; None if there is none, it cannot be
    read, or it lies elsewhere.
    """
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
    except (OSError, ValueError):  # a NUL, a name too long, links in a circle
        return None
