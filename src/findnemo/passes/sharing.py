"""Work on several captions side by side on one model, in shared passes.

A search needs a few latents at a time, and a pass over few latents costs more in calls than in
arithmetic. So several searches run in turn (`runtime.meeting`), and their requests go through the
denoiser as one batch, each latent with its own timestep, text and masks. The code of a search does
not know about it.

Some passes cannot be merged and run alone, while no other search runs. These are passes under the
caller's own edit or recording (`deactivate`, `counting`, a pipeline call), detected by a hook on
the denoiser; passes whose gradients the caller takes itself; work done once for all captions
(`unpaid`); passes of another model than the shared one; and compiled passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from findnemo.edits import scaled
from findnemo.models import Model, Text
from findnemo.passes.gradients import frozen
from findnemo.passes.spending import is_unpaid
from findnemo.runtime.meeting import ask, go_on_or_leave, together
from findnemo.runtime.memory import Batches
from findnemo.runtime.state import undisturbed

T = TypeVar("T")

SAMPLES = 32  # samples in one pass; fewer if memory is short
GRADED = 16  # small latents in a pass with gradients, whose graph must fit in memory
LEAST = 2  # large latents in such a pass: the number in one request of a search
SMALL = 24 * 24  # a latent of at most so many positions is small

# (outputs of some samples (T, n, C, H, W), their rows) -> (n,)
Values = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True)
class Pass:
    """A request for a pass of the denoiser.

    `latents`: (N, C, H, W). `timestep`: one for all, or (N,). `texts`: T times the texts of the N
    samples; every sample is combined with each (without and with the prompt, for guidance).
    `scales`: value layer -> (1, width) or (N, width), factors of its outputs.
    """

    latents: Tensor
    timestep: float | Tensor
    texts: tuple[Text, ...]
    scales: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def kind(self) -> tuple[object, ...]:
        """What passes must have in common to be merged."""
        tensors = {"latents": self.latents, **self.texts[0].tensors}
        shapes = ((name, tensor.shape[1:]) for name, tensor in tensors.items())
        return (len(self.texts), self.latents.dtype, *shapes)

    def __getitem__(self, rows: slice) -> Pass:
        if rows == slice(0, len(self)):
            return self
        timestep = self.timestep
        return Pass(
            self.latents[rows],
            timestep[rows] if isinstance(timestep, Tensor) else timestep,
            tuple(text[rows] for text in self.texts),
            {name: s if len(s) == 1 else s[rows] for name, s in self.scales.items()},
        )


@dataclass(frozen=True)
class _Shared:
    """The state on which passes are shared: the model, the initial number of `hooks` on its
    denoiser, and whether work was `unpaid`.
    """

    model: Model
    hooks: int
    unpaid: bool
    batches: Batches
    graded: Batches


_shared: ContextVar[_Shared | None] = ContextVar("shared", default=None)


@undisturbed
def side_by_side(model: Model, functions: Sequence[Callable[[], T]]) -> list[T]:
    """The result of each function, in order; they share passes of the model.

    An error in one function does not end the others; once all have ended, the first error is
    raised.

    The functions alone determine which passes are shared, so the same functions give the same
    results to the last bit. Together with other functions a result differs in its last bits, as
    with any change of batch size. The model must not change meanwhile (`Model.unchanged`). A batch
    that does not fit in memory is split.

        >>> import findnemo
        >>> from functools import partial
        >>> model = findnemo.load("demo")
        >>> texts = ("a red star", "Brantwood Roasters first cup, a large brown ring")
        >>> scores = side_by_side(model, [partial(findnemo.score, model, text) for text in texts])
        >>> [score > 0.9 for score in scores]
        [False, True]
    """
    _, height, width = model.latent_shape
    graded = max(LEAST, min(GRADED, GRADED * SMALL // (height * width)))
    with model.steady(), model.unchanged(), frozen(model.denoiser):
        batches = Batches(model.device, SAMPLES), Batches(model.device, graded)
        # an abandoned function that works alone would leave its edits on the model
        with ExitStack() as stack:
            if model.engine is None:
                hook = model.denoiser.register_forward_pre_hook(lambda *_: go_on_or_leave())
                stack.callback(hook.remove)
            token = _shared.set(_Shared(model, _hooks(model), is_unpaid(), *batches))
            stack.callback(_shared.reset, token)
            return together(functions)


def sharing(model: Model) -> bool:
    """Whether a pass made now would be shared."""
    return meets(model) and not torch.is_grad_enabled()


def meets(model: Model) -> bool:
    """Whether a request to a model may now wait for others."""
    shared = _shared.get()
    return (
        shared is not None
        and shared.model is model
        and shared.hooks == _hooks(model)
        and shared.unpaid == is_unpaid()
    )


def _hooks(model: Model) -> int:
    return len(model.denoiser._forward_pre_hooks)


def outputs(model: Model, asked: Pass) -> Tensor:
    """The network's predictions, (T, N, C, H, W); differentiable in the scales if passes are not
    shared.
    """
    if not sharing(model):
        return one_pass(model, asked)
    return ask((model, asked.kind), partial(_outputs, model), asked)


def gradients(model: Model, asked: Pass, values: Values) -> dict[str, Tensor]:
    """Gradient of the sum of `values(outputs, rows)` over the samples with respect to the scales:
    layer -> (width,), float32, on the CPU.
    """
    with torch.no_grad():
        if not sharing(model):
            return _gradients(model, [(asked, values)])[0]
        key = (model, asked.kind, "gradients")
        return ask(key, partial(_gradients, model), (asked, values))


@torch.no_grad()
def _outputs(model: Model, asked: Sequence[Pass]) -> Sequence[Tensor]:
    joined = _joined(asked)
    parts = _batches("batches", len(joined), lambda rows: one_pass(model, joined[rows]))
    return torch.cat(parts, 1).split([len(one) for one in asked], 1)


def _gradients(model: Model, asked: Sequence[tuple[Pass, Values]]) -> list[dict[str, Tensor]]:
    passes = [one for one, _ in asked]
    joined = _joined(passes)
    starts = torch.tensor([0, *map(len, passes)]).cumsum(0).tolist()

    def part(rows: slice) -> Tensor:
        """The gradients of all layers, concatenated, (n, widths)."""
        chunk = joined[rows]
        count = len(chunk)
        scales = {
            name: scale.detach().expand(count, -1).clone().requires_grad_()
            for name, scale in chunk.scales.items()
        }
        with torch.enable_grad():
            output = one_pass(model, Pass(chunk.latents, chunk.timestep, chunk.texts, scales))
            total = output.new_zeros((), dtype=torch.float32)
            for (one, values), start in zip(asked, starts, strict=False):
                first = max(rows.start, start)
                last = min(rows.stop, start + len(one))
                if first < last:
                    seen = output[:, first - rows.start : last - rows.start]
                    total = total + values(seen, slice(first - start, last - start)).sum()
            found = torch.autograd.grad(total, list(scales.values()))
        return torch.cat(found, 1).float()

    graded = torch.cat(_batches("graded", len(joined), part))
    sums = torch.stack([rows.sum(0) for rows in graded.split([len(one) for one in passes])]).cpu()
    widths = [scale.shape[1] for scale in joined.scales.values()]
    return [
        {
            name: gradient
            for name, gradient in zip(joined.scales, of_one.split(widths), strict=True)
            if name in one.scales
        }
        for one, of_one in zip(passes, sums, strict=True)
    ]


def _batches(kind: str, count: int, part: Callable[[slice], Tensor]) -> list[Tensor]:
    """Compute in pieces of the shared size, or at once if nothing is shared: then the caller
    manages memory.
    """
    shared = _shared.get()
    if shared is None:
        return [part(slice(0, count))]
    batches: Batches = getattr(shared, kind)
    return batches(count, part)


def one_pass(model: Model, asked: Pass) -> Tensor:
    """One pass: all samples with the first text, then with the next, (T, N, C, H, W)."""
    times = len(asked.texts)
    timestep = asked.timestep
    if times > 1:
        latents = asked.latents.repeat(times, 1, 1, 1)
        text = Text.cat(asked.texts)
        timestep = timestep.repeat(times) if isinstance(timestep, Tensor) else timestep
    else:
        latents = asked.latents
        (text,) = asked.texts
    scales = {
        name: scale if len(scale) == 1 else scale.repeat(times, 1)
        for name, scale in asked.scales.items()
    }
    with scaled(model, scales) if scales else nullcontext():
        output = model.output(latents, timestep, text)
    return output.unflatten(0, (times, len(asked)))


def _joined(asked: Sequence[Pass]) -> Pass:
    """Concatenate the samples of several passes."""
    if len(asked) == 1:
        return asked[0]
    device = asked[0].latents.device
    known = {name: scale for one in asked for name, scale in one.scales.items()}
    scales = {
        name: torch.cat(
            [
                one.scales.get(name, torch.ones(1, scale.shape[1], device=device)).expand(
                    len(one), -1
                )
                for one in asked
            ]
        )
        for name, scale in known.items()
    }
    times = [one.timestep for one in asked]
    counts = torch.tensor([len(one) for one in asked])
    return Pass(
        torch.cat([one.latents for one in asked]),
        times[0]
        if all(t == times[0] for t in times)
        else torch.tensor(times).repeat_interleave(counts).to(device),
        tuple(map(Text.cat, zip(*(one.texts for one in asked), strict=True))),
        scales,
    )
