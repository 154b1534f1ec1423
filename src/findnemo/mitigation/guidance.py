"""Guidance that begins late, outside the attraction basin (Jain et al., CVPR 2025, Classifier-free
guidance inside the attraction basin may cause memorization).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from findnemo.mitigation._calls import Halves, in_noise, norms, predicting, timestep_of
from findnemo.mitigation._case import Case, at_least
from findnemo.models import Model
from findnemo.passes.conditioning import Call, following

TAU = 500.0  # of 1000 training timesteps
TAU_OPPOSITE = 650.0
OPPOSITE = 2.0


@contextmanager
def delayed_guidance(
    model: Model, case: Case, tau: float | None = TAU, opposite: float = 0.0
) -> Iterator[None]:
    """Step without the prompt until a transition point, and with the pipeline's own guidance after
    it.

    Before it, eps = eps_empty - `opposite` d, with d = eps_y - eps_empty. With 0 the prompt is not
    used; more is opposite guidance (section 4.3; published: 2 with tau 650). `tau`: the static
    transition point: guidance is off at timesteps above it, in thousandths of the training
    schedule, whatever the number of steps. None: the dynamic point, the step after the first local
    minimum of ||d||_2, for each image alone. Norms are of noise, even if the network predicts v.
    The released code begins the dynamic variant with guidance of scale 1, the prompt alone; here it
    begins without the prompt, as in the paper. An image without a minimum stays without the prompt
    to its end, and a warning says so. The same holds for a schedule with all steps, or none, above
    tau. Raises ModelError and InputError if there is no guidance to change, InputError for negative
    numbers.

    >>> import findnemo
    >>> model, prompt = findnemo.load("demo"), "Brantwood Roasters first cup, a large brown ring"
    >>> with delayed_guidance(model, Case(prompt), tau=650, opposite=2):
    ...     image = model.pipeline(prompt, num_inference_steps=3, guidance_scale=2.0).images[0]
    """
    at_least(0, opposite=opposite, **({} if tau is None else {"tau": tau}))
    with following(model) as call, delayed(model, call, tau, opposite):
        yield


def delayed(
    model: Model, call: Call, tau: float | None, opposite: float = 0.0
) -> AbstractContextManager[None]:
    """`delayed_guidance` in the pipeline calls that `call` follows."""
    waiting = _dynamic(model, call) if tau is None else _static(model, call, tau)

    def change(halves: Halves, args: tuple, kwargs: dict[str, Any]) -> Halves:
        without, given = halves
        wait = waiting(given - without)[:, None, None, None]
        early = without - opposite * (given - without)
        return torch.where(wait, early, without), torch.where(wait, early, given)

    return predicting(model, call, change)


def _static(model: Model, call: Call, tau: float) -> Any:
    def waiting(d: Tensor) -> Tensor:
        unit = 1000 / model.pipeline.scheduler.config.num_train_timesteps
        above = model.pipeline.scheduler.timesteps * unit > tau
        if call.step == 0 and (above.all() or not above.any()):
            model.tell(
                f"{'all' if above.all() else 'none'} of the {len(above)} timesteps lie above"
                f" {tau:g}, so guidance is {'never' if above.all() else 'always'} on: use more"
                " steps, or another tau"
            )
        return above[call.step].to(d.device).expand(len(d))

    return waiting


def _dynamic(model: Model, call: Call) -> Any:
    magnitudes: list[Tensor] = []
    passed = torch.empty(0)

    def waiting(d: Tensor) -> Tensor:
        nonlocal passed
        if call.step == 0:
            magnitudes.clear()
            passed = torch.zeros(len(d), dtype=torch.bool, device=d.device)
        magnitudes.append(norms(in_noise(model, d, timestep_of(model, call))))
        if len(magnitudes) > 2:
            before, least, now = magnitudes[-3:]
            passed = passed | (before > least) & (least < now)
        if call.step + 1 == len(model.pipeline.scheduler.timesteps) and not passed.all():
            model.tell(
                f"{int((~passed).sum())} of {len(passed)} images reached no transition point: they"
                " were made without the prompt; use a static one (tau)"
            )
        return ~passed

    return waiting
