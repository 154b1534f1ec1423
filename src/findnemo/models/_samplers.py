"""Samplers: how finished images are denoised.

By default as the checkpoint has it; the paper's images are made with DDIM.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

from findnemo.errors import InputError, first_line
from findnemo.runtime.state import spare_scheduler

SAMPLERS = {
    "DDIM": "DDIMScheduler",
    "PNDM": "PNDMScheduler",
    "DPM++ 2M": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
    "Euler": "EulerDiscreteScheduler",
    "Euler ancestral": "EulerAncestralDiscreteScheduler",
    "Heun": "HeunDiscreteScheduler",
}

# what a sampler must know of the noise schedule
SCHEDULE = ("prediction_type", "trained_betas", "rescale_betas_zero_snr")

# what only a new sampler has
_FIXED: dict[str, dict[str, Any]] = {"PNDMScheduler": {"skip_prk_steps": True}}


def explicit(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's settings, those included that nobody set: diffusers would give another
    scheduler its own defaults for them.

    >>> explicit({"timestep_spacing": "linspace", "_use_default_values": ["timestep_spacing"]})
    {'timestep_spacing': 'linspace'}
    """
    return {name: value for name, value in config.items() if name != "_use_default_values"}


def sampler_name(name: str) -> str:
    """The name in SAMPLERS, whatever its case. Raises InputError for one that is not known.

    >>> sampler_name("ddim")
    'DDIM'
    """
    names = {one.casefold(): one for one in SAMPLERS}
    if name.casefold() not in names:
        raise InputError(f"sampler {name!r:.60} is not known: use one of {', '.join(SAMPLERS)}")
    return names[name.casefold()]


def fitting(scheduler: Any) -> dict[str, str]:
    """Name -> class of the samplers that can take the place of a pipeline's
    scheduler; "" stands for its own.

    Flow matching and distilled models (latent consistency) have none but their own: a general
    sampler would walk another path. Nor does a sampler fit that would drop a setting of the noise
    schedule, such as zero terminal SNR, without a word.
    """
    import diffusers

    samplers = {"": type(scheduler).__name__}
    if scheduler.config.get("original_inference_steps") is not None:
        return samplers
    needed = {setting for setting in SCHEDULE if scheduler.config.get(setting)}
    for name, class_name in SAMPLERS.items():
        kind = getattr(diffusers, class_name)
        if kind in scheduler.compatibles and needed <= {*signature(kind.__init__).parameters}:
            samplers[name] = kind.__name__
    return samplers


def sampler_class(samplers: Mapping[str, str], name: str | None) -> str:
    """The class of a sampler, of those that fit a model (`Model.samplers`); None is the
    checkpoint's own. Raises InputError.
    """
    wanted = "" if name is None else sampler_name(name)
    if wanted not in samplers:
        raise InputError(
            f"sampler {name!r} ({SAMPLERS[wanted]}) does not fit the model's {samplers['']}: leave"
            " it out, or use one of"
            f" {', '.join(n for n in samplers if n) or 'none, for it has only its own'}"
        )
    return samplers[wanted]


@contextmanager
def sampling(model: Any, name: str | None) -> Iterator[None]:
    """The pipeline with another sampler while the context lasts, made from the configuration of its
    own; None leaves it as it is.

    What only the new sampler has is set as latent models need it: nothing is clipped to [-1, 1]
    that the checkpoint does not clip, and PNDM begins without Runge-Kutta steps. Raises InputError
    for a sampler that is not known or does not fit (flow matching, distilled models).
    """
    import diffusers

    if name is None:
        yield
        return
    kind = getattr(diffusers, sampler_class(model.samplers, name))
    own = explicit(model.pipeline.scheduler.config)
    with spare_scheduler(model.pipeline):
        config = {"clip_sample": False, **own, **_FIXED.get(kind.__name__, {})}
        model.pipeline.scheduler = kind.from_config(config)
        yield


def check_steps(scheduler: Any, steps: int) -> None:
    """Raises InputError for so many denoising steps as a sampler cannot make: a distilled one has
    few, Runge-Kutta needs some to begin with.

    Flows make any number.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        return
    try:
        copy.deepcopy(scheduler).set_timesteps(steps)
    except ValueError as error:
        raise InputError(
            f"a {type(scheduler).__name__} cannot make images in {steps} steps"
            f" ({first_line(error):.200})"
        ) from error
