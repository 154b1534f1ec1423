"""Every form of export, read by plain diffusers in a process of its own, gives the
images of the edited pipeline.
"""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from _plain_diffusers import of_pipeline
from _tiny_files import FAMILIES, as_model, loud, make_run, save_file, tiny_family
from safetensors import safe_open
from safetensors.torch import load_file

import findnemo
from findnemo import NeuronSet
from findnemo.errors import EditError, MismatchError, ModelError
from findnemo.export import FORMS, kohya_weights, rewrite, select, write
from findnemo.models import Model
from findnemo.runs import Run

CAPTIONS = ("a red fox", "a grey owl", "a moon")
PLAIN = Path(__file__).parents[1] / "_plain_diffusers.py"


def chosen_of(folder: Path, model: Model, neurons: NeuronSet, **options):
    """What is selected of a run in which the first caption holds the neurons."""
    run = folder / "run"
    if not run.exists():
        make_run(run, model, {CAPTIONS[0]: neurons, CAPTIONS[1]: NeuronSet()})
    with Run.open(run) as opened:
        return select(opened, **options)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Of a family: the folder of its exports and of their images in plain diffusers, and the images
    under the edit and before.
    """
    root = tmp_path_factory.mktemp("exported")
    return cache(lambda family: exports_of(root / family, family))


def exports_of(folder: Path, family: str) -> tuple[Path, tuple[np.ndarray, np.ndarray]]:
    pipeline, neurons = loud(tiny_family(family))
    model = as_model(pipeline, str(folder / "original"))
    pipeline.save_pretrained(folder / "original")
    with findnemo.deactivate(model, neurons):
        edited = of_pipeline(pipeline)
    chosen = chosen_of(folder, model, neurons)
    for form, how in FORMS.items():
        if how.of_lora:  # tests of their own
            continue
        write(form, chosen, folder / how.name, model)
    file = as_model(pipeline, str(save_file(pipeline, folder / "before.safetensors")))
    write("file", chosen, folder / "rewritten.safetensors", file)
    config = str(folder / "original")
    places = {
        "checkpoint": {"directory": str(folder / "checkpoint")},
        "file": {"file": str(folder / "model.safetensors"), "config": config},
        "rewritten": {"file": str(folder / "rewritten.safetensors"), "config": config},
        "lora": {"directory": config, "lora": str(folder / "lora")},
        "kohya": {"directory": config, "lora": str(folder / "kohya.safetensors")},
    }
    name = type(pipeline).__name__
    jobs = [
        {"pipeline": name, "out": str(folder / f"{form}.npy"), **place}
        for form, place in places.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "HF_HUB_OFFLINE": "1"
    }
    done = subprocess.run(
        [sys.executable, PLAIN, folder / "jobs.json"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, (edited, of_pipeline(pipeline))


@pytest.mark.first(5)
@pytest.mark.parametrize("form", ["checkpoint", "file", "rewritten", "lora", "kohya"])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_diffusers_makes_the_images_of_the_edited_pipeline(exported, family, form):
    folder, (edited, before) = exported(family)
    image = np.load(folder / f"{form}.npy")
    assert abs(edited - before).mean() > 0.01
    assert abs(image - edited).max() < 2 / 255


def test_a_checkpoint_holds_safetensors_and_the_card(exported):
    folder = exported("sd1")[0]
    files = {p.name for p in (folder / "checkpoint").rglob("*") if p.is_file()}
    assert {"model_index.json", "README.md", "diffusion_pytorch_model.safetensors"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".ckpt"))]
    assert (folder / "checkpoint" / "README.md").read_text() == (folder / "card.md").read_text()


def test_the_neuron_file_is_a_neuron_set_with_the_captions_beside_it(exported):
    _, neurons = loud(tiny_family("sd1"))
    file = exported("sd1")[0] / "neurons.json"
    assert NeuronSet.load(file) == neurons
    content = json.loads(file.read_text())
    assert content["captions"] == [{"row": 1, "caption": CAPTIONS[0], "layers": neurons.to_json()}]
    assert content["model"] == as_model(loud(tiny_family("sd1"))[0]).fingerprint


def test_nothing_half_written_is_left_behind(exported):
    left = [p.name for p in exported("sd1")[0].rglob(".*")]
    assert set(left) <= {".lock"}


# single files -------------------------------------------------------------------------------------


def original_name(layer: str) -> str:
    """Of a value layer of the tiny Stable Diffusion 1.x, with one layer a block: by hand."""
    return {
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v": (
            "input_blocks.1.1.transformer_blocks.0.attn2.to_v"
        ),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_v": (
            "middle_block.1.transformer_blocks.0.attn2.to_v"
        ),
    }[layer]


@pytest.fixture
def file_and_model(tmp_path):
    """A file with an averaged U-Net, metadata and tensors of other types, and
    the model loaded from it.
    """
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "directory")
    plain = load_file(save_file(pipeline, tmp_path / "plain.safetensors"))
    more = {
        f"model_ema.{''.join(k.split('.')[1:])}": v * 0.9
        for k, v in plain.items()
        if k.startswith("model.")
    }
    more |= {
        "global_step": torch.tensor(7),
        "empty": torch.zeros(0),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    metadata = {"modelspec.title": "mine", "format": "pt"}
    file = save_file(pipeline, tmp_path / "model.safetensors", more, metadata)
    return file, findnemo.load(file, config=tmp_path / "directory"), neurons


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_a_rewritten_file_differs_in_the_rows_of_the_neurons_and_nowhere_else(
    file_and_model, tmp_path, factor
):
    file, model, neurons = file_and_model
    rewrite(model, neurons, tmp_path / "clean.safetensors", factor)
    old, new = load_file(file), load_file(tmp_path / "clean.safetensors")
    assert list(old) == list(new)
    rows = {}
    for layer, indices in neurons.layers.items():
        name = f"model.diffusion_model.{original_name(layer)}.weight"
        rows[name] = rows["model_ema." + "".join(name.split(".")[1:])] = list(indices)
    assert len(rows) == 4
    for name, value in old.items():
        want = value.clone()
        if name in rows:
            want[rows[name]] *= factor
        assert torch.equal(new[name], want), name
    before, after = file.read_bytes(), (tmp_path / "clean.safetensors").read_bytes()
    head = 8 + int.from_bytes(before[:8], "little")
    assert before[:head] == after[:head]  # names, shapes, order and metadata
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < changed <= sum(len(i) * old[n][0].numel() * 4 for n, i in rows.items())
    with safe_open(tmp_path / "clean.safetensors", "pt") as opened:
        assert opened.metadata() == {"modelspec.title": "mine", "format": "pt"}


def test_half_precision_files_are_rewritten_in_theirs(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "directory")
    file = save_file(pipeline.to(torch.bfloat16), tmp_path / "model.safetensors")
    model = findnemo.load(file, config=tmp_path / "directory")  # in float32
    rewrite(model, neurons, tmp_path / "clean.safetensors", 0.3)
    old, new = load_file(file), load_file(tmp_path / "clean.safetensors")
    for layer, indices in neurons.layers.items():
        name = f"model.diffusion_model.{original_name(layer)}.weight"
        want = old[name].clone()
        want[list(indices)] *= 0.3
        assert want.dtype == torch.bfloat16
        assert torch.equal(new[name], want)


def test_a_file_or_model_that_changed_since_it_was_loaded_is_not_rewritten(
    file_and_model, tmp_path
):
    _, model, neurons = file_and_model
    with torch.no_grad():
        model.value_layers[next(iter(neurons.layers))].weight[0, 0] += 1
    with pytest.raises(
        MismatchError, match="is not what was loaded: the file or the model changed since"
    ):
        rewrite(model, neurons, tmp_path / "clean.safetensors")
    assert not (tmp_path / "clean.safetensors").exists()


def test_a_converted_file_has_every_weight_in_its_place_and_zeros_in_the_rows(exported):
    folder = exported("sd1")[0]
    pipeline, neurons = loud(tiny_family("sd1"))
    old, new = load_file(folder / "before.safetensors"), load_file(folder / "model.safetensors")
    assert set(old) == set(new)
    zeroed = {
        f"model.diffusion_model.{original_name(layer)}.weight": list(i)
        for layer, i in neurons.layers.items()
    }
    for name, value in old.items():
        want = value.clone()
        want[zeroed.get(name, [])] = 0
        assert torch.equal(new[name], want), name
    with safe_open(folder / "model.safetensors", "pt") as opened:
        assert opened.metadata()["made_by"] == "findnemo"
    assert pipeline is not None


def test_other_architectures_have_no_original_layout(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    model = as_model(pipeline)
    model.pipeline = type("PixArtAlphaPipeline", (type(pipeline),), {})(
        **pipeline.components, requires_safety_checker=False
    )
    chosen = chosen_of(tmp_path, model, neurons)
    for form in ("file", "kohya"):
        with pytest.raises(
            ModelError,
            match=(
                "of StableDiffusionPipeline and StableDiffusionXLPipeline only, not of"
                " PixArtAlphaPipeline"
            ),
        ):
            write(form, chosen, tmp_path / "x.safetensors", model)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("form", ["lora", "kohya", "file", "neurons", "card"])
def test_what_is_written_twice_is_the_same_to_the_byte(tmp_path, form):
    pipeline, neurons = loud(tiny_family("sd1"))
    pipeline.save_pretrained(tmp_path / "original")
    model = findnemo.load(tmp_path / "original")
    chosen = chosen_of(tmp_path, model, neurons)
    places = [tmp_path / f"{k}-{FORMS[form].name}" for k in range(4)]
    for place in places:
        write(form, chosen, place, model)
    files = [[place] if place.is_file() else sorted(place.iterdir()) for place in places]
    first, *others = [[file.read_bytes() for file in some] for some in files]
    assert first
    assert others == [first] * 3


# LoRAs --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kohya_lora_is_exact_of_one_rank_and_says_its_limits(exported):
    folder = exported("sdxl")[0]
    pipeline, neurons = loud(tiny_family("sdxl"))
    layers = as_model(pipeline).value_layers
    tensors = load_file(folder / "kohya.safetensors")
    assert {name.split(".")[0] for name in tensors} == {
        f"lora_unet_{name.replace('.', '_')}" for name in neurons.layers
    }
    for layer, indices in neurons.layers.items():
        name = f"lora_unet_{layer.replace('.', '_')}"
        down, up, alpha = (
            tensors[f"{name}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha")
        )
        assert alpha.shape == ()
        assert float(alpha) == len(down) == up.shape[1] == 3
        want = torch.zeros_like(layers[layer].weight)
        want[list(indices)] = -layers[layer].weight[list(indices)]
        assert torch.equal(up @ down * (alpha / len(down)), want)
    with safe_open(folder / "kohya.safetensors", "pt") as opened:
        about = opened.metadata()
    assert about["ss_network_dim"] == about["ss_network_alpha"] == "3"
    assert "strength 1 only" in about["limits"]
    with safe_open(folder / "lora" / "pytorch_lora_weights.safetensors", "pt") as opened:
        assert "strength 1 only" in opened.metadata()["limits"]


def test_layers_with_fewer_neurons_are_filled_up_to_one_rank():
    pipeline, neurons = loud(tiny_family("sd1"))
    fewer = neurons - NeuronSet({next(iter(neurons.layers)): [1]})
    ranks = {
        len(v)
        for k, v in kohya_weights(as_model(pipeline), fewer).items()
        if k.endswith("lora_down.weight")
    }
    assert ranks == {3}


def test_a_bias_cannot_be_in_a_kohya_lora(tmp_path):
    pipeline, neurons = loud(tiny_family("sd1"))
    model = as_model(pipeline)
    layer = model.value_layers[next(iter(neurons.layers))]
    layer.bias = torch.nn.Parameter(torch.zeros(layer.out_features))
    chosen = chosen_of(tmp_path, model, neurons)
    with pytest.raises(
        EditError, match="has a bias, which kohya's form does not carry: export a checkpoint"
    ):
        write("kohya", chosen, tmp_path / "x.safetensors", model)
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
