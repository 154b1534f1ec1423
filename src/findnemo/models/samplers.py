"""Samplers: how finished images are denoised.

The default is the checkpoint's own; the paper's images are made with DDIM.
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

# settings of the noise schedule that a sampler must support
SCHEDULE = ("prediction_type", "trained_betas", "rescale_betas_zero_snr")


def explicit(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's settings, including defaults: diffusers would give another scheduler its own
    defaults for them.

    >>> explicit({"timestep_spacing": "linspace", "_use_default_values": ["timestep_spacing"]})
    {'timestep_spacing': 'linspace'}
    """
    return {name: value for name, value in config.items() if name != "_use_default_values"}


def sampler_name(name: str) -> str:
    """The name in SAMPLERS, in any case. Raises InputError for an unknown one.

    >>> sampler_name("ddim")
    'DDIM'
    """
    names = {one.casefold(): one for one in SAMPLERS}
    if name.casefold() not in names:
        raise InputError(f"sampler {name!r:.60} is not known: use one of {', '.join(SAMPLERS)}")
    return names[name.casefold()]


def fitting(scheduler: Any) -> dict[str, str]:
    """Name -> class of the samplers that can replace a pipeline's scheduler; "" is its own.

    Flow matching and distilled models (latent consistency) have only their own: a general sampler
    would follow another path. A sampler that would silently drop a setting of the noise schedule,
    such as zero terminal SNR, does not fit either.
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
    """The class of a sampler among those that fit a model (`Model.samplers`); None is the
    checkpoint's own.

    Raises InputError for one that is unknown or does not fit.
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
    own; None changes nothing.

    Settings that only the new sampler has are set as latent models need them: nothing is clipped to
    [-1, 1] unless the checkpoint clips it, and PNDM begins without Runge-Kutta steps. Raises
    InputError for a sampler that is unknown or does not fit (flow matching, distilled models).
    """
    import diffusers

    if name is None:
        yield
        return
    kind = getattr(diffusers, sampler_class(model.samplers, name))
    own = explicit(model.pipeline.scheduler.config)
    with spare_scheduler(model.pipeline):
        config = {"clip_sample": False, **own}
        if kind is diffusers.PNDMScheduler:
            config["skip_prk_steps"] = True
        model.pipeline.scheduler = kind.from_config(config)
        yield


def check_steps(scheduler: Any, steps: int) -> None:
    """Raises InputError for a number of denoising steps that a sampler cannot make: a distilled one
    has few, Runge-Kutta needs some to begin.

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
