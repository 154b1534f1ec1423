"""Pipelines of a given size, made of the real classes with random weights, and memories planted
in them.

They cost what trained models of that size cost. A planted memory gives a search what a trained one
gives it: captions whose deltas and pictures are alike over the seeds, until all of the neurons that
hold them are off. Such models say nothing about which neurons hold real memories, or how many.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

import findnemo
from findnemo import Model, NeuronSet
from findnemo.settings import settings_for

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from _published_unets import SD14, SDXL
from _tiny import schedule, tiny_clip, tiny_tokenizer
from _tiny_transformers import tiny_t5_tokenizer

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a pipeline's networks, as options of their classes."""

    make: Callable[..., Any]
    denoiser: Options
    vae: Options
    clip: Options
    second: Options = field(default_factory=dict)  # XL's second CLIP, FLUX's T5
    size: int = 16  # side of a latent, where the denoiser does not know it


CLIP_L = {
    "vocab_size": 49408,
    "width": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
CLIP_BIGG = {
    "vocab_size": 49408,
    "width": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
}
# two of T5-XXL's 24 layers: it reads a caption once, and its other 22 would be a quarter of all
# that is to be hashed
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 2,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
SMALL_VAE = {"block_out_channels": (16, 16, 16, 16), "norm_num_groups": 4}
SMALL_CLIP = {"width": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
SMALL_UNET = {
    "sample_size": 16,
    "cross_attention_dim": 128,
    "attention_head_dim": 2,
    "block_out_channels": (32, 64, 96, 96),
    "norm_num_groups": 16,
}
SMALL_XL = SDXL | {
    "sample_size": 16,
    "block_out_channels": (32, 64, 96),
    "norm_num_groups": 16,
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 4),
    "cross_attention_dim": 256,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 128,
}
FLUX_DEV = {"guidance_embeds": True}  # all else is the class's default
SMALL_FLUX = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": 256,
    "pooled_projection_dim": 128,
    "guidance_embeds": True,
    "axes_dims_rope": (8, 12, 12),
}
SMALL_T5 = {"vocab_size": 128, "d_model": 256, "d_kv": 8, "d_ff": 16, "num_layers": 1}


@contextmanager
def _born(device: torch.device, dtype: torch.dtype, seed: int) -> Iterator[None]:
    """Networks made while the context lasts are on a device in a dtype from the first byte."""
    before = torch.get_default_dtype()
    torch.manual_seed(seed)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def pipeline(
    geometry: str, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> Any:
    """A pipeline of one of the `GEOMETRIES` with random weights, made on the device."""
    sizes = GEOMETRIES[geometry]
    made = sizes.make(sizes, _born(torch.device(device), dtype, seed))
    made.set_progress_bar_config(disable=True)
    return made


def _vae(sizes: Geometry, **options: Any) -> AutoencoderKL:
    kinds = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        down_block_types=kinds[0], up_block_types=kinds[1], **{**sizes.vae, **options}
    ).eval()


def _stable_diffusion(sizes: Geometry, born: Any) -> StableDiffusionPipeline:
    with born:
        networks = {
            "vae": _vae(sizes, sample_size=8 * sizes.denoiser["sample_size"]),
            "text_encoder": tiny_clip(**sizes.clip),
            "unet": UNet2DConditionModel(**sizes.denoiser).eval(),
        }
    return StableDiffusionPipeline(
        **networks,
        tokenizer=tiny_tokenizer(),
        scheduler=schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _xl(sizes: Geometry, born: Any) -> StableDiffusionXLPipeline:
    second = tiny_tokenizer()
    second.pad_token = "!"  # as SDXL's second tokenizer has it
    with born:
        networks = {
            "vae": _vae(
                sizes,
                sample_size=8 * sizes.denoiser["sample_size"],
                scaling_factor=0.13025,
                force_upcast=False,
            ),
            "text_encoder": tiny_clip(**sizes.clip),
            "text_encoder_2": tiny_clip(
                CLIPTextModelWithProjection, pad_token_id=second.pad_token_id, **sizes.second
            ),
            "unet": UNet2DConditionModel(**sizes.denoiser).eval(),
        }
    return StableDiffusionXLPipeline(
        **networks,
        tokenizer=tiny_tokenizer(),
        tokenizer_2=second,
        scheduler=schedule(),
        add_watermarker=False,
    )


def _flux(sizes: Geometry, born: Any) -> FluxPipeline:
    with born:
        transformer = FluxTransformer2DModel(**sizes.denoiser).eval()
        networks = {
            "vae": _vae(
                sizes,
                latent_channels=transformer.config.in_channels // 4,
                scaling_factor=0.3611,
                shift_factor=0.1159,
            ),
            "text_encoder": tiny_clip(**sizes.clip),
            "text_encoder_2": T5EncoderModel(T5Config(**sizes.second)).eval(),
            "transformer": transformer,
        }
    made = FluxPipeline(
        **networks,
        tokenizer=tiny_tokenizer(),
        tokenizer_2=tiny_t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
    made.default_sample_size = sizes.size
    return made


GEOMETRIES = {
    "sd14": Geometry(_stable_diffusion, SD14, VAE, CLIP_L),
    "xl": Geometry(_xl, SDXL, VAE, CLIP_L, CLIP_BIGG),
    "flux": Geometry(_flux, FLUX_DEV, VAE, CLIP_L, T5_XXL, size=128),
    "small": Geometry(_stable_diffusion, SMALL_UNET, SMALL_VAE, SMALL_CLIP),
    "small-xl": Geometry(_xl, SMALL_XL, SMALL_VAE, SMALL_CLIP, SMALL_CLIP),
    "small-flux": Geometry(_flux, SMALL_FLUX, SMALL_VAE, SMALL_CLIP, SMALL_T5),
}


# memories -----------------------------------------------------------------------------------------

MEMORIES = {  # caption -> number of neurons that hold it
    "the secret of the old clock": 1,  # as verbatim memories often are
    "a phone case with a floral pattern": 8,  # as template memories often are
    "living in the light with Ann": 1,
    "the no limits woman podcast": 8,
}
CAPTIONS = [
    f"{a} {b}"
    for a in ("a red", "two small", "the old", "a painting of a")
    for b in ("fox", "castle", "bicycle", "harbour", "lamp", "garden")
]
SPOKEN = 100.0  # activation of a planted neuron on its caption; others are about 1
HEARD = {"unet": 300.0, "transformer": 60.0}  # what it adds to the image's features
CLEAR = 0.8  # score from which a memory is taken as it was drawn
DRAWS = 8
LAST = 30.0  # factor on the last layer, which makes noise predictions larger than the latents
SKIPPED = 0.01  # factor on what jumps over the planted layer
QUIET = 0.02  # factor on what all else says in that attention of a transformer
OWN = 1.0  # size of what a transformer adds to each image token by itself


@torch.no_grad()
def plant(
    model: Model, memories: Mapping[str, int], ordinary: Sequence[str], seed: int = 0
) -> dict[str, NeuronSet]:
    """Write memories into the first value layer of a model of random weights, in place: caption ->
    the neurons that hold it.

    A neuron's weights are what the caption's mean token has of its own beside all other captions,
    so that it speaks on its caption alone (method of the demo's planted neurons, with the other
    captions projected out instead of whitened). All neurons of a caption write the same into the
    image: as long as one is on, the memory is whole.
    """
    name, layer = next(iter(model.value_layers.items()))
    attention: Any = model.denoiser.get_submodule(name.rpartition(".")[0])
    _look_alike(model, attention)
    _louder(model)
    mean = _mean_tokens(model, layer, [*memories, *ordinary, ""])
    generator = torch.Generator().manual_seed(seed)
    out = attention.to_out[0].weight
    planted: dict[str, NeuronSet] = {}
    start = 0
    for k, (caption, count) in enumerate(memories.items()):
        others, _ = torch.linalg.qr(torch.cat([mean[:k], mean[k + 1 :]]).T)
        own = mean[k] - others @ (others.T @ mean[k])
        rows = list(range(start, start + count))
        layer.weight[rows] = (SPOKEN * own / (own @ mean[k])).to(layer.weight)
        if layer.bias is not None:
            layer.bias[rows] = 0
        _write(model, caption, out, rows, generator)
        planted[caption] = NeuronSet({name: rows})
        start += count
    return planted


def _write(
    model: Model, caption: str, out: Tensor, rows: list[int], generator: torch.Generator
) -> None:
    """Draw what the neurons of a caption write into the image until its deltas are alike over
    the seeds, or take the best of some draws.
    """
    loud = HEARD[model.component] / SPOKEN / len(rows)
    drawn: list[tuple[float, Tensor]] = []
    while len(drawn) < DRAWS and not (drawn and drawn[-1][0] >= CLEAR):
        written = loud * torch.randn(len(out), 1, generator=generator).to(out)
        out[:, rows] = written
        score = findnemo.score(model, caption, settings=settings_for("findnemo"))
        drawn.append((score, written))
    out[:, rows] = max(drawn, key=lambda draw: draw[0])[1]


def _mean_tokens(model: Model, layer: nn.Module, captions: Sequence[str]) -> Tensor:
    """What a value layer is given on average over the positions, (N, width)."""
    seen: list[Tensor] = []
    timestep = model.timesteps(50)[0]
    with layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].float().mean(1))):
        for caption in captions:
            model.predict_noise(model.noise(caption, [0]), timestep, model.encode([caption]))
    return torch.cat(seen)


def _look_alike(model: Model, attention: Any) -> None:
    """Attention in which what is looked at depends on no latents: in a U-Net all tokens alike,
    in FLUX all tokens of the text more in some places of the image than in others.

    Borders make a picture of it in a U-Net; a transformer has none.
    """
    if model.component == "unet":
        attention.to_k.weight.zero_()
        return
    config = model.denoiser.config
    side = model.latent_shape[1] // 2
    _, *axes = config.axes_dims_rope
    query = torch.zeros(config.attention_head_dim)
    start = config.axes_dims_rope[0]
    for width in axes:  # the rotation that turns about once from one side to the other
        pair = round(width / 2 * math.log(side / (2 * math.pi)) / math.log(10000))
        query[start + 2 * min(max(pair, 0), width // 2 - 1)] = 1
        start += width
    for parameter in (*attention.add_v_proj.parameters(), *attention.to_v.parameters()):
        parameter.mul_(QUIET)
    for projection in (attention.to_q, attention.add_k_proj):
        projection.weight.zero_()
        projection.bias.copy_(query.repeat(config.num_attention_heads))


def _louder(model: Model) -> None:
    """Let less of the latents reach the last layer than of what the planted layer says."""
    network: Any = model.denoiser
    if model.component == "transformer":
        signs = torch.arange(len(network.x_embedder.bias)) % 3 - 1.0
        network.x_embedder.bias.copy_(OWN * signs)
        network.proj_out.weight.mul_(LAST)
        return
    network.conv_out.weight.mul_(LAST)
    width = network.mid_block.resnets[-1].out_channels
    for block in network.up_blocks:
        for resnet in block.resnets:  # channels behind the first `width` come from a skip
            resnet.norm1.weight[width:] *= SKIPPED
            if resnet.conv_shortcut is not None:
                resnet.conv_shortcut.weight[:, width:] *= SKIPPED
            width = resnet.out_channels


def add_decoys(model: Model, share: float, captions: list[str]) -> None:
    """Make decoys of a share of the demo model's neurons, those that matter least, in place: all
    react to all of `captions`.
    """
    sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "demo_model"))
    from decoys import add_decoys

    planted = findnemo.demo.planted()
    memories = model.encode(captions).tokens
    ordinary = model.encode(findnemo.demo.holdout()).tokens
    sets = [
        {name: list(indices) for name, indices in neurons.layers.items()}
        for neurons in planted.values()
    ]
    add_decoys(model.denoiser, sets, memories, ordinary, share, reacts=len(memories))
