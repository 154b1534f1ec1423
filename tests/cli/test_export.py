"""`findnemo export` on runs of a directory and of a single file, and how commands open
a model and remember it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from _command import Result, cli
from _place import COMMANDS, IMAGES, TEXTS, inputs, make_place, save_model
from _refused import READERS, everything, filled, refused
from _tiny_files import save_file
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import load_file
from safetensors.torch import save_file as safetensors_of

import findnemo
from findnemo.export import FORMS
from findnemo.runs import Run, all_neurons, neurons_of
from findnemo.runs.verdict import RELEASED, advice_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`model`, `model.safetensors`, `captions.csv`, `calibration`, and `run`, an
    audit of the single file.
    """
    place = make_place(tmp_path_factory.mktemp("place"))
    save_file(DiffusionPipeline.from_pretrained(place / "model"), place / "model.safetensors")
    shutil.copytree(
        place / "model", place / "config", ignore=shutil.ignore_patterns("*.safetensors")
    )
    usual = (*inputs(place), *IMAGES, "-q")
    result = cli(
        "audit",
        place / "model.safetensors",
        "--config",
        place / "config",
        *usual,
        "--out",
        place / "run",
    )
    assert (result.status, result.out) == (0, ""), result.err
    return place


@pytest.fixture(scope="module")
def neurons(place):
    with Run.open(place / "run") as run:
        return all_neurons(run.captions())


def noise_of(pipeline) -> torch.Tensor:
    """Latents of a plain diffusers pipeline for one caption and one seed."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    return pipeline(
        TEXTS[0], num_inference_steps=2, generator=generator, output_type="latent"
    ).images


@pytest.fixture(scope="module")
def deactivated(place, neurons):
    """What the original model makes with the neurons of the run switched off, and as it was."""
    model = findnemo.load(DiffusionPipeline.from_pretrained(place / "model"))
    with findnemo.deactivate(model, neurons):
        off = noise_of(model.pipeline)
    return off, noise_of(model.pipeline)


# a run remembers its model ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_a_single_file_opens_the_same_model_again(place, tmp_path):
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    verify = ["verify", run, "--no-attempts", "--attack-captions", 1, "--attack-steps", "0,1", "-q"]
    for command in (verify, ["study", "table3", run, "-q"], ["export", run, "-q"]):
        result = cli(*command)
        assert (result.status, result.out, result.err) == (0, "", ""), command
    with Run.open(run) as opened:
        assert opened.meta("source") == str(place / "model.safetensors")
        assert opened.meta("source_options") == {"config": str(place / "config")}


def test_a_model_that_moved_is_named_with_its_options(place, tmp_path):
    moved = shutil.copy(place / "model.safetensors", tmp_path / "moved.safetensors")
    out = ("--out", tmp_path / "clean.safetensors", "--to", "file", "-q")
    assert cli(
        "export", place / "run", "--model", moved, "--config", place / "config", *out
    ) == Result(0, "", "")
    as_directory = ("--out", tmp_path / "clean", "-q")
    assert cli("export", place / "run", "--model", place / "model", *as_directory) == Result(
        0, "", ""
    )
    result = cli(
        "export",
        place / "run",
        "--model",
        place / "model",
        "--revision",
        "main",
        "--out",
        tmp_path / "no",
    )
    assert result.status == 2
    assert "revision 'main' names a branch" in result.err


@pytest.mark.parametrize("reader", READERS)
def test_every_command_takes_revision_variant_and_configuration(place, tmp_path, reader):
    file = place / ("holdout.txt" if reader == "audit --holdout" else "captions.csv")
    arguments = (*filled(place, READERS[reader], file), "--out", tmp_path / "out")
    refused(
        cli(*arguments, "--revision", "v2"),
        2,
        "revision 'v2' names a branch, tag or commit of a hub id",
    )
    refused(
        cli(*arguments, "--config", "x"),
        2,
        "config 'x' gives a single .safetensors file what it lacks",
    )
    refused(cli(*arguments, "--weights-variant", "ema"), 2, "holds no weights of variant 'ema'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", ["audit", "calibrate", "compare", "detect", "localize", "verify", "export", "study"]
)
def test_help_shows_them_once(command):
    names = [p.name for p in COMMANDS[command].params]
    assert [names.count(n) for n in ("revision", "weights_variant", "config", "place")] == [1] * 4


def test_a_variant_is_remembered(place, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(place / "model")
    pipeline.save_pretrained(tmp_path / "model", variant="other")
    arguments = ("detect", tmp_path / "model", *inputs(place), "-q")
    refused(cli(*arguments, "--out", tmp_path / "run"), 2, "ask for variant 'other'")
    assert cli(*arguments, "--weights-variant", "other", "--out", tmp_path / "run").status == 0
    with Run.open(tmp_path / "run") as run:
        assert run.meta("source_options") == {"variant": "other"}


# export -------------------------------------------------------------------------------------------


def test_a_checkpoint_that_plain_diffusers_loads(place, neurons, deactivated, tmp_path):
    off, on = deactivated
    result = cli("export", place / "run", "--out", tmp_path / "clean")
    assert (result.status, result.out) == (0, "")
    assert f"{len(neurons)} neurons off: checkpoint written to {tmp_path / 'clean'}" in result.err
    clean = noise_of(DiffusionPipeline.from_pretrained(tmp_path / "clean", use_safetensors=True))
    torch.testing.assert_close(clean, off, rtol=1e-4, atol=1e-4)
    assert (clean - on).abs().max() > 0.1


def test_an_export_says_that_the_audit_advises_no_release(place, tmp_path):
    with Run.open(place / "run") as run:
        advice = advice_of(run, list(run.captions()))
    assert advice.action not in RELEASED
    result = cli("export", place / "run", "--to", "neurons", "--out", tmp_path / "neurons.json")
    assert result.status == 0
    told = result.err.index(f"the audit's advice: {advice.sentence}")
    assert told < result.err.index("neurons written to")


def test_several_forms_go_into_one_folder(place, deactivated, neurons, tmp_path):
    usual = {form: how.name for form, how in FORMS.items() if not how.of_lora}
    forms = [part for form in usual for part in ("--to", form)]
    result = cli("export", place / "run", *forms, "--out", tmp_path / "all", "-q")
    assert (result.status, result.out) == (0, "")
    (warning,) = result.err.splitlines()  # of kohya's form
    assert warning.startswith("warning: ComfyUI and other user interfaces will not load the model")
    assert {p.name for p in (tmp_path / "all").iterdir()} == set(usual.values())
    off, _ = deactivated
    file = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "all" / "model.safetensors"),
        config=str(place / "config"),
        local_files_only=True,
    )
    torch.testing.assert_close(noise_of(file), off, rtol=1e-4, atol=1e-4)
    for lora in ("lora", "kohya.safetensors"):
        plain = DiffusionPipeline.from_pretrained(place / "model", use_safetensors=True)
        plain.load_lora_weights(tmp_path / "all" / lora)
        torch.testing.assert_close(noise_of(plain), off, rtol=0, atol=1e-4 * float(off.abs().max()))
    assert findnemo.NeuronSet.load(tmp_path / "all" / "neurons.json") == neurons


@pytest.mark.slow
def test_a_single_file_is_checked_against_its_run(place, tmp_path):
    clean = tmp_path / "clean.safetensors"
    assert cli("export", place / "run", "--to", "file", "-q", "--out", clean).status == 0
    right = cli("export", place / "run", "--check", clean)
    assert right.status == 0, right.err
    assert f"{clean} is right" in " ".join(right.err.split())
    assert "is missing" not in right.err
    (moved := tmp_path / "moved" / clean.name).parent.mkdir()
    shutil.copy(clean, moved)
    beside = clean.with_suffix(".yaml").exists()
    alone = cli("export", place / "run", "--check", moved)
    assert (f"{moved.with_suffix('.yaml')} is missing" in " ".join(alone.err.split())) is beside
    tensors = load_file(clean)
    name = next(name for name in tensors if name.startswith("first_stage_model"))
    for other, what in (
        (tensors | {name: tensors[name] + 1}, "vae"),
        (load_file(place / "model.safetensors"), "unet"),
    ):
        safetensors_of(other, clean)
        wrong = cli("export", place / "run", "--check", clean)
        assert wrong.status == 1
        assert f"warning: {what} " in wrong.err


def test_the_neurons_and_the_card_need_no_model(place, neurons, tmp_path):
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    with Run.create(run, _settings(run)) as opened:
        opened.set_meta("source", str(tmp_path / "gone.safetensors"))
    assert cli("export", run, "--to", "neurons", "--to", "card", "-q") == Result(0, "", "")
    assert {p.name for p in (run / "export").iterdir()} == {"neurons.json", "card.md"}
    assert findnemo.NeuronSet.load(run / "export" / "neurons.json") == neurons
    assert r"gone\.safetensors" in (run / "export" / "card.md").read_text()
    refused(
        cli("export", run, "--to", "lora"),
        2,
        "was not made by you on this machine, or was changed since",
    )
    refused(
        cli("export", run, "--to", "lora", "--trust"),
        2,
        "gone.safetensors is not a model directory, nor a file",
    )


def _settings(path: Path) -> dict:
    with Run.open(path) as run:
        return run.meta("settings")


def test_some_captions_or_the_neurons_that_most_share(place, tmp_path):
    with Run.open(place / "run") as run:
        held = [c for c in run.captions() if len(all_neurons([c]))]
    first = held[0]
    last = held[-1]
    arguments = ("export", place / "run", "--to", "neurons", "-q", "--out")
    assert (
        cli(*arguments, tmp_path / "a.json", "--caption", first.row, "--caption", last.text).status
        == 0
    )
    assert findnemo.NeuronSet.load(tmp_path / "a.json") == neurons_of(first) | neurons_of(last)
    assert cli(*arguments, tmp_path / "b.json", "--most", 1).status == 0
    assert len(findnemo.NeuronSet.load(tmp_path / "b.json")) == 1
    content = json.loads((tmp_path / "a.json").read_text())
    assert [c["caption"] for c in content["captions"]] == [first.text, last.text]


def test_a_factor_is_carried_by_the_weights(place, neurons, tmp_path):
    assert cli("export", place / "run", "--factor", 0.5, "--out", tmp_path / "half").status == 0
    model = findnemo.load(place / "model")
    half = findnemo.load(tmp_path / "half")
    for layer, indices in neurons.layers.items():
        old, new = (m.value_layers[layer].weight[list(indices)] for m in (model, half))
        assert torch.equal(old * 0.5, new)


@pytest.mark.slow
def test_neurons_chosen_by_hand_are_exported_of_a_run_or_of_a_model(place, tmp_path):
    model = findnemo.load(place / "model")
    name, layer = next(iter(model.value_layers.items()))
    file = tmp_path / "neurons.json"
    file.write_text(json.dumps({"layers": {name: [1, 3]}, "factor": 0.5}))
    wanted = layer.weight.detach().clone()
    wanted[[1, 3]] *= 0.5
    for source in ("run", "model"):
        out = tmp_path / f"of-{source}"
        made = cli("export", place / source, "--neurons-file", file, "--out", out)
        assert made.status == 0, made.err
        assert f"2 neurons at 0.5 (chosen by hand, not verified): checkpoint written to {out}" in (
            made.err
        )
        assert torch.equal(findnemo.load(out).value_layers[name].weight, wanted)
        assert "**Chosen by hand, not verified.**" in (out / "README.md").read_text()
    refusals = {
        ("model",): "model is not a run directory, in which exports belong: give --out",
        ("model", "--model", "demo"): "so --model has no run to apply to",
        ("run", "--most", 1): "--neurons-file names the neurons, and so does --most",
        ("run", "--neurons-file", place / "captions.csv"): "is not a neuron file",
    }
    for (source, *more), why in refusals.items():
        refused(cli("export", place / source, "--neurons-file", file, *more), 2, why)
    file.write_text(json.dumps({"layers": {name: [10**6]}}))
    out = ("--out", tmp_path / "nothing")
    refused(cli("export", place / "run", "--neurons-file", file, *out), 2, "no neuron 1000000 in")
    assert not (tmp_path / "nothing").exists()


NAMED_AS_FILES = [
    ("clean.safetensors", (), "checkpoint needs a directory: for one file add --to file"),
    ("l.safetensors", ("--to", "lora"), "lora needs a directory: for one file add --to kohya"),
    ("a.json", (), "a.json is the name of a file, and checkpoint needs a directory"),
    ("b.safetensors", ("--to", "file", "--to", "kohya"), "several forms needs a directory: give a"),
]


def test_what_cannot_be_exported(place, tmp_path):
    before = everything(place)
    (tmp_path / "file").write_text("mine")
    run = place / "run"
    with Run.create(tmp_path / "empty", {}):
        pass
    refused(
        cli("export", tmp_path / "empty"),
        2,
        "holds no localized neurons: there is nothing to switch off",
    )
    refused(
        cli("export", run, "--to", "paper"),
        2,
        "'paper' is not known: use checkpoint, file, lora, kohya, adapter, adapter-kohya, neurons,"
        " card",
    )
    for to in ("checkpoint", "lora"):
        refused(
            cli("export", run, "--to", to, "--out", tmp_path / "file"),
            2,
            "is a file: give a directory",
        )
    for to in ("file", "kohya", "neurons", "card"):
        refused(cli("export", run, "--to", to, "--out", tmp_path), 2, "is a directory: give a file")
        refused(cli("export", run, "--to", to, "--out", tmp_path / "x.txt"), 2, "must end in .")
    refused(cli("export", run, "--to", "adapter"), 2, "and this run was made without one (--lora)")
    both = ("--to", "lora", "--to", "card")
    refused(
        cli("export", run, *both, "--out", tmp_path / "file"),
        2,
        "is a file: give a folder for several forms",
    )
    for name, to, why in NAMED_AS_FILES:
        refused(cli("export", run, *to, "--out", tmp_path / name), 2, why)
    refused(cli("export", run, "--caption", "no such"), 2, "no caption 'no such' in this run")
    over = ("--to", "file", "--force", "--out", place / "model.safetensors")
    refused(
        cli("export", run, *over),
        2,
        "model.safetensors is the audited model itself: give another --out",
    )
    other = save_model(tmp_path / "other", seed=1)
    refused(
        cli("export", run, "--model", other, "--out", tmp_path / "clean"),
        2,
        "is not the model of this run",
    )
    assert (tmp_path / "file").read_text() == "mine"
    assert everything(place) == before
    assert {p.name for p in tmp_path.iterdir()} == {"file", "empty", "other"}


def test_an_earlier_export_is_replaced_by_force_only(place, tmp_path):
    arguments = ("export", place / "run", "--to", "neurons", "--out", tmp_path / "n.json")
    assert cli(*arguments, "-q").status == 0
    first = (tmp_path / "n.json").read_bytes()
    refused(
        cli(*arguments, "--most", 1),
        2,
        "n.json already exists: give another --out, or --force to replace it",
    )
    assert (tmp_path / "n.json").read_bytes() == first
    assert cli(*arguments, "--most", 1, "--force", "-q") == Result(0, "", "")
    assert len(findnemo.NeuronSet.load(tmp_path / "n.json")) == 1


def test_a_card_is_pushed_only_when_asked(place, tmp_path, monkeypatch):
    run = place / "run"
    pushed = []
    monkeypatch.setattr(
        "findnemo.export.push_card",
        lambda section, repo: pushed.append((section, repo)) or "https://hub/commit",
    )
    assert cli("export", run, "--to", "card", "--out", tmp_path / "card.md").status == 0
    assert pushed == []
    result = cli("export", run, "--to", "card", "--push", "me/my-model")
    advice = "the audit's advice: Do not release yet: 3 of 3 memories are still there."
    assert (result.status, result.err) == (0, f"{advice}\ncard pushed: https://hub/commit\n")
    assert pushed == [((tmp_path / "card.md").read_text(), "me/my-model")]
    assert not (run / "export").exists()  # to the hub, not to a file
    alone = cli("export", run, "--push", "me/my-model")
    assert (alone.status, len(pushed)) == (2, 1)
    assert "give --to card" in alone.err
