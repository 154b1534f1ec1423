"""The page of a fine-tune: what it copies, what to publish instead, the next command."""

from __future__ import annotations

import pytest
from _page import page_of
from _runs import LAYERS, make_run, memorized, under

from findnemo.runs import Run
from findnemo.training import VERDICTS

FIRST, SECOND, MID = LAYERS


TRAINING = {
    "sentence": "1 of 2 training pictures is copied: 2 of 8 images are copies.",
    "main": "LoRA",
    "rate": 0.05,
    "needed": 59,
    "descriptor": True,
    "pictures": [
        {
            **{"file": f"{k}.png", "caption": f"picture {k}", "group": k, "state": "copied"},
            **{"similarity": 0.9, "level": 0.7, "margin": 0.4, "ways": {"own": [2, 4]}},
            **{"nearest": [], "begins": "LoRA"},
        }
        for k in range(2)
    ],
    "variants": [
        {
            **{"name": "LoRA", "checkpoint": None, "strength": 1.0, "verdict": "copies"},
            **{"nearly": 1, "failed": 0, "alike": 0, "copied": 1, "copies": 2, "of": 8},
            **{"low": 0.03, "high": 0.66, "controls": [0, 24]},
        }
    ],
    "notes": [],
}


def test_a_fine_tune_is_advised_by_its_copies(tmp_path):
    page = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], training=TRAINING))
    advice = page.text.index("Do not release it: it copies 1 of 2 training pictures.")
    copied = page.text.index("training pictures copied1 of 2 1 more nearly")
    assert advice < page.text.index(TRAINING["sentence"]) < copied
    assert copied < page.text.index("The one memory found is gone")


def test_a_fine_tune_without_controls_has_a_page(tmp_path):
    (lora,) = TRAINING["variants"]
    known = TRAINING | {"variants": [lora | {"controls": [0, 0]}]}
    page = page_of(make_run(tmp_path / "run", [under("a")], training=known))
    assert "no controls" in page.text


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_fine_tune_has_a_page_whatever_its_verdict(verdict, tmp_path, capsys):
    from findnemo.cli._show import show_training

    (lora,) = TRAINING["variants"]
    base = lora | {"name": "base", "strength": None, "verdict": "copies"}
    known = TRAINING | {"variants": [base, lora | {"verdict": verdict}]}
    path = make_run(tmp_path / "run", [under("a")], training=known)
    with Run.open(path) as run:
        show_training(run)
    assert verdict in page_of(path).text
    assert verdict in capsys.readouterr().out


def test_the_models_of_a_fine_tune_follow_its_five_figures(tmp_path):
    """A repair whose images leave the captions is no model to release, whatever it copies."""
    (lora,) = TRAINING["variants"]
    fits = {"subject": 0.5, "a_clip": 0.4}
    base = lora | {"name": "base", "copied": 0, "copies": 0, "verdict": "does not copy"} | fits
    off = base | {"name": "neurons off", "a_clip": 0.04}
    known = TRAINING | {"variants": [base, lora | fits, off]}
    page = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], training=known))
    figure = page.text.index("or its images do not follow the captions")
    models = page.text.index("What each model copies")
    assert figure < models < page.text.index("Training pictures, and what the model gives")
    assert "off the captions" in page.text[models:]


def test_the_next_command_of_a_page_names_no_place_and_no_secret(tmp_path):
    begun = ["/home/me/models/sd", "--lora", "/home/me/my lora.safetensors"]
    begun += ["--config", "https://me:word@host/c"]
    known = TRAINING | {"begun": begun}
    page = page_of(make_run(tmp_path / "run", [memorized("a", {FIRST: [1]})], training=known))
    command = page.text[page.text.index("Next: findnemo audit") :].partition("(RUN is")[0]
    assert command.split() == [
        "Next:",
        "findnemo",
        "audit",
        "…/sd",
        "--lora",
        "…/'my",
        "lora.safetensors'",
        "--config",
        "'https://***@host/c'",
        "--lora-scale",
        "0.4,0.6,0.8,1",
        "--out",
        "RUN",
    ]
    assert "… are folders that this page leaves out" in page.text
    assert "/home/me" not in page.text
    assert "me:word" not in page.text
