"""The change of a model's weights by a training, small enough to ship: low-rank factors,
half-precision differences, or 8 bits a weight.

Keys of a file: `unet.LAYER.lora_A.weight` (rank, in) and `unet.LAYER.lora_B.weight` (out, rank),
whose product is added to the layer's weight (a LoRA with alpha equal to its rank, under the names
of diffusers and peft); `NAME`, an unpacked difference; `NAME.int8` with `NAME.scale`, one scale for
each row; `NAME.off`, rows that are set to zero before anything is added.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from findnemo.errors import ModelError

DOWN = ".lora_A.weight"
UP = ".lora_B.weight"
BITS = ".int8"
SCALE = ".scale"
OFF = ".off"
LEVELS = 127


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """8 bits a number with one scale for each row: (int8 of the same shape, scales (rows,)).

    At most half a scale is lost.

    >>> levels, scale = quantized(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    >>> levels.tolist(), (levels * scale[:, None]).tolist()
    ([[64, -127], [0, 0]], [[1.0078740119934082, -2.0], [0.0, 0.0]])
    """
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(1) / LEVELS
    divisor = scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    return (rows / divisor).round().to(torch.int8).view_as(weight), scale


def packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """8 bits for each value of matrices and kernels, half precision for vectors."""
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.dim() < 2:
            tensors[name] = weight.half()
        else:
            tensors[name + BITS], tensors[name + SCALE] = quantized(weight)
    return tensors


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The differences in a file, float32: parameter name -> value to add."""
    changes: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.endswith(BITS):
            name = key.removesuffix(BITS)
            scale = tensors[name + SCALE].view(-1, *[1] * (tensor.dim() - 1))
            changes[name] = tensor.float() * scale
        elif key.endswith(UP):
            layer = key.removesuffix(UP)
            name = f"{layer.removeprefix('unet.')}.weight"
            changes[name] = tensor.float() @ tensors[layer + DOWN].float()
        elif not key.endswith((SCALE, DOWN, OFF)):
            changes[key] = tensor.float()
    return changes


@torch.no_grad()
def add_difference(denoiser: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Add a difference to a denoiser's weights, in place.

    Raises ModelError for a weight that the denoiser does not have.
    """
    parameters = dict(denoiser.named_parameters())
    for key, rows in tensors.items():
        if key.endswith(OFF):
            name = key.removesuffix(OFF)
            if name not in parameters or (len(rows) and int(rows.max()) >= len(parameters[name])):
                raise ModelError(f"this difference is of another model: {name} does not fit")
            parameters[name][rows.long()] = 0
    for name, change in unpacked(tensors).items():
        if name not in parameters or parameters[name].shape != change.shape:
            raise ModelError(f"this difference is of another model: {name} does not fit")
        parameters[name].copy_(parameters[name].float() + change.to(parameters[name].device))
