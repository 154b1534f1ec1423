"""Pipelines as people have them: what can be worked on is, rightly; the rest is refused when it
is loaded, in words and with the way out.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _tiny import tiny_clip, tiny_pipeline, tiny_tokenizer
from _tiny_transformers import tiny_flux, tiny_pixart, tiny_sd3, tiny_t5, tiny_vae
from _tiny_unets import tiny_if, tiny_lcm, tiny_sdxl
from diffusers import (
    AsymmetricAutoencoderKL,
    AutoencoderTiny,
    ConsistencyDecoderVAE,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    IPNDMScheduler,
    RePaintScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
    VQModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextModel, CLIPTextModelWithProjection

import findnemo
from findnemo import ImageSettings, Settings
from findnemo.errors import FindnemoWarning, ModelError
from findnemo.models import Text

TWO = Settings(samples=2)


def sd(**unet: Any) -> Callable[[], Any]:
    return lambda: tiny_pipeline(**unet)


def with_parts(make: Callable[[], Any], **parts: Any) -> Callable[[], Any]:
    """A pipeline with other parts; a function makes one of the pipeline."""

    def made() -> Any:
        pipeline = make()
        for name, part in parts.items():
            setattr(
                pipeline,
                name,
                (
                    part(pipeline)
                    if callable(part) and not isinstance(part, torch.nn.Module)
                    else part
                ),
            )
        return pipeline

    return made


def configured(make: Callable[[], Any], part: str, **settings: Any) -> Callable[[], Any]:
    def made() -> Any:
        pipeline = make()
        getattr(pipeline, part).register_to_config(**settings)
        return pipeline

    return made


def tokenizing(
    make: Callable[[], Any], name: str = "tokenizer", **settings: Any
) -> Callable[[], Any]:
    def made() -> Any:
        pipeline = make()
        for key, value in settings.items():
            setattr(getattr(pipeline, name), key, value)
        return pipeline

    return made


def clip(width: int, projection: int | None = None, vocabulary: int | None = None) -> Any:
    kind = CLIPTextModel if projection is None else CLIPTextModelWithProjection
    rows = vocabulary or len(tiny_tokenizer())
    return tiny_clip(kind, width, projection_dim=projection or width, vocab_size=rows)


# widths -------------------------------------------------------------------------------------------

MISFITS = {
    "refiner": (
        with_parts(lambda: tiny_sdxl(projection_class_embeddings_input_dim=5 * 8 + 32), text_encoder_2=lambda p: clip(32, 32)),
        r"U-Net is that of a refiner, which takes 5 numbers.*is 72, 32 \+ 5 x 8.*give the base model",
    ),
    "sdxl pooled": (with_parts(tiny_sdxl, text_encoder_2=lambda p: clip(32, 40)), r"pooled embedding of its text_encoder_2 is 40, .* is 24"),
    "sdxl narrower": (with_parts(tiny_sdxl, text_encoder_2=lambda p: clip(32, 8)), r"pooled embedding of its text_encoder_2 is 8, .* is 24"),
    "sdxl tokens": (with_parts(tiny_sdxl, text_encoder=lambda p: clip(32)), "text encoders together is 64, and cross_attention_dim of its U-Net is 48"),
    "sdxl not projecting": (with_parts(tiny_sdxl, text_encoder_2=lambda p: clip(32)), "give a CLIPTextModelWithProjection"),
    "sdxl first alone": (with_parts(tiny_sdxl, text_encoder=None, tokenizer=None), "together is 32, and cross_attention_dim of its U-Net is 48"),
    "sdxl lengths": (tokenizing(tiny_sdxl, "tokenizer_2", model_max_length=40), "77 and 40 tokens.*set model_max_length of both to 40"),
    "sd width": (with_parts(tiny_pipeline, text_encoder=lambda p: clip(48)), "text_encoder is 48, and cross_attention_dim of its U-Net is 32"),
    "sd projecting": (with_parts(tiny_pipeline, text_encoder=lambda p: clip(32, 32)), "give a CLIPTextModel$"),
    "vocabulary": (with_parts(tiny_pipeline, text_encoder=lambda p: clip(32, vocabulary=300)), "tokenizer is 514, and that of its text_encoder is 300"),
    "sd3 t5": (with_parts(tiny_sd3, text_encoder_3=lambda p: tiny_t5(48)), "text_encoder_3 is 48, and joint_attention_dim of its transformer is 64"),
    "sd3 pooled": (with_parts(tiny_sd3, text_encoder_2=lambda p: clip(32, 16)), "is 48, and pooled_projection_dim of its transformer is 64"),
    "sd3 cut by diffusers": (with_parts(tiny_sd3, text_encoder_2=lambda p: clip(64, 32)), "together is 96, and joint_attention_dim .* is 64"),
    "flux t5": (with_parts(tiny_flux, text_encoder_2=lambda p: tiny_t5(48)), "text_encoder_2 is 48, and joint_attention_dim"),
    "flux pooled": (with_parts(tiny_flux, text_encoder=lambda p: clip(24)), "is 24, and pooled_projection_dim of its transformer is 32"),
    "flux projecting": (with_parts(tiny_flux, text_encoder=lambda p: tiny_clip(CLIPTextModelWithProjection)), "give a CLIPTextModel$"),
    "flux latents": (with_parts(tiny_flux, vae=lambda p: tiny_vae(2, latent_channels=8)), "four times latent_channels of its vae is 32, and in_channels"),
    "pixart": (with_parts(tiny_pixart, text_encoder=lambda p: tiny_t5(48)), "is 48, and caption_channels of its transformer is 320"),
    "if": (with_parts(tiny_if, text_encoder=lambda p: tiny_t5(32)), "text_encoder is"),
    "sd latents": (with_parts(tiny_pipeline, vae=lambda p: tiny_vae(2, latent_channels=8)), "latent_channels of its vae is 8, and in_channels of its unet is 4"),
    "odd channels": (sd(in_channels=5, out_channels=5), "latent_channels of its vae is 4, and in_channels of its unet is 5"),
    "grey": (with_parts(tiny_pipeline, vae=lambda p: tiny_vae(2, in_channels=1, out_channels=1)), "in_channels of its vae is 1"),
}  # fmt: skip

PARTS = {
    f"{make.__name__} without {part}": (
        with_parts(make, **{part: None}),
        rf"has no {part} \(None\).*; findnemo \w+",
    )
    for make, parts in (
        (tiny_pipeline, ("tokenizer", "text_encoder", "unet", "scheduler", "vae")),
        (tiny_sdxl, ("tokenizer_2", "text_encoder_2", "unet", "scheduler", "vae")),
        (tiny_if, ("tokenizer", "text_encoder", "unet", "scheduler")),
        (tiny_pixart, ("tokenizer", "text_encoder", "transformer", "scheduler", "vae")),
        (
            tiny_sd3,
            (
                "tokenizer",
                "text_encoder",
                "tokenizer_2",
                "text_encoder_2",
                "transformer",
                "scheduler",
                "vae",
            ),
        ),
        (
            tiny_flux,
            (
                "tokenizer",
                "text_encoder",
                "tokenizer_2",
                "text_encoder_2",
                "transformer",
                "scheduler",
                "vae",
            ),
        ),
    )
    for part in parts
} | {
    "half a pair in sdxl": (
        with_parts(tiny_sdxl, text_encoder=None),
        r"has a tokenizer and no text_encoder \(None\)",
    ),
    "half a pair in sd3": (
        with_parts(tiny_sd3, tokenizer_3=None),
        r"has a text_encoder_3 and no tokenizer_3 \(None\)",
    ),
    "meta": (
        with_parts(tiny_pipeline, text_encoder=lambda p: p.text_encoder.to("meta")),
        "text_encoder .* meta device",
    ),
}

SCHEDULERS = {
    "flow on a u-net": (
        tiny_pipeline,
        FlowMatchEulerDiscreteScheduler(),
        "goes by a flow, and its denoiser predicts noise",
    ),
    "flow on if": (
        tiny_if,
        FlowMatchEulerDiscreteScheduler(),
        "goes by a flow, and its denoiser predicts noise",
    ),
    "flow on pixart": (
        tiny_pixart,
        FlowMatchEulerDiscreteScheduler(),
        "goes by a flow, and its denoiser predicts noise",
    ),
    "flow sigmas": (tiny_pipeline, UniPCMultistepScheduler(use_flow_sigmas=True), "goes by a flow"),
    "no alphas": (
        tiny_pipeline,
        IPNDMScheduler(),
        "IPNDMScheduler without alphas_cumprod and prediction_type",
    ),
    "no prediction type": (tiny_pipeline, RePaintScheduler(), "without prediction_type"),
    "no order": (tiny_pipeline, UnCLIPScheduler(), "without order"),
    "few steps": (
        tiny_pipeline,
        DDPMScheduler(num_train_timesteps=20),
        "cannot give timesteps of 50 steps",
    ),
    "noise on sd3": (
        tiny_sd3,
        DDIMScheduler(),
        "DDIMScheduler, and its transformer goes by a flow",
    ),
    "noise on flux": (
        tiny_flux,
        DDIMScheduler(),
        "DDIMScheduler, and its transformer goes by a flow",
    ),
    "no sigmas on flux": (
        tiny_flux,
        FlowMatchHeunDiscreteScheduler(),
        "give a FlowMatchEulerDiscreteScheduler",
    ),
}
SIZES = {
    repr(size): (
        configured(tiny_pipeline, "unet", sample_size=size),
        "sample_size of its unet is .*set it to that of its training",
    )
    for size in (None, "16", 16.0, 0, -8, [16], [16, None], True)
}
OTHERS = {
    "17": (configured(tiny_pipeline, "unet", sample_size=17), "images of 34 x 34 pixels.*multiples of 8"),
    "sd3": (with_parts(tiny_sd3, default_sample_size=None), "default_sample_size of the pipeline is None"),
    "flux": (with_parts(tiny_flux, default_sample_size=17), "multiples of 4"),
    "scale": (configured(tiny_pipeline, "vae", scaling_factor=None), "scaling_factor None"),
    "classes": (sd(num_class_embeds=10), "wants a class in addition to the caption"),
    "added": (sd(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=72), "addition_embed_type 'text_time'"),
    "only cross": (sd(only_cross_attention=True), "captions in all its attention"),
    "sdxl unet of sd": (with_parts(tiny_sdxl, unet=lambda p: tiny_pipeline(cross_attention_dim=48).unet), "addition_embed_type None"),
    "lcm without guidance": (with_parts(tiny_lcm, unet=lambda p: tiny_pipeline().unet), "time_cond_proj_dim None"),
    "no padding": (tokenizing(tiny_pipeline, pad_token=None), r"set pipeline\.tokenizer\.pad_token"),
    "two tokens": (tokenizing(tiny_pipeline, model_max_length=2), "all captions would be the same"),
    "endless": (with_parts(tiny_pipeline, tokenizer=lambda p: tiny_pixart().tokenizer, text_encoder=lambda p: tiny_t5(32)), "states no model_max_length"),
    "img2img": (lambda: StableDiffusionImg2ImgPipeline(**tiny_pipeline().components, requires_safety_checker=False), "not supported"),
    "no pipeline": (lambda: tiny_pipeline().unet, "UNet2DConditionModel is not supported"),
}  # fmt: skip
REFUSED = (
    MISFITS
    | PARTS
    | {n: (with_parts(m, scheduler=s), why) for n, (m, s, why) in SCHEDULERS.items()}
    | SIZES
    | OTHERS
)


@pytest.mark.first(3)
@pytest.mark.parametrize("name", REFUSED)
def test_a_pipeline_that_cannot_be_worked_on_is_refused_when_it_is_loaded(name):
    make, message = REFUSED[name]
    pipeline = make()
    with pytest.raises(ModelError, match=message):
        findnemo.load(pipeline)


def test_a_class_of_ones_own_is_refused_with_a_way_that_works():
    class Mine(StableDiffusionPipeline):
        pass

    mine = Mine(**tiny_pipeline().components, requires_safety_checker=False)
    with pytest.raises(
        ModelError, match=r"Mine is not supported.*StableDiffusionPipeline\.from_pipe\(pipeline\)"
    ):
        findnemo.load(mine)
    assert findnemo.load(StableDiffusionPipeline.from_pipe(mine)).latent_shape == (4, 16, 16)


def test_loading_draws_no_random_numbers_and_changes_no_weights():
    pipeline = tiny_pipeline()
    state = torch.get_rng_state()
    weights = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    findnemo.load(pipeline)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(value, weights[name]) for name, value in pipeline.unet.state_dict().items()
    )


# what works ---------------------------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.parametrize("size", [[16, 24], (24, 16)])
@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl, tiny_lcm, tiny_if])
def test_latents_may_be_wider_than_high(make, size):
    model = findnemo.load(configured(make, "unet", sample_size=size)())
    assert model.latent_shape[1:] == tuple(size)
    (image,) = findnemo.generate(model, "a cat", [0], ImageSettings(2, 2.0))
    scale = getattr(model.pipeline, "vae_scale_factor", 1)
    assert image.size == (size[1] * scale, size[0] * scale)


def test_sdxl_goes_without_its_first_text_encoder_as_its_pipeline_does():
    pipeline = with_parts(
        lambda: tiny_sdxl(cross_attention_dim=32), text_encoder=None, tokenizer=None
    )()
    model = findnemo.load(pipeline)
    tokens, _, pooled, _ = pipeline.encode_prompt("a cat", do_classifier_free_guidance=False)
    found = model.conditions(model.encode(["a cat"]))
    torch.testing.assert_close(found["encoder_hidden_states"], tokens)
    torch.testing.assert_close(found["added_cond_kwargs"]["text_embeds"], pooled)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_pooled_embedding_may_be_wider_than_those_of_tokens(guidance):
    """120 values beside embeddings of 48: the U-Net is told what the pipeline tells it, and
    predicts what it predicts there.
    """
    wide = lambda: tiny_sdxl(projection_class_embeddings_input_dim=6 * 8 + 120)  # noqa: E731
    model = findnemo.load(with_parts(wide, text_encoder_2=lambda p: clip(32, 120))())
    seen: list[tuple[Any, ...]] = []
    handle = model.denoiser.register_forward_hook(
        lambda m, args, kwargs, output: seen.append((*args, kwargs, output[0])), with_kwargs=True
    )
    model.pipeline("a cat", num_inference_steps=1, guidance_scale=guidance, output_type="latent")
    handle.remove()
    text = model.encode(["a cat"])
    found = model.conditions(text)
    latents, timestep, told, noise = seen[0]
    torch.testing.assert_close(
        found["added_cond_kwargs"]["text_embeds"], told["added_cond_kwargs"]["text_embeds"][-1:]
    )
    torch.testing.assert_close(found["encoder_hidden_states"], told["encoder_hidden_states"][-1:])
    torch.testing.assert_close(model.text_of(told)[-1:].tensors, text.tensors)
    rows = text
    if guidance > 1:
        rows = Text.cat([model.unconditional(), text])
        torch.testing.assert_close(model.text_of(told).tensors, rows.tensors)
    with torch.no_grad():
        assert torch.equal(model.predict_noise(latents, int(timestep), rows), noise)
    layer = next(iter(model.value_layers))
    assert torch.equal(model.value_inputs(text)[layer], found["encoder_hidden_states"])


def test_a_guidance_input_may_be_wider_than_the_embeddings():
    model = findnemo.load(tiny_pipeline(time_cond_proj_dim=256))
    scale = torch.tensor([7.5 - 1])
    expected = model.pipeline.get_guidance_scale_embedding(scale, 256)
    torch.testing.assert_close(model.conditions(model.encode(["a"]))["timestep_cond"], expected)


@pytest.mark.parametrize(
    ("make", "name", "other", "width"),
    [
        (tiny_sdxl, "text_encoder_2", lambda: clip(32, 40), 24),
        (tiny_sd3, "text_encoder_2", lambda: clip(32, 8), 64),
        (tiny_flux, "text_encoder", lambda: clip(40), 32),
    ],
)
def test_a_text_encoder_exchanged_after_loading_is_noticed(make, name, other, width):
    model = findnemo.load(make())
    setattr(model.pipeline, name, other())
    with pytest.raises(ModelError, match=rf"vectors of \[40\] values.*takes \[{width}\]"):
        model.encode(["a cat"])


def test_statistics_see_embeddings_as_the_u_net_projects_them():
    model = findnemo.load(tiny_pipeline(encoder_hid_dim=32, encoder_hid_dim_type="text_proj"))
    text = model.encode(["a cat"])
    seen = {}
    handles = [
        m.register_forward_pre_hook(lambda m, a, n=n: seen.update({n: a[0]}))
        for n, m in model.value_layers.items()
    ]
    with torch.no_grad():
        model.predict_noise(model.noise("a cat", [0]), 981, text)
    for handle in handles:
        handle.remove()
    for name, found in model.value_inputs(text).items():
        torch.testing.assert_close(found, seen[name])
    assert not torch.allclose(next(iter(seen.values())), text.tokens)


# autoencoders -------------------------------------------------------------------------------------

BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
DECODER = {
    "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
    "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
}
VAES: dict[str, Callable[[], Any]] = {
    "tiny": lambda: AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ),
    "asymmetric": lambda: AsymmetricAutoencoderKL(
        **BLOCKS, down_block_out_channels=(8, 16), up_block_out_channels=(8, 16)
    ),
    "quantising": lambda: VQModel(**BLOCKS, block_out_channels=(8, 16), latent_channels=4),
    "consistency": lambda: ConsistencyDecoderVAE(
        encoder_block_out_channels=(32, 32),
        encoder_down_block_types=("DownEncoderBlock2D",) * 2,
        decoder_block_out_channels=(32, 32),
        **DECODER,
    ),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl, tiny_sd3])
@pytest.mark.parametrize("kind", VAES)
def test_autoencoders_of_other_kinds_decode_and_encode(kind, make):
    torch.manual_seed(0)
    model = findnemo.load(with_parts(make, vae=VAES[kind]().eval())())
    latents = model.noise("a cat", [0, 1])
    images = model.decode(latents)
    assert images.shape == (2, 3, 32, 32)
    torch.testing.assert_close(
        model.decode(latents[1:]), images[1:], atol=1e-5, rtol=1e-4
    )  # whatever is decoded beside it
    assert torch.equal(model.decode(latents), images)
    assert model.encode_images(images).shape == latents.shape


def test_a_tiny_autoencoder_encodes_to_what_its_encoder_gives():
    model = findnemo.load(with_parts(tiny_pipeline, vae=VAES["tiny"]().eval())())
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    model.pipeline.vae.register_to_config(scaling_factor=0.5)
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_images(pixels), model.pipeline.vae.encoder(pixels) * 0.5
        )


def test_only_flows_shift_their_latents_as_their_pipelines_do():
    """StableDiffusionPipeline decodes latents / scaling_factor, whatever
    shift_factor its VAE has.
    """
    model = findnemo.load(configured(tiny_pipeline, "vae", shift_factor=0.5)())
    latents = model.noise("a cat", [0])
    expected = model.pipeline.vae.decode(latents / model.pipeline.vae.config.scaling_factor).sample
    torch.testing.assert_close(model.decode(latents), expected.detach())


# directories --------------------------------------------------------------------------------------


def checked_pipeline() -> Any:
    """A pipeline with a safety checker of its own."""
    pipeline = tiny_pipeline()
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        vision_config=sizes | {"image_size": 32, "patch_size": 16},
        text_config=sizes,
        projection_dim=32,
    )
    pipeline.register_modules(
        safety_checker=StableDiffusionSafetyChecker(config), feature_extractor=CLIPImageProcessor()
    )
    return pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    checked_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "gone", [["safety_checker"], ["feature_extractor"], ["safety_checker", "feature_extractor"]]
)
def test_a_safety_checker_that_is_not_there_is_not_missed(copied, gone):
    for name in gone:
        shutil.rmtree(copied / name)
    with pytest.warns(FindnemoWarning, match=f"has no usable {gone[0]}"):
        model = findnemo.load(copied)
    assert model.pipeline.safety_checker is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", FindnemoWarning)
        whole = findnemo.load(tiny_pipeline())
    whole.denoiser.to(memory_format=torch.channels_last)  # as what `load` opens
    assert findnemo.score(model, "a cat", settings=TWO) == findnemo.score(
        whole, "a cat", settings=TWO
    )


def test_a_pickled_safety_checker_is_left_out_and_one_that_is_there_is_kept(saved, copied):
    assert type(findnemo.load(saved).pipeline.safety_checker) is StableDiffusionSafetyChecker
    weights = copied / "safety_checker" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.warns(FindnemoWarning, match="no usable safety_checker"):
        assert findnemo.load(copied).pipeline.safety_checker is None


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "unet", "vae", "scheduler"])
@pytest.mark.parametrize("how", ["folder", "null", "nulls", "unnamed"])
def test_a_directory_without_a_part_says_which_before_it_is_loaded(copied, part, how, monkeypatch):
    monkeypatch.setattr(
        "diffusers.DiffusionPipeline.from_pretrained", lambda *_, **__: pytest.fail("loaded")
    )
    if how == "folder":
        shutil.rmtree(copied / part)
    elif how == "unnamed":
        rewrite(copied / "model_index.json", lambda index: index.pop(part))
    else:
        rewrite(
            copied / "model_index.json",
            lambda index: index.update({part: None if how == "null" else [None, None]}),
        )
    with pytest.raises(
        ModelError,
        match=f"has no folder {part}, though" if how == "folder" else rf"has no {part} \(None\)",
    ):
        findnemo.load(copied)


def test_sd3_may_be_saved_without_t5(tmp_path):
    tiny_sd3(t5=False).save_pretrained(tmp_path / "none")
    assert [r.name for r in findnemo.load(tmp_path / "none").readers] == ["CLIP", "CLIP"]
    tiny_sd3().save_pretrained(tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost" / "text_encoder_3")
    with pytest.raises(ModelError, match="has no folder text_encoder_3"):
        findnemo.load(tmp_path / "lost")


@pytest.mark.parametrize(
    ("part", "file", "message"),
    [
        ("text_encoder", "model.safetensors", "lacks weights of a text encoder .*random numbers"),
        ("unet", "diffusion_pytorch_model.safetensors", "unet .* its file lacks them"),
        ("vae", "diffusion_pytorch_model.safetensors", "vae .* its file lacks them"),
    ],
)
def test_a_file_without_some_weights_is_not_filled_up_with_random_ones(copied, part, file, message):
    weights = load_file(copied / part / file)
    kept = {
        name: value
        for name, value in weights.items()
        if not any(mark in name for mark in ("layers.1.", "mid_block"))
    }
    assert len(kept) < len(weights)
    save_file(kept, copied / part / file, {"format": "pt"})
    with pytest.raises(ModelError, match=message):
        findnemo.load(copied)


def test_a_tokenizer_folder_without_its_vocabulary_is_refused(copied):
    for file in (copied / "tokenizer").iterdir():
        file.unlink()
    with pytest.warns(FindnemoWarning), pytest.raises(ModelError, match="vocabulary is missing"):
        findnemo.load(copied)
