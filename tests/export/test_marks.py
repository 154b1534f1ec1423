"""A single file carries what loaders look for: v-prediction and zero terminal SNR are found
again by all, and scores stay what they were.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from _hub import cached
from _plain_diffusers import of_pipeline
from _published_unets import SD14, SD21
from _tiny_files import FAMILIES, as_model, loud, make_run, save_file, tiny_family
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler
from diffusers.loaders import single_file_utils
from safetensors import safe_open
from safetensors.torch import load_file

import findnemo
from findnemo import NeuronSet
from findnemo.errors import FindnemoWarning, InputError, MismatchError, ModelError
from findnemo.export import _marks, remarks, rewrite, select, write
from findnemo.files.tensors import copy
from findnemo.models.single_file import KINDS
from findnemo.runs import Run
from findnemo.settings import PAPER

KINDS_OF = {"sd1": "Stable Diffusion 1.x", "sd2": "Stable Diffusion 2.x", "sdxl": "SDXL"}
CASES = [("epsilon", False), ("v_prediction", False), ("v_prediction", True)]
CAPTION = "a red fox"


def predicting(family: str, predicts: str, zero: bool):
    pipeline = tiny_family(family)
    changed = {
        "prediction_type": predicts,
        "rescale_betas_zero_snr": zero,
        "timestep_spacing": "trailing" if zero else "leading",
    }
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **changed)
    return loud(pipeline)


def chosen_of(folder: Path, model, neurons):
    if not (folder / "run").exists():
        make_run(folder / "run", model, {CAPTION: neurons})
    with Run.open(folder / "run") as run:
        return select(run)


@pytest.fixture(scope="module", params=[(f, *case) for f in FAMILIES for case in CASES], ids=str)
def made(request, tmp_path_factory):
    """A model of a directory, its neurons, and the file that was exported of it."""
    family, predicts, zero = request.param
    folder = tmp_path_factory.mktemp(family)
    pipeline, neurons = predicting(family, predicts, zero)
    pipeline.save_pretrained(folder / "directory")
    model = findnemo.load(folder / "directory")
    write("file", chosen_of(folder, model, neurons), folder / "clean.safetensors", model)
    return family, predicts, zero, model, neurons, folder / "clean.safetensors"


def about(file: Path) -> tuple[dict, set[str]]:
    with safe_open(file, "pt") as opened:
        return opened.metadata(), set(opened.keys())


@pytest.mark.first(2)
def test_the_marks_are_those_that_user_interfaces_look_for(made):
    family, predicts, zero, _, _, file = made
    metadata, keys = about(file)
    v = predicts == "v_prediction"
    assert ("v_pred" in keys, "ztsnr" in keys) == (v, zero)  # ComfyUI, Forge, AUTOMATIC1111
    for mark in {"v_pred", "ztsnr"} & keys:
        assert (load_file(file)[mark].shape, load_file(file)[mark].dtype) == ((0,), torch.float32)
    assert (
        metadata["modelspec.prediction_type"]
        == metadata["modelspec.predict_key"]
        == ("v" if v else "epsilon")
    )
    wanted = {"sd1": "v1", "sd2": "v2-768-v" if v else "v2-512", "sdxl": "xl-v1-base"}[family]
    assert metadata["modelspec.architecture"] == f"stable-diffusion-{wanted}"
    assert metadata["modelspec.resolution"] == "32x32"
    assert {"modelspec.sai_model_spec", "modelspec.implementation", "modelspec.title"} <= set(
        metadata
    )
    assert str(file.parent) not in json.dumps(metadata)
    data = file.read_bytes()
    assert (
        metadata["modelspec.hash_sha256"]
        == f"0x{hashlib.sha256(data[8 + int.from_bytes(data[:8], 'little') :]).hexdigest()}"
    )
    assert file.with_suffix(".yaml").exists() is (family == "sd2" or (family == "sd1" and v))


@pytest.mark.first(3)
def test_the_configuration_beside_it_describes_the_model_to_the_original_code(made):
    """As diffusers reads such a configuration: its own converter makes the U-Net's and the
    autoencoder's configurations of it.
    """
    _, predicts, _, model, _, file = made
    if _marks.configuration(model.pipeline) is None:  # keys say it, or it is what all assume
        assert not file.with_suffix(".yaml").exists()
        return
    config = yaml.safe_load(file.with_suffix(".yaml").read_text())
    assert (
        config["model"]["params"]["parameterization"]
        == {"epsilon": "eps", "v_prediction": "v"}[predicts]
    )
    weights = load_file(file)
    for read, part, left_out in (
        (
            single_file_utils.create_unet_diffusers_config_from_ldm,
            model.pipeline.unet,
            {"sample_size", "down_block_types", "up_block_types"},
        ),
        (
            single_file_utils.create_vae_diffusers_config_from_ldm,
            model.pipeline.vae,
            {"sample_size"},
        ),
    ):
        made_of_it = {k: v for k, v in read(config, weights).items() if k not in left_out}
        plain = json.loads(json.dumps(dict(part.config)))
        assert json.loads(json.dumps(made_of_it)) == {k: plain[k] for k in made_of_it}


def test_the_published_sizes_are_described_as_the_original_code_has_them():
    from diffusers import AutoencoderKL, UNet2DConditionModel

    for family, config, extra in (
        ("sd1", SD14, {"num_heads": 8}),
        ("sd2", SD21, {"num_head_channels": 64}),
    ):
        pipeline = tiny_family(family)
        with torch.device("meta"):
            pipeline.unet = UNet2DConditionModel(**config)
            blocks = {
                "down_block_types": ("DownEncoderBlock2D",) * 4,
                "up_block_types": ("UpDecoderBlock2D",) * 4,
            }
            pipeline.vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512), layers_per_block=2, **blocks
            )
        pipeline.scheduler = DDIMScheduler.from_config(
            pipeline.scheduler.config, prediction_type="v_prediction"
        )
        params = yaml.safe_load(_marks.configuration(pipeline))["model"]["params"]
        unet = params["unet_config"]["params"]
        known = {
            "model_channels": 320,
            "attention_resolutions": [1, 2, 4],
            "num_res_blocks": 2,
            "channel_mult": [1, 2, 4, 4],
            "transformer_depth": 1,
        }
        assert {k: unet[k] for k in known} == known
        assert {k: unet[k] for k in unet if k.startswith("num_head")} == extra
        assert (unet["context_dim"], unet["use_linear_in_transformer"]) == (
            (768, False) if family == "sd1" else (1024, True)
        )
        ddconfig = params["first_stage_config"]["params"]["ddconfig"]
        assert (ddconfig["ch"], ddconfig["ch_mult"], ddconfig["num_res_blocks"]) == (
            128,
            [1, 2, 4, 4],
            2,
        )
        assert (params["linear_start"], params["linear_end"], params["scale_factor"]) == (
            0.00085,
            0.012,
            0.18215,
        )


@pytest.mark.first(2)
def test_with_the_usual_configuration_the_scores_are_those_of_the_original(
    made, tmp_path, monkeypatch
):
    family, predicts, zero, model, neurons, file = made
    bare = shutil.copytree(
        file.parent / "directory", tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors")
    )
    kind = (
        EulerDiscreteScheduler if family == "sdxl" else PNDMScheduler
    )  # as the published configurations have it
    known = {
        k: v
        for k, v in model.pipeline.scheduler.config.items()
        if k in ("beta_start", "beta_end", "beta_schedule", "steps_offset")
    }
    kind(**known, timestep_spacing="leading", prediction_type="epsilon").save_pretrained(
        bare / "scheduler"
    )
    index = json.loads((bare / "model_index.json").read_text()) | {
        "scheduler": ["diffusers", kind.__name__]
    }
    (bare / "model_index.json").write_text(json.dumps(index))
    cached(monkeypatch, tmp_path / "cache", KINDS[KINDS_OF[family]].hub, bare)
    if predicts == "v_prediction":
        with pytest.warns(FindnemoWarning, match="prediction_type is v_prediction"):
            loaded = findnemo.load(file)
    else:
        loaded = findnemo.load(file)
    config = loaded.pipeline.scheduler.config
    assert (config.prediction_type, bool(config.get("rescale_betas_zero_snr"))) == (predicts, zero)
    assert loaded.timesteps(50) == model.timesteps(50)
    clean = as_model(findnemo.prune(model, neurons))
    text = clean.encode([CAPTION] * 3)
    latents = clean.noise(CAPTION, range(3))
    for step in (1, 30):  # the first of zero terminal SNR is the same for every model
        timestep = clean.timesteps(50)[step]
        wanted, made_of_file = (m.predict_noise(latents, timestep, text) for m in (clean, loaded))
        torch.testing.assert_close(made_of_file, wanted, rtol=1e-4, atol=1e-4)
        as_noise = model.denoiser(latents, timestep, **clean.conditions(text), return_dict=False)[0]
        assert (
            predicts == "epsilon" or (as_noise - wanted).abs().max() > 0.01
        )  # what a loader without the mark would have taken
    second = replace(PAPER, timestep=1)
    assert findnemo.score(loaded, CAPTION, settings=second) == pytest.approx(
        findnemo.score(clean, CAPTION, settings=second), abs=1e-4
    )


@pytest.mark.first(2)
def test_plain_diffusers_with_the_fitting_configuration_makes_the_same_image(made):
    _, _, _, model, neurons, file = made
    kind = type(model.pipeline)
    plain = kind.from_single_file(
        str(file), config=str(file.parent / "directory"), local_files_only=True
    )
    assert abs(of_pipeline(plain) - of_pipeline(findnemo.prune(model, neurons))).max() < 2 / 255


@pytest.mark.first(4)
def test_with_the_fitting_configuration_asked_for_nothing_is_refused(made):
    _, _, _, model, _, file = made
    config = findnemo.load(file, config=file.parent / "directory").pipeline.scheduler.config
    assert config == model.pipeline.scheduler.config


# files that were loaded from a file ---------------------------------------------------------------


@pytest.fixture
def unmarked(tmp_path):
    """A model of a file without marks, loaded with a configuration that says
    v with zero terminal SNR.
    """
    pipeline, neurons = predicting("sdxl", "v_prediction", True)
    pipeline.save_pretrained(tmp_path / "directory")
    more = {"surplus.key": torch.ones(3, dtype=torch.bfloat16), "global_step": torch.tensor(7)}
    file = save_file(
        pipeline, tmp_path / "model.safetensors", more, {"modelspec.title": "mine", "author": "me"}
    )
    return file, findnemo.load(file, config=tmp_path / "directory"), neurons


@pytest.mark.slow
def test_a_file_without_marks_gets_them_and_keeps_all_else(unmarked, tmp_path):
    file, model, neurons = unmarked
    write("file", chosen_of(tmp_path, model, neurons), tmp_path / "clean.safetensors", model)
    metadata, keys = about(tmp_path / "clean.safetensors")
    said = {"modelspec.prediction_type": "v", "modelspec.predict_key": "v"}
    own = {"made_by": "findnemo", "neurons": str(len(neurons)), "model": model.fingerprint}
    assert metadata == {"modelspec.title": "mine", "author": "me", **said, **own}
    assert keys == about(file)[1] | {"v_pred", "ztsnr"}
    old, new = load_file(file), load_file(tmp_path / "clean.safetensors")
    different = [name for name, value in old.items() if not torch.equal(new[name], value)]
    assert len(different) == len(neurons.layers)
    assert all(new[name].dtype == value.dtype for name, value in old.items())
    again = findnemo.load(tmp_path / "clean.safetensors", config=tmp_path / "directory")
    assert again.pipeline.scheduler.config == model.pipeline.scheduler.config


def test_a_second_export_says_what_it_did_and_not_what_the_first_one_did(unmarked, tmp_path):
    _, model, neurons = unmarked
    half = replace(chosen_of(tmp_path, model, neurons), factor=0.5)
    first = write(
        "file", half, tmp_path / "first.safetensors", findnemo.load(tmp_path / "directory")
    )
    told, _ = about(first)
    assert told["modelspec.title"] == f"directory, {len(neurons)} neurons at 0.5"
    assert (told["neurons"], told["factor"]) == (str(len(neurons)), "0.5")
    copy(first, marked := tmp_path / "marked.safetensors", told | {"author": "me"})
    again = findnemo.load(marked, config=tmp_path / "directory")
    (layer, indices), *_ = neurons.layers.items()
    one = NeuronSet({layer: indices[:1]})
    make_run(tmp_path / "again", again, {CAPTION: one})
    with Run.open(tmp_path / "again") as run:
        write("file", select(run), tmp_path / "second.safetensors", again)
    second, _ = about(tmp_path / "second.safetensors")
    assert second["modelspec.title"] == "marked, 1 neuron off"
    assert (second["neurons"], second["model"]) == ("1", again.fingerprint)
    assert second["author"] == "me"
    assert "factor" not in second


def test_marks_and_hashes_of_the_source_are_kept_true(unmarked, tmp_path):
    _, model, neurons = unmarked
    known = {
        "modelspec.prediction_type": "v",
        "modelspec.hash_sha256": "0xAB",
        "sshs_model_hash": "old",
        "sshs_legacy_hash": "older",
        "x": "y",
    }
    marked = save_file(
        model.pipeline,
        tmp_path / "marked.safetensors",
        {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)},
        known,
    )
    source = findnemo.load(marked, config=tmp_path / "directory")
    rewrite(source, neurons, tmp_path / "clean.safetensors")
    data = (tmp_path / "clean.safetensors").read_bytes()
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    hashes = {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    assert about(tmp_path / "clean.safetensors")[0] == {
        "modelspec.prediction_type": "v",
        "x": "y",
        **hashes,
    }
    assert sorted(load_file(tmp_path / "clean.safetensors")) == sorted(
        load_file(marked)
    )  # those without values have no order


def test_the_configuration_beside_the_source_goes_with_the_file(tmp_path):
    pipeline, neurons = predicting("sd1", "v_prediction", False)
    pipeline.save_pretrained(tmp_path / "directory")
    file = save_file(pipeline, tmp_path / "model.safetensors")
    mine = {"model": {"target": "mine", "params": {"parameterization": "v"}}}
    file.with_suffix(".yaml").write_text(yaml.safe_dump(mine))
    model = findnemo.load(file, config=tmp_path / "directory")
    write("file", chosen_of(tmp_path, model, neurons), tmp_path / "clean.safetensors", model)
    assert yaml.safe_load((tmp_path / "clean.yaml").read_text()) == mine
    assert "v_pred" in about(tmp_path / "clean.safetensors")[1]


def test_a_scheduler_that_was_exchanged_is_not_contradicted_by_the_copy(unmarked, tmp_path):
    _, model, neurons = unmarked
    file = save_file(model.pipeline, tmp_path / "v.safetensors", {"v_pred": torch.zeros(0)})
    source = findnemo.load(file, config=tmp_path / "directory")
    source.pipeline.scheduler = DDIMScheduler.from_config(
        source.pipeline.scheduler.config, prediction_type="epsilon"
    )
    with pytest.raises(
        MismatchError,
        match=(
            r"by the tensor v_pred .* prediction_type is v_prediction, by the model's scheduler it"
            r" is epsilon"
        ),
    ):
        rewrite(source, neurons, tmp_path / "clean.safetensors")
    assert not (tmp_path / "clean.safetensors").exists()


# what a single file cannot say --------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trained_betas": [0.01] * 1000}, "trained_betas is .* user interfaces take None"),
        ({"beta_schedule": "linear"}, "beta_schedule is linear"),
        ({"beta_end": 0.02}, "beta_end is 0.02"),
        ({"num_train_timesteps": 500}, "num_train_timesteps is 500"),
        ({"prediction_type": "sample"}, "no single file can say that it predicts 'sample'"),
    ],
)
def test_a_schedule_that_no_file_carries_is_refused(tmp_path, changed, message):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **changed)
    model = as_model(pipeline)
    chosen = chosen_of(tmp_path, model, neurons)
    with pytest.raises(ModelError, match=message):
        write("file", chosen, tmp_path / "clean.safetensors", model)
    assert not list(tmp_path.glob("*clean*"))
    folder = write("checkpoint", chosen, tmp_path / "clean", model)
    kept = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert {name: kept[name] for name in changed} == changed


def test_tokens_of_a_textual_inversion_have_no_place_in_a_file(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.load_textual_inversion({"<mine>": torch.ones(32)})
    model = as_model(pipeline)
    with pytest.raises(ModelError, match=r"tokenizer has 1 tokens of its own \('<mine>'"):
        write("file", chosen_of(tmp_path, model, neurons), tmp_path / "clean.safetensors", model)
    assert not list(tmp_path.glob("*clean*"))


# the configuration beside it is written, replaced and taken away with the file --------------------


@pytest.mark.slow
def test_a_configuration_that_lies_there_is_in_the_way(tmp_path):
    v, neurons = predicting("sd1", "v_prediction", False)
    eps, _ = predicting("sd1", "epsilon", False)
    models = {name: as_model(pipeline) for name, pipeline in (("v", v), ("eps", eps))}
    chosen = {}
    for name, model in models.items():
        (tmp_path / name).mkdir()
        chosen[name] = chosen_of(tmp_path / name, model, neurons)
    target = tmp_path / "clean.safetensors"
    beside = tmp_path / "clean.yaml"
    write("file", chosen["v"], target, models["v"])
    assert beside.exists()
    target.unlink()
    with pytest.raises(
        InputError,
        match=r"clean\.yaml already exists, and user interfaces read it with the model file",
    ):
        write("file", chosen["eps"], target, models["eps"])
    write("file", chosen["eps"], target, models["eps"], force=True)
    assert not beside.exists()  # or the file would be taken for one that predicts v
    beside.write_text("model: mine\n")
    for name in models:
        with pytest.raises(
            InputError, match=r"clean\.yaml was not written by an export and is not replaced"
        ):
            write("file", chosen[name], target, models[name], force=True)
    assert beside.read_text() == "model: mine\n"


def test_an_export_that_fails_leaves_neither(tmp_path, monkeypatch):
    pipeline, neurons = predicting("sd1", "v_prediction", False)
    model = as_model(pipeline)
    chosen = chosen_of(tmp_path, model, neurons)
    monkeypatch.setattr("findnemo.export._weights.seal", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write("file", chosen, tmp_path / "clean.safetensors", model)
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


# ComfyUI ------------------------------------------------------------------------------------------


def sized(family: str, predicts: str = "epsilon", zero: bool = False, **vae):
    """A pipeline whose configuration has the sizes of the published models."""
    pipeline, _ = predicting(family, predicts, zero)
    channels = (320, *pipeline.unet.config.block_out_channels[1:])
    text = {"sd1": 768, "sd2": 1024, "sdxl": 2048}[family]
    pipeline.unet.register_to_config(block_out_channels=channels, cross_attention_dim=text)
    usual = 0.13025 if family == "sdxl" else 0.18215
    pipeline.vae.register_to_config(**{"scaling_factor": usual, **vae})
    return pipeline


@pytest.mark.first(1)
@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_that_user_interfaces_do_not_know_are_said_when_a_file_is_written(family, tmp_path):
    pipeline, neurons = predicting(family, "epsilon", False)
    model = as_model(pipeline)
    usual = {"sd1": 768, "sd2": 1024, "sdxl": 2048}[family]
    why = rf"ComfyUI .* will not load this file.* channels, not 320; the text is \d+ wide, not {usual}"
    with pytest.warns(FindnemoWarning, match=why):
        write("file", chosen_of(tmp_path, model, neurons), tmp_path / "x.safetensors", model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _marks.tell_limits(sized(family))


def test_another_scale_of_latents_is_said_with_the_way_out_in_comfyui():
    """ComfyUI decodes latents / 0.18215; the autoencoder of the file wants latents / 0.5."""
    with pytest.warns(FindnemoWarning, match=r"scales latents by 0.5, .*programs take") as told:
        _marks.tell_limits(sized("sd1", scaling_factor=0.5))
    assert "put a LatentMultiply node (0.3643) before VAE Decode in ComfyUI" in str(told[0].message)
    assert pytest.approx(2, rel=1e-4) == 0.3643 / 0.18215  # 1 / 0.5
    with pytest.warns(FindnemoWarning, match=r"and shifts them by 0.1, ") as told:
        _marks.tell_limits(sized("sd1", shift_factor=0.1))
    assert "LatentMultiply" not in str(told[0].message)


NODES = {
    ("sd1", "epsilon", False): None,
    ("sd1", "v_prediction", False): "ModelSamplingDiscrete (v_prediction)",
    ("sd1", "v_prediction", True): "ModelSamplingDiscrete (v_prediction, zsnr)",
    ("sd2", "v_prediction", False): None,
    ("sd2", "v_prediction", True): "ModelSamplingDiscrete (v_prediction, zsnr)",
    ("sdxl", "v_prediction", True): None,
}


@pytest.mark.parametrize("case", NODES, ids=str)
def test_the_node_that_comfyui_needs_where_it_reads_no_mark(case, tmp_path):
    """It reads `v_pred` and `ztsnr` of SDXL only, and guesses 2.x from values."""
    model = SimpleNamespace(pipeline=sized(*case))
    (tmp_path / "x.yaml").write_text("")
    beside, *node = remarks("file", tmp_path / "x.safetensors", model)
    assert beside.startswith(f"{tmp_path / 'x.yaml'} was written too: keep it beside the file")
    assert node == [
        f"ComfyUI needs the node {n} behind this file: it reads no .yaml"
        for n in [NODES[case]]
        if n
    ]
    assert remarks("kohya", tmp_path / "x.safetensors", model) == []
    model.pipeline.unet.register_to_config(cross_attention_dim=128)
    assert _marks.node_of_comfyui(model.pipeline) is None  # no node helps there


# LoRAs --------------------------------------------------------------------------------------------


@pytest.mark.first(4)
def test_a_lora_says_for_which_model_it_is(made):
    family, predicts, zero, model, neurons, file = made
    chosen = chosen_of(file.parent, model, neurons)
    metadata, keys = about(
        write("kohya", chosen, file.parent / "lora.safetensors", model, force=True)
    )
    v = predicts == "v_prediction"
    version = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}[family] + "_v" * (
        v and family != "sdxl"
    )
    assert metadata["ss_base_model_version"] == version
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_v2"] == str(family == "sd2")
    assert (metadata["ss_v_parameterization"], metadata["ss_zero_terminal_snr"]) == (
        str(v),
        str(zero),
    )
    assert metadata["modelspec.architecture"].endswith("/lora")
    assert metadata["modelspec.prediction_type"] == ("v" if v else "epsilon")
    data = (file.parent / "lora.safetensors").read_bytes()
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert (metadata["sshs_model_hash"], metadata["modelspec.hash_sha256"]) == (
        digest,
        f"0x{digest}",
    )
    assert metadata["model"] == model.fingerprint
    assert not {"v_pred", "ztsnr"} & keys
    lora, _ = about(
        write("lora", chosen, file.parent / "lora", model, force=True)
        / "pytorch_lora_weights.safetensors"
    )
    assert (lora["model"], lora["format"]) == (model.fingerprint, "pt")


def test_the_neurons_are_refused_by_another_model(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    model = as_model(pipeline)
    chosen = chosen_of(tmp_path, model, neurons)
    read = NeuronSet.load(write("neurons", chosen, tmp_path / "neurons.json"))
    assert (read, read.model) == (neurons, model.fingerprint)
    with findnemo.deactivate(model, read):
        pass
    other = as_model(tiny_family("sd1", seed=1))
    for edit in (findnemo.prune, findnemo.deactivate):
        with (
            pytest.raises(MismatchError, match="these neurons were found in another model"),
            edit(other, read),
        ):
            pass
    with findnemo.deactivate(other, NeuronSet(read.layers)):
        pass
