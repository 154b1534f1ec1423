"""Errors of findnemo: each names the thing, the value and the way out."""


class FindnemoError(Exception):
    """Base of all errors that findnemo raises on purpose."""

    exit_status = 1


class InputError(FindnemoError):
    """Something given by the user cannot be used; nothing was done."""

    exit_status = 2


class ModelError(FindnemoError):
    """A model that findnemo cannot load, or whose architecture it cannot work on."""


class EditError(FindnemoError):
    """An edit that cannot be applied, or that would silently do nothing."""


class NumericalError(FindnemoError):
    """The model produced NaN or infinity."""


class MismatchError(FindnemoError):
    """Two things that must belong together do not: a calibration and a model, a run and its settings."""


class DeviceError(FindnemoError):
    """The device cannot do what is asked of it: not even one latent fits its memory."""


class DamageError(InputError):
    """A file of findnemo's own that is damaged: what it holds does not fit its checksums, or cannot be read."""


class StorageError(FindnemoError):
    """A directory that cannot be written: no room, no permission, a disk that fails. What was committed before is kept."""


class StoppedError(FindnemoError):
    """The work was asked to stop (Ctrl-C, SIGTERM) before its result was there; what was done is kept."""

    exit_status = 130


class FindnemoWarning(UserWarning):
    """Something goes on otherwise than one would think: a caption of which a text encoder reads a part only, a part of a model left out."""
