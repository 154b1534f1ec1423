"""Check that findnemo can work on a pipeline: the inputs of its denoiser, its scheduler, the size
of its latents.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from findnemo.errors import ModelError
from findnemo.models._base import Model
from findnemo.models._flow import FlowModel
from findnemo.models._widths import pooled, widths

FACES = "captions in all its attention, where findnemo takes attn1 to see the image alone"
# settings of a U-Net that require inputs beyond a caption
UNKNOWN = {
    "class_embed_type": "a class in addition to the caption",
    "num_class_embeds": "a class in addition to the caption",
    "only_cross_attention": FACES,
    "mid_block_only_cross_attention": FACES,
    "dual_cross_attention": "two texts at once",
}
# pipeline -> values of addition_embed_type that it supports; others support none
ADDITIONS = {"StableDiffusionXLPipeline": ("text_time",), "IFPipeline": (None, "text")}
# text encoders of CLIP, and whether their first output is one embedding of the whole caption
PROJECTS = {
    "StableDiffusionPipeline": {"text_encoder": False},
    "LatentConsistencyModelPipeline": {"text_encoder": False},
    "StableDiffusionXLPipeline": {"text_encoder": False, "text_encoder_2": True},
    "StableDiffusion3Pipeline": {"text_encoder": True, "text_encoder_2": True},
    "FluxPipeline": {"text_encoder": False},
}
PROJECTIONS = (None, "text_proj", "ip_image_proj")  # an IP-Adapter may come and go
WORDS = "a photo of 2 dogs"
ALONE = "give a model that takes captions only"
# attributes of a noise scheduler that pipelines and findnemo use
ASKED = ("alphas_cumprod", "order", "scale_model_input")
PUBLISHED = "give the scheduler that the checkpoint was published with"


def check_fit(model: Model) -> None:
    """Raises ModelError that names the first unsupported thing, its value, and the way out."""
    for check in (conditions, encoders, tokenizers, channels, schedules, sizes, decoders, widths):
        for fault in check(model):
            raise ModelError(f"this {type(model.pipeline).__name__} cannot be worked on: {fault}")


def conditions(model: Model) -> Iterator[str]:
    """Faults of a U-Net that requires inputs beyond the caption."""
    if model.component != "unet":
        return
    config = model.pipeline.unet.config
    kind = type(model.pipeline).__name__
    for setting, what in UNKNOWN.items():
        value = config.get(setting)
        # a list has one value for each block
        if any(value) if isinstance(value, list | tuple) else value:
            yield f"its U-Net wants {what} ({setting} {value!r}): {ALONE}"
    wanted = config.get("addition_embed_type")
    served = ADDITIONS.get(kind, (None,))
    if wanted not in served:
        given = " or ".join(map(repr, served))
        yield (
            f"its U-Net has addition_embed_type {wanted!r}, and the pipeline serves {given}: give"
            " the pipeline class that it was trained for"
        )
    if config.get("encoder_hid_dim_type") not in PROJECTIONS:
        yield (
            f"its U-Net wants images (encoder_hid_dim_type {config.encoder_hid_dim_type!r}):"
            f" {ALONE}"
        )
    if kind == "LatentConsistencyModelPipeline" and config.get("time_cond_proj_dim") is None:
        yield (
            "its U-Net takes no guidance scale (time_cond_proj_dim None): give a"
            " StableDiffusionPipeline with an LCMScheduler"
        )


def encoders(model: Model) -> Iterator[str]:
    """Faults of text encoders that do not give what the pipeline needs."""
    for name, wanted in PROJECTS.get(type(model.pipeline).__name__, {}).items():
        encoder = getattr(model.pipeline, name, None)
        if encoder is not None and bool(pooled(encoder)) is not wanted:
            kind = "CLIPTextModelWithProjection" if wanted else "CLIPTextModel"
            yield (
                f"its {name} is a {type(encoder).__name__}, of which the pipeline would take the"
                f" wrong output: give a {kind}"
            )


def tokenizers(model: Model) -> Iterator[str]:
    """Faults of tokenizers that cannot pad captions, or not to one length if their embeddings are
    combined.
    """
    for name, _ in model.encoders:
        tokenizer = getattr(model.pipeline, name, None)
        if tokenizer is None:
            continue
        if tokenizer.pad_token is None:
            yield (
                f"its {name} has no padding token: set pipeline.{name}.pad_token to the one that it"
                " was trained with (CLIP: its eos_token)"
            )
        elif {*tokenizer(WORDS, verbose=False).input_ids} <= {*tokenizer.all_special_ids}:
            yield (
                f"its {name} knows none of {WORDS!r}: its vocabulary is missing, copy the whole"
                " folder"
            )
    limits = [reader.limit for reader in model.readers]
    if type(model.pipeline).__name__ == "StableDiffusionXLPipeline" and len(set(limits)) > 1:
        yield (
            f"its tokenizers give {' and '.join(map(str, limits))} tokens, and the embeddings of"
            f" both lie side by side: set model_max_length of both to {min(limits)}"
        )


def channels(model: Model) -> Iterator[str]:
    """Faults of a flow's transformer that returns another number of channels than it takes.

    U-Nets and PixArt are checked by their adapters.
    """
    config = getattr(model.pipeline, model.component).config
    taken = config.get("in_channels")
    returned = config.get("out_channels") or taken
    if isinstance(model, FlowModel) and taken != returned:
        yield (
            f"its transformer takes {taken} channels and returns {returned}: inpainting and control"
            " variants are not supported"
        )


def schedules(model: Model) -> Iterator[str]:
    """Faults of a scheduler that is not of the denoiser's kind: noise or flow."""
    scheduler = model.pipeline.scheduler
    kind = type(scheduler).__name__
    config = scheduler.config
    predicts_flow = config.get("use_flow_sigmas") or "flow" in str(config.get("prediction_type"))
    if isinstance(model, FlowModel):
        if "FlowMatch" not in kind or not _takes_sigmas(model):
            yield (
                f"its scheduler is a {kind}, and its transformer goes by a flow: give a"
                " FlowMatchEulerDiscreteScheduler, its shift as published"
            )
    elif "FlowMatch" in kind or predicts_flow:
        yield (
            f"its scheduler is a {kind} that goes by a flow, and its denoiser predicts noise:"
            f" {PUBLISHED}, such as a DDIMScheduler"
        )
    elif "sigma_data" not in config:  # EDM: `predict_noise` says what is supported
        lacking = [name for name in ASKED if not hasattr(scheduler, name)]
        lacking += [] if config.get("prediction_type") else ["prediction_type"]
        if lacking:
            yield (
                f"its scheduler is a {kind} without {' and '.join(lacking)}, by which the"
                f" denoiser's output is understood: {PUBLISHED}, such as a DDIMScheduler"
            )


def _takes_sigmas(model: FlowModel) -> bool:
    """Whether a scheduler accepts sigmas, if the pipeline gives any."""
    scheduler = model.pipeline.scheduler
    given = model.spacing({"use_dynamic_shifting": False} | scheduler.config, 1)
    takes = inspect.signature(scheduler.set_timesteps).parameters
    return "sigmas" not in given or "sigmas" in takes


def sizes(model: Model) -> Iterator[str]:
    """Faults of the size of latents, which must be whole numbers that the pipeline can make images
    of.
    """
    pipeline = model.pipeline
    scale = getattr(pipeline, "vae_scale_factor", 1)
    size = getattr(pipeline, model.component).config.get("sample_size")
    owner = f"sample_size of its {model.component}"
    step = 8
    if isinstance(model, FlowModel):
        size = pipeline.default_sample_size
        owner = "default_sample_size of the pipeline"
        step = 2 * scale
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        yield (
            f"{owner} is {size!r}, so the size of its latents is not known: set it to that of its"
            " training, a whole number or a pair of them (64 for Stable Diffusion 1.x)"
        )
    elif any(side * scale % step for side in sides):
        yield (
            f"{owner} is {size!r}, images of {sides[0] * scale} x {sides[1] * scale} pixels: the"
            f" pipeline makes those of multiples of {step}"
        )


def decoders(model: Model) -> Iterator[str]:
    """Faults of a VAE that does not say how its latents are scaled."""
    scaling = model.pipeline.vae.config.get("scaling_factor") if model.decodes else 1
    if not scaling:
        yield (
            f"its vae has scaling_factor {scaling!r}, without which no latent becomes an image: set"
            " it as published (0.18215 for Stable Diffusion 1.x), with"
            " pipeline.vae.register_to_config(scaling_factor=...) or in vae/config.json"
        )
