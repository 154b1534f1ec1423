"""The effect of an edit of weights on a value layer, measured from outside: the layer is probed;
the names of its attributes are not trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from findnemo.edits._probing import alike, close, exact, probe, scale_of, size, times
from findnemo.errors import EditError
from findnemo.models import Model
from findnemo.models.modules import COMPUTED, offloaded

LOOSE = 2.0**-9  # rounding of float32 products on devices with less precision (TF32, bfloat16)
SIDE = 16  # side of the latent with which a model is tried
MERGE = "merge it first with pipeline.fuse_lora() and pipeline.unload_lora_weights()"


class Transient:
    """A temporary hook of an edit, which is no part of the model. `calls`: how often it ran."""

    calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1


@dataclass(frozen=True)
class Effect:
    """What an edit of weights must do to a layer y = W x + b: multiply its outputs `rows` by
    `factor`, as the hook does.

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
        return scale_of(len(self.weight), self.rows, self.factor)

    def check_weights(self, weight: Tensor | None, bias: Tensor | None, where: str) -> None:
        """Raises EditError unless a layer with these weights gives the outputs of the hook.

        All other rows must be unchanged bit for bit, except for a change of dtype.
        """
        shapes = [_shape(weight), _shape(bias)]
        if shapes != [_shape(self.weight), _shape(self.bias)]:
            raise self._error(f"{where} holds {' and '.join(shapes)}")
        rows = list(self.rows)
        kept = sorted(set(range(len(self.weight))) - set(rows))
        pairs = [
            (after.cpu(), before.cpu())
            for after, before in ((weight, self.weight), (bias, self.bias))
            if after is not None and before is not None
        ]
        for after, before in pairs:
            if not alike(after, before, kept):
                raise self._error(f"{where} holds other values in rows that were not to change")
            if self.factor == 0 and exact(after)[rows].any():
                raise self._error(f"{where} is not zero in the rows that were switched off")
        rounding = max(torch.finfo(values.dtype).eps for pair in pairs for values in pair)
        self._check_linear(weight, bias, rounding, where)

    def check_change(self, change: Tensor | None, bias: Tensor | None, where: str) -> None:
        """Raises EditError unless a change (width, in) of the weights has the effect of the hook.

        `bias`: the change (width,) of the biases, if there are any.
        """
        if _shape(change) != _shape(self.weight) or (bias is None and self.bias is not None):
            raise self._error(f"{where} holds {_shape(change)}{' without a bias' * (bias is None)}")
        assert change is not None
        zeros = torch.zeros(len(self.weight))
        before = zeros if self.bias is None else self.bias
        moved = zeros if bias is None else bias
        rounding = max(torch.finfo(dtype).eps for dtype in (self.weight.dtype, torch.float32))
        weight = exact(self.weight) + exact(change)
        self._check_linear(weight, exact(before) + exact(moved), rounding, where)

    def check_layer(self, layer: Any, where: str) -> None:
        """Raises EditError unless a layer, called as the network calls it, gives the outputs of the
        hook.
        """
        inputs = probe(self.weight)
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            given = layer(inputs)
        self._check_outputs(inputs, given, max(LOOSE, torch.finfo(self.weight.dtype).eps), where)

    def _check_linear(self, weight: Any, bias: Tensor | None, rounding: float, where: str) -> None:
        inputs = probe(self.weight)
        given = F.linear(exact(inputs), exact(weight), None if bias is None else exact(bias))
        self._check_outputs(inputs, given, rounding, where)

    def _check_outputs(self, inputs: Tensor, given: Tensor, rounding: float, where: str) -> None:
        bias = None if self.bias is None else exact(self.bias)
        linear = (exact(inputs), exact(self.weight), bias)
        scale = self.scale.double()
        expected = times(F.linear(*linear), scale)
        usual = size(*linear) * scale.abs().clamp(min=1)
        if not close(given, expected, usual, rounding):
            raise self._error(f"{where} does not give what the hook gives")

    def _error(self, what: str) -> EditError:
        rows = ", ".join(map(str, self.rows[:5]))
        return EditError(f"the edit of {self.name} (neurons {rows}) did not take effect: {what}")


def _shape(values: Tensor | None) -> str:
    return "none" if values is None else str(tuple(values.shape))


def layer_weights(name: str, layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight (width, in) and bias (width,) or None of a layer that a probe shows to be exactly y =
    W x + b.

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
        given = layer(inputs)  # the call lets weight norms and pruning masks recompute the weight
        weight = layer.weight.detach()
        bias = None if layer.bias is None else layer.bias.detach()
        expected = exact(F.linear(inputs, weight, bias))
        usual = size(exact(inputs), exact(weight), None if bias is None else exact(bias))
        if not close(given, expected, usual, torch.finfo(weight.dtype).eps / 8):
            raise EditError(
                f"{name} does not give what its weights say{_hooks_of(layer)}, so an edit of its"
                " weights would not be one of its outputs; deactivate works around its calls"
            )
    return weight, bias


def refuse_made(name: str, layer: nn.Module) -> None:
    """Raises EditError for a layer whose weight is recomputed before every pass, so that it cannot
    be edited in place.
    """
    if "weight" not in layer._parameters:
        raise EditError(
            f"the weight of {name} is recomputed before every pass (a parametrization, a norm or a"
            " pruning mask), so an edit of it in place would do nothing: make it permanent"
            ' first, torch.nn.utils.parametrize.remove_parametrizations(layer, "weight"),'
            " torch.nn.utils.remove_weight_norm(layer) or torch.nn.utils.prune.remove(layer,"
            ' "weight")'
        )


def refuse_offloaded(network: nn.Module) -> None:
    """Raises EditError for a network whose weights are offloaded."""
    if offloaded(network):
        raise EditError(
            f"the weights of {type(network).__name__} are offloaded, out of an edit's reach: call"
            " pipeline.remove_all_hooks() first, or load the pipeline without offloading"
        )


def _obstacle(layer: Any) -> str | None:
    """Why a layer is more than its weights, and the way out; None if no reason is known."""
    weight = getattr(layer, "weight", None)
    kind = type(layer).__name__
    if kind == "Linear" and type(layer) is not nn.Linear:
        kind = f"{type(layer).__module__}.{kind}"
    if hasattr(layer, "base_layer"):
        active = getattr(layer, "active_adapters", True)
        if getattr(layer, "disable_adapters", False) or not active:
            off = " that is switched off"
            way_out = "take it off first with pipeline.unload_lora_weights() or delete_adapters()"
        else:
            off = ""
            way_out = MERGE
        return f"carries a LoRA{off}, which an edit of its weights would miss: {way_out}"
    if isinstance(weight, Tensor) and not _ordinary(weight, layer):
        return (
            f"is quantized ({kind}, {type(weight).__name__} of"
            f" {str(weight.dtype).removeprefix('torch.')}), so its weights cannot be edited"
            " exactly: load the model without quantization for that; deactivate works on it as"
            " it is"
        )
    plain = isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward
    if not plain or weight is None:
        return (
            f"is a {kind}, whose forward pass is its own, so an edit of a weight might do nothing:"
            " put an nn.Linear of the weights that it comes to in its place (of the full"
            " precision, if it is quantized); deactivate works on it as it is"
        )
    forward = vars(layer).get("forward", layer.forward)
    if getattr(forward, "__func__", None) is not nn.Linear.forward or forward.__self__ is not layer:
        return (
            "has a forward pass that was put over its own, so an edit of its weight might do"
            " nothing: take it off first (del layer.forward); deactivate works on it as it is"
        )
    return None


def _ordinary(weight: Tensor, layer: Any) -> bool:
    shape = (layer.out_features, getattr(layer, "in_features", -1))
    of_numbers = type(weight) in (Tensor, nn.Parameter) and weight.dtype in COMPUTED
    return of_numbers and tuple(weight.shape) == shape


def _hooks_of(layer: nn.Module) -> str:
    """Hooks of other code, which may be the reason, in words."""
    hooks = [*layer._forward_hooks.values(), *layer._forward_pre_hooks.values()]
    others = [hook for hook in hooks if not isinstance(hook, Transient)]
    names = [getattr(hook, "__qualname__", type(hook).__name__) for hook in others[:3]]
    return f": a hook changes it ({', '.join(names)}), remove it first" if names else ""


@contextmanager
def _without_edits(layer: nn.Module) -> Iterator[None]:
    """A layer without temporary edits while the context lasts; afterwards these are restored in
    order.
    """
    hooks = list(layer._forward_hooks.items())
    for key, hook in hooks:
        if isinstance(hook, Transient):
            del layer._forward_hooks[key]
    try:
        yield
    finally:
        layer._forward_hooks.clear()
        layer._forward_hooks.update(hooks)


# a whole model ------------------------------------------------------------------------------------


@torch.no_grad()
def check_called(model: Model, names: Iterable[str]) -> None:
    """Raises EditError if a pass of the model over a small latent skips one of these layers of its
    denoiser.

    A pipeline that cannot make a pass alone (its text encoder was removed, an IP-Adapter needs an
    image) is not checked.
    """
    counts = {name: Transient() for name in names}
    with ExitStack() as stack:
        for name, count in counts.items():
            layer = model.denoiser.get_submodule(name)
            stack.enter_context(layer.register_forward_hook(count))
        try:
            text = model.encode([""])
            latents = model.noise("", [0])[..., :SIDE, :SIDE]
            model.predict_noise(latents, model.timesteps(1)[0], text)
        except Exception:
            return
    left_out = [name for name, count in counts.items() if not count.calls]
    if left_out:
        raise EditError(never_called(left_out[0]))


def never_called(name: str) -> str:
    return (
        f"the model ran, but {name} was never called: its attention computes values another way"
        " (fused, compiled or a custom processor), or a forward pass that was put over a block's"
        " own runs other layers, so the edit did nothing; take that off, or restore it with"
        " set_attn_processor(AttnProcessor2_0())"
    )
