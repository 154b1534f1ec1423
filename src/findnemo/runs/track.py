"""Log a run's settings, figures and images to an experiment tracker, through accelerate's
trackers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from findnemo.errors import InputError
from findnemo.files.originals import picture
from findnemo.runs._places import refuse_links
from findnemo.runs.export import row
from findnemo.runs.overview import figures, name_of
from findnemo.runs.standing import folder_of, image_name, standing, state
from findnemo.runs.store import Caption, Run, captions_of, flat

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "findnemo"
# tracker -> modules of which one must be installed; the first is the package to install
PACKAGES = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "mlflow": ("mlflow",),
}
# what `log_images` also needs
IMAGE_OPTIONS: dict[str, dict[str, Any]] = {"tensorboard": {"dataformats": "NHWC"}}
PICTURED = 8  # captions of which images are logged
SERIES = (
    "score",
    "p",
    "same_seed",
    "neurons",
    "fresh_score_after",
    "fresh_same_seed",
    "copies_before",
    "copies_after",
    "evaluations",
)


def check_tracker(name: str) -> None:
    """Raises InputError for a tracker that is unknown or not installed; imports none."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, LoggerType

    own = set(LOGGER_TYPE_TO_CLASS) - {str(kind) for kind in LoggerType}  # registered by the user
    if name not in PACKAGES and name not in own:
        raise InputError(
            f"tracker {name!r} is not known: use {', '.join((*PACKAGES, *sorted(own)))}"
        )
    if name in PACKAGES and not any(find_spec(module) for module in PACKAGES[name]):
        raise InputError(f"tracker {name!r} is not installed: pip install {PACKAGES[name][0]}")


def track(run: Run, name: str, folder: Path | None = None) -> None:
    """Log a run to a tracker.

    It logs the settings as configuration, the five figures at step 0, one step for every memorized
    or suspected caption, and images before and after for a few captions.

    `name`: tensorboard, wandb, trackio, mlflow, or a class of your own given to
    `accelerate.tracking.register_tracker_class`. `folder`: where a tracker that writes files puts
    them (default: RUN/tracking). Images need a tracker that supports them. Captions and images
    leave this machine if the tracker sends them on. Raises InputError if the tracker is unknown or
    not installed.

        with Run.open("run") as run:
            track(run, "tensorboard")
    """
    check_tracker(name)
    refuse_links(run.path)  # send no picture from outside the run
    captions = captions_of(run)
    found = [c for c in captions if state(c) in ("memorized", "suspected")]
    with ExitStack() as stack:
        tracker = _started(name, folder or run.path / "tracking")
        stack.callback(tracker.finish)
        tracker.store_init_configuration(configuration(run))
        tracker.log(run_values(run, captions), step=0)
        for step, caption in enumerate(found, 1):
            tracker.log(caption_values(caption), step=step)
        for step, caption in enumerate(found[:PICTURED], len(found) + 1):
            shown = images(run, caption)
            if shown and hasattr(tracker, "log_images"):
                tracker.log_images(shown, step=step, **IMAGE_OPTIONS.get(name, {}))


def _started(name: str, folder: Path) -> GeneralTracker:
    from accelerate.state import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # the trackers' messages read the process number from it
    kind = LOGGER_TYPE_TO_CLASS[name]
    folder.mkdir(parents=True, exist_ok=True)
    options = {"dir": str(folder)} if name == "wandb" else {}
    tracker = (
        kind(PROJECT, str(folder)) if kind.requires_logging_directory else kind(PROJECT, **options)
    )
    tracker.start()
    return tracker


def configuration(run: Run) -> dict[str, Any]:
    """Settings and versions as flat values, without the folder of the model on somebody's disk."""
    shown = name_of(str(run.meta("source")))
    # the fingerprint sums up the identity
    settings = {name: value for name, value in run.meta("settings").items() if name != "identity"}
    values = flat({"source": shown, "settings": settings, "versions": run.meta("versions") or {}})
    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in values.items()
    }


def run_values(run: Run, captions: Sequence[Caption]) -> dict[str, float]:
    """The known figures of a run: the five of the audit, captions by standing (`standing/gone`,
    ...), the quality check and the medians of its comparisons.
    """
    quality = run.meta("quality")
    named = {f"run/{f.name.replace(chr(39), '')}": f.value for f in figures(captions, quality)}
    counts = Counter(standing(caption) for caption in captions)
    named |= {f"standing/{word}": number for word, number in counts.items()}
    named |= {f"quality/{key}": value for key, value in (quality or {}).items()}
    numbers = {key: float(x) for key, x in named.items() if isinstance(x, (int, float))}
    return numbers | compared(run, captions)


def compared(run: Run, captions: Iterable[Caption]) -> dict[str, float]:
    """`compare/METHOD/FIGURE` -> median over captions, from `findnemo compare`."""
    from statistics import median

    from findnemo.runs.compare import file_stem, own_apart, stage_in

    stage_of = stage_in(own_apart(run))
    seen = defaultdict(list)
    for caption in captions:
        for stage, values in caption.results.items():
            method = stage.removeprefix(stage_of)
            numbers = values.items() if method != stage else ()
            for key, value in numbers:
                if isinstance(value, (int, float)):
                    seen[f"compare/{file_stem(method)}/{key}"].append(value)
    return {key: float(median(values)) for key, values in seen.items()}


def caption_values(caption: Caption) -> dict[str, float]:
    """The numbers of one caption, as in results.csv, and a 1 for its standing (`caption/gone`,
    ...).
    """
    values = row(caption)
    numbers = {f"caption/{key}": float(values[key]) for key in SERIES if values[key] is not None}
    return numbers | {f"caption/{values['standing']}": 1.0}


def images(run: Run, caption: Caption) -> dict[str, Any]:
    """Tag -> images as (N, H, W, 3) uint8: before and after, if the run has them."""
    import numpy as np

    shown = {}
    for when in ("before", "after"):
        name = image_name(caption, when)
        folder = run.path / folder_of(caption) / "images" / caption.slug
        files = sorted(folder.glob(f"{name}-*.png"))
        if files:
            shown[f"{caption.slug}/{when}"] = np.stack(
                [np.asarray(picture(file)) for file in files]
            )
    return shown
