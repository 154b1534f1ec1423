"""Where a pass of the denoiser spends its time, and what other ways of calling it take:

`python measurements/pass_time.py [--model DIR] [--geometry sd14] [--traced] [--compiled]`.

Times are the least of some passes, of this process alone (`time.process_time` on a CPU), so that
other work on the machine adds little.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import geometry
import torch
from meter import wait
from rate import options
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import findnemo
from findnemo.edits import scaled
from findnemo.models import Model
from findnemo.passes.gradients import frozen

KINDS = {
    "convolutions": ("conv",),
    "matrix products": ("mm", "linear", "matmul"),
    "attention": ("scaled_dot_product", "softmax"),
    "norms": ("norm",),
    "copies": ("copy_", "cat", "clone", "upsample", "fill"),
    "elementwise": ("gelu", "silu", "mul", "add", "div", "sub", "exp", "sin", "cos"),
}


def kind_of(operation: str) -> str:
    """The kind of a PyTorch operation, by its name.

    >>> kind_of("aten::addmm"), kind_of("aten::native_group_norm"), kind_of("aten::view")
    ('matrix products', 'norms', 'views and dispatch')
    """
    kinds = (kind for kind, parts in KINDS.items() if any(part in operation for part in parts))
    return next(kinds, "views and dispatch")


def least(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of some calls, after two to warm up."""

    def once() -> float:
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        began = clock()
        call()
        wait(device)
        return clock() - began

    once()
    once()
    return min(once() for _ in range(repeats))


def by_kind(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Kind of operation -> milliseconds of a pass on the CPU, the least of each single operation
    in some passes, which are all made of the same ones.
    """
    passes = []
    for _ in range(repeats):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            call()
        passes.append([(event.name, event.self_cpu_time_total) for event in seen.events() or ()])
    spent = Counter[str]()
    for same in zip(*passes, strict=True):
        spent[kind_of(same[0][0])] += min(spent_on for _, spent_on in same) / 1e3
    return dict(spent)


class Traced(nn.Module):
    """A denoiser as a function of tensors, which a graph can be made of."""

    def __init__(self, model: Model, timestep: float):
        super().__init__()
        self.denoiser = model.denoiser
        self.timestep = timestep

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        output: Tensor = self.denoiser(
            latents, self.timestep, encoder_hidden_states=tokens, return_dict=False
        )[0]
        return output


def ways(model: Model, plain: Model, count: int, args: argparse.Namespace) -> dict[str, Any]:
    """Ways of making a pass of so many latents: name -> call."""
    latents = model.noise("a red fox", range(count))
    text = model.encode(["a red fox"]).expand(count)
    timestep = model.timesteps(50)[0]
    scales = {n: torch.ones(1, w, device=model.device) for n, w in model.widths("all").items()}

    def edited() -> None:
        with scaled(model, scales):
            model.output(latents, timestep, text)

    def graded() -> None:
        variables = {n: s.clone().requires_grad_() for n, s in scales.items()}
        with torch.enable_grad(), frozen(model.denoiser), scaled(model, variables):
            output = model.output(latents, timestep, text)
            torch.autograd.grad(output.float().square().sum(), list(variables.values()))

    calls: dict[str, Any] = {
        "as loaded": partial(plain.output, latents, timestep, text),
        "channels-last": partial(model.output, latents, timestep, text),
        "all value layers scaled": edited,
        "with gradients": graded,
    }
    tokens = text.tokens.contiguous()
    if args.traced:
        traced = torch.jit.trace(Traced(model, timestep).eval(), (latents, tokens))
        calls["traced and frozen"] = partial(torch.jit.freeze(traced), latents, tokens)
    if args.compiled:
        calls["compiled"] = partial(
            torch.compile(Traced(model, timestep).eval(), dynamic=False), latents, tokens
        )
    return calls


@torch.no_grad()
def main() -> None:
    parser = options(__doc__, [1, 4, 8, 32])
    parser.add_argument("--traced", action="store_true", help="as a graph of TorchScript too")
    parser.add_argument("--compiled", action="store_true", help="by torch.compile too (minutes)")
    args = parser.parse_args()
    plain, model = (
        findnemo.load(
            geometry.pipeline(args.geometry) if args.geometry else args.model,
            args.device,
            args.dtype,
        )
        for _ in range(2)
    )
    plain.denoiser.to(memory_format=torch.contiguous_format)
    model.denoiser.to(memory_format=torch.channels_last)
    for count in args.latents:
        calls = ways(model, plain, count, args)
        with model.steady(), plain.steady():
            for way, call in calls.items():
                seconds = least(call, model.device, args.repeats)
                print(f"{count:3d} latents, {way:24s} {1e3 * seconds:8.1f} ms", flush=True)
                if way == "channels-last":
                    whole = 1e3 * seconds
            if model.device.type != "cpu":
                continue
            parts = by_kind(calls["channels-last"], 2 * args.repeats)
        parts["Python and memory"] = max(0.0, whole - sum(parts.values()))
        total = sum(parts.values())
        for kind, spent in sorted(parts.items(), key=lambda part: -part[1]):
            print(f"      {kind:20s} {spent:7.2f} ms {spent / total:6.1%}")


if __name__ == "__main__":
    main()
