"""Calibration: batched against one by one:

`python measurements/calibrate.py [--captions 2000] [--scored 40]`.

Statistics as the published code takes them (a U-Net pass a caption, to read activations that depend
on the text alone), one caption at a time without the U-Net, and in one batched pass. The threshold:
seconds a caption, and how many captions a precision takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from meter import machine

import findnemo
from findnemo.calibration import CHUNK, Moments, layer_activations, tau_interval


def timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


@torch.no_grad()
def through_the_unet(model: findnemo.Model, caption: str) -> None:
    seen: dict[str, torch.Tensor] = {}
    handles = [
        layer.register_forward_hook(
            lambda m, a, y, name=name: seen.update({name: y[0].abs().mean(0)})
        )
        for name, layer in model.value_layers.items()
    ]
    model.predict_noise(model.noise(caption, [0]), model.timesteps(50)[0], model.encode([caption]))
    for handle in handles:
        handle.remove()


def batched(model: findnemo.Model, captions: list[str], size: int) -> None:
    total: dict[str, Moments] = {}
    for k in range(0, len(captions), size):
        for name, rows in layer_activations(
            model, captions[k : k + size], model.encode(captions[k : k + size])
        ).items():
            part = Moments.of(rows)
            total[name] = total[name] + part if name in total else part


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device")
    parser.add_argument(
        "--prompts", help="captions (default: the demo's hold-out captions, repeated)"
    )
    parser.add_argument("--captions", type=int, default=2000)
    parser.add_argument("--scored", type=int, default=40)
    args = parser.parse_args()
    model = findnemo.load(args.model, args.device)
    given = (
        [p.text for p in findnemo.read_prompts(args.prompts)]
        if args.prompts
        else list(findnemo.demo.holdout())
    )
    captions = (given * (args.captions // len(given) + 1))[: args.captions]
    print(machine(model))
    few = captions[: max(20, args.captions // 20)]
    batched(model, few, CHUNK)  # warm-up
    unet = timed(lambda: [through_the_unet(model, c) for c in few]) / len(few)
    single = timed(lambda: batched(model, few, 1)) / len(few)
    many = timed(lambda: batched(model, captions, CHUNK)) / len(captions)
    print(
        f"statistics, a caption: U-Net pass {1e3 * unet:.2f} ms, one by one {1e3 * single:.2f} ms,"
        f" batched {1e3 * many:.3f} ms"
    )
    print(
        f"ratios: batched is {unet / many:.0f} times faster than with U-Net passes,"
        f" {single / many:.1f} times than one by one"
    )
    scored = captions[: args.scored]
    seconds = timed(lambda: findnemo.calibrate(model, scored, precision=None)) / len(scored)
    low, high = tau_interval(findnemo.calibrate(model, scored, precision=None).scores)
    print(
        f"threshold: {seconds:.3f} s a caption; interval of tau from {len(scored)} captions"
        f" {low:.3f} to {high:.3f}"
    )
    needed = len(scored) * ((high - low) / 0.002) ** 2
    print(f"an interval of .002 would take about {needed:,.0f} captions like these")


if __name__ == "__main__":
    main()
