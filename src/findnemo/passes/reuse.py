"""Reuse within one prompt: for fixed latents and text, the results of a U-Net before the first
edited layer never change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from findnemo.models import Model
from findnemo.runtime.state import replacing


@dataclass
class Reuse:
    """The results of one unedited pass of a denoiser, for reuse in later passes over the same
    latents and text.

    `outputs`: part -> its output for all samples. `after`: part -> number of value layers that ran
    before it ended; its output may be reused if the first edited layer comes later. `text`:
    projection of the prompt -> its output for one sample, equal for all.

        reuse = Reuse()
        with reuse.record(model):
            unblocked = model.predict_noise(latents, t, text)
        with reuse.replay(model, first=4, keep=[0, 2]):  # the first edited value layer is the fifth
            blocked = model.predict_noise(latents[[0, 2]], t, text)
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    text: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def record(self, model: Model) -> Iterator[None]:
        """Keep the outputs of the model's parts in the next pass."""
        done: list[str] = []

        def part(name: str, module: nn.Module, args: Any, output: Any) -> None:
            self.outputs[name] = output
            self.after[name] = len(done)

        def projection(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
            self.text[name] = output[:1]

        with ExitStack() as stack:
            for name, layer in model.layers_of("all").items():
                passed = layer.register_forward_hook(lambda *_, name=name: done.append(name))
                stack.enter_context(passed)
            for keep, modules in ((part, model.parts), (projection, model.text_projections)):
                for name, module in modules.items():
                    hook = module.register_forward_hook(partial(keep, name), prepend=True)
                    stack.enter_context(hook)
            yield

    @contextmanager
    def replay(self, model: Model, first: int, keep: Sequence[int]) -> Iterator[None]:
        """Return kept outputs before value layer number `first`, for the samples `keep`, instead of
        computing them.

        Edits are hooks on a layer's output, so a reused projection is still edited.
        """
        given = {
            n: _rows(self.outputs[n], keep) for n, count in self.after.items() if count <= first
        }
        given |= {n: out.expand(len(keep), -1, -1) for n, out in self.text.items()}
        with ExitStack() as stack:
            for name, output in given.items():
                module = model.denoiser.get_submodule(name)
                stack.enter_context(replacing(module, "forward", _returning(output)))
            yield


def _rows(output: Any, keep: Sequence[int]) -> Any:
    if isinstance(output, Tensor):
        return output[list(keep)]
    return type(output)(_rows(part, keep) for part in output)


def _returning(output: Any) -> Callable[..., Any]:
    """A module's `forward` that returns a known output; the module's hooks still run."""
    return lambda *args, **kwargs: output
