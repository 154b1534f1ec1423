"""What an edit of weights does to a value layer, seen from outside: the layer is probed, not trusted for the names of its attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from findnemo.edits._probing import alike, close, exact, probe, size, times
from findnemo.errors import EditError
from findnemo.models import Model
from findnemo.models._modules import COMPUTED, offloaded

LOOSE = 2.0**-9  # rounding of products in float32 where a device takes less (TF32, bfloat16)
SIDE = 16  # of the latent with which a model is tried
MERGE = "merge it first with pipeline.fuse_lora() and pipeline.unload_lora_weights()"


class Transient:
    """A hook of an edit that is under way: no part of the model."""


@dataclass(frozen=True)
class Effect:
    """What an edit of weights must do to a layer y = W x + b: multiply its outputs `rows` by `factor`, as the hook does.

    `weight` (width, in) and `bias` (width,) or None are those before the edit.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    rows: tuple[int, ...]
    factor: float

    @property
    def scale(self) -> Tensor:
        """The hook's scale, (width,)."""
        scale = torch.ones(len(self.weight))
        scale[list(self.rows)] = self.factor
        return scale

    def check_weights(self, weight: Tensor | None, bias: Tensor | None, where: str) -> None:
        """Raises EditError unless a layer with these weights gives what the hook makes of its outputs; all other rows must be what they were, bit
        for bit, but for a change of dtype."""
        pairs = [(weight, self.weight), (bias, self.bias)]
        if any(
            (a is None) != (b is None) or (a is not None and b is not None and a.shape != b.shape)
            for a, b in pairs
        ):
            raise self._error(
                f"{where} holds {' and '.join('none' if a is None else str(tuple(a.shape)) for a, _ in pairs)}"
            )
        rows, kept = list(self.rows), sorted(set(range(len(self.weight))) - set(self.rows))
        for after, before in (
            (a.cpu(), b.cpu()) for a, b in pairs if a is not None and b is not None
        ):
            if not alike(after, before, kept):
                raise self._error(f"{where} holds other values in rows that were not to change")
            if self.factor == 0 and exact(after)[rows].any():
                raise self._error(f"{where} is not zero in the rows that were switched off")
        rounding = max(torch.finfo(a.dtype).eps for pair in pairs for a in pair if a is not None)
        self._check_linear(weight, bias, rounding, where)

    def check_change(self, change: Tensor | None, bias: Tensor | None, where: str) -> None:
        """The same of a change (width, in) of the weights, and one (width,) of the biases, where there are any."""
        if (
            change is None
            or change.shape != self.weight.shape
            or (bias is None and self.bias is not None)
        ):
            raise self._error(
                f"{where} holds {'none' if change is None else tuple(change.shape)}{' without a bias' * (bias is None)}"
            )
        before, moved = (
            torch.zeros(len(self.weight)) if b is None else b for b in (self.bias, bias)
        )
        rounding = max(torch.finfo(dtype).eps for dtype in (self.weight.dtype, torch.float32))
        self._check_linear(
            exact(self.weight) + exact(change), exact(before) + exact(moved), rounding, where
        )

    def check_layer(self, layer: Any, where: str) -> None:
        """The same of a layer as the network calls it."""
        inputs = probe(self.weight)
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            given = layer(inputs)
        self._check_outputs(inputs, given, max(LOOSE, torch.finfo(self.weight.dtype).eps), where)

    def _check_linear(self, weight: Any, bias: Tensor | None, rounding: float, where: str) -> None:
        inputs = probe(self.weight)
        self._check_outputs(
            inputs,
            F.linear(exact(inputs), exact(weight), None if bias is None else exact(bias)),
            rounding,
            where,
        )

    def _check_outputs(self, inputs: Tensor, given: Tensor, rounding: float, where: str) -> None:
        x, w, b = exact(inputs), exact(self.weight), None if self.bias is None else exact(self.bias)
        scale = self.scale.double()
        if not close(
            given,
            times(F.linear(x, w, b), scale),
            size(x, w, b) * scale.abs().clamp(min=1),
            rounding,
        ):
            raise self._error(f"{where} does not give what the hook gives")

    def _error(self, what: str) -> EditError:
        return EditError(
            f"the edit of {self.name} (neurons {', '.join(map(str, self.rows[:5]))}) did not take effect: {what}"
        )


def layer_weights(name: str, layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight (width, in) and bias (width,) or None of a layer that is nothing but y = W x + b, as a probe shows.

    Raises EditError for any other: an edit of its weights would not be an edit of its outputs.
    """
    if obstacle := _obstacle(layer):
        raise EditError(f"{name} {obstacle}")
    with (
        torch.no_grad(),
        torch.autocast(layer.weight.device.type, enabled=False),
        _without_edits(layer),
    ):
        inputs = probe(layer.weight)
        given = layer(inputs)  # which lets weight norms and pruning masks make the weight anew
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        usual = size(exact(inputs), exact(weight), None if bias is None else exact(bias))
        if not close(
            given, exact(F.linear(inputs, weight, bias)), usual, torch.finfo(weight.dtype).eps / 8
        ):
            raise EditError(
                f"{name} does not give what its weights say{_hooks_of(layer)}, so an edit of its weights would not be one of its outputs; "
                "deactivate works around its calls"
            )
    return weight, bias


def refuse_made(name: str, layer: nn.Module) -> None:
    """Raises EditError for a layer whose weight is made of others before every pass, so that it cannot be edited in its place."""
    if "weight" not in layer._parameters:
        raise EditError(
            f"the weight of {name} is made anew before every pass (a parametrization, a norm or a pruning mask), so an edit of it in "
            'its place would do nothing: make it permanent first, torch.nn.utils.parametrize.remove_parametrizations(layer, "weight"), '
            'torch.nn.utils.remove_weight_norm(layer) or torch.nn.utils.prune.remove(layer, "weight")'
        )


def refuse_offloaded(network: nn.Module) -> None:
    """Raises EditError for a network whose weights are not at hand."""
    if offloaded(network):
        raise EditError(
            f"the weights of {type(network).__name__} are offloaded, out of an edit's reach: call pipeline.remove_all_hooks() "
            "first, or load the pipeline without offloading"
        )


def _obstacle(layer: Any) -> str | None:
    """Why the weights of a layer are not all there is to it, and the way out; None where nothing is known."""
    kind, weight = type(layer).__name__, getattr(layer, "weight", None)
    kind = (
        f"{type(layer).__module__}.{kind}"
        if kind == "Linear" and type(layer) is not nn.Linear
        else kind
    )
    if hasattr(layer, "base_layer"):
        idle = getattr(layer, "disable_adapters", False) or not getattr(
            layer, "active_adapters", True
        )
        way_out = (
            "take it off first with pipeline.unload_lora_weights() or delete_adapters()"
            if idle
            else MERGE
        )
        return f"carries a LoRA{' that is switched off' * idle}, which an edit of its weights would miss: {way_out}"
    if isinstance(weight, Tensor) and not _ordinary(
        weight, (layer.out_features, getattr(layer, "in_features", -1))
    ):
        return (
            f"is quantized ({kind}, {type(weight).__name__} of {str(weight.dtype).removeprefix('torch.')}), so its weights cannot be "
            "edited exactly: load the model without quantization for that; deactivate works on it as it is"
        )
    if (
        not isinstance(layer, nn.Linear)
        or type(layer).forward is not nn.Linear.forward
        or weight is None
    ):
        return (
            f"is a {kind}, whose forward pass is its own, so an edit of a weight might do nothing: put an nn.Linear of the weights that it "
            "comes to in its place (of the full precision, if it is quantized); deactivate works on it as it is"
        )
    forward = vars(layer).get("forward", layer.forward)
    if getattr(forward, "__func__", None) is not nn.Linear.forward or forward.__self__ is not layer:
        return (
            "has a forward pass that was put over its own, so an edit of its weight might do nothing: take it off first (del "
            "layer.forward); deactivate works on it as it is"
        )
    return None


def _ordinary(weight: Tensor, shape: tuple[int, int]) -> bool:
    return (
        type(weight) in (Tensor, nn.Parameter)
        and weight.dtype in COMPUTED
        and tuple(weight.shape) == shape
    )


def _hooks_of(layer: nn.Module) -> str:
    """Hooks of other code, which may be the reason."""
    registered = [*layer._forward_hooks.values(), *layer._forward_pre_hooks.values()]
    named = [
        getattr(h, "__qualname__", type(h).__name__)
        for h in registered
        if not isinstance(h, Transient)
    ]
    return f": a hook changes it ({', '.join(named[:3])}), remove it first" if named else ""


@contextmanager
def _without_edits(layer: nn.Module) -> Iterator[None]:
    """A layer as it is without the edits under way; they are back afterwards, in their order."""
    kept = {k: h for k, h in layer._forward_hooks.items() if isinstance(h, Transient)}
    order = list(layer._forward_hooks.items())
    for key in kept:
        del layer._forward_hooks[key]
    try:
        yield
    finally:
        layer._forward_hooks.clear()
        layer._forward_hooks.update(order)


# a whole model -------------------------------------------------------------------------------------------------------


class _Called(Transient):
    """Forward hook: note that a layer ran."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.seen.add(id(module))


@torch.no_grad()
def check_called(model: Model, layers: Mapping[str, nn.Module]) -> None:
    """Raises EditError if a pass of the model, over a small latent, leaves out one of these layers of it.

    A pipeline that makes no pass by itself (its text encoder was taken away, an IP-Adapter wants an image) tells nothing.
    """
    called = _Called()
    with ExitStack() as stack:
        for layer in layers.values():
            stack.callback(layer.register_forward_hook(called).remove)
        try:
            text = model.encode([""])
            latents = model.noise("", [0])[..., :SIDE, :SIDE]
            model.predict_noise(latents, model.timesteps(1)[0], text)
        except Exception:
            return
    left_out = [name for name, layer in layers.items() if id(layer) not in called.seen]
    if left_out:
        raise EditError(never_called(left_out[0]))


def never_called(name: str) -> str:
    return (
        f"the model ran, but {name} was never called: its attention computes values another way (fused, compiled or a custom processor), "
        "or a forward pass that was put over a block's own runs other layers, so the edit did nothing; take that off, or restore it with "
        "set_attn_processor(AttnProcessor2_0())"
    )
