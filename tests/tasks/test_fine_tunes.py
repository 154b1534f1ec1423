"""The audit of a fine-tune: what is found on a LoRA whose memories are known, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from _command import cli
from _copying_lora import make_copying_lora
from _opened import note_openings
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

import findnemo
from findnemo import demo, tasks
from findnemo.cli._app import app
from findnemo.errors import InputError, MismatchError
from findnemo.neurons import NeuronSet
from findnemo.runs import all_neurons, standing
from findnemo.runs.fine_tunes import folder_of_variant
from findnemo.runs.tuned import CLEANED, choice, row_of, training_of
from findnemo.tasks import Detecting, FineTune, Listener, Output, Pictures, Source
from findnemo.tasks.fine_tunes import begun_with
from findnemo.tasks.tuned_input import FURTHER

FEW = Pictures(images=2, image_steps=15, guidance=2.0, descriptor=demo.DESCRIPTOR)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_copying_lora(tmp_path_factory.mktemp("copying"))


@pytest.fixture(scope="module")
def told():
    """What the audit of `run` says, and the names of its stages."""
    return []


@pytest.fixture(scope="module")
def opened():
    """The places of models and judges that the audit of `run` opens."""
    return []


@pytest.fixture(scope="module")
def run(place, told, opened, tmp_path_factory):
    """The audit of a LoRA that copies two of three training pictures, at two strengths."""
    out = tmp_path_factory.mktemp("audited") / "run"
    tuned = FineTune(place.photos, lora_scale="0.1,1", copy_rate=0.5)
    source = Source(str(place.base), lora=str(place.lora))
    holdout = Detecting(holdout=list(demo.holdout()[:40]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findnemo.tasks.tuned_input.CONTROLS", 3)
        listener = Listener(progress=lambda stage, *_: told.append(stage), say=told.append)
        with pytest.MonkeyPatch.context() as noting:
            note_openings(noting, opened.append)
            found = findnemo.audit(
                source, tuned, Output(out), holdout, pictures=FEW, listener=listener
            )
        with found:
            yield found


def test_progress_names_the_model_whose_images_are_made(run, told):
    stages = {f"images of {name}: caption" for name in ("base", "LoRA x 0.1", "LoRA")}
    assert stages < {*told}
    assert {"verify, all neurons together", "check of other captions"} < {*told}
    assert not {"pictures", "union", "quality check"} & {*told}
    off, every = len(all_neurons(run.captions())), sum(run.meta("widths").values())
    assert f"images of LoRA with {off} of {every} neurons off" in told


def test_the_descriptor_is_opened_once_and_a_model_when_another_one_was_open(run, place, opened):
    """The base, two strengths, further images of the base and the weaker one; the LoRA once more for
    the search, its images with neurons off, and further images of these.
    """
    assert opened.count(str(demo.DESCRIPTOR)) == 1
    assert opened.count(str(place.base)) == 6
    assert {*opened} == {str(demo.DESCRIPTOR), str(place.base)}


def test_what_concerns_the_threshold_alone_is_not_said(run, told):
    assert not [text for text in told if "tau is" in text or "detection ends early" in text]


def test_the_run_knows_the_command_that_began_it(run, place):
    begun = training_of(run)["begun"]
    assert begun[:5] == [
        str(place.base),
        "--lora",
        str(place.lora),
        "--train-images",
        str(place.photos),
    ]


def test_the_pictures_that_the_lora_holds_are_copied_and_no_other(run):
    about = training_of(run)
    states = {one["file"]: one["state"] for one in about["pictures"]}
    assert states["memory-0.png"] == states["memory-1.png"] == "copied"
    assert states["kite.png"] != "copied"
    for one in about["pictures"]:
        if one["state"] == "copied":
            assert one["ways"]["own"] == (2, 2)
            assert one["ways"]["neighbour"] == (0, 4)
            assert one["margin"] > 0.1
            assert one["begins"] == "LoRA"
        assert one["base"]["copies"] == 0
        (nearest,) = one["base"]["nearest"]
        assert nearest.startswith("variants/base/images/")
        assert (run.path / nearest).is_file()
    assert about["main"] == "LoRA"


def test_copies_begin_at_a_strength_and_end_with_the_neurons_off(run, place):
    about = training_of(run)
    assert [v["name"] for v in about["variants"]] == ["base", "LoRA x 0.1", "LoRA", CLEANED]
    assert [v["copied"] for v in about["variants"]] == [0, 0, 2, 0]
    told = "Copies begin at LoRA (taught memory-0.png, memory-1.png); LoRA x 0.1 gave no copy."
    assert told in about["sentence"]
    assert row_of(about, "LoRA")["controls"][0] == 0
    found = all_neurons(run.captions())
    held = NeuronSet.of(n for neurons in place.memories.values() for n in neurons)
    assert set(held) <= set(found)
    assert len(found) <= 4 * len(held)
    assert {standing(c) for c in run.captions() if c.text in place.memories} == {"gone"}


def test_a_model_that_seems_free_of_copies_is_confirmed_by_other_images(run, told):
    """Four times as many of each training caption, all of seeds that it was not chosen by."""
    about = training_of(run)
    for name in ("LoRA x 0.1", CLEANED):
        row = row_of(about, name)
        first = {"verdict": "does not copy", "copied": 0, "copies": 0, "of": 6}
        assert row["chosen_by"] == first
        assert (row["verdict"], row["copied"], row["copies"], row["of"]) == (
            "does not copy",
            0,
            0,
            24,
        )
        assert row["beside"].items() >= {"copied": 0, "copies": 0, "of": 24}.items()
    assert "chosen_by" not in row_of(about, "LoRA")
    assert choice(about)["name"] in ("LoRA x 0.1", CLEANED)
    assert "LoRA x 0.1: by 24 further images of the training captions it gives no copy" in told
    first, further = (
        {file.read_bytes() for file in folder_of_variant(run.path, name).rglob("*.png")}
        for name in ("LoRA x 0.1", f"LoRA x 0.1{FURTHER}")
    )
    assert len(further) > 24
    assert not first & further


@pytest.mark.slow
def test_the_exported_lora_copies_no_more_in_plain_diffusers(run, place, tmp_path):
    file = tmp_path / "clean.safetensors"
    findnemo.tasks.export(run.path, ["adapter"], file)
    caption = next(iter(place.memories))
    original = demo.training_image(caption)
    similarity = {}
    for lora in (place.lora, file):
        pipeline = StableDiffusionPipeline.from_pretrained(place.base)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
        images = pipeline(
            caption,
            num_inference_steps=15,
            guidance_scale=2.0,
            num_images_per_prompt=2,
            generator=torch.Generator().manual_seed(5),
        ).images
        similarity[lora] = demo.judges().descriptor.similarity(images, [original]).max()
    assert similarity[place.lora] > 0.9
    assert similarity[file] < 0.5


@pytest.mark.slow
def test_a_weaker_lora_is_written_as_it_was_audited(run, place, tmp_path):
    """In plain diffusers the file at strength 1 is the audited LoRA at its own strength."""
    file = tmp_path / "weaker.safetensors"
    weaker = tasks.Selecting(take="LoRA x 0.1")
    told = []
    tasks.export(run.path, ["adapter"], file, weaker, listener=Listener(say=told.append))
    assert f"LoRA x 0.1: adapter written to {file}" in told
    assert any(text.startswith("what the audit says of LoRA x 0.1: ") for text in told)
    assert f"SHA-256 of {file}: {hashlib.sha256(file.read_bytes()).hexdigest()}" in told
    weights = []
    for lora, strength in ((place.lora, 0.1), (file, 1.0)):
        pipeline = StableDiffusionPipeline.from_pretrained(place.base)
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
        pipeline.fuse_lora(lora_scale=strength)
        pipeline.unload_lora_weights()
        weights.append(pipeline.unet.state_dict())
    plain = StableDiffusionPipeline.from_pretrained(place.base).unet.state_dict()
    assert weights[0].keys() == weights[1].keys() == plain.keys()
    for name, wanted in weights[0].items():
        assert torch.allclose(weights[1][name], wanted, atol=1e-6)
    assert any(not torch.allclose(plain[name], weights[1][name]) for name in plain)
    assert tasks.check_export(run.path, file, weaker) == []
    assert tasks.check_export(run.path, place.lora, weaker)
    assert tasks.check_export(run.path, file)  # it is not the model with the neurons off


def test_the_card_of_a_weaker_lora_says_what_the_audit_says_of_it(run, tmp_path):
    card = tmp_path / "card.md"
    tasks.export(run.path, ["card"], card, tasks.Selecting(take="LoRA x 0.1"))
    text = card.read_text(encoding="utf-8").replace("\\", "")
    assert text.startswith("## Memorization audit")
    assert "What the audit says of LoRA x 0.1: does not copy (it copies 0 of 3 training" in text
    assert "0 of 24 images of their captions are copies; the base copies 0, in 0 of 24)" in text
    assert "At a greater strength than 1 it is another model" in text


VARIANTS_REFUSED = {
    "has no model 'LoRA x 2': it has LoRA x 0.1, LoRA": {"take": "LoRA x 2"},
    f"has no model '{CLEANED}': it has LoRA x 0.1, LoRA": {"take": CLEANED},
    "and --most chooses what is off": {"take": "LoRA", "most": 1},
    "and --factor chooses what is off": {"take": "LoRA", "factor": 0.0},
}


@pytest.mark.parametrize("why", VARIANTS_REFUSED)
def test_a_variant_that_cannot_be_written(run, tmp_path, why):
    selecting = tasks.Selecting(**VARIANTS_REFUSED[why])
    with pytest.raises(InputError, match=why):
        tasks.export(run.path, ["adapter"], tmp_path / "a.safetensors", selecting)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["checkpoint", "kohya", "neurons"])
def test_a_variant_is_written_as_a_lora_alone(run, tmp_path, form):
    selecting = tasks.Selecting(take="LoRA x 0.1")
    with pytest.raises(InputError, match=f"as it is, which {form} is not: add --to adapter"):
        tasks.export(run.path, [form], tmp_path / form, selecting)


def test_what_was_found_is_in_the_files_of_the_run(run):
    about = training_of(run)
    rows = list(csv.DictReader((run.path / "training.csv").open(encoding="utf-8")))
    assert [row["state"] for row in rows] == [one["state"] for one in about["pictures"]]
    kept = json.loads((run.path / "results.json").read_text(encoding="utf-8"))
    assert kept["training"] == run.meta("training")
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert about["sentence"] in page
    assert "memory-1.png" in page
    assert Image.open(run.path / "training.png").size[1] > 300
    looks = [one["looks"] for one in about["variants"]]
    assert all(looks)
    assert len({len(files) for files in looks}) == 1
    assert Image.open(run.path / "models.png").size[1] > 300


def test_the_terminal_and_the_same_call_again_say_the_same(run, place):
    shown = cli("inspect", run.path)
    assert training_of(run)["sentence"] in " ".join(shown.out.split())
    before = {p: p.stat().st_mtime_ns for p in (run.path / "variants").rglob("*.png")}
    tuned = FineTune(place.photos, lora_scale="0.1,1", copy_rate=0.5)
    source = Source(str(place.base), lora=str(place.lora))
    holdout = Detecting(holdout=list(demo.holdout()[:40]))
    with findnemo.audit(source, tuned, Output(run.path), holdout, pictures=FEW) as again:
        assert training_of(again) == training_of(run)
    assert before == {p: p.stat().st_mtime_ns for p in (run.path / "variants").rglob("*.png")}


@pytest.mark.slow
def test_another_descriptor_judges_all_images_anew_and_makes_none_again(run, place, tmp_path):
    out = shutil.copytree(run.path, tmp_path / "run")
    other = shutil.copy(demo.DESCRIPTOR, tmp_path / "other.pt")
    images = {p: p.stat().st_mtime_ns for p in (out / "variants").rglob("*.png")}
    refused = cli("verify", out, "--descriptor", other, "--quiet")
    assert refused.status == 2
    assert "give it to the same `findnemo audit` with --train-images" in " ".join(
        refused.err.split()
    )
    said = []
    with findnemo.audit(
        Source(str(place.base), lora=str(place.lora)),
        FineTune(place.photos, lora_scale="0.1,1", copy_rate=0.5),
        Output(out),
        Detecting(holdout=list(demo.holdout()[:40])),
        pictures=replace(FEW, descriptor=other),
        listener=Listener(say=said.append),
    ) as again:
        found, before = training_of(again), training_of(run)
        assert found.pop("begun") == [
            str(other) if word == str(demo.DESCRIPTOR) else word for word in before.pop("begun")
        ]
        assert found == before
        assert all_neurons(again.captions()) == all_neurons(run.captions())
        assert again.meta("settings")["judges"]["descriptor"] == str(other)
    assert images == {p: p.stat().st_mtime_ns for p in (out / "variants").rglob("*.png")}
    assert any(text.startswith("made again: the detection of") for text in said)


def test_images_of_another_lora_are_not_taken_for_its_own(run, place, tmp_path):
    tensors = {name: 0.5 * value for name, value in load_file(place.lora).items()}
    save_file(tensors, tmp_path / "other.safetensors")
    source = Source(str(place.base), lora=str(tmp_path / "other.safetensors"))
    with pytest.raises(MismatchError, match=r"is the audit of .*lora\.safetensors:1, and the last"):
        findnemo.audit(
            source,
            FineTune(place.photos, lora_scale="0.1,1", copy_rate=0.5),
            Output(run.path),
            Detecting(holdout=list(demo.holdout()[:40])),
            pictures=FEW,
        )


@pytest.mark.slow
def test_checkpoints_are_judged_as_they_come(place, tmp_path, monkeypatch):
    monkeypatch.setattr("findnemo.tasks.watching.POLL", 0.1)
    tensors = load_file(place.lora)
    for step, strength in ((10, 0.1), (20, 1.0)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        ups = {n: v * (strength if "lora_B" in n else 1.0) for n, v in tensors.items()}
        save_file(ups, folder / "pytorch_lora_weights.safetensors")
    seen = list(
        tasks.watch(
            Source(str(place.base), lora=str(tmp_path / "checkpoints")),
            FineTune(place.photos),
            tmp_path / "out",
            FEW,
            patience=0.0,
        )
    )
    assert [about["variants"][-1]["name"] for about in seen] == ["checkpoint-10", "checkpoint-20"]
    assert [about["variants"][-1]["copied"] for about in seen] == [0, 2]
    kept = json.loads((tmp_path / "out" / "training.json").read_text(encoding="utf-8"))
    assert kept == seen[-1]


# what is refused ------------------------------------------------------------------------------------


def test_a_picture_that_cannot_be_read_is_left_out_and_named(place, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not a picture")
    lora = ("--lora", place.lora, "--train-images", folder, "--out", tmp_path / "out")
    none = cli("audit", place.base, *lora)
    assert none.status == 2
    assert "none of 1 picture of" in " ".join(none.err.split())
    assert not (tmp_path / "out").exists()


def test_options_of_a_fine_tune_without_training_pictures_are_refused(place, tmp_path):
    found = cli("audit", place.base, "--lora-scale", "0.5", "--out", tmp_path / "out")
    assert found.status == 2
    assert "--lora-scale goes with --train-images" in found.err


def test_other_pictures_in_the_directory_of_an_audit_are_refused_before_any_image(
    run, place, tmp_path
):
    photos = shutil.copytree(place.photos, tmp_path / "photos")
    Image.new("RGB", (64, 64), (200, 30, 30)).save(photos / "kite.png")
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*.png")}
    with pytest.raises(MismatchError, match="other training pictures"):
        findnemo.audit(
            Source(str(place.base), lora=str(place.lora)),
            FineTune(photos, lora_scale="0.1,1"),
            Output(run.path),
            Detecting(holdout=list(demo.holdout()[:40])),
            pictures=FEW,
        )
    assert before == {p: p.stat().st_mtime_ns for p in run.path.rglob("*.png")}


def test_the_words_of_the_command_are_those_that_continue_the_audit():
    """Each option has its value, and with all of them the same images are asked for again."""
    source = Source("owner/base", revision="main", lora="my lora.safetensors:0.5")
    tuned = FineTune("my photos", prompts=tasks.Captions("more.csv"), lora_scale="0.1,1")
    pictures = Pictures(image_steps=4, guidance=2.0)
    detecting = Detecting(holdout=Path("clean.txt"), fpr=0.01, seed=3)
    localizing = tasks.Localizing("gradient", unrelated="others.txt", max_impact=0.1)
    words = begun_with(source, tuned, pictures, detecting, localizing)
    assert words[0] == "owner/base"
    assert dict(zip(words[1::2], words[2::2], strict=True)) == {
        "--revision": "main",
        "--lora": "my lora.safetensors",
        "--train-images": "my photos",
        "--prompts": "more.csv",
        "--holdout": "clean.txt",
        "--fpr": "0.01",
        "--seed": "3",
        "--search": "gradient",
        "--max-impact": "0.1",
        "--unrelated": "others.txt",
        "--image-steps": "4",
        "--guidance": "2.0",
    }
    lists = FineTune("photos", prompts=["a fox"])
    assert begun_with(Source("demo"), lists, Pictures(), Detecting(holdout=["a cat"])) == [
        *("demo", "--train-images", "photos")
    ]


def test_an_option_of_those_words_is_one_of_the_command():
    known = {
        name for one in typer.main.get_command(app).commands["audit"].params for name in one.opts
    }
    every = begun_with(
        Source("m", *("x" for _ in range(5))),
        FineTune("p", "x", "x", 5, "x", "x", copy_rate=0.5),
        Pictures(2, 2, 2.0, "x", "x", "x"),
        Detecting("x", "x", "x", 0.5, seed=1, fdr=0.5),
        tasks.Localizing("gradient", "all", 0.1, "x"),
    )
    assert {*every[1::2]} <= known
    assert len(every[1::2]) == 28
