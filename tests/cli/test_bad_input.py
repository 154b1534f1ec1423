"""Whatever a user gives that cannot be used: one line that names it, the right exit status,
and nothing half written.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _command import cli
from _place import HOLDOUT, IMAGES, TEXTS, inputs, make_place, save_model
from _refused import READERS, everything, filled, refused
from _tiny import tiny_pipeline
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

import findnemo


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`model`, `captions.csv`, `holdout.txt`, `calibration`; and `run`, an audit of one caption."""
    place = make_place(tmp_path_factory.mktemp("place"))
    audit = ("audit", place / "model", *inputs(place))
    assert cli(*audit, *IMAGES, "--limit", 1, "--quiet", "--out", place / "run").status == 0
    return place


# Caption files

FILES = {
    "missing.csv": (None, "missing.csv: cannot be read (No such file or directory)"),
    "empty.csv": (b"", "empty.csv: no caption in 0 rows: give at least one"),
    "empty.txt": (b"\n\n", "empty.txt: no caption in 0 rows: give at least one"),
    "blank.csv": (b"caption,url\n,a\n ,b\n", "blank.csv: no caption in 2 rows: give at least one"),
    "columns.csv": (
        b"id,title\n1,a red fox\n",
        "no caption column (caption, prompt, text, captions, prompts): the columns are",
    ),
    "latin.csv": (b"caption\ncaf\xe9\n", "latin.csv: not UTF-8 at line 2, byte offset 11 (0xe9)"),
    "table.xlsx": (b"PK\x03\x04", ".xlsx is not read"),
    "broken.jsonl": (b'{"caption": "a"\n', "broken.jsonl: line 1: broken JSON"),
    "two\nlines[red].csv": (b"", "lines[red].csv: no caption in 0 rows"),
}


@pytest.mark.first(1)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FILES)
def test_a_caption_file_that_cannot_be_read(place, tmp_path, name, reader):
    content, says = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(
        cli(*filled(place, READERS[reader], tmp_path / name), "--out", tmp_path / "out"), 2, says
    )
    assert not (tmp_path / "out").exists()


def test_standard_input_without_captions(place, tmp_path):
    result = cli(*filled(place, READERS["detect"], "-"), "--out", tmp_path / "out", stdin="\n")
    refused(result, 2, "standard input: no caption in 0 rows")


def test_rows_without_captions_and_repeated_rows_are_told_and_left_out(place, tmp_path):
    (tmp_path / "gaps.csv").write_text(
        "caption;type\na moon;VM\n;VM\n  ;\na tree;\na moon;TM\na moon ;\n"
    )
    result = cli(
        *filled(place, READERS["detect"], tmp_path / "gaps.csv"),
        "--json",
        "--out",
        tmp_path / "out",
    )
    assert result.status == 0
    assert "warning: " in result.err
    assert "gaps.csv: skipped 2 rows without caption (row 2, row 3)." in result.err
    assert (
        "skipped 2 rows with the caption of an earlier row (row 5 repeats row 1, row 6 repeats"
        " row 1)." in result.err
    )
    assert [(r["row"], r["caption"]) for r in result.json["results"]] == [
        (1, "a moon"),
        (4, "a tree"),
    ]


def test_a_caption_longer_than_the_tokenizer_takes_is_told(place, tmp_path):
    (tmp_path / "long.txt").write_text("a moon\n" + "long " * 30 + "\n")  # every letter is a token
    result = cli(
        *filled(place, READERS["detect"], tmp_path / "long.txt"),
        "--json",
        "--out",
        tmp_path / "out",
    )
    assert result.status == 0
    assert "warning: row 2: the caption has 122 tokens, the model reads the first 77" in result.err
    assert result.err.count("warning") == 1
    assert len(result.json["results"]) == 2


def test_long_captions_of_several_text_encoders_are_told_by_their_rows(tmp_path):
    """CLIP reads 77 tokens and T5 all of them; the hold-out captions are told apart."""
    from _tiny_transformers import tiny_sd3

    tiny_sd3().save_pretrained(tmp_path / "sd3")
    (tmp_path / "long.txt").write_text("a moon\n" + "ab" * 55 + "a\n")  # every letter is a token
    (tmp_path / "holdout.txt").write_text("a lake\na tree\n" + "a" * 80 + "\n")
    given = (
        "audit",
        tmp_path / "sd3",
        "--prompts",
        tmp_path / "long.txt",
        "--holdout",
        tmp_path / "holdout.txt",
    )
    result = cli(*given, "--images", 1, "--image-steps", 1, "--out", tmp_path / "out")
    assert result.status == 0, result.err
    assert "warning: row 2: 113 tokens; CLIP reads 77 of them, T5 all\n" in result.err
    assert "warning: hold-out row 3: 82 tokens; CLIP reads 77 of them, T5 all\n" in result.err
    assert result.err.count("tokens") == 2  # once each, however often they are encoded


def test_a_model_without_its_safety_checker_is_loaded_with_a_word(place, tmp_path):
    model = Path(shutil.copytree(place / "model", tmp_path / "model"))
    index = json.loads((model / "model_index.json").read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    (model / "model_index.json").write_text(json.dumps(index))
    result = cli(
        *filled(place, READERS["detect"], place / "captions.csv", model=model),
        "--out",
        tmp_path / "out",
    )
    assert result.status == 0, result.err
    assert "has no usable safety_checker and feature_extractor" in result.err


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("unet", {"sample_size": None}, "sample_size of its unet is None"),
        ("vae", {"scaling_factor": None}, "scaling_factor None"),
        ("scheduler", {"num_train_timesteps": 20}, "cannot give timesteps of 50 steps"),
    ],
)
def test_a_model_that_cannot_be_worked_on_is_refused_before_any_work(
    place, tmp_path, part, change, says
):
    model = Path(shutil.copytree(place / "model", tmp_path / "model"))
    (file,) = (model / part).glob("*config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    result = cli(
        *filled(place, READERS["detect"], place / "captions.csv", model=model),
        "--out",
        tmp_path / "out",
    )
    assert result.status in (1, 2)
    assert "Traceback" not in result.err
    assert says in result.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_another_column_can_be_named(place, tmp_path):
    (tmp_path / "t.csv").write_text("id,title\n1,a moon\n")
    arguments = filled(place, READERS["detect"], tmp_path / "t.csv")
    assert cli(*arguments, "--column", "title", "-q", "--out", tmp_path / "out").status == 0
    refused(cli(*arguments, "--column", "name", "--out", tmp_path / "no"), 2, "no column 'name'")


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_is_none(place, tmp_path, limit):
    result = cli(
        *filled(place, READERS["audit"], place / "captions.csv"),
        "--limit",
        limit,
        "--out",
        tmp_path / "out",
    )
    assert (result.status, result.out) == (2, "")
    assert "--limit" in result.err
    assert not (tmp_path / "out").exists()


# Models


def _no_index(folder: Path) -> None:
    save_model(folder)
    (folder / "model_index.json").unlink()


def _no_cross_attention(folder: Path) -> None:
    blocks = {
        "down_block_types": ("DownBlock2D",) * 2,
        "up_block_types": ("UpBlock2D",) * 2,
        "mid_block_type": None,
    }
    tiny_pipeline(
        **{"block_out_channels": (8, 8), "layers_per_block": 1, **blocks}
    ).save_pretrained(folder)


def _no_text(folder: Path) -> None:
    sizes = {
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "sample_size": 16,
    }
    unet = UNet2DModel(
        **sizes, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2
    )
    DDPMPipeline(unet, DDIMScheduler()).save_pretrained(folder)


class _Boom:
    def __reduce__(self):
        return os.mkdir, ("pickle-was-run",)


def _pickles_only(folder: Path) -> None:
    save_model(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(_Boom(), folder / "unet" / "diffusion_pytorch_model.bin")


def _weights_cut_off(folder: Path) -> None:
    weights = save_model(folder) / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _a_file(folder: Path) -> None:
    folder.write_text("no model", encoding="utf-8")


MODELS = {
    "no such directory": (
        lambda folder: None,
        "is not a model directory, nor a file: give a diffusers directory, a",
    ),
    "a file": (_a_file, "is not a model directory"),
    "an empty directory": (lambda folder: folder.mkdir(), "holds no model_index.json"),
    "no model_index.json": (
        _no_index,
        "holds no model_index.json: it is not a diffusers pipeline directory",
    ),
    "no cross-attention": (
        _no_cross_attention,
        "no value layers found in UNet2DConditionModel: findnemo needs",
    ),
    "no text": (_no_text, "DDPMPipeline is not supported: findnemo works on"),
    "pickles only": (
        _pickles_only,
        "unet/diffusion_pytorch_model.bin is a pickle, and a pickle can run code",
    ),
    "weights cut off": (_weights_cut_off, "cannot be loaded"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_cannot_be_used(place, tmp_path, kind, monkeypatch):
    make, says = MODELS[kind]
    make(tmp_path / "bad")
    monkeypatch.chdir(tmp_path)
    commands = READERS if kind == "pickles only" else ["audit"]  # all load alike
    for reader in commands:
        arguments = filled(place, READERS[reader], place / "captions.csv", tmp_path / "bad")
        refused(cli(*arguments, "--out", tmp_path / "out"), 2, says)
    assert {p.name for p in tmp_path.iterdir()} <= {"bad"}


def test_a_hub_id_that_is_not_there(place, tmp_path):
    result = cli(
        *filled(place, READERS["audit"], place / "captions.csv", "nobody/nothing"),
        "--out",
        tmp_path / "out",
    )
    refused(result, 2, "no model 'nobody/nothing'")


@pytest.mark.parametrize(
    ("option", "value"), [("--device", "abacus"), ("--device", "cuda:99"), ("--dtype", "int8")]
)
def test_a_device_or_dtype_that_is_none(place, tmp_path, option, value):
    result = cli(
        *filled(place, READERS["audit"], place / "captions.csv"),
        option,
        value,
        "--out",
        tmp_path / "out",
    )
    refused(result, 2, value)
    assert not (tmp_path / "out").exists()


def test_a_model_without_captions_of_its_own(place, tmp_path):
    refused(
        cli("audit", place / "model", "--out", tmp_path / "out"),
        2,
        "give --prompts FILE, or for a fine-tune --train-images DIR: only 'demo'",
    )
    result = cli(
        "audit", place / "model", "--prompts", place / "captions.csv", "--out", tmp_path / "out"
    )
    refused(result, 2, "give --holdout FILE")
    assert list(tmp_path.iterdir()) == []


# Calibrations


def test_a_calibration_of_another_model(place, tmp_path):
    other = save_model(tmp_path / "other", seed=1)
    for reader in ("detect", "localize", "audit"):
        result = cli(
            *filled(place, READERS[reader], place / "captions.csv", other),
            "--out",
            tmp_path / "out",
        )
        refused(
            result,
            2,
            "this calibration was made for another model",
            "calibrate again with this model",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--seed", 7], "made with seed 0, not 7: leave --seed out"),
        (["--variant", "released"], "made with variant paper, not released: leave --variant out"),
        (["--fpr", 0.1], "5 hold-out prompts are too few for a false-positive rate of 0.1"),
    ],
)
def test_a_calibration_with_other_settings(place, tmp_path, options, says):
    result = cli(
        *filled(place, READERS["audit"], place / "captions.csv"),
        *options,
        "--out",
        tmp_path / "out",
    )
    refused(result, 2, says)
    assert not (tmp_path / "out").exists()


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--seed", 7], "made with other settings: seed 0 instead of 7"),
        (
            ["--fpr", 0.5],
            "was calibrated on 5 captions with fpr None, now 5 with 0.5: give another --out",
        ),
        (["--holdout", "fewer.txt"], "was calibrated on 5 captions with fpr None, now 2 with None"),
        (
            ["--holdout", "others.txt"],
            "was calibrated on 5 captions with fpr None, now 5 others with None",
        ),
    ],
)
def test_the_runs_own_calibration_with_other_settings(place, tmp_path, options, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fewer.txt").write_text("\n".join(HOLDOUT[:2]), encoding="utf-8")
    Path("others.txt").write_text(
        "\n".join(f"{caption}, again" for caption in HOLDOUT), encoding="utf-8"
    )
    arguments = [
        *filled(place, READERS["audit --holdout"], place / "holdout.txt"),
        "--images",
        0,
        "--limit",
        1,
    ]
    assert cli(*arguments, "-q", "--out", tmp_path / "out").status == 0
    before = everything(tmp_path)
    refused(cli(*arguments, *options, "--out", tmp_path / "out"), 2, says)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("damage", ["missing", "no JSON", "another JSON", "no tensors", "newer"])
def test_a_damaged_calibration(place, tmp_path, damage):
    folder = tmp_path / "damaged"
    if damage != "missing":
        shutil.copytree(place / "calibration", folder)
    about = folder / "calibration.json"
    if damage == "no JSON":
        about.write_text("{")
    elif damage == "another JSON":
        about.write_text("[1]")
    elif damage == "no tensors":
        (folder / "calibration.safetensors").write_bytes(b"\0" * 64)
    elif damage == "newer":
        about.write_text(json.dumps(json.loads(about.read_text()) | {"format": 4}))
    arguments = [
        "detect",
        place / "model",
        "--prompts",
        place / "captions.csv",
        "--calibration",
        folder,
    ]
    refused(cli(*arguments, "--out", tmp_path / "out"), 2, str(folder))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--limit", 1], "a threshold of mean + 1 std needs at least two hold-out prompts, not 1"),
        (
            ["--fpr", 0.01],
            "5 hold-out prompts are too few for a false-positive rate of 0.01: it takes 99",
        ),
        (["--fpr", 1.5], "fpr 1.5 is not a rate between 0 and 1"),
        (
            ["--variant", "mine"],
            "variant 'mine' is not known: use one of findnemo, paper, released",
        ),
        (["--variant", "released"], "these are 16 x 16; use plain SSIM (variant 'paper')"),
        (["--import-statistics", "x.pt"], "give either --prompts FILE or --import-statistics FILE"),
    ],
)
def test_a_calibration_that_cannot_be_made(place, tmp_path, options, says):
    result = cli(
        "calibrate",
        place / "model",
        "--prompts",
        place / "holdout.txt",
        "-q",
        *options,
        "--out",
        tmp_path / "out",
    )
    refused(result, 2, says)
    assert not (tmp_path / "out").exists()


def test_statistics_that_are_a_program_are_not_run(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(_Boom(), "statistics.pt")
    result = cli(
        "calibrate", place / "model", "--import-statistics", "statistics.pt", "--out", "out"
    )
    refused(result, 2, "statistics.pt is not a pair of lists of tensors")
    assert [p.name for p in tmp_path.iterdir()] == ["statistics.pt"]


# Options and run directories


def test_holdout_and_calibration_at_once(place, tmp_path):
    arguments = filled(place, READERS["audit"], place / "captions.csv")
    result = cli(*arguments, "--holdout", place / "holdout.txt", "--out", tmp_path / "out")
    refused(result, 2, "give --holdout or --calibration, not both")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("reader", ["localize", "audit", "audit --holdout"])
def test_an_unknown_search_is_told_before_any_work(place, tmp_path, reader):
    result = cli(
        *filled(place, READERS[reader], place / "captions.csv"),
        "--search",
        "luck",
        "--out",
        tmp_path / "out",
    )
    refused(result, 2, "search 'luck' is not known: use one of ")
    assert not (tmp_path / "out").exists()


def test_a_run_directory_from_other_settings(place, tmp_path):
    made = findnemo.Calibration.load(place / "calibration")
    replace(made, tau=0.5).save(tmp_path / "other")
    before = everything(place)
    arguments = ["audit", place / "model", "--prompts", place / "captions.csv", "--calibration"]
    result = cli(
        *arguments, place / "calibration", *IMAGES, "--scope", "all", "--out", place / "run"
    )
    refused(result, 2, "was made with other settings: scope 'auto', now 'all'; give another --out")
    result = cli(*arguments, tmp_path / "other", *IMAGES, "--out", place / "run")
    refused(result, 2, f"tau {made.tau}, now 0.5")
    assert everything(place) == before


@pytest.mark.first(1)
@pytest.mark.parametrize("reader", ["detect", "localize", "audit", "audit --holdout"])
def test_a_directory_that_is_not_a_run(place, tmp_path, reader):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = everything(tmp_path)
    arguments = filled(place, READERS[reader], place / "captions.csv")
    refused(
        cli(*arguments, "--out", tmp_path),
        2,
        "is not empty and not a findnemo run: give a new or an empty directory",
    )
    refused(cli(*arguments, "--out", tmp_path / "thesis.tex"), 2, "is a file")
    assert everything(tmp_path) == before


def test_a_calibration_into_a_file(place, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    result = cli(
        "calibrate",
        place / "model",
        "--prompts",
        place / "holdout.txt",
        "--out",
        tmp_path / "thesis.tex",
    )
    refused(result, 2, "is a file: give a directory")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("reader", ["calibrate", "detect", "audit --holdout"])
def test_a_place_where_nothing_can_be_written(place, tmp_path, reader):
    (tmp_path / "file").touch()
    arguments = filled(place, READERS[reader], place / "holdout.txt")
    refused(cli(*arguments, "-q", "--out", tmp_path / "file" / "out"), 2, "Not a directory")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission(place, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    arguments = filled(place, READERS["detect"], place / "captions.csv")
    refused(cli(*arguments, "-q", "--out", tmp_path / "closed" / "out"), 2, "Permission denied")


@pytest.mark.parametrize(
    "command", [["verify"], ["export"], ["inspect"], ["export", "--to", "neurons"]]
)
def test_what_is_no_run_cannot_be_continued(place, tmp_path, command):
    for folder in (tmp_path / "none", place / "model", place / "captions.csv"):
        refused(
            cli(command[0], folder, *command[1:]),
            2,
            "is not a run directory: it holds no run.sqlite",
        )
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "run.sqlite").write_bytes(b"no database " * 100)
    refused(
        cli(command[0], damaged, *command[1:]),
        2,
        "run.sqlite cannot be used: file is not a database",
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged"]


def test_inspect_a_caption_that_is_not_there(place):
    refused(cli("inspect", place / "run", "no such caption"), 2, "no caption 'no such caption' in")
    assert cli("inspect", place / "run", TEXTS[0]).status == 0
