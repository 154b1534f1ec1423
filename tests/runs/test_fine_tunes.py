"""What is said of a fine-tune: series of models, verdicts in a sentence, files that a run names."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from findnemo.errors import InputError
from findnemo.runs.fine_tunes import (
    CLEANED,
    as_base,
    astray,
    begins,
    choice,
    controls_told,
    copies_in,
    folder_of_variant,
    inside,
    label,
    may_be_chance,
    sentence,
    worst,
    write_table,
)
from findnemo.runs.verdict import of_training


def model(name: str, verdict: str = "does not copy", copied: int = 0, **more) -> dict:
    return {
        "name": name,
        "checkpoint": None,
        "strength": 1.0,
        "verdict": verdict,
        "failed": 0,
        "alike": 0,
        "copied": copied,
        "nearly": 0,
        "copies": 3 * copied,
        "of": 60,
        "controls": [0, 60],
        **more,
    }


def about(*variants: dict, main: str, pictures: int = 4) -> dict:
    one = {"state": "not seen", "similarity": 0.1, "group": 0, "ways": {"own": [0, 15]}}
    return {
        "main": main,
        "rate": 0.05,
        "needed": 59,
        "pictures": [{**one, "group": k} for k in range(pictures)],
        "variants": [model("base"), *variants],
    }


def grid(strengths, checkpoints, copying) -> list[dict]:
    return [
        model(
            f"{c} x {s}",
            "copies" if (c, s) in copying else "does not copy",
            int((c, s) in copying),
            checkpoint=c,
            strength=s,
        )
        for c in checkpoints
        for s in strengths
    ]


def test_copies_begin_at_a_checkpoint_of_the_main_strength():
    """The others are asked too; which checkpoint is the last without copies is asked of one."""
    models = grid((0.6, 1.0), ("c1", "c2", "c3"), {("c2", 1.0), ("c3", 1.0), ("c3", 0.6)})
    found = about(*models, main="c3 x 1.0")
    assert begins(found) == ("c1 x 1.0", "c2 x 1.0")
    assert "Copies begin at c2 x 1.0; c1 x 1.0 gave no copy." in sentence(found)


def test_a_strength_that_copies_as_the_base_does_begins_nothing_and_may_be_taken():
    weak = model("LoRA x 0.2", "copies", 2, subject=0.4)
    found = about(weak, model("LoRA", "copies", 4, subject=0.6), main="LoRA")
    found["variants"][0] = model("base", "copies", 2)
    assert label(found, weak) == "as the base"
    assert begins(found) == ("LoRA x 0.2", "LoRA")
    told = "Copies begin at LoRA; LoRA x 0.2 copies no more than the base."
    assert told in sentence(found)
    assert choice(found)["name"] == "LoRA x 0.2"
    assert of_training(found, 7).sentence.endswith("; LoRA x 0.2 copies no more than the base.")
    assert of_training(found, 7).why == ()


def test_another_picture_than_the_bases_is_no_copy_of_the_bases():
    """As many pictures and images as the base copies, but not the same ones."""
    weak = model("LoRA x 0.2", "copies", 1, copies=2, copies_of={"b.png": 2})
    strong = model("LoRA", "copies", 4, copies_of={"a.png": 4, "b.png": 4})
    found = about(weak, strong, main="LoRA")
    found["variants"][0] = model("base", "copies", 1, copies=2, copies_of={"a.png": 2})
    assert label(found, weak) == "copies"
    assert begins(found) == (None, "LoRA x 0.2")
    assert "Copies begin at LoRA x 0.2 (b.png), the first looked at." in sentence(found)
    weak["copies_of"] = {"a.png": 2}
    assert label(found, weak) == "as the base"
    told = "Copies begin at LoRA (b.png); LoRA x 0.2 copies no more than the base."
    assert told in sentence(found)


@pytest.mark.parametrize(
    ("base", "mine", "copies", "alike"),
    [
        ({"a.png": 1}, {"b.png": 1}, 2, True),  # the base shows what chance gives
        ({"a.png": 1}, {"b.png": 1, "c.png": 1}, 2, True),  # the second by another prompt
        ({"a.png": 1}, {"b.png": 1, "c.png": 1}, 3, False),  # more images than the base
        ({"a.png": 1}, {"b.png": 2}, 2, False),
        ({"a.png": 2}, {"b.png": 1}, 2, False),  # no chance copy of the base, so none of its own
        ({}, {"b.png": 1}, 0, False),
    ],
)
def test_single_copies_are_chance_only_if_the_base_has_them_and_no_fewer(base, mine, copies, alike):
    weak = model("LoRA x 0.2", "copies", len(mine), copies=copies, copies_of=mine)
    found = about(weak, model("LoRA", "copies", 4), main="LoRA")
    kind = "copies" if base else "does not copy"
    found["variants"][0] = model("base", kind, len(base), copies=2, copies_of=base)
    assert as_base(found, weak) == alike
    one = found["pictures"][0]
    one["ways"] = {"own": [1, 4], "none": [0, 16]}
    assert may_be_chance(found, 0) == (1 in base.values())
    one["ways"]["none"] = [1, 16]
    assert not may_be_chance(found, 0)


def test_the_table_of_pictures_says_which_models_copy_each(tmp_path):
    """Equal pictures share a group: a model that copies one copies the other."""
    lora = model("LoRA", "copies", 2, copies_of={"p0.png": 4, "p1.png": 2})
    found = about(lora, main="LoRA", pictures=3)
    found["variants"][0] = model("base", "copies", 1, copies_of={"p0.png": 1})
    seen = {"similarity": 0.9, "margin": 0.1, "level": 0.7, "begins": None, "caption": "a cat"}
    for k, one in enumerate(found["pictures"]):
        one |= seen | {"file": f"p{k}.png", "group": (0, 1, 0)[k], "state": "copied"}
    found["pictures"][0]["base"] = {"copies": 3, "nearest": []}
    write_table(found, tmp_path / "training.csv")
    rows = list(csv.DictReader((tmp_path / "training.csv").open(encoding="utf-8")))
    assert [row["copied_by"] for row in rows] == [
        "base (1); LoRA (4)",
        "LoRA (2)",
        "base (1); LoRA (4)",
    ]
    assert [row["copies_base"] for row in rows] == ["3", "", ""]


def test_of_one_checkpoint_copies_begin_at_a_strength():
    models = grid((0.6, 0.8, 1.0), ("c1",), {("c1", 0.8), ("c1", 1.0)})
    assert begins(about(*models, main="c1 x 1.0")) == ("c1 x 0.6", "c1 x 0.8")


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (model("LoRA"), "No copy of 4 training pictures in 60 images of their captions: with 95 %"),
        (model("LoRA", "copies", 2), "2 of 4 training pictures are copied: 6 of 60 images"),
        (model("LoRA", "cannot be said", of=8), "8 images of their captions are too few"),
        (model("LoRA", "cannot be said", failed=2), "2 prompts gave no images"),
        (model("LoRA", "cannot be said", alike=1), "the pictures are too alike to tell"),
        (model("LoRA", "cannot be said", 1), "There may be copies of 4 training pictures, but"),
    ],
)
def test_the_sentence_says_what_is_known_and_why_not(main, says):
    found = about(main, main="LoRA")
    assert says in sentence(found)
    assert copies_in(found) == (main["verdict"] == "copies")


def test_pictures_whose_captions_were_not_asked_are_not_called_uncopied():
    found = about(model("LoRA"), main="LoRA", pictures=5)
    for one in found["pictures"][2:]:
        one["ways"] = {"neighbour": [0, 60]}
    assert "No copy of the 2 of 5 training pictures whose captions were asked" in sentence(found)


def test_the_choice_shows_most_of_the_subject_and_copies_nothing():
    found = about(
        model("c1", subject=0.3),
        model("c2", subject=0.4),
        model("c3", "copies", 1, subject=0.6),
        model(CLEANED, subject=0.35),
        main="c3",
    )
    assert choice(found)["name"] == "c2"
    assert choice(about(model("c3", "copies", 1, subject=0.6), main="c3")) is None


FITS = [  # base, tuned model, its images with other captions, neurons off, whether it is astray
    (0.55, 0.43, 0.0, 0.04, True),
    (0.30, 0.32, 0.14, 0.24, False),
    (0.30, 0.32, 0.14, 0.20, True),  # less than half of the way from .14 to .30
    (0.20, 0.32, 0.14, 0.20, False),  # no worse than the base
    (0.20, 0.12, 0.14, 0.05, False),  # the CLIP does not tell captions apart
]


@pytest.mark.parametrize(("base", "main", "other", "cleaned", "lost"), FITS)
def test_a_repair_that_loses_half_of_the_fit_to_captions_is_no_choice(
    base, main, other, cleaned, lost
):
    kept = {"subject": 0.4}
    found = about(
        model("LoRA", "copies", 2, a_clip=main, a_clip_other=other, **kept),
        model(CLEANED, a_clip=cleaned, **kept),
        main="LoRA",
    )
    found["variants"][0] |= {"a_clip": base} | kept
    assert astray(found) == lost
    assert (choice(found) is None) == lost
    assert label(found, found["variants"][2]) == ("off the captions" if lost else "does not copy")
    assert ("do not use it as it is" in sentence(found)) == lost
    figures = (
        f"fit to the captions (A_CLIP) is {cleaned:.2f} (tuned model {main:.2f}, base {base:.2f})"
    )
    assert figures in sentence(found)


def test_without_a_clip_it_is_said_that_the_fit_was_not_measured():
    found = about(model("LoRA", "copies", 2), model(CLEANED), main="LoRA")
    assert not astray(found)
    assert "follow the captions was not measured (--clip)" in sentence(found)


def test_a_model_that_copies_no_more_than_the_base_is_said_to_do_so():
    cleaned = model(
        CLEANED,
        "copies",
        3,
        copies=6,
        of=80,
        copies_of=dict.fromkeys(("a.png", "b.png", "c.png"), 2),
    )
    found = about(model("LoRA", "copies", 18, copies=46, of=80), cleaned, main="LoRA")
    found["variants"][0] |= {"verdict": "copies", "copied": 3, "copies": 5, "of": 80}
    assert [label(found, one) for one in found["variants"]] == ["", "copies", "as the base"]
    told = "3 are still copied (a.png, b.png, c.png), no more than by the base (3)"
    assert told in sentence(found)
    cleaned["copied"] = 4
    assert label(found, cleaned) == "copies"


@pytest.mark.parametrize("scales", [("0.5", "1"), ("1",)])
def test_begins_at_is_a_column_of_several_models_only(scales, monkeypatch):
    from findnemo.cli._show import training_table, variants_table

    one = {"file": "a.png", "state": "copied", "similarity": 0.9, "begins": "LoRA"}
    table = training_table([one | {"ways": {"own": [4, 4]}}], len(scales) > 1)
    heads = [column.header for column in table.columns]
    assert ("begins at" in heads) == (len(scales) > 1)
    fits = {"low": 0.1, "high": 0.3, "subject": 0.4, "a_clip": 0.3, "diversity": 0.6}
    found = about(model("LoRA", "copies", 2, **fits), main="LoRA")
    found["variants"][0] |= fits
    for width, names in ((80, ["subject", "A_CLIP"]), (120, ["subject", "diversity", "A_CLIP"])):
        monkeypatch.setattr("findnemo.cli._show.stdout.width", width)
        table = variants_table(found)
        assert [column.header for column in table.columns][-len(names) :] == names
        assert [*table.columns[-len(names) - 2].cells][1] == "6 of 60 (10 %)"


def test_controls_are_explained_in_a_sentence():
    found = about(model("LoRA", controls=[5, 112]), main="LoRA")
    told = "Of 112 pictures that do not come from this training (images of the base), 5 are as"
    assert controls_told(found).startswith(told)
    assert "pictures held out), 5 are" in controls_told(found | {"held_out": True})
    assert controls_told(about(model("LoRA"), main="LoRA")) == ""


def test_names_that_look_alike_have_folders_of_their_own():
    names = ("step_1", "step-1", "犬", "猫", "LoRA x -0.5", "LoRA x 0.5", "..", "base")
    folders = [folder_of_variant(Path("run"), name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == Path("run/variants") for folder in folders)
    assert all(folder.name.strip(".") for folder in folders)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a\0b", "variants/../../x"])
def test_files_outside_of_a_run_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="outside of it"):
        inside(tmp_path / "run", name)


def test_of_equal_pictures_one_is_shown_the_most_copied_first():
    found = about(model("LoRA", "copies", 3), main="LoRA", pictures=5)
    states = ["not seen", "copied", "copied", "nearly", "as a control"]
    for one, state, group in zip(found["pictures"], states, (0, 1, 1, 2, 3), strict=True):
        one |= {"state": state, "group": group}
    found["pictures"][2]["similarity"] = 0.9
    assert worst(found) == [2, 4, 3, 0]


def test_a_picture_that_the_base_copies_too_says_in_how_many_images():
    from findnemo.cli._show import training_table

    one = {"file": "a.png", "state": "copied", "similarity": 0.9, "begins": "base"}
    one |= {"ways": {"own": [4, 4], "none": [0, 16]}, "base": {"copies": 1, "nearest": []}}
    cells = [next(iter(column.cells)) for column in training_table([one], True).columns]
    assert cells[-2:] == ["own 4 of 4 (base 1)", "base"]
