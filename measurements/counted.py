"""A findnemo command of any version, and how many latents passed the denoiser in it:

`PYTHONPATH=SRC python measurements/counted.py FILE audit demo --out run` writes the number to FILE.

Counted as in `meter.py`, by class instead of by model, for a command opens its model itself.
"""

from __future__ import annotations

import atexit
import runpy
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from diffusers import (
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)

DENOISERS = (
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)


def counted(forward: Callable[..., Any], add: Callable[[int], None]) -> Callable[..., Any]:
    """A forward of a denoiser that adds its latents, and two for each through which a gradient is
    taken back.
    """

    @wraps(forward)
    def also(module: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(module, *args, **kwargs)
        latents = len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states")))
        add(latents)
        if output[0].requires_grad:
            output[0].register_hook(lambda gradient: add(2 * latents))
        return output

    return also


def main(file: Path) -> None:
    passed: list[int] = []
    for kind in DENOISERS:
        kind.forward = counted(kind.forward, passed.append)
    atexit.register(lambda: file.write_text(str(sum(passed)), encoding="utf-8"))
    runpy.run_module("findnemo", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    target = Path(sys.argv.pop(1))
    del sys.path[0]  # this folder
    main(target)
