"""The threshold of a model: make a calibration from hold-out captions, or take one that is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from findnemo.calibration import (
    PUBLISHED_TAU,
    Calibration,
    Rule,
    import_statistics,
    prompts_digest,
    threshold,
)
from findnemo.errors import DamageError, InputError, MismatchError
from findnemo.files.writing import storing, sweep
from findnemo.runs import Pool, acquire, calibrate_with, refuse_foreign
from findnemo.settings import Settings, settings_for
from findnemo.stats.rates import holdout_needed
from findnemo.tasks.listening import Listener
from findnemo.tasks.opening import at_work, load_model, read_table, warn_long
from findnemo.tasks.options import Detecting, Output, Workers

RATE = 0.01  # recommended rate of false alarms


def calibrate(
    model: Any,
    prompts: Any,
    out: str | Path,
    detecting: Detecting = Detecting(),
    workers: Workers = Workers(),
    listener: Listener = Listener(),
    force: bool = False,
) -> Calibration:
    """Compute activation statistics and the threshold tau from hold-out captions, kept in the
    folder `out`.

    `prompts`: captions that are not memorized. Progress is kept in `out`: the same call continues,
    and returns a finished calibration. `force`: replace another calibration in `out`.
    `findnemo.calibrate` does the same for a loaded model in memory. Raises InputError for too few
    captions, MismatchError for a folder with another calibration, naming what differs.

    >>> import tempfile
    >>> from findnemo import demo
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     calibrate("demo", demo.holdout()[:4], folder, Detecting(variant="findnemo")).count
    4
    """
    folder = _folder(out)
    table = read_table(prompts, listener)
    settings = settings_for(detecting.variant or "findnemo", detecting.seed or 0)
    with at_work(model, workers, listener) as pool:
        holdout = Holdout(table, settings)
        if not force and (there := _calibration_in(folder, listener)) is not None:
            try:
                there.check(pool.model)
            except MismatchError as told:
                raise _another(folder, told) from None
            wanted = replace(
                there,
                settings=settings,
                count=len(holdout.captions),
                prompts=prompts_digest(holdout.captions),
                fpr=detecting.fpr,
                confidence=detecting.confidence,
            )
            _refuse_over(folder, there, wanted, detecting.precision)
            listener.say(f"{folder} holds this calibration already")
            return there
        warn_long(pool.model, table, listener)
        made = _calibrated(pool, holdout, detecting, folder, listener)
        if detecting.fpr is None:
            listener.say(rate_told(len(holdout.captions)))
        return made


def calibrate_published(
    model: Any,
    statistics: str | Path,
    out: str | Path,
    tau: float = PUBLISHED_TAU,
    seed: int = 0,
    listener: Listener = Listener(),
    force: bool = False,
) -> Calibration:
    """Build a calibration in the folder `out` from published activation statistics (.pt) and their
    threshold.

    `tau`: the threshold published with the statistics. `force`: replace another calibration in
    `out`. Raises MismatchError if `out` holds another calibration, naming what differs.
    """
    folder = _folder(out)
    calibration = import_statistics(Path(statistics), load_model(model, listener), tau, seed)
    if not force and (there := _calibration_in(folder, listener)) is not None:
        _refuse_over(folder, there, calibration)
    calibration.save(folder)
    return calibration


def _calibration_in(folder: Path, listener: Listener) -> Calibration | None:
    """The intact calibration in a folder, if any.

    Raises InputError for a calibration that this findnemo cannot read.
    """
    if not (folder / "calibration.json").exists():
        return None
    try:
        return Calibration.load(folder)
    except DamageError as told:
        listener.warn(f"{told}: it is made again")
        return None
    except InputError as told:
        raise InputError(f"{told}; give another --out, or --force to replace it") from None


def _another(folder: Path, differs: object) -> MismatchError:
    return MismatchError(
        f"{folder} holds another calibration: {differs}; give another --out, or --force to replace"
        " it"
    )


def _refuse_over(
    folder: Path, there: Calibration, wanted: Calibration, precision: float | None = None
) -> None:
    """Raises MismatchError if a folder holds a calibration other than the requested one.

    `precision`: tolerance of its threshold.
    """
    differs = there.differences(wanted)
    if not differs and precision == 0 and len(there.trajectories) < there.count:
        differs = f"only {len(there.trajectories)} of its {there.count} captions are scored"
    if not differs and there.tau != wanted.tau:
        differs = f"tau {there.tau:.4f}, now {wanted.tau:.4f}"
    if differs:
        raise _another(folder, differs)


def _folder(out: str | Path) -> Path:
    if Path(out).is_file():
        raise InputError(f"{out} is a file: give a directory")
    return Path(out)


@dataclass(frozen=True)
class Holdout:
    """The input of a calibration: a table of hold-out captions, and the settings of scores."""

    table: Any
    settings: Settings

    @property
    def captions(self) -> list[str]:
        """The texts of the table."""
        return [prompt.text for prompt in self.table]


def _calibrated(
    pool: Pool, holdout: Holdout, detecting: Detecting, out: Path, listener: Listener
) -> Calibration:
    """Calibrate on hold-out captions, and keep the calibration in the folder `out`."""
    captions = holdout.captions
    # too few captions are refused before the work
    threshold(torch.zeros(len(captions)), detecting.fpr, detecting.confidence)
    done = iter(range(1, len(captions) + 1))
    listener.progress("calibrate", 0, len(captions))
    rule = Rule(detecting.fpr, detecting.confidence, detecting.precision or None)

    def progress(prompt: str) -> None:
        listener.progress("calibrate", next(done), len(captions))

    return calibrate_with(pool, out, captions, holdout.settings, rule, progress, listener.stop)


def rate_told(captions: int) -> str:
    """How many ordinary captions pass a threshold of mean + 1 std, and how to set a rate with a
    number of hold-out captions.

    >>> rate_told(600)
    'tau is mean + 1 std, which 12 to 18 % of ordinary captions reach: --fpr 0.01 is recommended, your 600 hold-out captions are enough for it'
    """
    needed = holdout_needed(1, RATE)
    enough = (
        f"your {captions} hold-out captions are enough for it"
        if captions >= needed
        else f"it takes {needed} hold-out captions, these are {captions}"
    )
    return (
        "tau is mean + 1 std, which 12 to 18 % of ordinary captions reach: --fpr"
        f" {RATE:g} is recommended, {enough}"
    )


def own_calibration(
    pool: Pool,
    holdout: Holdout,
    detecting: Detecting,
    output: Output,
    listener: Listener,
    is_rated: bool = True,
) -> Calibration:
    """The run's own calibration: made once, then read from the run directory.

    `is_rated`: whether its rate of false alarms matters; a fine-tune is judged by its images.
    """
    out = Path(output.path)
    folder = out / "calibration"
    if not (folder / "calibration.json").exists():
        refuse_foreign(out)
        with storing(out):
            out.mkdir(parents=True, exist_ok=True)
        with acquire(out, output.wait):
            sweep(out)
            # another process may have made it in the meantime
            if not (folder / "calibration.json").exists():
                _calibrated(pool, holdout, detecting, folder, listener)
                if detecting.fpr is None and is_rated:
                    listener.say(rate_told(len(holdout.captions)))
    calibration = Calibration.load(folder)
    calibration.check(pool.model, holdout.settings)
    captions = holdout.captions
    same = calibration.prompts == prompts_digest(captions)
    if calibration.fpr != detecting.fpr or not same:
        others = " others" if not same and calibration.count == len(captions) else ""
        raise InputError(
            f"{out} was calibrated on {calibration.count} captions with fpr {calibration.fpr}, "
            f"now {len(captions)}{others} with {detecting.fpr}: give another --out"
        )
    return calibration


def given_calibration(detecting: Detecting) -> Calibration | None:
    """The calibration that options name, with a threshold for the requested rate; None if they name
    none.

    Raises MismatchError for a variant or seed other than the calibration's: such a request would
    silently do nothing.
    """
    given = detecting.calibration
    if given is None:
        return None
    calibration = given if isinstance(given, Calibration) else Calibration.load(given)
    for name in ("variant", "seed"):
        value = getattr(detecting, name)
        has = getattr(calibration.settings, name)
        if value not in (None, has):
            raise MismatchError(
                f"the calibration was made with {name} {has}, not {value}: leave --{name} out, or"
                " calibrate again"
            )
    if detecting.fpr in (None, calibration.fpr):
        return calibration
    return calibration.at(detecting.fpr)
