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
from diffusers import DDPMPipeline, DDPMScheduler, StableDiffusionPipeline, UNet2DModel

import findnemo
from findnemo.errors import InputError, ModelError

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


# fingerprint --------------------------------------------------------------------------------------


def test_the_fingerprint_does_not_depend_on_the_dtype_of_loading(saved):
    half = findnemo.load(saved, dtype="float16")
    full = findnemo.load(saved, dtype="float32")
    assert half.fingerprint == full.fingerprint


def test_a_class_of_ones_own_is_refused_with_a_way_that_works():
    class Mine(StableDiffusionPipeline):
        pass

    mine = Mine(**tiny_pipeline().components, requires_safety_checker=False)
    with pytest.raises(
        ModelError, match=r"Mine is not supported.*StableDiffusionPipeline\.from_pipe\(pipeline\)"
    ):
        findnemo.load(mine)
    assert findnemo.load(StableDiffusionPipeline.from_pipe(mine)).latent_shape == (4, 16, 16)
