"""The LoRA that a model was loaded with, with neurons switched off in it, for use on the unedited
base.

For a layer y = W x, a LoRA dW at strength s, and D, which multiplies the rows of the neurons by
`factor`, the written change is D (W + s dW) - W = D s dW + (D - 1) W. The first part is the LoRA
with these rows of its up matrix multiplied. The second removes the base's own rows, with one rank
for each neuron. So with factor 0, if the file holds W exactly, the rows of the sum are zero to the
bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from findnemo.edits import LIMITS, lora_weights
from findnemo.errors import EditError
from findnemo.export._checks import kohya_name
from findnemo.export._selection import Selection
from findnemo.export._source import Dtype, Origin, dtype_name, tell_narrowed
from findnemo.export._weights import about_of, kohya_marks
from findnemo.files.tensors import DTYPES, read_header, seal, write
from findnemo.models import Lora, Model
from findnemo.models.lora import KOHYA_TEXT, Delta, of_strength, read_file
from findnemo.neurons import NeuronSet
from findnemo.runtime.notices import notice

Place = tuple[str, str]  # component and module


@dataclass(frozen=True)
class _Edit:
    """The edit to write: `neurons` at `factor`, on a `base` with a `lora` at a `strength`."""

    base: Model
    lora: Lora
    strength: float
    neurons: NeuronSet
    factor: float

    @property
    def rows(self) -> dict[Place, list[int]]:
        """Layer -> rows to multiply."""
        return {(self.base.component, n): list(r) for n, r in self.neurons.layers.items()}


def write_adapter(origin: Origin, chosen: Selection, path: Path) -> None:
    """Write a file that `pipeline.load_lora_weights` reads."""
    edit = _edit(origin, chosen)
    loads = getattr(type(origin.model.pipeline), "_lora_loadable_modules", ())
    if beyond := sorted({component for component, _ in edit.lora.deltas} - set(loads)):
        raise EditError(
            f"{edit.lora.source} changes {beyond[0]}, where diffusers loads no LoRA: export a"
            " checkpoint"
        )
    metadata = {"format": "pt"} | _about(origin.model, chosen)
    _write(edit, path, origin.dtype, metadata, _in_diffusers_form)


def write_adapter_kohya(origin: Origin, chosen: Selection, path: Path) -> None:
    """Write a file in kohya's form, which user interfaces and `pipeline.load_lora_weights` read."""
    model = origin.model
    marks = kohya_marks(model, chosen)
    metadata = {"ss_network_module": "networks.lora"} | marks | _about(model, chosen)
    _write(_edit(origin, chosen), path, origin.dtype, metadata, _in_kohyas_form)


def _about(model: Model, chosen: Selection) -> dict[str, str]:
    file, strength = of_strength(model.options["lora"])
    return about_of(chosen) | {"lora": f"{Path(file).name}:{strength:g}", "limits": LIMITS}


def _edit(origin: Origin, chosen: Selection) -> _Edit:
    base, lora, strength = origin.base
    return _Edit(base, lora, strength, chosen.neurons, chosen.factor)


def _write(
    edit: _Edit,
    path: Path,
    dtype: Dtype,
    metadata: dict[str, str],
    named: Callable[[Any, Place, Delta], dict[str, Tensor]],
) -> None:
    kinds = _kinds(edit.lora)
    tell_narrowed({"the LoRA": kinds}, dtype)
    written = dtype or reduce(torch.promote_types, kinds)
    deltas = _of_one_rank(_changes(edit))
    ranks = [len(delta.down) for (part, _), delta in deltas.items() if part == edit.base.component]
    rank = str(ranks[0])
    if "ss_network_module" in metadata:
        metadata |= {"ss_network_dim": rank, "ss_network_alpha": rank}
    tensors: dict[str, Tensor] = {}
    for place, delta in deltas.items():
        tensors |= named(edit.base.pipeline, place, _rounded(place, delta, written))
    write(path, tensors, metadata)
    seal(path)
    left = _check(edit, read_file(path, edit.base.pipeline), written)
    if left > 0 and written != torch.float32:
        notice(
            f"the LoRA is written in {dtype_name(written)}, in which the neurons' weights are off by"
            f" up to {100 * left:.2g} % of their size: --dtype float32 is exact"
        )


def _kinds(lora: Lora) -> set[torch.dtype]:
    """The dtypes of the matrices of a LoRA's file; float32 for those of a byte."""
    entries, _ = read_header(lora.source)
    kinds = {DTYPES[entry.dtype] for entry in entries.values() if entry.shape}
    return {kind if kind.itemsize in (2, 4) else torch.float32 for kind in kinds}


# the change -----------------------------------------------------------------------------------------


def _changes(edit: _Edit) -> dict[Place, Delta]:
    """The changes to write, in float64, at strength 1 and with alpha = rank."""
    changes = {}
    for (component, name), delta in edit.lora.deltas.items():
        module = getattr(edit.base.pipeline, component).get_submodule(name)
        changes[component, name] = _plain(delta, module.weight.shape, edit.strength)
    off = lora_weights(edit.base, edit.neurons, edit.factor) if edit.neurons else {}
    for place, rows in edit.rows.items():
        prefix = ".".join(place)
        down, up = (off[f"{prefix}.lora_{matrix}.weight"] for matrix in "AB")
        taken = _in_dtype(Delta(down, up, bias=off.get(f"{prefix}.lora_B.bias")), torch.double)
        changes[place] = _joined(changes.get(place), taken, rows, edit.factor)
    return changes


def _plain(delta: Delta, shape: torch.Size, strength: float) -> Delta:
    """A change in two matrices of the layer's kind, with strength and alpha / rank merged into
    `up`.

    A convolution in three steps becomes one in two: the middle is merged into the first.
    """
    down = delta.down.double()
    if delta.mid is not None:
        down = torch.einsum("rshw,si->rihw", delta.mid.double(), down.flatten(1))
    kernel = shape[2:]
    rank = len(down)
    return Delta(
        down.reshape(rank, shape[1], *kernel),
        (strength * delta.scale * delta.up.double()).reshape(shape[0], rank, *[1] * len(kernel)),
        bias=None if delta.bias is None else strength * delta.bias.double(),
    )


def _joined(delta: Delta | None, taken: Delta, rows: list[int], factor: float) -> Delta:
    """The change of a LoRA in a value layer with its rows multiplied, and the rows removed from the
    base.
    """
    if delta is None:
        return taken
    up = delta.up.clone()
    up[rows] *= factor
    bias = taken.bias
    if delta.bias is not None:
        own = delta.bias.clone()
        own[rows] *= factor
        bias = own if bias is None else bias + own
    return Delta(torch.cat([delta.down, taken.down]), torch.cat([up, taken.up], 1), bias=bias)


def _of_one_rank(deltas: Mapping[Place, Delta]) -> dict[Place, Delta]:
    """Changes padded with zeros to one rank in each component, with biases in all of its layers if
    one has any, as loaders expect.
    """
    filled = {}
    for (component, name), delta in deltas.items():
        beside = [other for (part, _), other in deltas.items() if part == component]
        missing = max(len(other.down) for other in beside) - len(delta.down)
        down = delta.down.new_zeros(missing, *delta.down.shape[1:])
        up = delta.up.new_zeros(len(delta.up), missing, *delta.up.shape[2:])
        bias = delta.bias
        if bias is None and any(other.bias is not None for other in beside):
            bias = delta.up.new_zeros(len(delta.up))
        joined = (torch.cat([delta.down, down]), torch.cat([delta.up, up], 1))
        filled[component, name] = Delta(*joined, bias=bias)
    return filled


def _rounded(place: Place, delta: Delta, dtype: torch.dtype) -> Delta:
    """A change in the dtype to write. Raises EditError if that dtype cannot hold it."""
    rounded = _in_dtype(delta, dtype)
    for values in (rounded.down, rounded.up, rounded.bias):
        if values is not None and not bool(values.isfinite().all()):
            raise EditError(
                f"the change of {'.'.join(place)} is too large for {dtype_name(dtype)}: give --dtype"
                " float32"
            )
    return rounded


# names ----------------------------------------------------------------------------------------------


def _in_diffusers_form(pipeline: Any, place: Place, delta: Delta) -> dict[str, Tensor]:
    stem = ".".join((place[0], _published(*place)))
    tensors = {f"{stem}.lora_A.weight": delta.down, f"{stem}.lora_B.weight": delta.up}
    return tensors if delta.bias is None else tensors | {f"{stem}.lora_B.bias": delta.bias}


def _in_kohyas_form(pipeline: Any, place: Place, delta: Delta) -> dict[str, Tensor]:
    component, name = place
    if delta.bias is not None:
        raise EditError(
            f"the LoRA changes the biases of {component}, which kohya's form does not carry: export"
            " adapter, or a checkpoint"
        )
    if component in KOHYA_TEXT:
        alone = not hasattr(pipeline, "text_encoder_2")
        prefix = KOHYA_TEXT[component][-1 if alone else 0]
        stem = prefix + _published(*place).replace(".", "_")
    else:
        stem = kohya_name(name)
    return {
        f"{stem}.lora_down.weight": delta.down,
        f"{stem}.lora_up.weight": delta.up,
        f"{stem}.alpha": torch.tensor(float(len(delta.down))),
    }


def _published(component: str, name: str) -> str:
    """The name of a module in files: CLIP's has `text_model`, which some versions of transformers
    omit.
    """
    kept = name.startswith(("text_model.", "text_projection"))
    return name if kept or component not in KOHYA_TEXT else f"text_model.{name}"


# the check ------------------------------------------------------------------------------------------


def _check(edit: _Edit, written: Lora, dtype: torch.dtype) -> float:
    """Raises EditError unless the written LoRA on the base gives the edited model up to rounding,
    in every weight and bias.

    Returns the largest deviation of the neurons' rows, relative to their size before.
    """
    if written.deltas.keys() != edit.lora.deltas.keys() | edit.rows.keys():
        raise EditError("the written LoRA changes other layers than it should")
    left = 0.0
    for place, delta in written.deltas.items():
        for found, before, wanted, tolerance in _compared(edit, place, delta, dtype):
            if not bool(((found - wanted).abs() <= tolerance).all()):
                raise EditError(f"the written LoRA does not give the edited {'.'.join(place)}")
            rows = edit.rows.get(place, [])
            size = before[rows].norm()
            left = max(left, float((found - wanted)[rows].norm() / size) if size else 0.0)
    return left


def _compared(
    edit: _Edit, place: Place, delta: Delta, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """For a layer's weight, and its bias if changed: with the written LoRA, with the run's LoRA,
    the wanted value, and the possible rounding error in `dtype`.
    """
    rounding = torch.finfo(dtype).eps
    least = torch.finfo(dtype).tiny * rounding  # the smallest number
    module = getattr(edit.base.pipeline, place[0]).get_submodule(place[1])
    weight = module.weight.detach().cpu().double()
    shape = weight.shape
    own = edit.lora.deltas.get(place)
    change = _in_dtype(delta, torch.double)
    scale = torch.ones(len(weight), dtype=torch.double)
    scale[edit.rows.get(place, [])] = edit.factor
    before = weight
    if own is not None:
        before = weight + edit.strength * _in_dtype(own, torch.double).weight(shape)
    up = change.up.flatten(1).abs()
    down = change.down.flatten(1).abs()
    summed = weight.abs() + (up @ down).reshape(shape)
    ends = (up.sum(1)[:, None] + down.sum(0)).reshape(shape)
    wanted = before * scale.reshape(-1, *[1] * (len(shape) - 1))
    yield weight + change.weight(shape), before, wanted, 8 * rounding * summed + least * ends
    if change.bias is not None:
        bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach().cpu()
        base = bias.double()
        with_own = base
        if own is not None and own.bias is not None:
            with_own = base + edit.strength * own.bias.double()
        near = 8 * rounding * (base.abs() + change.bias.abs()) + least
        yield base + change.bias, with_own, with_own * scale, near


def _in_dtype(delta: Delta, dtype: torch.dtype) -> Delta:
    """A change in another dtype."""
    matrices = {"down": delta.down, "up": delta.up, "mid": delta.mid, "bias": delta.bias}
    cast: dict[str, Any] = {k: v.to(dtype) for k, v in matrices.items() if v is not None}
    return replace(delta, **cast)
