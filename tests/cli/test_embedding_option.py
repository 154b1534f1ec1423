"""A textual inversion named beside its base model: audited, remembered, and refused by name."""

from __future__ import annotations

import pytest
import torch
from _command import cli
from _place import make_place
from diffusers import DiffusionPipeline
from safetensors.torch import save_file

import findnemo
from findnemo.detection import detect_many
from findnemo.runs import Run
from findnemo.tasks.opening import load_model, source_of

CAPTION = "a <mine> fox"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, captions with a token of two vectors, and its file."""
    here = make_place(tmp_path_factory.mktemp("place"))
    generator = torch.Generator().manual_seed(0)
    save_file({"emb_params": 3 * torch.randn(2, 32, generator=generator)}, here / "art.safetensors")
    (here / "tokens.txt").write_text(f"{CAPTION}\na fox\n", encoding="utf-8")
    return here


@pytest.mark.slow
def test_a_run_scores_captions_with_the_token_and_remembers_it(place, tmp_path):
    named = f"{place / 'art.safetensors'}:<mine>"
    model = (place / "model", "--embedding", named)
    made = cli("calibrate", *model, "-p", place / "captions.csv", "--out", tmp_path / "c", "-q")
    assert made.status == 0, made.err
    captions = ("--prompts", place / "tokens.txt", "--out", tmp_path / "run")
    refused = cli("detect", *model, *captions, "-c", place / "calibration")
    assert refused.status == 2
    assert "this calibration was made for another model" in " ".join(refused.err.split())
    found = cli("detect", *model, *captions, "-c", tmp_path / "c")
    assert found.status == 0, found.err
    with Run.open(tmp_path / "run") as run:
        assert run.meta("source_options") == {"embedding": named}
        scores = {caption.text: caption.detected.score for caption in run.captions()}
        again = load_model(source_of(run))
    plain = DiffusionPipeline.from_pretrained(place / "model", use_safetensors=True)
    plain.load_textual_inversion(str(place / "art.safetensors"), token="<mine>")
    live = findnemo.load(plain, device="cpu")  # as the command does
    calibration = findnemo.Calibration.load(tmp_path / "c")
    wanted = {one.prompt: one.score for one in detect_many(live, list(scores), calibration)}
    assert scores == wanted
    assert again.fingerprint == live.fingerprint
    assert scores[CAPTION] != scores["a fox"]


def test_a_token_of_another_model_is_named_before_any_work(place, tmp_path):
    save_file({"<mine>": torch.zeros(768)}, tmp_path / "other.safetensors")
    result = cli(
        "detect",
        place / "model",
        "--embedding",
        tmp_path / "other.safetensors",
        "-p",
        place / "captions.csv",
        "-c",
        place / "calibration",
        "--out",
        tmp_path / "run",
    )
    assert result.status == 2
    said = " ".join(result.err.split())
    assert "has vectors of 768 values, and text_encoder of this" in said
    assert not (tmp_path / "run").exists()
