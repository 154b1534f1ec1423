"""Exports keep the dtypes of the source, tensor by tensor, whatever the run computed in;
whatever is narrowed is said.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from _command import cli
from _hub import cached
from _tiny_files import FAMILIES, as_model, loud, make_run, save_file, tiny_family
from diffusers import DiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save_file as save

import findnemo
from findnemo import NeuronSet
from findnemo.errors import EditError, FindnemoWarning, InputError
from findnemo.export import original_tensors, select, with_kept, write
from findnemo.files.tensors import write as write_tensors
from findnemo.models.unet_names import unet_name
from findnemo.runs import Run

CAPTION = "a red fox"
UNUSUAL = "ComfyUI and other user interfaces will not load"  # of small models


def chosen_of(folder: Path, model, neurons, **options):
    place = folder / "run"
    if place.exists():
        shutil.rmtree(place)
    make_run(place, model, {CAPTION: neurons})
    with Run.open(place) as run:
        return select(run, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a diffusers directory: part/name -> tensor."""
    found = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        found |= {f"{file.parent.name}/{name}": value for name, value in load_file(file).items()}
    return found


def zeroed(tensors: dict, neurons: NeuronSet, factor: float = 0.0) -> dict:
    made = {name: value.clone() for name, value in tensors.items()}
    for layer, indices in neurons.layers.items():
        name = f"unet/{layer}.weight"
        made[name][list(indices)] = (made[name][list(indices)].float() * factor).to(
            made[name].dtype
        )
    return made


def same(one: dict, other: dict) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        assert other[name].dtype == value.dtype, name
        assert torch.equal(other[name], value), name


@pytest.fixture(scope="module", params=FAMILIES)
def narrow(request, tmp_path_factory):
    """A float32 directory whose weights bfloat16 does not hold, and the model of it as
    a bfloat16 run loads it.
    """
    folder = tmp_path_factory.mktemp(request.param)
    pipeline, neurons = loud(tiny_family(request.param))
    pipeline.save_pretrained(folder / "source")
    model = findnemo.load(folder / "source", dtype="bfloat16")
    return folder, pipeline, model, neurons


@pytest.fixture(autouse=True)
def silent(request):
    """Nothing is told where nothing was narrowed; tests of what is told ask for it."""
    with warnings.catch_warnings():
        if "tells" not in request.keywords:
            warnings.simplefilter("error", FindnemoWarning)
            warnings.filterwarnings("ignore", UNUSUAL, FindnemoWarning)
        yield


@pytest.mark.first(1)
@pytest.mark.parametrize("factor", [0.0, 0.3])
def test_a_bfloat16_run_writes_the_float32_weights_of_its_source(narrow, tmp_path, factor):
    folder, _, model, neurons = narrow
    chosen = chosen_of(tmp_path, model, neurons, factor=factor)
    same(
        weights(write("checkpoint", chosen, tmp_path / "clean", model)),
        zeroed(weights(folder / "source"), neurons, factor),
    )
    assert model.dtype == torch.bfloat16  # the model in memory is as it was


@pytest.mark.first(1)
def test_a_single_file_and_loras_too(narrow, tmp_path):
    _, pipeline, model, neurons = narrow
    chosen = chosen_of(tmp_path, model, neurons)
    made = load_file(write("file", chosen, tmp_path / "clean.safetensors", model))
    wanted = original_tensors(findnemo.prune(as_model(pipeline), neurons))
    same(
        {n: lazy.make().detach() for n, lazy in wanted.items()},
        {n: v for n, v in made.items() if n not in ("v_pred", "ztsnr")},
    )
    lora = load_file(write("kohya", chosen, tmp_path / "lora.safetensors", model))
    folder = load_file(
        write("lora", chosen, tmp_path / "lora", model) / "pytorch_lora_weights.safetensors"
    )
    layers = as_model(pipeline).value_layers
    for layer, indices in neurons.layers.items():
        want = torch.zeros_like(layers[layer].weight)
        want[list(indices)] = -layers[layer].weight[list(indices)]
        name = f"lora_unet_{layer.replace('.', '_')}"
        assert torch.equal(lora[f"{name}.lora_up.weight"] @ lora[f"{name}.lora_down.weight"], want)
        assert torch.equal(
            folder[f"unet.{layer}.lora_B.weight"] @ folder[f"unet.{layer}.lora_A.weight"], want
        )


def mixed(folder: Path) -> None:
    """Make a directory's files mixed: of each part every third tensor float16 and every third
    bfloat16; the autoencoder all float16.
    """
    for file in folder.glob("*/*.safetensors"):
        kinds = (
            [torch.float16]
            if file.parent.name == "vae"
            else [torch.float16, torch.bfloat16, torch.float32]
        )
        save(
            {n: v.to(kinds[i % len(kinds)]) for i, (n, v) in enumerate(load_file(file).items())},
            file,
            {"format": "pt"},
        )


@pytest.mark.first(1)
@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", *(pytest.param(d, marks=pytest.mark.slow) for d in ("float32", "float16"))],
)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_mixed_source_stays_mixed_tensor_by_tensor(tmp_path, family, dtype):
    pipeline, neurons = loud(tiny_family(family))
    pipeline.save_pretrained(tmp_path / "source")
    mixed(tmp_path / "source")
    model = findnemo.load(tmp_path / "source", dtype=dtype)
    chosen = chosen_of(tmp_path, model, neurons, factor=0.5)
    same(
        weights(write("checkpoint", chosen, tmp_path / "clean", model)),
        zeroed(weights(tmp_path / "source"), neurons, 0.5),
    )
    write("file", chosen, tmp_path / "clean.safetensors", model)
    made = load_file(tmp_path / "clean.safetensors")
    stored = zeroed(weights(tmp_path / "source"), neurons, 0.5)
    layers = pipeline.unet.config.layers_per_block
    attended = frozenset({1} if family == "sd1" else {0})
    for name, value in stored.items():
        if name.startswith("unet/"):
            same(
                {
                    "x": made[
                        "model.diffusion_model."
                        + unet_name(name.removeprefix("unet/"), layers, attended)
                    ]
                },
                {"x": value},
            )


def test_names_of_old_autoencoders_are_known(tmp_path):
    """The published Stable Diffusion 1.x autoencoders have their attention under names that
    diffusers replaces when it loads them.
    """
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "source")
    mixed(tmp_path / "source")
    file = tmp_path / "source" / "vae" / "diffusion_pytorch_model.safetensors"
    new = {
        n: v.to(torch.float16 if ".to_" in n else torch.float32) for n, v in load_file(file).items()
    }
    old = dict(new)
    for name, value in new.items():
        for now, once in (
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ):
            if now in name:
                old[name.replace(now, once)] = old.pop(name, value)
    assert set(old) != set(new)
    save(old, file, {"format": "pt"})
    model = findnemo.load(tmp_path / "source", dtype="bfloat16")
    made = weights(
        write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    )
    same(
        {f"vae/{n}": v for n, v in new.items()},
        {n: v for n, v in made.items() if n.startswith("vae/")},
    )


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_sources_stay_so_in_a_float32_run(tmp_path, stored):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.to(stored).save_pretrained(tmp_path / "source", variant="fp16")
    model = findnemo.load(tmp_path / "source", dtype="float32", variant="fp16")
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    same(weights(clean), zeroed(weights(tmp_path / "source"), neurons))
    # under plain names, which every loader asks for
    assert findnemo.load(clean).dtype == torch.float32


def test_the_variant_that_was_loaded_is_the_source(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "source")
    full = weights(tmp_path / "source")
    pipeline.to(torch.float16).save_pretrained(tmp_path / "source", variant="fp16")
    for variant, kind in ((None, torch.float32), ("fp16", torch.float16)):
        model = findnemo.load(tmp_path / "source", dtype="bfloat16", variant=variant)
        clean = write(
            "checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / f"clean-{variant}", model
        )
        same(
            weights(clean), zeroed({name: value.to(kind) for name, value in full.items()}, neurons)
        )


def test_sharded_sources(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "source", max_shard_size="60KB")
    assert len(list((tmp_path / "source" / "unet").glob("*.safetensors"))) > 2
    model = findnemo.load(tmp_path / "source", dtype="bfloat16")
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    same(weights(clean), zeroed(weights(tmp_path / "source"), neurons))


def test_hub_ids_at_a_revision(tmp_path, monkeypatch):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "old")
    tiny_family("sd1", seed=1).save_pretrained(tmp_path / "new")
    cached(monkeypatch, tmp_path / "cache", "some/model", tmp_path / "new")
    cached(monkeypatch, tmp_path / "cache", "some/model", tmp_path / "old", "v1", "d" * 40)
    monkeypatch.chdir(tmp_path)
    model = findnemo.load("some/model", dtype="bfloat16", revision="v1")
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    same(weights(clean), zeroed(weights(tmp_path / "old"), neurons))


def test_a_checkpoint_of_a_single_file_has_its_dtypes(tmp_path):
    pipeline, neurons = loud(tiny_family("sdxl"))
    pipeline.save_pretrained(tmp_path / "directory")
    pipeline.unet.to(torch.float16)
    pipeline.text_encoder.to(torch.bfloat16)
    file = save_file(pipeline, tmp_path / "model.safetensors")
    model = findnemo.load(file, dtype="bfloat16", config=tmp_path / "directory")
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    pipeline.save_pretrained(tmp_path / "wanted")
    same(weights(clean), zeroed(weights(tmp_path / "wanted"), neurons))


def test_a_single_file_that_was_read_with_the_demos_configuration_is_read_again_with_it(tmp_path):
    demo = findnemo.load("demo")
    file = tmp_path / "model.safetensors"
    write_tensors(file, original_tensors(demo.pipeline), {"format": "pt"})
    model = findnemo.load(file, dtype="bfloat16", config="demo")
    neurons = NeuronSet({next(iter(model.value_layers)): [1, 5]})
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    demo.pipeline.unet.save_pretrained(tmp_path / "wanted" / "unet")
    written = {name: value for name, value in weights(clean).items() if name.startswith("unet/")}
    same(written, zeroed(weights(tmp_path / "wanted"), neurons))


@pytest.mark.first(1)
def test_channels_last_changes_no_value(narrow, tmp_path):
    folder, _, _, neurons = narrow
    model = findnemo.load(folder / "source")
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    same(weights(clean), zeroed(weights(folder / "source"), neurons))


# asked for ----------------------------------------------------------------------------------------


@pytest.mark.first(1)
@pytest.mark.tells
@pytest.mark.parametrize("form", ["checkpoint", "file", "rewritten"])
def test_a_dtype_that_is_asked_for_is_written_and_what_it_narrows_is_said(tmp_path, form):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "source")
    place = tmp_path / "source"
    if form == "rewritten":
        more = {
            "global_step": torch.tensor(7),
            "model_ema.x": torch.ones(2),
            "flags": torch.tensor([True]),
        }
        place = save_file(
            pipeline, tmp_path / "model.safetensors", more, {"modelspec.title": "mine"}
        )
    model = findnemo.load(
        place, dtype="bfloat16", **({"config": tmp_path / "source"} if form == "rewritten" else {})
    )
    chosen = chosen_of(tmp_path, model, neurons)
    target = tmp_path / ("clean" if form == "checkpoint" else "clean.safetensors")
    with pytest.warns(
        FindnemoWarning, match=r"^narrowed to float16, as asked: .*from float32"
    ) as told:
        write("file" if form == "rewritten" else form, chosen, target, model, dtype="float16")
    said = [str(w.message) for w in told if issubclass(w.category, FindnemoWarning)]
    assert len([text for text in said if not text.startswith(UNUSUAL)]) == 1
    if form == "checkpoint":
        wanted = {n: v.half() for n, v in zeroed(weights(tmp_path / "source"), neurons).items()}
        same(weights(target), wanted)
    else:
        clean = original_tensors(findnemo.prune(as_model(pipeline), neurons))
        wanted = {n: lazy.make().detach().half() for n, lazy in clean.items()}
        if form == "rewritten":
            wanted |= {
                "global_step": more["global_step"],
                "flags": more["flags"],
                "model_ema.x": more["model_ema.x"].half(),
            }
            with safe_open(target, "pt") as opened:
                about = opened.metadata()
            own = {"made_by": "findnemo", "model": model.fingerprint, "neurons": str(len(neurons))}
            assert about == {"modelspec.title": "mine"} | own
        same(load_file(target), wanted)
    assert next(pipeline.text_encoder.parameters()).dtype == torch.float32
    assert {p.dtype for p in model.pipeline.text_encoder.parameters()} == {torch.bfloat16}


@pytest.mark.first(1)
def test_a_wider_dtype_is_written_without_a_word_and_from_the_source(narrow, tmp_path):
    folder, _, model, neurons = narrow
    clean = write(
        "checkpoint",
        chosen_of(tmp_path, model, neurons),
        tmp_path / "clean",
        model,
        dtype="float32",
    )
    same(weights(clean), zeroed(weights(folder / "source"), neurons))


@pytest.mark.tells
def test_a_narrow_lora_is_said_to_be_inexact(narrow, tmp_path):
    _, _, model, neurons = narrow
    with pytest.warns(
        FindnemoWarning, match="narrowed to float16, as asked: the LoRA, which is then not exact"
    ):
        write(
            "kohya",
            chosen_of(tmp_path, model, neurons),
            tmp_path / "lora.safetensors",
            model,
            dtype=torch.float16,
        )
    assert {v.dtype for v in load_file(tmp_path / "lora.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize("dtype", ["float64", "int8", "half-ish", "save", torch.int8])
def test_another_dtype_is_refused(narrow, tmp_path, dtype):
    _, _, model, neurons = narrow
    with pytest.raises(InputError, match="is not known: use float32, float16 or bfloat16"):
        write(
            "checkpoint",
            chosen_of(tmp_path, model, neurons),
            tmp_path / "clean",
            model,
            dtype=dtype,
        )


# where the source is not what was loaded ----------------------------------------------------------


def test_a_live_pipeline_is_written_as_it_is(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    model = findnemo.load(pipeline.to(torch.bfloat16))
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    pipeline.save_pretrained(tmp_path / "wanted")
    same(weights(clean), zeroed(weights(tmp_path / "wanted"), neurons))


@pytest.mark.parametrize("form", ["checkpoint", "file", "lora", "kohya"])
def test_a_source_that_is_gone_is_named_with_the_way_out(tmp_path, form):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "source")
    model = findnemo.load(tmp_path / "source", dtype="bfloat16")
    chosen = chosen_of(tmp_path, model, neurons)
    shutil.move(tmp_path / "source", tmp_path / "elsewhere")
    target = tmp_path / ("clean.safetensors" if form in ("file", "kohya") else "clean")
    with pytest.raises(
        InputError,
        match=(
            r"source is gone, and exports keep the dtype of its files: put it"
            r" back.*--model.*--dtype"
        ),
    ):
        write(form, chosen, target, model)
    assert not target.exists()
    write(
        form,
        chosen,
        target,
        model,
        dtype="bfloat16" if form in ("checkpoint", "file") else "float32",
    )


@pytest.mark.tells
def test_a_part_that_was_changed_since_is_written_as_it_is_loaded_and_said(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "source")
    model = findnemo.load(tmp_path / "source", dtype="bfloat16")
    model.pipeline.load_textual_inversion({"<mine>": torch.ones(32)})
    chosen = chosen_of(tmp_path, model, neurons)
    with pytest.warns(
        FindnemoWarning,
        match=(
            r"text_encoder is not what .*source holds \(changed since it was loaded\): .* in"
            r" bfloat16"
        ),
    ):
        clean = write("checkpoint", chosen, tmp_path / "clean", model)
    made = weights(clean)
    source = zeroed(weights(tmp_path / "source"), neurons)
    parts = ("unet/", "vae/")
    same(
        {n: v for n, v in made.items() if n.startswith(parts)},
        {n: v for n, v in source.items() if n.startswith(parts)},
    )
    assert {v.dtype for n, v in made.items() if n.startswith("text_encoder/")} == {torch.bfloat16}
    again = DiffusionPipeline.from_pretrained(clean)
    (token,) = again.tokenizer("<mine>", add_special_tokens=False).input_ids
    embedding = again.text_encoder.get_input_embeddings().weight
    assert torch.equal(embedding[token], torch.ones(32))
    wanted = model.pipeline.tokenizer("a <mine> fox").input_ids
    assert again.tokenizer("a <mine> fox").input_ids == wanted


def test_a_lora_that_is_loaded_is_not_passed_over(tmp_path):
    from peft import LoraConfig

    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "source")
    model = findnemo.load(tmp_path / "source", dtype="bfloat16")
    model.pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_v"]))
    chosen = chosen_of(tmp_path, model, neurons)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FindnemoWarning)
        with pytest.raises(EditError, match="carries a LoRA"):
            write("checkpoint", chosen, tmp_path / "clean", model)


@pytest.mark.first(1)
@pytest.mark.tells
def test_what_is_made_of_a_run_shares_the_parts_of_the_source(narrow):
    """As `findnemo harden` writes it: a new denoiser, in the dtype it was computed in, and all
    else as the source keeps it.
    """
    folder, _, _, neurons = narrow
    model = findnemo.load(folder / "source", dtype="bfloat16")
    made = findnemo.prune(model, neurons)
    with pytest.warns(
        FindnemoWarning,
        match=(
            "the unet is written in bfloat16, in which it was computed, .*source has it in float32"
        ),
    ):
        kept = with_kept(model, made)
    assert kept.unet is made.unet
    source = DiffusionPipeline.from_pretrained(folder / "source")
    for name in ("vae", "text_encoder"):
        same(getattr(source, name).state_dict(), getattr(kept, name).state_dict())


# what a checkpoint keeps besides ------------------------------------------------------------------


def test_a_checkpoint_keeps_the_pipelines_own_settings(tmp_path):
    from diffusers import EulerDiscreteScheduler

    pipeline, neurons = loud(tiny_family("sdxl"))
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    pipeline.scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        trained_betas=[0.001] * 1000,
        use_karras_sigmas=True,
    )
    pipeline.save_pretrained(tmp_path / "source")
    model = findnemo.load(tmp_path / "source", dtype="bfloat16")
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    for name in (
        "scheduler/scheduler_config.json",
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
    ):
        old, new = (
            json.loads((folder / name).read_text()) for folder in (tmp_path / "source", clean)
        )
        assert {k: v for k, v in new.items() if k != "_name_or_path"} == {
            k: v for k, v in old.items() if k != "_name_or_path"
        }, name


@pytest.mark.parametrize("required", [True, False])
def test_a_missing_safety_checker_stays_missing_and_whether_one_is_wanted_too(tmp_path, required):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.register_to_config(requires_safety_checker=required)
    pipeline.save_pretrained(tmp_path / "source")
    model = findnemo.load(tmp_path / "source")
    clean = write("checkpoint", chosen_of(tmp_path, model, neurons), tmp_path / "clean", model)
    index = json.loads((clean / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None]
    assert index["requires_safety_checker"] is required


# the command --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_keeps_the_dtype_of_the_source_and_writes_another_when_asked(
    tmp_path, monkeypatch
):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "source")
    model = findnemo.load(tmp_path / "source", dtype="bfloat16")
    chosen_of(tmp_path, model, neurons)
    run = tmp_path / "run"
    with Run.open(run) as opened:
        settings = opened.meta("settings")
    shutil.rmtree(run)
    create = Run.create
    monkeypatch.setattr(
        "_tiny_files.Run.create", lambda path, made: create(path, made | {"dtype": "bfloat16"})
    )
    make_run(run, model, {CAPTION: neurons})
    assert settings["model"] == model.fingerprint
    result = cli("export", run, "--out", tmp_path / "clean")
    assert (result.status, result.out) == (0, ""), result.err
    assert "narrowed" not in result.err
    same(weights(tmp_path / "clean"), zeroed(weights(tmp_path / "source"), neurons))
    result = cli("export", run, "--dtype", "float16", "--out", tmp_path / "half", "-q")
    assert result.status == 0
    assert result.err.count("narrowed to float16, as asked") == 1
    assert {v.dtype for v in weights(tmp_path / "half").values()} == {torch.float16}
    shutil.move(tmp_path / "source", tmp_path / "elsewhere")
    result = cli("export", run, "--out", tmp_path / "no")
    assert result.status == 2
    assert "if it is elsewhere now, give its place with --model" in result.err
    assert (
        cli("export", run, "--model", tmp_path / "elsewhere", "--out", tmp_path / "moved", "-q").err
        == ""
    )
    same(weights(tmp_path / "moved"), weights(tmp_path / "clean"))
    result = cli("export", run, "--dtype", "float64", "--out", tmp_path / "no")
    assert result.status == 2
    assert "dtype 'float64' is not known" in result.err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_lora_that_was_loaded_with_the_model_is_in_what_is_written(tmp_path, dtype):
    """In the dtype of the source: the weights of the base, with the LoRA, and the edit after it."""
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "model")
    model = findnemo.load(tmp_path / "model")
    base = weights(tmp_path / "model")
    name = next(iter(neurons.layers))
    generator = torch.Generator().manual_seed(0)
    out, into = model.value_layers[name].weight.shape
    down = torch.randn(2, into, generator=generator)
    up = torch.randn(out, 2, generator=generator)
    lora = tmp_path / "lora.safetensors"
    save({f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}, lora)
    tuned = findnemo.load(tmp_path / "model", dtype=dtype, lora=f"{lora}:0.5")
    chosen = chosen_of(tmp_path / "run", tuned, neurons)
    write("checkpoint", chosen, tmp_path / "clean", tuned)
    base[f"unet/{name}.weight"] = base[f"unet/{name}.weight"] + 0.5 * (up @ down)
    same(weights(tmp_path / "clean"), zeroed(base, neurons))
