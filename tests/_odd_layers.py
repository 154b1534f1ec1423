"""Layers that are not what their weight attribute says: of PyTorch itself, of people's own code,
and as libraries quantize them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 0.5


def old_weight_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(layer)
    with torch.no_grad():
        layer.weight_g *= (
            0.7  # as training does: the attribute `weight` is stale until the next pass
        )


def masked(layer: nn.Module) -> None:
    prune.random_unstructured(layer, "weight", 0.3)


def masked_twice(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.2)
    prune.ln_structured(layer, "weight", 0.2, n=2, dim=1)


MADE: dict[
    str, Callable[[nn.Module], Any]
] = {  # the weight is made of others before every pass, and is the one that is used
    "parametrization": lambda layer: parametrize.register_parametrization(
        layer, "weight", Halved()
    ),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight norm": old_weight_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "pruning mask": masked,
    "two pruning masks": masked_twice,
}

# modules in the place of a layer ------------------------------------------------------------------


class Doubled(nn.Linear):
    """A subclass with a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Clipped(nn.Linear):
    """One that shows on large inputs only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-50, 50)


class Int8(nn.Linear):
    """As bitsandbytes keeps 8 bits: codes in `weight`, the scale of each row in `SCB`."""

    def __init__(self, old: nn.Linear):
        super().__init__(old.in_features, old.out_features, bias=False)
        scale = old.weight.detach().abs().amax(1)
        self.weight = nn.Parameter(
            (old.weight.detach() / scale[:, None] * 127).round().to(torch.int8), requires_grad=False
        )
        self.register_buffer("SCB", scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * (self.SCB[:, None] / 127).to(x.dtype))


class Packed(nn.Linear):
    """As 4 bits are kept: two codes a byte, (width * in / 2, 1)."""

    def __init__(self, old: nn.Linear):
        super().__init__(old.in_features, old.out_features, bias=False)
        self.most = float(old.weight.detach().abs().max())
        codes = ((old.weight.detach() / self.most * 7).round() + 8).to(torch.uint8).flatten()
        self.weight = nn.Parameter((codes[::2] * 16 + codes[1::2])[:, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.stack([self.weight[:, 0] // 16, self.weight[:, 0] % 16], 1).reshape(
            self.out_features, -1
        )
        return F.linear(x, (codes.to(x.dtype) - 8) / 7 * self.most)


class Typed(nn.Parameter):
    """As GGUF's: bytes with a `quant_type`."""

    def __new__(cls, data: Tensor, quant_type: int):
        self = torch.Tensor._make_subclass(cls, data, False)
        self.quant_type = quant_type
        return self


class Blocks(nn.Linear):
    """Rows of bytes, a scale in two of them: (width, in + 2)."""

    def __init__(self, old: nn.Linear):
        super().__init__(old.in_features, old.out_features, bias=False)
        weight = old.weight.detach()
        scale = (weight.abs().amax(1, keepdim=True) / 127).to(torch.float16)
        codes = (weight / scale.float()).round().to(torch.int8)
        self.weight = Typed(torch.cat([scale.view(torch.uint8), codes.view(torch.uint8)], 1), 8)

    def forward(self, x: Tensor) -> Tensor:
        data = self.weight.as_subclass(Tensor)
        scale = data[:, :2].contiguous().view(torch.float16)
        codes = data[:, 2:].contiguous().view(torch.int8)
        return F.linear(x, codes.to(x.dtype) * scale.to(x.dtype))


class Codes(Tensor):
    """As torchao's: an nn.Linear whose weight is a tensor of another kind,
    in float32 by its dtype.
    """


def of_another_kind(old: nn.Linear) -> nn.Linear:
    old.weight = nn.Parameter(old.weight.detach().as_subclass(Codes), requires_grad=False)
    return old


class Unfrozen(nn.Linear):
    """As quanto's before freezing: the weight is a float, but others are computed with."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, (self.weight * 8).round() / 8)


class Buffered(nn.Module):
    """As GPTQ's: no weight at all."""

    def __init__(self, old: nn.Linear):
        super().__init__()
        self.in_features = old.in_features
        self.out_features = old.out_features
        self.register_buffer("qweight", (old.weight.detach().T * 8).round().to(torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.qweight.to(x.dtype) / 8)


class Injected(nn.Module):
    """As early LoRAs were injected: it names no widths."""

    def __init__(self, old: nn.Linear):
        super().__init__()
        self.linear = old
        self.up = nn.Linear(old.out_features, old.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.up(self.linear(x))


def of_class(kind: type[nn.Linear]) -> Callable[[nn.Linear], nn.Linear]:
    def change(old: nn.Linear) -> nn.Linear:
        new = kind(old.in_features, old.out_features, bias=False)
        new.weight = old.weight
        return new

    return change


def patched(old: nn.Linear) -> nn.Linear:
    forward = old.forward
    old.forward = lambda x: forward(x) * 1.5
    return old


def hooked(old: nn.Linear) -> nn.Linear:
    old.register_forward_hook(lambda module, args, output: output + 3)
    return old


def prehooked(old: nn.Linear) -> nn.Linear:
    old.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return old


def adapted(old: nn.Linear, **options: Any) -> nn.Module:
    holder = nn.ModuleDict({"value": old})
    inject_adapter_in_model(
        LoraConfig(r=2, target_modules=["value"], init_lora_weights=False, **options), holder
    )
    return holder["value"]


OTHERS: dict[
    str, Callable[[nn.Linear], nn.Module]
] = {  # what stands there has a width, but its weight is not all of it
    "a subclass": of_class(Doubled),
    "a subclass for large inputs": of_class(Clipped),
    "a patched forward": patched,
    "a hook": hooked,
    "a hook on the inputs": prehooked,
    "a LoRA": adapted,
    "a DoRA": lambda old: adapted(old, use_dora=True),
    "8 bits": Int8,
    "4 bits": Packed,
    "GGUF": Blocks,
    "another tensor": of_another_kind,
    "unfrozen": of_class(Unfrozen),
    "no weight": Buffered,
}
