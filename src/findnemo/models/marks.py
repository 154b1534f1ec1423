"""What a single file says about its noise prediction: marks that trainers and user interfaces leave
in it or next to it.

There is no one standard, so all are read. They are tensors without values (`v_pred`, `ztsnr`:
ComfyUI, Forge, AUTOMATIC1111), metadata (ModelSpec, ComfyUI's `predict_key`, kohya's training
settings, the names of a diffusers scheduler), and a configuration of the original code of the same
name next to the file (`model.yaml` of `model.safetensors`: AUTOMATIC1111, Forge).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from findnemo.errors import InputError, ModelError, first_line
from findnemo.files.sizes import within_size
from findnemo.files.tensors import DTYPES, Entry, read_tensor
from findnemo.models.plain_yaml import at, read_yaml

# settings by their names in a diffusers scheduler
PREDICTION = "prediction_type"
ZERO_SNR = "rescale_betas_zero_snr"
YAML_BYTES = 1 << 20
READ = ("epsilon", "v_prediction")
PREDICTIONS = {
    "eps": "epsilon",
    "v": "v_prediction",
    "v_pred": "v_prediction",
    "vpred": "v_prediction",
    "velocity": "v_prediction",
}
BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
NOTHING = ("", "none", "null")
# metadata with the prediction, whether it is v, and whether the terminal SNR is zero
STATED = ("modelspec.prediction_type", "modelspec.predict_key", "prediction_type")
V_OR_NOT = ("ss_v_parameterization", "v_pred")
ZERO_OR_NOT = (
    "ss_zero_terminal_snr",
    ZERO_SNR,
    "zero_terminal_snr",
    "use_zero_terminal_snr",
    "enforce_zero_terminal_snr",
    "ztsnr",
    "zsnr",
)
ARCHITECTURES = {"stable-diffusion-v2-512": "epsilon", "stable-diffusion-v2-768-v": "v_prediction"}
SCALINGS = {"EpsScaling": "epsilon", "VScaling": "v_prediction"}
# the spread of this tensor distinguishes 2.x models, as in ComfyUI
LAST_NORM = "output_blocks.11.1.transformer_blocks.0.norm1.bias"
V_SPREAD = 0.09


class Mark(NamedTuple):
    """A statement that the setting `what` of the scheduler is `value`; `where`: its place."""

    where: str
    what: str
    value: Any


def marks_of(path: Path, tensors: Mapping[str, Entry], metadata: Mapping[str, str]) -> list[Mark]:
    """Everything that a file says about its noise prediction.

    Raises InputError for an unreadable configuration next to it.
    """
    beside = _of_configuration(path.with_suffix(".yaml"))
    return [*_of_tensors(tensors), *_of_metadata(metadata), *beside]


def agreed(path: Path, marks: list[Mark]) -> dict[str, Any]:
    """Setting -> value, if the marks of a file agree.

    Raises ModelError naming contradicting marks.
    """
    said: dict[str, Mark] = {}
    for mark in marks:
        if mark.what == PREDICTION and mark.value not in READ:
            raise ModelError(
                f"{mark.where} of {path} says that it predicts {mark.value!r:.40}: findnemo reads"
                f" {' and '.join(READ)} (if that is what it predicts, correct the mark)"
            )
        first = said.setdefault(mark.what, mark)
        if first.value != mark.value:
            raise ModelError(
                f"{path} contradicts itself: by {first.where} {mark.what} is {first.value}, by"
                f" {mark.where} it is {mark.value}; correct or remove the wrong one, or load the"
                " model from a diffusers directory"
            )
    return {what: mark.value for what, mark in said.items()}


def contradiction(marks: list[Mark], config: Mapping[str, Any]) -> tuple[Mark, Any] | None:
    """The first mark that a scheduler's configuration contradicts, with the configuration's value.

    A flow has no such settings.
    """
    if config.get(PREDICTION) is None:
        return None
    pairs = ((mark, config.get(mark.what, False)) for mark in marks)
    return next(
        ((mark, configured) for mark, configured in pairs if configured != mark.value), None
    )


def believing(scheduler: Any, said: dict[str, Any]) -> Any:
    """A scheduler with the settings that a file states: of the same class, or DDIM if that class
    does not support zero terminal SNR.

    With zero terminal SNR, sampling must begin at the last timestep (Lin et al. 2024, section 3.3),
    which is called trailing spacing.
    """
    from diffusers import DDIMScheduler

    config = {name: value for name, value in scheduler.config.items() if name[:1] != "_"} | said
    if not said.get(ZERO_SNR):
        return type(scheduler).from_config(config)
    config["timestep_spacing"] = "trailing"
    if ZERO_SNR in inspect.signature(type(scheduler).__init__).parameters:
        return type(scheduler).from_config(config)
    return DDIMScheduler.from_config({"clip_sample": False, "set_alpha_to_one": False} | config)


def values_look_like(path: Path, tensors: Mapping[str, Entry], unet: str) -> str | None:
    """The prediction that the values of a 2.x file suggest, if the file does not state one.

    Models that predict v have a wider last normalization.
    """
    entry = tensors.get(unet + LAST_NORM)
    if entry is None or entry.dtype not in DTYPES:
        return None
    spread = read_tensor(path, entry).float().std(unbiased=False)
    return "v_prediction" if spread > V_SPREAD else "epsilon"


def _of_tensors(tensors: Mapping[str, Entry]) -> Iterator[Mark]:
    if {"edm_mean", "edm_std"} <= set(tensors) or "edm_vpred.sigma_max" in tensors:
        name = "edm_mean" if "edm_mean" in tensors else "edm_vpred.sigma_max"
        yield Mark(f"the tensor {name}", PREDICTION, "edm")
    if "v_pred" in tensors:
        yield Mark("the tensor v_pred", PREDICTION, "v_prediction")
    if "ztsnr" in tensors:
        yield Mark("the tensor ztsnr", ZERO_SNR, True)


def _of_metadata(metadata: Mapping[str, str]) -> Iterator[Mark]:
    tidy = {name: value.strip().lower() for name, value in metadata.items()}
    for name in STATED:
        if tidy.get(name, "") not in NOTHING:
            yield Mark(f"the metadata {name}", PREDICTION, _prediction(tidy[name]))
    for name in V_OR_NOT:
        if tidy.get(name) in BOOLEANS:
            yield Mark(f"the metadata {name}", PREDICTION, READ[BOOLEANS[tidy[name]]])
    for name in ZERO_OR_NOT:
        if tidy.get(name) in BOOLEANS:
            yield Mark(f"the metadata {name}", ZERO_SNR, BOOLEANS[tidy[name]])
    if predicts := ARCHITECTURES.get(tidy.get("modelspec.architecture", "")):
        yield Mark("the metadata modelspec.architecture", PREDICTION, predicts)


def _of_configuration(path: Path) -> Iterator[Mark]:
    """Marks in the configuration of the original code next to a file; without a parameterization it
    means eps.
    """
    if not path.exists():
        return
    try:
        config = read_yaml(within_size(path, YAML_BYTES).read_text(encoding="utf-8"))
        params = at(config, "model", "params")
        denoiser = at(params, "denoiser_config", "params")
        scaling = at(denoiser, "scaling_config")
        discretization = at(denoiser, "discretization_config", "params")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error):.100}), and user interfaces take it "
            "for the configuration of the model file next to it: correct it, or move it away"
        ) from error
    where = f"{path.name} beside it"
    target = str(scaling.get("target", "")).rpartition(".")[2]
    if "parameterization" in params or ("unet_config" in params and not denoiser):
        yield Mark(where, PREDICTION, _prediction(str(params.get("parameterization", "eps"))))
    elif target:
        yield Mark(where, PREDICTION, SCALINGS.get(target, target))
    for place in (params, discretization):
        for name in ZERO_OR_NOT:
            if (value := str(place.get(name, "")).lower()) in BOOLEANS:
                yield Mark(where, ZERO_SNR, BOOLEANS[value])


def _prediction(value: str) -> str:
    tidy = value.strip().lower().replace("-", "_")
    return PREDICTIONS.get(tidy, tidy)
