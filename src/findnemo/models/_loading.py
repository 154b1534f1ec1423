"""`load`: a directory, a hub id, a live pipeline or "demo" becomes a `Model`. safetensors only, never remote code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from findnemo.errors import InputError, ModelError
from findnemo.models._base import Model
from findnemo.models.flux import Flux
from findnemo.models.pixart import PixArt
from findnemo.models.stable_diffusion import StableDiffusion
from findnemo.models.stable_diffusion_3 import StableDiffusion3

ADAPTERS: dict[str, type[Model]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "PixArtAlphaPipeline": PixArt,
    "PixArtSigmaPipeline": PixArt,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CONVERT = (
    "convert them in a place you trust: DiffusionPipeline.from_pretrained(DIR).save_pretrained(NEW_DIR, safe_serialization=True)"
)


def load(
    source: str | Path | Any,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    channels_last: bool = False,
) -> Model:
    """Load a model to audit.

    `source`: a diffusers directory, a hub id ("CompVis/stable-diffusion-v1-4"), "demo" for the shipped model, or a live
    pipeline, which is used as it is. `device`: by default CUDA where there is one, else the CPU. `dtype`: "float32",
    "float16" or "bfloat16"; by default float16 on CUDA, else float32. `channels_last`: keep the denoiser in the layout that
    convolutions are fastest in; results are the same but for rounding.

    Raises InputError (no such model, device or dtype), ModelError (unsupported or unsafe files), EditError (fused or compiled).

        >>> model = load("demo")
        >>> list(model.widths().values())
        [32, 32, 64, 64, 96, 96, 96]
    """
    if isinstance(source, Model):
        return source
    if not isinstance(source, (str, Path)):
        pipeline, name = source, f"live {type(source).__name__}"
        adapter = _adapter(type(pipeline).__name__)
        if device is not None or dtype is not None:
            pipeline.to(**{k: v for k, v in (("device", _device(device)), ("dtype", _dtype(dtype))) if v is not None})
        return _laid_out(adapter(pipeline, name), channels_last)
    place = _device(device) or _best_device()
    kind = _dtype(dtype) or (torch.float16 if place.type == "cuda" else torch.float32)
    path = _demo_directory() if str(source) == "demo" else source
    adapter = _adapter(_pipeline_class(path))
    pipeline = _from_pretrained(path, kind).to(place)
    pipeline.set_progress_bar_config(disable=True)
    return _laid_out(adapter(pipeline, str(source)), channels_last)


def _laid_out(model: Model, channels_last: bool) -> Model:
    if channels_last:
        model.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _device(device: str | torch.device | None) -> torch.device | None:
    try:
        place = torch.device(device) if device is not None else None
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is not known: use cpu, cuda, cuda:0 or mps") from error
    if place is not None and place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {str(place)!r} is not there: PyTorch finds no CUDA on this machine; use cpu")
    return place


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is not known: use one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _adapter(class_name: str) -> type[Model]:
    if class_name not in ADAPTERS:
        raise ModelError(
            f"{class_name} is not supported: findnemo works on {', '.join(sorted(ADAPTERS))} (text-to-image models with cross-attention)"
        )
    return ADAPTERS[class_name]


def _demo_directory() -> Path:
    from findnemo.demo import MODEL

    return MODEL


def _pipeline_class(source: str | Path) -> str:
    """The pipeline class that a model names, read before anything of it is loaded."""
    from diffusers import DiffusionPipeline

    path = Path(source)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise InputError(f"{path} holds no model_index.json: it is not a diffusers pipeline directory")
        _refuse_pickles(path)
    elif path.exists() or str(source).startswith((".", "/", "~")):
        raise InputError(f"{source} is not a model directory: give a diffusers directory, a hub id, or 'demo'")
    try:
        config = DiffusionPipeline.load_config(str(source))
    except (OSError, ValueError) as error:
        raise InputError(
            f"no model {str(source)!r}: no such directory, and the hub or its local cache gave none ({_first_line(error)})"
        ) from error
    if not isinstance(config, dict) or "_class_name" not in config:
        raise InputError(f"the model_index.json of {source} names no _class_name: it is not a diffusers pipeline")
    return str(config["_class_name"])


def _refuse_pickles(path: Path) -> None:
    """A component that has weights only as pickles is refused before loading."""
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        files = [f for f in folder.iterdir() if f.is_file()]
        pickles = sorted(f.name for f in files if f.suffix in PICKLES)
        if pickles and not any(f.suffix == ".safetensors" for f in files):
            raise ModelError(
                f"{folder.name}/{pickles[0]} is a pickle, and a pickle can run code: findnemo loads safetensors only; {CONVERT}"
            )


def _from_pretrained(source: str | Path, dtype: torch.dtype) -> Any:
    from diffusers import DiffusionPipeline

    options: dict[str, Any] = {"torch_dtype": dtype, "use_safetensors": True, "trust_remote_code": False}
    try:
        left_out = [name for name, kind in DiffusionPipeline.load_config(str(source)).items() if kind == [None, None]]
        return DiffusionPipeline.from_pretrained(str(source), **options, **dict.fromkeys(left_out))  # diffusers asks to be told
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        hint = f"; if it has pickled weights only, {CONVERT}" if "safetensors" in str(error) else ""
        raise ModelError(f"{source} cannot be loaded: {_first_line(error)}{hint}") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
