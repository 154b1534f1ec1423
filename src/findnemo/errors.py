"""Errors of findnemo: each names the thing, the value and the way out.

What a command ends with:

| status | when |
|---|---|
| 0 | done |
| 1 | a caption, a study or a check failed, or `--fail-on-memorized` found a caption; an error that nobody expected |
| 2 | the command or what it was given cannot be used: options, files, models, calibrations, devices, places to write to |
| 130, 143 | interrupted: Ctrl-C, SIGTERM |
"""

FAILED = 1
UNUSABLE = 2
INTERRUPTED = 130


class FindnemoError(Exception):
    """Base of all errors that findnemo raises on purpose."""

    exit_status = UNUSABLE


class InputError(FindnemoError):
    """Something given by the user cannot be used; nothing was done."""


class ModelError(FindnemoError):
    """A model that findnemo cannot load, or whose architecture it cannot work on."""


class EditError(FindnemoError):
    """An edit that cannot be applied, or that would silently do nothing."""


class NumericalError(FindnemoError):
    """The model produced NaN or infinity."""


class MismatchError(FindnemoError):
    """Two things that must belong together do not: a calibration and a
    model, a run and its settings.
    """


class DeviceError(FindnemoError):
    """The device cannot do the work: not even one latent fits in its memory."""


class DamageError(InputError):
    """A damaged file of findnemo's own, which does not fit its checksums or cannot be read."""


class StorageError(FindnemoError):
    """A directory that cannot be written: no room, no permission, a disk that fails.

    What was committed before is kept.
    """


class StoppedError(FindnemoError):
    """The work was asked to stop (Ctrl-C, SIGTERM) before it had a result; finished parts are
    kept.
    """

    exit_status = INTERRUPTED


class FindnemoWarning(UserWarning):
    """Something differs from what one would expect: a text encoder truncates a caption, or a part
    of a model is left out.
    """


def exit_status(error: BaseException) -> int:
    """The exit status of a command that raised an error.

    >>> exit_status(ModelError("no U-Net")), exit_status(PermissionError("out")), exit_status(KeyError("a fault of findnemo"))
    (2, 2, 1)
    """
    if isinstance(error, FindnemoError):
        return error.exit_status
    return UNUSABLE if isinstance(error, OSError) else FAILED


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its class if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
