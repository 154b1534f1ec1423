"""`load`: turn a directory, a hub id, a file, a live pipeline or "demo" into a `Model`.

It reads safetensors only, and never runs remote code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from findnemo.errors import FindnemoError, InputError, ModelError, first_line
from findnemo.models._base import Model
from findnemo.models._complete import complete
from findnemo.models._fit import check_fit
from findnemo.models._parts import PICKLES, check_index, check_parts, left_out
from findnemo.models._reading import mend_limits
from findnemo.models._rehearsal import rehearse
from findnemo.models.deepfloyd import DeepFloyd
from findnemo.models.difference import add_difference
from findnemo.models.embedding import add_embeddings, read_embeddings
from findnemo.models.flux import Flux
from findnemo.models.lora import of_strength, read_lora
from findnemo.models.modules import SPARE
from findnemo.models.pixart import PixArt
from findnemo.models.single_file import (
    DEMO,
    SHIPPED,
    configuration,
    from_single_file,
    pipeline_class,
    refuse_code,
)
from findnemo.models.stable_diffusion import StableDiffusion
from findnemo.models.stable_diffusion_3 import StableDiffusion3
from findnemo.models.stable_diffusion_xl import StableDiffusionXL
from findnemo.runtime.notices import notice
from findnemo.runtime.plugins import Methods
from findnemo.runtime.quiet import quiet_loading


def _is_adapter(name: str, given: Any) -> type[Model]:
    if not (isinstance(given, type) and issubclass(given, Model)):
        raise TypeError(f"{given!r:.60} is not a subclass of findnemo.models.Model")
    return given


# class of a pipeline -> its adapter
_OWN: dict[str, type[Model]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "LatentConsistencyModelPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "IFPipeline": DeepFloyd,
    "PixArtAlphaPipeline": PixArt,
    "PixArtSigmaPipeline": PixArt,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}
ADAPTERS = Methods("adapter", "adapters", _OWN, _is_adapter)
# the variant in a file name: fp16 in model.fp16.safetensors
VARIANT = re.compile(r"[\w-]+\.([\w-]+?)(?:-\d+-of-\d+)?\.safetensors")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FILES = (".safetensors", *PICKLES)
GIVE = "give a diffusers directory, a .safetensors file, a hub id, or 'demo'"
CONVERT = (
    "convert them in a place you trust:"
    " DiffusionPipeline.from_pretrained(DIR).save_pretrained(NEW_DIR, safe_serialization=True)"
)
LOADED_HERE = {"a hub id", "a directory", "a single file", "the demo model"}
# option -> its meaning, and the sources to which it applies; for others it would do nothing
OPTIONS = {
    "revision": ("names a branch, tag or commit of a hub id", {"a hub id"}),
    "variant": (
        "names weight files of a hub id or directory, such as fp16",
        {"a hub id", "a directory"},
    ),
    "config": ("gives a single .safetensors file what it lacks", {"a single file"}),
    "lora": ("changes a model that is loaded here", LOADED_HERE),
    "embedding": ("adds tokens to a model that is loaded here", LOADED_HERE),
}


def load(
    source: str | Path | Any,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    variant: str | None = None,
    config: str | Path | None = None,
    lora: str | Path | None = None,
    embedding: str | Path | None = None,
) -> Model:
    """Load a model to audit.

    `source` is a diffusers directory, a hub id ("CompVis/stable-diffusion-v1-4"), a single
    `.safetensors` file in the original layout (Stable Diffusion 1.x, 2.x, SDXL), "demo" or
    "demo-natural" for the shipped models, or a live pipeline, which is used unchanged. `device`: by
    default CUDA where there is one, else the CPU. `dtype`: "float32", "float16" or "bfloat16"; by
    default float16 on CUDA, else float32. The
    denoiser of a model that is loaded here is in the layout in which convolutions are fastest,
    channels last; results are the same except for rounding.

    `revision`: branch, tag or commit of a hub id. `variant`: weight files of that name ("fp16"), of
    a hub id or directory. Without a network, a hub id is looked up in the local cache.

    `config`: a diffusers directory, a hub id or "demo", with all that a single file lacks (JSON and
    tokenizer files). By default it is the usual one for the keys of the file, from the hub or its cache. What
    the file says about its noise prediction (`v_pred`, `ztsnr`, ModelSpec, a `.yaml` next to it)
    takes precedence over the usual configuration.

    `lora`: a LoRA to merge into the weights. It is a .safetensors file of diffusers, peft or kohya,
    or a directory with one; "FILE:0.8" merges it at that strength. `embedding`: tokens of a textual
    inversion, a .safetensors file of diffusers or AUTOMATIC1111; "FILE:TOKEN" names the token that
    captions use. Separate several by commas.

    Raises InputError (no such model, device or dtype; an option that would do nothing for this
    source), ModelError (unsupported or unsafe files; a file that contradicts itself or `config`),
    EditError (fused or compiled).

        >>> model = load("demo")
        >>> list(model.widths().values())
        [32, 32, 64, 64, 96, 96, 96]
    """
    options = {
        "revision": revision,
        "variant": variant,
        "config": config,
        "lora": lora,
        "embedding": embedding,
    }
    asked = {name: str(value) for name, value in options.items() if value is not None}
    _refuse_misplaced(source, asked)
    if isinstance(source, Model):
        return source
    if isinstance(source, (str, Path)):
        with quiet_loading():
            return _opened(source, asked, _device(device), _dtype(dtype))
    return _live(source, _device(device), _dtype(dtype))


def _live(pipeline: Any, device: torch.device | None, dtype: torch.dtype | None) -> Model:
    adapter = _adapter(*(kind.__name__ for kind in type(pipeline).__mro__))
    check_parts(adapter, pipeline)
    if device is not None or dtype is not None:
        pipeline.to(device=device, dtype=dtype)
    return _checked(adapter, pipeline, f"live {type(pipeline).__name__}")


def _opened(
    source: str | Path,
    asked: dict[str, str],
    device: torch.device | None,
    dtype: torch.dtype | None,
) -> Model:
    from safetensors.torch import load_file

    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    path = DEMO if str(source) in SHIPPED else source
    embeddings = read_embeddings(asked["embedding"]) if "embedding" in asked else []
    if Path(path).is_file():
        file = _checked_file(Path(path))
        folder = configuration(file, asked.get("config"))
        adapter = _adapter(pipeline_class(folder))
        pipeline = from_single_file(file, folder, dtype, usual="config" not in asked)
    else:
        files = asked.get("revision"), asked.get("variant")
        adapter = _adapter(_pipeline_class(path, *files))
        pipeline = from_pretrained(adapter, path, dtype, *files)
    check_parts(adapter, pipeline)
    if (change := SHIPPED.get(str(source))) is not None:
        add_difference(pipeline.unet, load_file(change))
    add_embeddings(embeddings, pipeline)
    if lora := asked.get("lora"):
        named, scale = of_strength(lora)
        read_lora(named, pipeline).merge(pipeline, scale)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    model = _checked(adapter, pipeline, str(source))
    model.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.options = asked
    return model


def _refuse_misplaced(source: Any, asked: dict[str, str]) -> None:
    """Raises InputError for options that do not apply to a source."""
    what = _what(source)
    for name, value in asked.items():
        meaning, sources = OPTIONS[name]
        if what not in sources:
            this = source if isinstance(source, (str, Path)) else "this"
            raise InputError(f"{name} {value!r} {meaning}, and {this} is {what}: leave it out")
    if lora := asked.get("lora"):
        of_strength(lora)
    if (variant := asked.get("variant")) and not re.fullmatch(r"[\w.-]+", variant):
        raise InputError(
            f"variant {variant!r} is not a name of weight files: give one such as fp16"
        )


def _what(source: Any) -> str:
    if not isinstance(source, (str, Path)):
        return "a live pipeline"
    if str(source) in SHIPPED:
        return "the demo model"
    path = Path(source)
    if path.is_dir():
        return "a directory"
    return "a single file" if path.exists() or path.suffix in FILES else "a hub id"


def _checked_file(path: Path) -> Path:
    """A file that may be opened.

    Raises ModelError for pickles, InputError for others that are not safetensors.
    """
    if path.suffix.lower() in PICKLES:
        raise ModelError(
            f"{path} is a pickle, and a pickle can run code: findnemo loads safetensors only; take"
            " the model's .safetensors file, or convert it in a place you trust"
        )
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is not a model directory, nor a .safetensors file: {GIVE}")
    return path


def _checked(adapter: type[Model], pipeline: Any, source: str) -> Model:
    """A model whose parts fit together, and which has answered everything once.

    Raises ModelError, EditError.
    """
    try:
        model = adapter(pipeline, source)
        mend_limits(model)
        check_fit(model)
        rehearse(model)
    except FindnemoError:
        raise
    except Exception as error:  # parts of another kind raise anything
        raise ModelError(
            f"the parts of {source} are not those of a {type(pipeline).__name__}"
            f" ({type(error).__name__}: {first_line(error)}): give the pipeline as it was published"
        ) from error
    return model


def _device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is not known: use cpu, cuda, cuda:0 or mps") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device {str(place)!r} is not there: PyTorch finds no CUDA on this machine; use cpu"
        )
    try:
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {str(place)!r} is not there ({first_line(error):.120}): use cpu, or one that"
            " PyTorch finds"
        ) from error
    return place


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is not known: use one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _adapter(class_name: str, *bases: str) -> type[Model]:
    """The adapter of a pipeline class; `bases`: base classes, known for live pipelines.

    Raises ModelError, with the way to a supported class, if any.
    """
    if class_name in ADAPTERS:
        return ADAPTERS.require(class_name)
    for base in bases:
        if base in ADAPTERS:
            raise ModelError(
                f"{class_name} is not supported: what it changes of {base} is not known to"
                f" findnemo; give {base}.from_pipe(pipeline), which has the same parts"
            )
    raise ModelError(
        f"{class_name} is not supported: findnemo works on {', '.join(sorted(ADAPTERS))}"
        " (text-to-image models with cross-attention)"
    )


def _pipeline_class(source: str | Path, revision: str | None, variant: str | None) -> str:
    """The pipeline class that a model names, read before anything of it is loaded."""
    from diffusers import DiffusionPipeline

    path = Path(source)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise InputError(
                f"{path} holds no model_index.json: it is not a diffusers pipeline directory"
            )
        _refuse_pickles(path)
        _check_variant(path, variant)
    elif str(source).startswith((".", "/", "~")) or path.suffix in FILES:
        raise InputError(f"{source} is not a model directory, nor a file: {GIVE}")
    at = "" if revision is None else f" at revision {revision!r}"
    try:
        config = DiffusionPipeline.load_config(str(source), revision=revision)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"no model {str(source)!r}{at}: no such directory, and the hub or its local cache gave"
            f" none ({first_line(error)})"
        ) from error
    if not isinstance(config, dict) or "_class_name" not in config:
        raise InputError(
            f"the model_index.json of {source} names no _class_name: it is not a diffusers pipeline"
        )
    refuse_code(config, f"the model_index.json of {source}")
    return str(config["_class_name"])


def _refuse_pickles(path: Path) -> None:
    """Raises ModelError for a component with pickles as its only weights, before loading."""
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and p.name not in SPARE):
        files = [f for f in folder.iterdir() if f.is_file()]
        pickles = sorted(f.name for f in files if f.suffix in PICKLES)
        if pickles and not any(f.suffix == ".safetensors" for f in files):
            raise ModelError(
                f"{folder.name}/{pickles[0]} is a pickle, and a pickle can run code: findnemo loads"
                f" safetensors only; {CONVERT}"
            )


def _check_variant(path: Path, variant: str | None) -> None:
    """Raises InputError listing the variants in a directory, if the requested one is missing."""
    held = {variant_of(file) for file in path.glob("*/*.safetensors")}
    variants = sorted(name for name in held if name is not None)
    if variant is not None and variant not in held:
        raise InputError(
            f"{path} holds no weights of variant {variant!r}: it has"
            f" {', '.join(variants) or 'none'}; leave it out"
        )
    if variant is None and variants and None not in held:
        raise InputError(
            f"{path} holds weights of variant {', '.join(variants)} only: ask for variant"
            f" {variants[0]!r}"
        )


def variant_of(file: Path) -> str | None:
    """The variant in the name of a weight file; None without one."""
    match = VARIANT.fullmatch(file.name)
    return match[1] if match else None


def from_pretrained(
    adapter: type[Model],
    source: str | Path,
    dtype: torch.dtype | dict[str, torch.dtype],
    revision: str | None,
    variant: str | None,
) -> Any:
    """A pipeline from a directory or hub id, with all parts in one dtype or each in its own.

    Raises ModelError.
    """
    from diffusers import DiffusionPipeline

    try:
        index = DiffusionPipeline.load_config(str(source), revision=revision)
        folder = Path(source) if Path(source).is_dir() else None
        check_index(adapter, index, str(source), folder)
        none = left_out(index, folder)  # diffusers requires them as None
        with complete(str(source)):
            pipeline = DiffusionPipeline.from_pretrained(
                str(source),
                torch_dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                revision=revision,
                variant=variant,
                **dict.fromkeys(none),
            )
    except FindnemoError:
        raise
    except Exception as error:  # libraries raise anything on configurations made to break them
        hint = f"; if it has pickled weights only, {CONVERT}" if "safetensors" in str(error) else ""
        raise ModelError(f"{source} cannot be loaded: {first_line(error)}{hint}") from error
    gone = [name for name in none if index[name] != [None, None]]
    if gone:
        notice(
            f"{source} has no usable {' and '.join(gone)}: loaded without, which findnemo does not"
            " need; exports are without too"
        )
    return pipeline
