"""Hold an exported model against the audited one with the neurons off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from findnemo.edits import prune
from findnemo.errors import InputError
from findnemo.export._selection import Selection
from findnemo.files.tensors import DTYPES, read_header
from findnemo.models import Model
from findnemo.models.content import HALVES, weights_of
from findnemo.models.identified import settings
from findnemo.models.lora import lora_file
from findnemo.models.modules import SPARE, networks_of

ROWS = 5  # rows of a tensor that are named
ROOM = 8  # roundings of a sum of weights and a LoRA


def rounding_of(place: str | Path) -> float | None:
    """The relative rounding of a LoRA's weights, by their narrowest dtype; None for an export that
    is a whole model.

    Raises InputError for a place without weights.
    """
    path = Path(place)
    if (path / "model_index.json").is_file():
        return None
    if not path.is_dir() and path.suffix != ".safetensors":
        raise InputError(
            f"{path} is no export with weights: give a .safetensors file, or the directory of a"
            " checkpoint or a LoRA"
        )
    entries = read_header(lora_file(path))[0]
    if not any("lora" in name.lower() for name in entries):
        return None
    return max(torch.finfo(DTYPES[entry.dtype]).eps for entry in entries.values())


def deviations(
    audited: Model, exported: Model, chosen: Selection, rounding: float = 0.0
) -> list[str]:
    """How an exported model differs from the audited one with the chosen neurons off, in words;
    empty if it is right.

    The rows of the neurons must be multiplied by the factor. All other weights, and all settings
    that scores or pictures depend on, must be those of the audited model. `rounding`: relative to
    the largest weight of a tensor, for a LoRA on its base. Without it, weights are equal to the bit,
    or rounded to float16 or bfloat16.

        chosen = findnemo.export.select(run)
        findnemo.export.deviations(findnemo.load("model"), findnemo.load("clean"), chosen)
    """
    expected = type(audited)(prune(audited, chosen.neurons, chosen.factor), audited.source)
    now, then = (settings(model.pipeline, model.schedule) for model in (exported, expected))
    return [*now.differences(then), *_other_weights(audited, expected, exported, rounding)]


def _other_weights(
    audited: Model, expected: Model, exported: Model, rounding: float
) -> Iterator[str]:
    """A sentence for each tensor of the networks that is another one than expected."""
    theirs = networks_of(exported.pipeline)
    before = weights_of(audited.denoiser)
    for name, network in networks_of(expected.pipeline).items():
        if name in SPARE or name not in theirs:  # that one is missing is among the settings
            continue
        wanted = weights_of(network)
        given = weights_of(theirs[name])
        yield from (f"{name} lacks {key}" for key in sorted(wanted.keys() - given.keys()))
        yield from (f"{name} has {key} too" for key in sorted(given.keys() - wanted.keys()))
        for key in sorted(wanted.keys() & given.keys()):
            unedited = before.get(key) if name == expected.component else None
            if told := _other_rows(wanted[key].cpu(), given[key].cpu(), unedited, rounding):
                yield f"{name} {key} {told}"


def _other_rows(wanted: Tensor, given: Tensor, unedited: Tensor | None, rounding: float) -> str:
    """What is other in a tensor, in words; empty if nothing is. `unedited`: as it was audited."""
    if wanted.shape != given.shape:
        return f"is {tuple(given.shape)} instead of {tuple(wanted.shape)}"
    if rounding:
        room = ROOM * rounding * wanted.abs().max()
        apart = (wanted - given).abs() > room
    else:
        forms = [wanted, *(wanted.to(half).to(wanted.dtype) for half in HALVES.values())]
        apart = min((form != given for form in forms), key=lambda other: int(other.sum()))
    rows = apart.reshape(len(apart) if apart.dim() else 1, -1).any(1).nonzero().flatten().tolist()
    some = ", ".join(map(str, rows[:ROWS])) + (", ..." if len(rows) > ROWS else "")
    if not rows:
        return ""
    if unedited is not None and torch.equal(unedited.cpu()[rows], given[rows]):
        return f"is not edited in {len(rows)} of its rows ({some})"
    return f"has other values in {len(rows)} of its rows ({some})"
