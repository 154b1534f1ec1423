"""Read published activation statistics, which are pickles, without running code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import torch

from findnemo.calibration._calibration import Calibration
from findnemo.errors import InputError, MismatchError
from findnemo.files.sizes import JSON_BYTES, TENSOR_BYTES, within_size
from findnemo.models import Model
from findnemo.settings import RELEASED, settings_for

PUBLISHED_TAU = 0.428  # 50,000 LAION prompts on Stable Diffusion v1.4, released variant


def import_statistics(
    path: str | os.PathLike, model: Model, tau: float = PUBLISHED_TAU, seed: int = 0
) -> Calibration:
    """Read published activation statistics (a pickled pair of lists of tensors: means, deviations)
    as a calibration of the released variant.

    PyTorch's weights-only loader reads the file and runs no code. `model`: gives the layer names;
    its widths must fit. The result has no hold-out scores, so it gives no p-values, and functions
    that need scores raise an error. Raises InputError for another file, or for values that no
    statistics have.
    """
    if not Path(path).exists():
        raise InputError(f"no statistics file {path}")
    try:
        _refuse_program(within_size(path, TENSOR_BYTES))
        mean, std = torch.load(path, map_location="cpu", weights_only=True)
        # a small file can describe tensors of any size
        if any(t.numel() > JSON_BYTES for t in (*mean, *std)):
            raise ValueError("its tensors are larger than a layer can be")
        pairs = [(m.float(), s.float().reshape(m.shape)) for m, s in zip(mean, std, strict=True)]
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} is not a pair of lists of tensors that a weights-only loader accepts:"
            f" {error!s:.300}"
        ) from error
    widths = model.widths()
    if [len(m) for m, _ in pairs] != list(widths.values()):
        raise MismatchError(
            f"{path} has layers of {[len(m) for m, _ in pairs]} neurons, the model has"
            f" {list(widths.values())}"
        )
    means, stds = ({n: p[k] for n, p in zip(widths, pairs, strict=True)} for k in (0, 1))
    settings = settings_for(RELEASED.variant, seed)
    identity = model.identity
    scores = torch.empty(0, settings.samples - 1)
    made = Calibration(
        identity.fingerprint, model.source, settings, tau, means, stds, 0, scores, identity=identity
    )
    try:
        made.require_whole()
    except ValueError as error:
        raise InputError(
            f"{path} with tau {tau}: {error}; give the published file, and a tau between -1 and 1"
        ) from error
    return made


def _refuse_program(path: Path) -> None:
    """Raises ValueError for a TorchScript archive, which some versions of `torch.load` would run in
    any case, and for compressed data.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(
        "code" in Path(part.filename).parts or part.filename.endswith("constants.pkl")
        for part in parts
    ):
        raise ValueError("it is a TorchScript program")
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("its parts are compressed, which torch.save never does")
