"""Joint attention: image and text tokens attend to each other as one sequence, each with its own
projections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from findnemo.models._flow import FlowModel
from findnemo.models._reading import usual_length
from findnemo.models._text import Text
from findnemo.settings import PAPER

BLOCK = re.compile(r"transformer_blocks\.\d+")


class JointAttention(FlowModel):
    """Neurons are the outputs of `attn.add_v_proj`, bias included, in all blocks where the text has
    its own value projection.

    As in cross-attention, the image learns nothing else from the text by attention there. But a
    value depends on the latents and the timestep too, because text and image mix in earlier blocks:
    so activations take a pass of the model.
    """

    names: Mapping[str, str | None] = {"value layers": r"transformer_blocks\..*\.attn\.add_v_proj"}
    packing = 1  # channels that the transformer takes for each channel of a latent

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        size = self.pipeline.default_sample_size
        return self.pipeline.transformer.config.in_channels // self.packing, size, size

    @property
    def pooled_width(self) -> int:
        """Width of the pooled embedding that the transformer takes."""
        return int(self.pipeline.transformer.config.pooled_projection_dim)

    def limit(self, part: str) -> int:
        """CLIP's tokenizers share the pipeline's limit; T5 reads as much as the pipeline requests
        by default.
        """
        if "T5" in type(getattr(self.pipeline, dict(self.encoders)[part])).__name__:
            return usual_length(self.pipeline)
        return int(self.pipeline.tokenizer_max_length)

    @property
    def parts(self) -> dict[str, nn.Module]:
        return self.find("parts", _gives_both)

    @torch.no_grad()
    def value_activations(self, prompts: Sequence[str], text: Text) -> dict[str, Tensor]:
        """Layer -> (N, width), float32: the mean over all text positions of |activation|, at the
        first timestep and on the prompt's first latent.

        Each prompt has a pass of its own, so that its result does not depend on the others.
        """
        layers = self.value_layers
        rows: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers.values()}

        def keep(layer: nn.Module, args: Any, output: Tensor) -> None:
            rows[layer].append(output.float().abs().mean(1))

        timestep = self.timesteps(PAPER.steps)[0]
        with ExitStack() as stack:
            for layer in rows:
                stack.callback(layer.register_forward_hook(keep).remove)
            for prompt, row in zip(prompts, text.split(), strict=True):
                self.predict_noise(self.noise(prompt, [0]), timestep, row)
        return {name: torch.cat(rows[layer]) for name, layer in layers.items()}


def _gives_both(name: str, module: nn.Module) -> bool:
    """Whether a block outputs text and image; the last one of Stable Diffusion 3 outputs only the
    image.
    """
    return BLOCK.fullmatch(name) is not None and not getattr(module, "context_pre_only", False)
