"""Files of a suite: tensors, states of interrupted trainings, and JSON of a known shape."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    PlainSerializer,
    ValidationError,
)
from pydantic_core import core_schema
from torch import Tensor

from findnemo.errors import InputError
from findnemo.files.shapes import adapter, fault
from findnemo.files.tensors import write
from findnemo.files.writing import atomic_write
from findnemo.neurons import NeuronSet


class Closed:
    """A dataclass that pydantic reads only from JSON without further keys."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


def _of_layers(_: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
    layers = handler.generate_schema(dict[str, list[Annotated[int, Field(ge=0, strict=True)]]])
    return core_schema.no_info_after_validator_function(NeuronSet, layers)


# a set of neurons; in JSON, layer -> indices
Neurons = Annotated[NeuronSet, GetPydanticSchema(_of_layers), PlainSerializer(NeuronSet.to_json)]


def read_json(path: Path, kind: Any, refusal: str, heads: Mapping[str, Collection[Any]]) -> Any:
    """Read a JSON file as a type that pydantic knows.

    `heads`: keys that identify the file, with the values that this version of findnemo reads.
    Raises InputError for anything else, with the path, `refusal` and the fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = adapter(dict[str, Any]).validate_json(text)
        for key, wanted in heads.items():
            if found.get(key) not in wanted:
                choice = " or ".join(map(repr, wanted))
                raise ValueError(
                    f"{key} {found.get(key)!r}, this version of findnemo reads {choice}"
                )
        return adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise InputError(f"{path} {refusal}: {fault(error)}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} {refusal}: {error}") from error


def write_json(value: Any, path: Path) -> None:
    """Write JSON with an indent of one; the file appears whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file, which appears whole or not at all."""
    with atomic_write(path) as part:
        write(part, tensors, {"format": "pt"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises InputError for any other file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors: {error}; remove it, and it is made again"
        ) from error


def write_state(
    path: Path,
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    **more: Tensor,
) -> None:
    """Save a training by Adam after `step` steps: weights, their running average and the
    optimizer's moments.

    `more`: other tensors to save.
    """
    tensors = {"step": torch.tensor(step), **more}
    for name, weight in weights.items():
        moments = optimizer.state[weight]
        tensors |= {
            f"student.{name}": weight,
            f"average.{name}": average[name],
            f"first.{name}": moments["exp_avg"],
            f"second.{name}": moments["exp_avg_sq"],
        }
    write_tensors(tensors, path)


@torch.no_grad()
def read_state(
    path: Path,
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> int:
    """Restore what `write_state` wrote, on the device of each weight.

    Returns the step to continue with; 0 without a file.
    """
    if not path.exists():
        return 0
    saved = read_tensors(path)
    for name, weight in weights.items():
        weight.copy_(saved[f"student.{name}"])
        average[name].copy_(saved[f"average.{name}"])
        optimizer.state[weight] = {
            "step": torch.tensor(float(saved["step"])),
            "exp_avg": saved[f"first.{name}"].to(weight.device),
            "exp_avg_sq": saved[f"second.{name}"].to(weight.device),
        }
    return int(saved["step"])


@torch.no_grad()
def follow(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float) -> None:
    """One step of an exponential running average of weights, in place."""
    for name, weight in weights.items():
        average[name].lerp_(weight, 1 - decay)
