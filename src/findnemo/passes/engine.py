"""A compiled denoiser whose masks are tensor inputs, so that no edit can be lost.

Hooks added after compiling silently do nothing, because they are not in the graph. Here the graph
itself multiplies every value layer by a mask, and every batch size is checked once against the
plain model before its first result counts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.edits import scaled
from findnemo.errors import EditError
from findnemo.models import Model, Text

# relative to the largest value
TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}


def compiled(model: Model, **options: Any) -> Model:
    """The model with passes compiled by `torch.compile`, for detection, scores and searches on a
    GPU.

    `options` go to `torch.compile`; `mode="reduce-overhead"` records CUDA graphs. Gradients and
    images are computed as before, and results before an edited layer are not reused. Batches are
    padded to powers of two; each size is compiled on first use (a minute or more). Results are
    those of the plain model up to rounding. Raises EditError for a batch size at which a compiled
    pass and a plain one differ.

        fast = findnemo.compiled(findnemo.load("CompVis/stable-diffusion-v1-4"), mode="reduce-overhead")
        findnemo.localize(fast, "a caption", calibration)
    """
    fast = copy.copy(model)
    fast.engine = Engine(model, options)
    return fast


class Engine:
    """Noise predictions of a model through one compiled function of latents, text and masks."""

    def __init__(self, model: Model, options: Mapping[str, Any]):
        self.model = model
        self._widths = model.widths("all")
        self._masks: dict[str, Tensor] = {}
        self._run = torch.compile(self._masked, dynamic=False, **options)
        self._checked: set[int] = set()
        self._layers: list[nn.Module] = []

    @torch.no_grad()
    def predict(
        self, latents: Tensor, timestep: int, text: Text, scales: Mapping[str, Tensor]
    ) -> Tensor:
        """eps(x_t, t, y), (N, C, H, W), with the outputs of value layers multiplied by `scales`:
        layer -> (1 or N, width).
        """
        count = len(latents)
        size = 1 << (count - 1).bit_length()
        masks = {
            n: scales.get(n, torch.ones(1, w)).expand(count, -1) for n, w in self._widths.items()
        }
        latents, *filled = (_padded(x, size) for x in (latents, *masks.values()))
        text = text.map(lambda tensor: _padded(tensor, size))
        masks = {
            n: m.to(latents.device, latents.dtype)[:, None].contiguous()
            for n, m in zip(masks, filled, strict=True)
        }
        layers = list(self.model.layers_of("all").values())
        if layers != self._layers:  # a LoRA was loaded, or the denoiser replaced
            self._layers = layers
            self._checked = set()
        with self.model.steady():
            if size not in self._checked:
                self._check(latents, timestep, text)
            output = self._hooked(latents, timestep, text, masks)
            return self.model.as_noise(output, latents, timestep)[:count].clone()

    def _masked(
        self, latents: Tensor, timestep: int, text: Text, masks: dict[str, Tensor]
    ) -> Tensor:
        self._masks = masks
        return self.model.output(latents, timestep, text)

    def _hooked(
        self, latents: Tensor, timestep: int, text: Text, masks: dict[str, Tensor]
    ) -> Tensor:
        """The masked pass under hooks, which are present for the compiler and for its fallback to
        plain Python.
        """
        with ExitStack() as stack:
            for name, layer in self.model.layers_of("all").items():
                stack.enter_context(layer.register_forward_hook(self._hook(name)))
            return self._run(latents, timestep, text, masks)

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return output * self._masks[name]

        return hook

    def _check(self, latents: Tensor, timestep: int, text: Text) -> None:
        """Compare with the plain model under random masks, which reveal any lost edit."""
        generator = torch.Generator().manual_seed(len(latents))
        scales = {
            n: torch.rand(len(latents), w, generator=generator).to(latents.device)
            for n, w in self._widths.items()
        }
        with scaled(self.model, scales):
            plain = self.model.output(latents, timestep, text).float()
        masks = {n: s.to(latents.dtype)[:, None].contiguous() for n, s in scales.items()}
        gap = (self._hooked(latents, timestep, text, masks).float() - plain).abs().max()
        if not gap <= TOLERANCE[latents.dtype] * plain.abs().max():
            raise EditError(
                f"the compiled model and the plain one differ by {float(gap):.2g} for"
                f" {len(latents)} latents under the same edit: use the model without compiling it"
            )
        self._checked.add(len(latents))


def _padded(rows: Tensor, size: int) -> Tensor:
    """Rows (N, ...) padded to (size, ...) with copies of the first one."""
    return torch.cat([rows, rows[:1].expand(size - len(rows), *rows.shape[1:])]).contiguous()
