"""How far the U-Net is from the machine's measured matrix rate:

`python measurements/rate.py [--model DIR] [--geometry sd14]`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import geometry
import torch
from meter import wait
from torch.utils.flop_counter import FlopCounterMode

import findnemo
from findnemo.passes.deltas import Probe


def timed(call: Callable[[], object], device: torch.device, repeats: int = 9) -> float:
    """Median seconds of a call, after one to warm up."""

    def once() -> float:
        began = time.perf_counter()
        call()
        wait(device)
        return time.perf_counter() - began

    once()
    return median(once() for _ in range(repeats))


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a square matrix product."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / timed(lambda: a @ a, device)


def options(description: str | None, latents: list[int]) -> argparse.ArgumentParser:
    """What a program that times passes is asked: of which model, by how many latents, how often."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--geometry", choices=geometry.GEOMETRIES)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--latents", type=int, nargs="+", default=latents)
    parser.add_argument("--repeats", type=int, default=9)
    return parser


@torch.no_grad()
def main() -> None:
    args = options(__doc__, [1, 2, 10, 40]).parse_args()
    model = findnemo.load(
        geometry.pipeline(args.geometry) if args.geometry else args.model, args.device, args.dtype
    )
    peak = matrix_rate(model.device, model.dtype)
    one = Probe(model, "a red fox", samples=[0])
    with FlopCounterMode(display=False) as counter:
        one.deltas()
    flop = counter.get_total_flops()
    print(
        f"{model.device}, {model.dtype}: {flop / 1e9:.3f} GFLOP a latent; matrix rate"
        f" {peak / 1e9:.0f} GFLOP/s"
    )
    for count in args.latents:
        probe = Probe(model, "a red fox", samples=range(count))
        seconds = timed(probe.deltas, model.device, args.repeats)
        print(
            f"{count:3d} latents: {1e3 * seconds:8.1f} ms a pass, {1e3 * seconds / count:7.2f} ms"
            f" each, {count * flop / seconds / 1e9:7.0f} GFLOP/s,"
            f" {count * flop / seconds / peak:.0%} of the matrix rate"
        )


if __name__ == "__main__":
    main()
