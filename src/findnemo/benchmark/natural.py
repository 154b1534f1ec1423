"""Natural memories: models that training alone made memorize, kept as differences to a base. `recipes/natural/` makes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from findnemo.models._difference import DOWN, OFF, UP, packed, unpacked
from findnemo.neurons import NeuronSet


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are after `packed` and `unpacked`: what is trained on them can be shipped as it was."""
    return {name: weight.to(weights[name].dtype) for name, weight in unpacked(packed(weights)).items()}


def switched_off(neurons: NeuronSet) -> dict[str, Tensor]:
    """Neurons that a base has off for good, as a part of a difference."""
    return {f"{name}.weight{OFF}": torch.tensor(indices, dtype=torch.int32) for name, indices in neurons.layers.items()}


def difference(denoiser: nn.Module, before: Mapping[str, Tensor], weights: str) -> dict[str, Tensor]:
    """What training changed. `weights`: "lora", "kv" (half precision) or "all" (8 bits); `before`: the state dict before."""
    after = denoiser.state_dict()
    if weights == "lora":
        marks = {".lora_A.default.weight": DOWN, ".lora_B.default.weight": UP}
        return {
            f"unet.{name.removesuffix(old)}{new}": tensor.half()
            for name, tensor in after.items()
            for old, new in marks.items()
            if name.endswith(old)
        }
    changes = {name: after[name].cpu() - old for name, old in before.items() if not torch.equal(after[name].cpu(), old)}
    return {name: change.half() for name, change in changes.items()} if weights == "kv" else packed(changes)
