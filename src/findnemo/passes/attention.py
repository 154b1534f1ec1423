"""Record cross-attention probabilities while the model runs as usual: where the image attends to
the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from findnemo.errors import EditError, ModelError
from findnemo.models import Model
from findnemo.passes.conditioning import Call, following
from findnemo.runtime.state import replacing

# processors of plain attention; the additions of any other would be lost while it is replaced
PLAIN = ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor")

Seen = Callable[[str, int, Tensor], None]


@contextmanager
def recorded(model: Model, seen: Seen) -> Iterator[Call]:
    """Call `seen(layer, step, probabilities)` with the attention of every pass while the context
    lasts.

    `probabilities`: (images, queries, tokens), float32, averaged over heads, each row of tokens
    summing to one; of the conditional rows only. Queries are the positions of the layer's map, row
    by row. `step` counts the passes since the pipeline was called, from 0; see
    `conditioning.following`. For passes of your own, encode prompts before you enter. The
    projections are called as usual, so edits stay in force, and the model's output is the same up
    to rounding. On leaving, also by an exception, the model is restored. Raises ModelError for a
    model without known cross-attention, EditError if a custom processor does more than plain
    attention.

        >>> import findnemo
        >>> model, seen = findnemo.load("demo"), {}
        >>> with recorded(model, lambda layer, step, p: seen.setdefault(layer, p)):
        ...     _ = findnemo.generate(model, "a red star", [0, 1], findnemo.ImageSettings(steps=1, guidance=2.0))
        >>> [tuple(p.shape) for p in seen.values()][:3]
        [(2, 256, 77), (2, 256, 77), (2, 64, 77)]
    """
    from diffusers.models.attention_processor import AttnProcessor

    layers = _layers(model)
    with following(model) as call, ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.set_processor, layer.processor)
            # this one calls `get_attention_scores` for explicit probabilities
            layer.set_processor(AttnProcessor())
            reporting = _reporting(layer, name, call, seen)
            stack.enter_context(replacing(layer, "get_attention_scores", reporting))
        yield call


def _layers(model: Model) -> dict[str, Any]:
    """The cross-attention modules, if each computes plain attention."""
    layers: dict[str, Any] = model.cross_attentions
    if not layers:
        raise ModelError(
            f"no cross-attention is known in {type(model.denoiser).__name__}: its attention cannot"
            " be recorded; use the detector ssim"
        )
    for name, layer in layers.items():
        kind = type(layer.processor).__name__
        if kind not in PLAIN or "get_attention_scores" in vars(layer):
            what = (
                "is being recorded already"
                if kind in PLAIN
                else f"uses {kind}, which recording would put out of action"
            )
            raise EditError(
                f"{name} {what}: leave that context first, or restore"
                " set_attn_processor(AttnProcessor2_0())"
            )
    return layers


def _reporting(layer: Any, name: str, call: Call, seen: Seen) -> Callable[..., Tensor]:
    """`get_attention_scores` of a layer, wrapped to report its result (images * heads, queries,
    tokens).
    """
    plain = layer.get_attention_scores

    def scores(query: Tensor, key: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        # in float32: half precision would round the many small probabilities that make an entropy
        mask = None if attention_mask is None else attention_mask.float()
        probabilities = plain(query.float(), key.float(), mask)
        rows = probabilities.detach().unflatten(0, (-1, layer.heads)).mean(1)
        seen(name, call.step, rows[call.rows(len(rows))])
        return probabilities.to(query.dtype)

    return scores
