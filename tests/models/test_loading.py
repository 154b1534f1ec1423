"""Loading is safe and says what is wrong; an adapter answers its few
questions as diffusers would.
"""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from _evil import Evil
from _tiny import tiny_pipeline
from diffusers import DDPMPipeline, DDPMScheduler, PNDMScheduler, UNet2DModel

import findnemo
from findnemo.errors import InputError, ModelError
from findnemo.models import Model

SD_WIDTHS = [16, 16, 32, 32, 32, 32, 32]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A directory as `save_pretrained` writes it, in half precision."""
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().to(torch.float16).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


# sources ------------------------------------------------------------------------------------------


def test_a_directory_a_path_and_a_live_pipeline_are_the_same_model(saved):
    pipeline = tiny_pipeline()
    models = [findnemo.load(str(saved)), findnemo.load(saved), findnemo.load(pipeline)]
    assert models[2].pipeline is pipeline
    assert [list(model.widths().values()) for model in models] == [SD_WIDTHS] * 3
    assert len({model.fingerprint for model in models}) == 1
    assert findnemo.load(models[0]) is models[0]


def test_weights_are_loaded_in_float32_on_the_cpu_and_as_asked(saved):
    assert findnemo.load(saved, device="cpu").dtype == torch.float32
    assert findnemo.load(saved, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    half = findnemo.load(saved, device=torch.device("cpu"), dtype=torch.float16)
    assert (
        half.dtype == half.encode(["a"]).tokens.dtype == half.noise("a", [0]).dtype == torch.float16
    )
    assert half.device.type == "cpu"


def test_a_live_pipeline_is_moved_only_if_asked():
    pipeline = tiny_pipeline()
    assert findnemo.load(pipeline).dtype == torch.float32
    assert findnemo.load(pipeline, dtype="float16").dtype == torch.float16
    assert pipeline.unet.dtype == torch.float16


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "float8"}, "'float8'.*use one of float32"), ({"device": "gpu"}, "'gpu'")],
)
def test_an_unknown_dtype_or_device_is_refused(saved, options, message):
    for source in (saved, tiny_pipeline()):
        with pytest.raises(InputError, match=message):
            findnemo.load(source, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_cuda_on_a_machine_without_is_refused(saved):
    with pytest.raises(InputError, match="no CUDA on this machine; use cpu"):
        findnemo.load(saved, device="cuda:0")


def test_a_directory_that_is_no_pipeline_is_refused(copied):
    (copied / "model_index.json").unlink()
    with pytest.raises(InputError, match=r"holds no model_index\.json"):
        findnemo.load(copied)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_model_index_is_refused(copied, content):
    (copied / "model_index.json").write_text(content)
    with pytest.raises(InputError, match=r"model_index.json"):
        findnemo.load(copied)


@pytest.mark.parametrize(
    "source", ["/no/such/directory", "./nothing", "nobody/no-such-model", "one/two/three/four"]
)
def test_a_model_that_is_not_there_is_refused_by_name(source):
    with pytest.raises(InputError, match=source):
        findnemo.load(source)


def test_a_file_that_is_no_checkpoint_is_refused(copied):
    with pytest.raises(InputError, match=r"is not a model directory, nor a \.safetensors file"):
        findnemo.load(copied / "model_index.json")


def test_damaged_weights_are_a_model_error(copied):
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        findnemo.load(copied)


# pickles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("safe", "unsafe"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"),
        ("text_encoder/model.safetensors", "text_encoder/pytorch_model.bin"),
    ],
)
@pytest.mark.parametrize("decoy", [False, True], ids=["alone", "beside another safetensors file"])
def test_a_pickle_is_refused_with_the_way_to_convert_it_and_never_unpickled(
    copied, tmp_path, safe, unsafe, decoy
):
    marker = tmp_path / "was-run"
    pickled = pickle.dumps(Evil(tmp_path / "was-run"))
    pickle.loads(pickled).close()
    assert marker.exists()  # the pickle does run code
    marker.unlink()
    if decoy:
        (copied / safe).rename((copied / safe).with_name("decoy.safetensors"))
    else:
        (copied / safe).unlink()
    (copied / unsafe).write_bytes(pickled)
    with pytest.raises(ModelError, match="safe_serialization=True"):
        findnemo.load(copied)
    assert not marker.exists()


# architectures ------------------------------------------------------------------------------------


def test_an_unsupported_pipeline_is_refused_with_what_is_supported(tmp_path):
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    pipeline = DDPMPipeline(unet, DDPMScheduler())
    pipeline.save_pretrained(tmp_path)
    for source in (pipeline, tmp_path):
        with pytest.raises(
            ModelError, match=r"DDPMPipeline is not supported: .* on .*StableDiffusionPipeline"
        ):
            findnemo.load(source)


def test_something_that_is_no_pipeline_is_refused():
    with pytest.raises(ModelError, match="int is not supported"):
        findnemo.load(5)


def test_a_unet_without_cross_attention_in_the_places_searched_is_refused():
    down = ("DownBlock2D",) * 4
    pipeline = tiny_pipeline(down_block_types=down, mid_block_type="UNetMidBlock2D")
    with pytest.raises(
        ModelError, match=r"no value layers found in UNet2DConditionModel.*attn2\.to_v"
    ):
        findnemo.load(pipeline)


def test_an_inpainting_unet_is_refused():
    with pytest.raises(ModelError, match="takes 9 channels and returns 4: inpainting"):
        findnemo.load(tiny_pipeline(in_channels=9))


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, SD_WIDTHS),
        ({"layers_per_block": 1}, [16, 32, 32, 32]),
        ({"transformer_layers_per_block": 2}, [16] * 4 + [32] * 10),
        (
            {
                "block_out_channels": (16, 32),
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            },
            [16, 16, 32],
        ),
    ],
)
def test_value_layers_are_found_in_any_layout_and_in_forward_order(options, widths):
    model = findnemo.load(tiny_pipeline(**options))
    called = []
    assert list(model.widths().values()) == widths
    for name, module in model.denoiser.named_modules():
        if name.endswith("attn2.to_v"):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model.predict_noise(model.noise("a", [0]), 981, model.encode(["a"]))
    assert list(model.value_layers) == [
        name for name in called if not name.startswith("up_blocks.")
    ]
    assert len(called) > len(model.value_layers)


def test_latents_have_the_unets_native_size(tiny):
    assert tiny.latent_shape == (4, 16, 16)
    assert findnemo.load(tiny_pipeline(sample_size=(16, 24))).latent_shape == (4, 16, 24)


def test_timesteps_are_those_of_a_ddim_schedule(tiny):
    assert tiny.timesteps(50) == list(range(981, 0, -20))
    tiny.pipeline.scheduler = PNDMScheduler.from_config(tiny.pipeline.scheduler.config)
    assert tiny.timesteps(50) == list(range(981, 0, -20))


def test_layers_are_looked_up_anew_when_a_name_stands_for_another_module(tiny):
    name = next(iter(tiny.value_layers))
    assert tiny.value_layers[name] is tiny.denoiser.get_submodule(name)
    path, _, last = name.rpartition(".")
    setattr(tiny.denoiser.get_submodule(path), last, torch.nn.Linear(32, 7))
    assert tiny.value_layers[name] is tiny.denoiser.get_submodule(name)
    assert tiny.widths()[name] == 7
    tiny.pipeline.unet = tiny_pipeline(seed=1).unet
    assert all(layer is tiny.denoiser.get_submodule(n) for n, layer in tiny.value_layers.items())
    tiny.value_layers.clear()  # a copy: nobody's to spoil
    assert tiny.value_layers


def test_a_channels_last_model_says_the_same(tmp_path):
    """The layout is for speed only; a checkpoint written from it is an ordinary one."""
    live = findnemo.load(tiny_pipeline())
    live.pipeline.save_pretrained(tmp_path / "model")
    loaded = findnemo.load(tmp_path / "model")
    weight = loaded.denoiser.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert loaded.fingerprint == live.fingerprint
    assert findnemo.score(loaded, "a red fox") == pytest.approx(
        findnemo.score(live, "a red fox"), abs=1e-5
    )
    loaded.pipeline.save_pretrained(tmp_path / "again")
    files = [
        tmp_path / part / "unet" / "diffusion_pytorch_model.safetensors"
        for part in ("model", "again")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


# noise and text -----------------------------------------------------------------------------------


@torch.no_grad()
def output(model: Model, timestep: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, what the U-Net returns for them, and the noise that findnemo reads from it."""
    latents = model.noise("a", [0, 1])
    text = model.encode(["a"]).expand(2)
    return (
        latents,
        model.denoiser(latents, timestep, text.tokens).sample,
        model.predict_noise(latents, timestep, text),
    )


def test_an_epsilon_model_predicts_noise_itself(tiny):
    _, returned, eps = output(tiny, 981)
    assert torch.equal(returned, eps)


@pytest.mark.parametrize("timestep", [981, 501, 1])
def test_noise_of_a_v_prediction_is_what_ddim_derives(timestep):
    model = findnemo.load(tiny_pipeline("v_prediction"))
    latents, v, eps = output(model, timestep)
    scheduler = model.pipeline.scheduler
    scheduler.set_timesteps(50)
    alpha = scheduler.alphas_cumprod[timestep]
    x0 = scheduler.step(v, timestep, latents).pred_original_sample
    torch.testing.assert_close(x0, alpha.sqrt() * latents - (1 - alpha).sqrt() * v)
    torch.testing.assert_close(
        eps, (latents - alpha.sqrt() * x0) / (1 - alpha).sqrt(), atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(eps, v, atol=1e-2)


def test_another_prediction_type_is_refused():
    with pytest.raises(ModelError, match=r"'sample' is not supported.*epsilon and v_prediction"):
        output(findnemo.load(tiny_pipeline("sample")), 981)


def test_noise_of_a_sample_is_the_same_in_every_batch_and_order(tiny):
    state = torch.get_rng_state()
    together = tiny.noise("a cat", [0, 1, 2, 3])
    assert torch.equal(tiny.noise("a cat", [3, 1]), together[[3, 1]])
    assert torch.equal(torch.cat([tiny.noise("a cat", [k]) for k in range(4)]), together)
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_depends_on_prompt_sample_and_seed(tiny):
    latents = torch.stack(
        [tiny.noise(*of)[0] for of in (("a", [0]), ("a", [1]), ("b", [0]), ("a", [0], 1))]
    )
    correlations = torch.corrcoef(latents.flatten(1)) - torch.eye(4)
    assert correlations.abs().max() < 0.15
    assert latents.mean().abs() < 0.1
    assert latents.std() == pytest.approx(1, abs=0.1)


def test_a_prompt_is_encoded_the_same_in_every_batch(tiny):
    prompts = ["a", "a much longer caption of a cat", ""]
    text = tiny.encode(prompts)
    assert text.tokens.shape == (3, 77, 32)
    for k, prompt in enumerate(prompts):
        torch.testing.assert_close(tiny.encode([prompt]).tokens[0], text.tokens[k])


# fingerprint --------------------------------------------------------------------------------------


def test_the_fingerprint_does_not_depend_on_the_dtype_of_loading(saved):
    half = findnemo.load(saved, dtype="float16")
    full = findnemo.load(saved, dtype="float32")
    assert half.fingerprint == full.fingerprint


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_the_fingerprint_changes_with_one_weight(part):
    before = findnemo.load(tiny_pipeline()).fingerprint
    pipeline = tiny_pipeline()
    with torch.no_grad():
        next(getattr(pipeline, part).parameters()).view(-1)[0] += 0.01
    assert findnemo.load(pipeline).fingerprint != before


def test_the_fingerprint_tells_prediction_types_apart_but_not_samplers(tiny):
    assert findnemo.load(tiny_pipeline("v_prediction")).fingerprint != tiny.fingerprint
    other_sampler = tiny_pipeline()
    other_sampler.scheduler = PNDMScheduler.from_config(other_sampler.scheduler.config)
    assert findnemo.load(other_sampler).fingerprint == tiny.fingerprint
