"""Open one `.safetensors` file with a whole model in the original layout, as user interfaces use
it, as a pipeline.

Such a file holds weights only. All else (configurations, tokenizers, scheduler) comes from a
diffusers directory or hub id: the given one, or the usual one for the family that the keys of the
file show.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from findnemo.errors import InputError, ModelError, first_line
from findnemo.files.sizes import JSON_BYTES, within_size
from findnemo.files.tensors import Entry, read_header
from findnemo.models.marks import (
    PREDICTION,
    agreed,
    believing,
    contradiction,
    marks_of,
    values_look_like,
)
from findnemo.models.modules import networks_of
from findnemo.runtime.notices import notice

# libraries from which classes of parts may come
HOMES = (None, "diffusers", "transformers", "stable_diffusion", "deepfloyd_if")
# classes that load other classes named in a file
FOREIGN = re.compile(r"Auto[A-Z].*|.*Pipeline.*|Modular.*")
DEMO = Path(__file__).parents[1] / "demo" / "assets" / "model"  # what load("demo") loads
# source -> its difference from the demo model
SHIPPED = {"demo": None, "demo-natural": DEMO.parent / "natural" / "difference.safetensors"}
GIVE = "--config (in Python: config=)"
UNET = "model.diffusion_model."  # prefix of keys of the U-Net
# its convolutions
FIRST = "input_blocks.0.0.weight"
LAST = "out.2.weight"


@dataclass(frozen=True)
class Kind:
    """A family of checkpoints: its pipeline, the hub id of its usual configuration, and the prefix
    of keys of its text encoder.
    """

    pipeline: str
    hub: str
    text: str


KINDS = {
    "Stable Diffusion 1.x": Kind(
        "StableDiffusionPipeline",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "cond_stage_model.transformer.",
    ),
    "Stable Diffusion 2.x": Kind(
        "StableDiffusionPipeline", "stabilityai/stable-diffusion-2-1", "cond_stage_model.model."
    ),
    "SDXL": Kind(
        "StableDiffusionXLPipeline",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "conditioner.embedders.1.model.",
    ),
}
OTHERS = (  # key -> what the file is instead of a checkpoint, and the way out
    (
        r"lora|\.hada_w|\.lokr_w",
        "a LoRA, not a checkpoint: load the pipeline it was made for, load_lora_weights,"
        " fuse_lora, and give that",
    ),
    (r"^control_model\.|^controlnet_", "a ControlNet, not a checkpoint"),
    (
        r"^(down_blocks|mid_block|up_blocks|transformer_blocks|single_transformer_blocks|text_model|encoder|decoder|shared)\.",
        "one part of a diffusers model: give the directory in which its model_index.json lies",
    ),
)


def kind_of(path: Path, tensors: Mapping[str, Entry]) -> str | None:
    """The name in KINDS of a checkpoint, by its keys; None for another architecture.

    Raises InputError for a file that is no checkpoint, ModelError for inpainting and editing
    variants.
    """
    if UNET + FIRST not in tensors:
        for pattern, what in OTHERS:
            if any(re.search(pattern, key) for key in tensors):
                raise InputError(f"{path} is {what}")
        return None
    takes = tensors[UNET + FIRST].shape[1]
    gives = tensors[UNET + LAST].shape[0]
    if takes != gives:
        raise ModelError(
            f"the U-Net of {path} takes {takes} channels and returns {gives}: inpainting and"
            " editing variants are not supported"
        )
    beginnings = ((name, kind.text) for name, kind in KINDS.items())
    return next((n for n, text in beginnings if any(k.startswith(text) for k in tensors)), None)


def configuration(path: Path, config: str | None) -> Path:
    """The directory with everything but the weights of a file: `config`, a directory, a hub id or a
    shipped model, or the usual one.

    Raises InputError if there is none, or if it is of another architecture.
    """
    tensors, _ = read_header(path)
    name = kind_of(path, tensors)
    kind = KINDS[name] if name else None
    if config is not None:
        folder = _folder(str(DEMO) if config in SHIPPED else config, "no configuration")
    elif kind is not None:
        folder = _folder(kind.hub, f"{path.name} is {name}, whose configuration usually comes from")
    else:
        raise InputError(
            f"{path} is not a complete {', '.join(KINDS)} checkpoint by its keys: give"
            f" {GIVE}, a diffusers directory or hub id of the same architecture"
        )
    pipeline = pipeline_class(folder)
    if kind is not None and pipeline != kind.pipeline:
        raise InputError(
            f"{path.name} is {name}, and the configuration {config} is of a {pipeline}: give one of"
            f" a {kind.pipeline}"
        )
    return folder


def pipeline_class(folder: Path) -> str:
    """The pipeline class that a configuration names.

    Raises InputError if it names code outside diffusers and transformers.
    """
    return str(_index(folder)["_class_name"])


def _index(folder: Path) -> dict[str, Any]:
    lacks = f"the configuration {folder} has no model_index.json that names a pipeline"
    file = folder / "model_index.json"
    if not file.is_file():
        raise InputError(lacks)
    try:
        index: dict[str, Any] = json.loads(
            within_size(file, JSON_BYTES).read_text(encoding="utf-8")
        )
        str(index["_class_name"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{lacks} ({error!s:.200})") from error
    refuse_code(index, f"the configuration {folder}")
    return index


def refuse_code(index: Mapping[str, Any], what: str) -> None:
    """Raises InputError for parts of a pipeline whose classes are outside diffusers and
    transformers, or load other classes.
    """
    for part, home in index.items():
        if part.startswith("_") or not isinstance(home, list):
            continue
        if len(home) != 2 or not all(isinstance(name, str | None) for name in home):
            raise InputError(f"{what} says {home!r:.100} of its {part}: give a library and a class")
        if home[0] not in HOMES:
            raise InputError(
                f"{what} takes its {part} from {home[0]}: findnemo runs no code of others"
            )
        if FOREIGN.fullmatch(home[1] or ""):
            raise InputError(
                f"{what} has a {home[1]} as its {part}, which would look for other classes: name"
                " the class itself"
            )


def _folder(config: str, what: str) -> Path:
    """The directory of a configuration, from the hub or its local cache if it is a hub id; weights
    are not fetched.

    `what`: the beginning of a message about a hub id that gave nothing.
    """
    if Path(config).is_dir():
        return Path(config)
    if Path(config).exists() or config.startswith((".", "/", "~")):
        raise InputError(
            f"the configuration {config} is not a directory: give a diffusers directory or a hub id"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    files = ["*.json", "*/*.json", "*.txt", "*/*.txt"]
    try:
        return Path(snapshot_download(config, allow_patterns=files))
    except (OSError, HFValidationError) as error:
        raise InputError(
            f"{what} {config}: neither the hub nor its local cache gave it; give {GIVE}, a"
            " diffusers directory of the same architecture (its JSON and tokenizer files are"
            " enough; for a copy of the demo model: demo)"
        ) from error


def from_single_file(path: Path, folder: Path, dtype: torch.dtype, usual: bool = False) -> Any:
    """A pipeline with the weights of a file and the configuration in `folder`. Raises ModelError.

    `usual`: nobody requested the configuration, so marks of the file take precedence.
    """
    import diffusers

    pipeline_type = getattr(diffusers, pipeline_class(folder))
    if not hasattr(pipeline_type, "from_single_file"):
        raise ModelError(
            f"{pipeline_type.__name__} cannot be loaded from a single file: give a diffusers"
            " directory"
        )
    takes = inspect.signature(pipeline_type.__init__).parameters
    options = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    options["scheduler"] = _predicting(path, folder, _scheduler(path, folder), usual)
    lacks = (
        f"{path} lacks weights that the configuration {folder} asks for: give that of the model"
        " that the file was made from"
    )
    try:
        pipeline = pipeline_type.from_single_file(
            str(path),
            config=str(folder),
            local_files_only=True,
            torch_dtype=dtype,
            **{name: value for name, value in options.items() if name in takes},
        )
    except NotImplementedError as error:  # a weight without a value was moved
        raise ModelError(lacks) from error
    except Exception as error:  # libraries raise anything on configurations made to break them
        raise ModelError(
            f"{path} cannot be loaded with the configuration {folder}: {first_line(error)}"
        ) from error
    networks = networks_of(pipeline).values()
    if any(value.is_meta for network in networks for value in network.state_dict().values()):
        raise ModelError(lacks)
    return pipeline


def _scheduler(path: Path, folder: Path) -> Any:
    """The scheduler that a configuration names."""
    import diffusers

    try:
        kind = getattr(diffusers, _index(folder)["scheduler"][1])
        return kind.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    except Exception as error:  # libraries raise anything on configurations made to break them
        raise ModelError(
            f"{path} cannot be loaded with the configuration {folder}: {first_line(error)}"
        ) from error


def _predicting(path: Path, folder: Path, scheduler: Any, usual: bool) -> Any:
    """The scheduler of a file's configuration with the file's own statements; if nobody requested
    the configuration (`usual`), the file is believed.

    Raises ModelError if a requested configuration contradicts the file. Raises it too if a 2.x file
    states nothing, and its values suggest another prediction than its usual configuration.
    """
    tensors, metadata = read_header(path)
    marks = marks_of(path, tensors, metadata)
    said = agreed(path, marks)
    contradicted = contradiction(marks, scheduler.config)
    if usual and PREDICTION not in said:
        _refuse_other_values(path, tensors, scheduler)
    if contradicted is None:
        return scheduler
    mark, configured = contradicted
    if not usual:
        name = "predicts" if mark.what == PREDICTION else f"has {mark.what}"
        raise ModelError(
            f"{mark.where} of {path} says that it {name} {mark.value}, the configuration says"
            f" {configured} ({folder}): leave {GIVE} out to believe the file, or give one whose"
            f" scheduler says {mark.value}; if the file is wrong, load it as a diffusers directory"
        )
    settings = ", ".join(f"{what} is {value}" for what, value in said.items())
    places = ", ".join(mark.where for mark in marks)
    notice(f"{path} says that {settings} ({places}): believed, against the usual configuration")
    return believing(scheduler, said)


def _refuse_other_values(path: Path, tensors: Mapping[str, Entry], scheduler: Any) -> None:
    if kind_of(path, tensors) != "Stable Diffusion 2.x":
        return
    looks = values_look_like(path, tensors, UNET)
    configured = scheduler.config.get(PREDICTION)
    if looks is not None and looks != configured:
        raise ModelError(
            f"{path} does not say whether it predicts noise or v, and its values look like {looks},"
            f" not {configured} as its usual configuration says: give {GIVE},"
            " stabilityai/stable-diffusion-2-1-base for epsilon, stabilityai/stable-diffusion-2-1"
            " for v"
        )
