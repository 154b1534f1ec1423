"""A single file in the original layout is the model that it was written from; what cannot be one
is refused, without being run.
"""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from _evil import Evil
from _hub import cached
from _tiny_files import FAMILIES, as_model, save_file, tiny_family
from huggingface_hub import constants
from safetensors.torch import load_file

import findnemo
from findnemo.errors import InputError, ModelError
from findnemo.export import original_tensors
from findnemo.files.tensors import Entry, read_header, write
from findnemo.models import StableDiffusion, loading
from findnemo.models.single_file import KINDS, kind_of

GIVE = r"give --config \(in Python: config=\)"


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, tmp_path_factory):
    """A pipeline, its directory, and its file."""
    folder = tmp_path_factory.mktemp(request.param)
    pipeline = tiny_family(request.param)
    pipeline.save_pretrained(folder / "directory")
    return (
        request.param,
        pipeline,
        folder / "directory",
        save_file(pipeline, folder / "model.safetensors"),
    )


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    """Directory and file of a tiny Stable Diffusion 1.x."""
    folder = tmp_path_factory.mktemp("sd1")
    pipeline = tiny_family("sd1")
    pipeline.save_pretrained(folder / "directory")
    return folder / "directory", save_file(pipeline, folder / "model.safetensors")


@pytest.fixture(autouse=True)
def with_sdxl(monkeypatch):
    """SDXL can be loaded where its adapter is there; here any will do."""
    monkeypatch.setitem(
        loading.ADAPTERS,
        "StableDiffusionXLPipeline",
        loading.ADAPTERS.get("StableDiffusionXLPipeline", StableDiffusion),
    )


def same_weights(one, other) -> bool:
    """All weights of all parts of two pipelines."""
    parts = [n for n, part in one.components.items() if isinstance(part, torch.nn.Module)]
    states = [(getattr(one, n).state_dict(), getattr(other, n).state_dict()) for n in parts]
    return len(parts) >= 3 and all(
        list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a) for a, b in states
    )


@pytest.mark.first(1)
def test_a_file_is_the_model_that_it_was_written_from(made):
    family, pipeline, directory, file = made
    model = findnemo.load(file, config=directory)
    assert type(model.pipeline) is type(pipeline)
    assert same_weights(pipeline, model.pipeline)
    assert model.fingerprint == as_model(pipeline).fingerprint
    assert (model.source, model.options) == (str(file), {"config": str(directory)})
    assert kind_of(file, read_header(file)[0]) == FAMILIES[family]
    assert findnemo.load(file, dtype="float16", config=str(directory)).dtype == torch.float16


def test_the_configuration_needs_no_weights(made, tmp_path):
    _, pipeline, directory, file = made
    bare = Path(
        shutil.copytree(
            directory, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")
        )
    )
    assert same_weights(pipeline, findnemo.load(file, config=bare).pipeline)


# the hub's cache ----------------------------------------------------------------------------------


@pytest.mark.first(2)
def test_without_a_configuration_the_usual_one_comes_from_the_cache(made, tmp_path, monkeypatch):
    family, pipeline, directory, file = made
    kind = KINDS[FAMILIES[family]]
    bare = Path(
        shutil.copytree(
            directory, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")
        )
    )
    cached(monkeypatch, tmp_path / "cache", kind.hub, bare)
    model = findnemo.load(file)
    assert same_weights(pipeline, model.pipeline)
    assert model.options == {}
    assert same_weights(pipeline, findnemo.load(file, config=kind.hub).pipeline)


def test_without_cache_and_configuration_the_way_out_is_told(made, tmp_path, monkeypatch):
    family, _, _, file = made
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    kind = FAMILIES[family]
    with pytest.raises(
        InputError, match=rf"model.safetensors is {kind}.*{KINDS[kind].hub}.*{GIVE}"
    ):
        findnemo.load(file)
    with pytest.raises(
        InputError, match="no configuration nobody/nothing: neither the hub nor its local cache"
    ):
        findnemo.load(file, config="nobody/nothing")


def test_revision_and_variant_of_a_hub_id_come_from_the_cache(sd1, tmp_path, monkeypatch):
    new = tiny_family("sd1", seed=1)
    root = tmp_path / "cache"
    new.to(torch.float16).save_pretrained(tmp_path / "new", variant="fp16")
    cached(monkeypatch, root, "some/model", sd1[0])
    cached(monkeypatch, root, "some/model", tmp_path / "new", "v2", "d" * 40)
    main = findnemo.load("some/model")
    second = findnemo.load("some/model", revision="v2", variant="fp16")
    assert main.fingerprint == findnemo.load(sd1[0]).fingerprint
    assert second.fingerprint == as_model(new).fingerprint != main.fingerprint
    assert second.options == {"revision": "v2", "variant": "fp16"}
    with pytest.raises(InputError, match="no model 'some/model' at revision 'v3'"):
        findnemo.load("some/model", revision="v3")


# variants of a directory --------------------------------------------------------------------------


def test_weights_of_a_variant_are_asked_for_by_name(tmp_path):
    pipeline = tiny_family("sd1").to(torch.float16)
    pipeline.save_pretrained(tmp_path / "fp16", variant="fp16")
    model = findnemo.load(tmp_path / "fp16", variant="fp16")
    assert same_weights(pipeline.to(torch.float32), model.pipeline)
    assert model.options == {"variant": "fp16"}
    with pytest.raises(
        InputError, match="holds weights of variant fp16 only: ask for variant 'fp16'"
    ):
        findnemo.load(tmp_path / "fp16")
    with pytest.raises(InputError, match="no weights of variant 'ema': it has fp16"):
        findnemo.load(tmp_path / "fp16", variant="ema")


# misuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        (
            "directory",
            {"revision": "main"},
            "revision 'main' names a branch.* is a directory: leave it out",
        ),
        (
            "directory",
            {"config": "x"},
            "config 'x' gives a single .safetensors file .* is a directory: leave it out",
        ),
        ("file", {"revision": "main"}, "is a single file: leave it out"),
        (
            "file",
            {"variant": "fp16"},
            "variant 'fp16' names weight files.* is a single file: leave it out",
        ),
        ("some/model", {"config": "x"}, "some/model is a hub id: leave it out"),
        ("demo", {"variant": "fp16"}, "demo is the demo model: leave it out"),
        ("live", {"revision": "main"}, "this is a live pipeline: leave it out"),
        ("some/model", {"variant": "fp16|.*"}, "is not a name of weight files"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(sd1, what, options, message):
    source = {"directory": sd1[0], "file": sd1[1], "live": object()}.get(what, what)
    with pytest.raises(InputError, match=message):
        findnemo.load(source, **options)


@pytest.mark.parametrize(
    "name", ["model.ckpt", "model.bin", "model.pt", "model.CKPT", "model.safetensors"]
)
@pytest.mark.parametrize("how", [pickle.dumps, "torch"])
def test_a_pickle_is_refused_with_the_way_out_and_never_unpickled(sd1, tmp_path, name, how):
    file = tmp_path / name
    marker = tmp_path / "was-run"
    if how == "torch":
        torch.save({"state_dict": Evil(marker)}, file)
    else:
        file.write_bytes(how(Evil(marker)))
    with pytest.raises(
        ModelError, match=r"is a pickle.* can run code: findnemo loads safetensors only"
    ):
        findnemo.load(file, config=sd1[0])
    assert not marker.exists()


LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v.lora_down.weight"
NO_CHECKPOINTS = {
    LORA: "is a LoRA, not a checkpoint: load the pipeline it was made for",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight": "is a LoRA",
    "control_model.input_blocks.0.0.weight": "is a ControlNet",
    "down_blocks.0.resnets.0.conv1.weight": "is one part of a diffusers model: give the directory",
    "text_model.encoder.layers.0.mlp.fc1.weight": "is one part of a diffusers model",
    "double_blocks.0.img_attn.qkv.weight": f"is not a complete Stable Diffusion 1.x.* {GIVE}",
    "first_stage_model.encoder.conv_in.weight": f"is not a complete Stable Diffusion 1.x.* {GIVE}",
}


@pytest.mark.parametrize("key", NO_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_told_apart(tmp_path, key):
    from safetensors.torch import save_file as save

    save({key: torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=NO_CHECKPOINTS[key]):
        findnemo.load(tmp_path / "x.safetensors")


def test_demo_is_the_configuration_of_a_copy_of_the_demo_model(tmp_path):
    demo = findnemo.load("demo")
    file = tmp_path / "model.safetensors"
    write(file, original_tensors(demo.pipeline), {"format": "pt"})
    copy = findnemo.load(file, config="demo")
    assert same_weights(copy.pipeline, demo.pipeline)
    assert copy.pipeline.scheduler.config == demo.pipeline.scheduler.config
    with pytest.raises(InputError, match=f"{GIVE}.* for a copy of the demo model: demo"):
        findnemo.load(file, config="nobody/nothing")


def test_a_unet_without_text_encoder_is_not_a_complete_checkpoint(sd1, tmp_path):
    from safetensors.torch import save_file as save

    unet = {k: v for k, v in load_file(sd1[1]).items() if k.startswith("model.")}
    save(unet, tmp_path / "unet.safetensors")
    with pytest.raises(InputError, match="not a complete"):
        findnemo.load(tmp_path / "unet.safetensors")
    bare = shutil.copytree(
        sd1[0], tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")
    )
    with pytest.raises(
        ModelError, match=r"cannot be loaded with the configuration.*missing in the checkpoint"
    ):
        findnemo.load(tmp_path / "unet.safetensors", config=bare)


@pytest.mark.parametrize("damage", ["cut off", "text", "empty", "header"])
def test_a_file_that_is_no_whole_safetensors_file_is_refused(sd1, tmp_path, damage):
    data = sd1[1].read_bytes()
    broken = {
        "cut off": data[:-1],
        "text": b"no model at all",
        "empty": b"",
        "header": data[:8] + b"x" + data[9:],
    }[damage]
    (tmp_path / "x.safetensors").write_bytes(broken)
    with pytest.raises(
        InputError, match=r"x\.safetensors is not a safetensors file, or not a whole one"
    ):
        findnemo.load(tmp_path / "x.safetensors", config=sd1[0])


def test_another_kind_of_file_and_one_that_is_not_there(tmp_path):
    (tmp_path / "model.gguf").write_text("x")
    with pytest.raises(
        InputError, match=r"model.gguf is not a model directory, nor a .safetensors file"
    ):
        findnemo.load(tmp_path / "model.gguf")
    for name in ("gone.safetensors", "gone.ckpt"):
        with pytest.raises(InputError, match="is not a model directory, nor a file"):
            findnemo.load(name)


@pytest.mark.parametrize(
    ("channels", "message"),
    [(9, "takes 9 channels and returns 4: inpainting"), (8, "takes 8 channels")],
)
def test_inpainting_and_editing_files_are_refused(channels, message):
    name = "model.diffusion_model."
    tensors = {
        f"{name}input_blocks.0.0.weight": Entry("F16", (320, channels, 3, 3), 0),
        f"{name}out.2.weight": Entry("F16", (4, 320, 3, 3), 0),
    }
    with pytest.raises(ModelError, match=message):
        kind_of(Path("x.safetensors"), tensors)


def test_a_configuration_of_something_else_is_refused(sd1, tmp_path):
    directory, file = sd1
    tiny_family("sdxl").save_pretrained(tmp_path / "xl")
    with pytest.raises(
        InputError,
        match=(
            r"is Stable Diffusion 1\.x, and the configuration .* is of a StableDiffusionXLPipeline"
        ),
    ):
        findnemo.load(file, config=tmp_path / "xl")
    with pytest.raises(InputError, match=r"has no model_index\.json"):
        findnemo.load(file, config=directory / "unet")
    with pytest.raises(InputError, match="is not a directory: give a diffusers directory"):
        findnemo.load(file, config=file)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "unet",
            {"transformer_layers_per_block": 2},
            "lacks weights that the configuration .* asks for",
        ),
        ("unet", {"block_out_channels": [8, 32]}, "cannot be loaded with the configuration"),
        ("text_encoder", {"num_hidden_layers": 3}, "lacks weights that the configuration"),
        ("vae", {"layers_per_block": 2}, "lacks weights that the configuration"),
    ],
)
def test_a_configuration_of_another_size_is_refused(sd1, tmp_path, part, change, message):
    other = Path(shutil.copytree(sd1[0], tmp_path / "other"))
    about = json.loads((other / part / "config.json").read_text())
    (other / part / "config.json").write_text(json.dumps(about | change))
    with pytest.raises(ModelError, match=message):
        findnemo.load(sd1[1], config=other)


def test_a_configuration_that_names_other_code_is_refused_and_nothing_of_it_imported(
    sd1, tmp_path, monkeypatch
):
    other = Path(shutil.copytree(sd1[0], tmp_path / "other"))
    about = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps(about | {"unet": ["my_unet", "Unet"]}))
    (tmp_path / "my_unet.py").write_text("open('was-run', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        InputError, match="takes its unet from my_unet: findnemo runs no code of others"
    ):
        findnemo.load(sd1[1], config=other)
    assert not (tmp_path / "was-run").exists()


def test_a_pipeline_that_is_not_supported_is_refused(sd1, monkeypatch):
    monkeypatch.delitem(loading.ADAPTERS, "StableDiffusionPipeline")
    with pytest.raises(ModelError, match="StableDiffusionPipeline is not supported"):
        findnemo.load(sd1[1], config=sd1[0])


def test_a_file_that_states_another_prediction_than_the_configuration_is_refused(sd1, tmp_path):
    directory, _ = sd1
    pipeline = tiny_family("sd1")
    stated = save_file(
        pipeline, tmp_path / "v.safetensors", metadata={"modelspec.prediction_type": "v"}
    )
    with pytest.raises(
        ModelError, match="says that it predicts v_prediction, the configuration says epsilon"
    ):
        findnemo.load(stated, config=directory)
    marked = save_file(pipeline, tmp_path / "w.safetensors", {"v_pred": torch.zeros(0)})
    with pytest.raises(ModelError, match="says that it predicts v_prediction"):
        findnemo.load(marked, config=directory)
    agreed = save_file(
        pipeline, tmp_path / "e.safetensors", metadata={"modelspec.prediction_type": "epsilon"}
    )
    assert (
        findnemo.load(agreed, config=directory).pipeline.scheduler.config.prediction_type
        == "epsilon"
    )
