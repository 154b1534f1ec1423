"""What is said of a fine-tune: series of models, which may be taken, verdicts in a sentence."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from findnemo.runs.tuned import (
    CLEANED,
    astray,
    begins,
    beside,
    choice,
    controls_told,
    copied_by,
    copies_in,
    fair,
    label,
    newest_copies,
    refuted_models,
    sentence,
    to_confirm,
    worst,
)
from findnemo.runs.verdict import of_training
from findnemo.training import AS_BASE


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


def confirmed(row: dict, verdict: str | None = None, copied: int | None = None) -> dict:
    """A model after further images, by default with the verdict that it had."""
    first = {name: row[name] for name in ("verdict", "copied", "copies", "of")}
    more = row["copied"] if copied is None else copied
    now = {"verdict": verdict or row["verdict"], "copied": more, "copies": 2 * more, "of": 240}
    return row | now | {"chosen_by": first, "beside": {"copied": 2, "copies": 4, "of": 240}}


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
    assert "At strength 1, copies begin at c2 x 1.0; c1 x 1.0 gave no copy." in sentence(found)


def test_a_strength_that_copies_as_the_base_does_begins_nothing_and_may_be_taken():
    weak = confirmed(model("LoRA x 0.2", AS_BASE, 2, subject=0.4, strength=0.2))
    found = about(weak, model("LoRA", "copies", 4, subject=0.6), main="LoRA")
    found["variants"][0] = model("base", "copies", 2, subject=0.3)
    assert label(found, weak) == "as the base"
    assert begins(found) == ("LoRA x 0.2", "LoRA")
    told = "Copies begin at LoRA; LoRA x 0.2 copies no more than the base."
    assert told in sentence(found)
    assert choice(found)["name"] == "LoRA x 0.2"
    assert of_training(found, 7).sentence.endswith("; release LoRA x 0.2 instead.")
    assert of_training(found, 7).why == ("instead", "check")


def test_a_model_that_does_not_tell_is_never_taken_for_one_without_copies():
    """Five pictures copied in two of eighty images are no sign that a model copies nothing."""
    weak = model("LoRA x 0.1", "cannot be said", 5, subject=0.9, strength=0.1)
    found = about(weak, model("LoRA", "copies", 4, subject=0.6), main="LoRA")
    assert choice(found) is None
    assert to_confirm(found) is weak
    found["variants"][1] = confirmed(weak)
    assert choice(found) is to_confirm(found) is None
    assert [one["name"] for one in refuted_models(found)] == ["LoRA x 0.1"]
    advised = of_training(found, 7)
    assert advised.action == "hold"
    assert "LoRA x 0.1" not in advised.sentence
    assert "LoRA x 0.1 may copy or not, its images do not tell." in sentence(found)


@pytest.mark.parametrize(
    ("taught", "of_base", "told"),
    [
        ("abc", 1, " The training taught all of them."),
        ("abc", 0, ""),
        (
            "a",
            1,
            " The training taught 1 of them (a.png). The base copies 1 of them too (b.png). 1 of them"
            " may be chance (c.png).",
        ),
        (
            "ac",
            1,
            " The training taught 2 of them (a.png, c.png). The base copies 1 of them too (b.",
        ),
        ("a", 0, " The training taught 1 of them (a.png). 2 of them may be chance (b.png, c.png)."),
    ],
)
def test_it_is_said_why_each_picture_is_copied(taught, of_base, told):
    other = {"b": "base" if of_base else "chance", "c": "chance"}
    copied = {f"{name}.png": 2 for name in "abc"}
    held = {f"{name}.png": 2 for name in taught}
    found = about(model("LoRA", "copies", 3, taught=held, copies_of=copied), main="LoRA")
    found["variants"][0] = model("base", "copies" if of_base else "does not copy", of_base)
    for one, name in zip(found["pictures"], "abcd", strict=True):
        cause = "training" if name in taught else other.get(name)
        one |= {"file": f"{name}.png", "cause": cause}
    assert f"images of their captions are copies.{told}" in sentence(found)
    assert ("The training taught" in sentence(found)) == bool(told)


def test_a_main_model_that_copies_as_the_base_does_may_be_released():
    found = about(model("LoRA", AS_BASE, 2), main="LoRA")
    found["variants"][0] = model("base", "copies", 3)
    assert of_training(found, 0).action == "release"
    told = "LoRA copies 2 of 4 training pictures, in 6 of 60 images of their captions, no more than"
    assert sentence(found).startswith(f"{told} the base (3), which was not trained on them.")


def test_the_pictures_at_which_copies_begin_are_those_that_were_taught():
    weak = model("LoRA x 0.2", "copies", 2, copies_of={"a.png": 1, "b.png": 2}, taught={"b.png": 2})
    found = about(weak, model("LoRA", "copies", 4), main="LoRA")
    assert (
        "Copies begin at LoRA x 0.2 (taught b.png); no lower strength was looked at."
        in sentence(found)
    )


def test_of_checkpoints_with_several_strengths_copies_begin_at_the_strength_of_the_main_one():
    models = grid((0.5, 1.0), ("c1", "c2"), {("c1", 0.5), ("c2", 1.0)})
    told = sentence(about(*models, main="c2 x 1.0"))
    assert "At strength 1, copies begin at c2 x 1.0; c1 x 1.0 gave no copy." in told


def test_models_are_shown_beside_each_other_once_each():
    looks = {"looks": ["a.png"]}
    weak = confirmed(model("LoRA x 0.2", subject=0.4, **looks))
    models = [weak, model("LoRA", "copies", 2, **looks)]
    found = about(*models, model(CLEANED, "copies", 1, **looks), main="LoRA")
    found["variants"][0] |= looks
    assert [one["name"] for one in beside(found)] == ["base", "LoRA x 0.2", "LoRA", CLEANED]
    del found["variants"][1]["looks"]  # by an older findnemo
    assert [one["name"] for one in beside(found)] == ["base", "LoRA", CLEANED]


def test_of_one_checkpoint_copies_begin_at_a_strength():
    models = grid((0.6, 0.8, 1.0), ("c1",), {("c1", 0.8), ("c1", 1.0)})
    assert begins(about(*models, main="c1 x 1.0")) == ("c1 x 0.6", "c1 x 0.8")


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (
            model("LoRA"),
            "LoRA gave no copy of 4 training pictures in 60 images of their captions: with 95",
        ),
        (model("LoRA", "copies", 2), "LoRA copies 2 of 4 training pictures: 6 of 60 images"),
        (model("LoRA", "cannot be said", of=8), "8 images of their captions are too few"),
        (model("LoRA", "cannot be said", failed=2), "2 prompts gave no images"),
        (model("LoRA", "cannot be said", alike=1), "the pictures are too alike to tell"),
        (model("LoRA", "cannot be said", 1), "LoRA may copy some of 4 training pictures, but"),
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
    assert "gave no copy of the 2 of 5 training pictures whose captions were asked" in sentence(
        found
    )


def test_the_choice_shows_most_of_the_subject_and_copies_nothing():
    found = about(
        confirmed(model("c1", subject=0.3)),
        confirmed(model("c2", subject=0.4)),
        model("c3", "copies", 1, subject=0.6),
        model(CLEANED, subject=0.35),
        main="c3",
    )
    assert choice(found)["name"] == "c2"
    assert choice(about(model("c3", "copies", 1, subject=0.6), main="c3")) is None


def order_of(found: dict, fails: set[str]) -> list[str]:
    """The models that an audit confirms, one after the other, if those of `fails` copy then."""
    asked = []
    while (one := to_confirm(found)) is not None:
        asked.append(one["name"])
        now = confirmed(one, "copies", 2) if one["name"] in fails else confirmed(one)
        found["variants"] = [now if v is one else v for v in found["variants"]]
    return asked


@pytest.mark.parametrize(
    ("fails", "asked", "chosen"),
    [
        (set(), ["c2 x 0.6"], "c2 x 0.6"),
        ({"c2 x 0.6"}, ["c2 x 0.6", "c1 x 0.6"], "c1 x 0.6"),
        ({"c2 x 0.6", "c1 x 0.6"}, ["c2 x 0.6", "c1 x 0.6", "c2 x 0.4"], "c2 x 0.4"),
        (
            {"c2 x 0.6", "c1 x 0.6", "c2 x 0.4", "c1 x 0.4"},
            ["c2 x 0.6", "c1 x 0.6", "c2 x 0.4", "c1 x 0.4"],
            None,
        ),
    ],
)
def test_models_are_confirmed_from_the_strongest_down_until_one_stands(fails, asked, chosen):
    models = grid((0.4, 0.6), ("c1", "c2"), set())
    for k, one in enumerate(models):
        one["subject"] = 0.8 - 0.1 * k  # by few images; the order does not go by it
    main = model("c3", "copies", 2, checkpoint="c3", subject=0.9)
    found = about(*models, main, main="c3")
    assert order_of(found, fails) == asked
    assert (choice(found) or {"name": None})["name"] == chosen
    assert {one["name"] for one in refuted_models(found)} == fails & {*asked}


def test_what_copies_sooner_than_a_refuted_model_may_not_be_taken():
    """By an earlier call the weakest strength of the first checkpoint was refuted."""
    models = grid((0.4, 0.6), ("c1", "c2"), set())
    models[0] = confirmed(models[0], "copies", 2)
    found = about(*models, model("c3", "copies", 2, checkpoint="c3"), main="c3")
    assert to_confirm(found) is None
    assert fair(found) == []


def test_what_is_weaker_than_a_model_without_the_subject_may_not_be_taken():
    models = grid((0.4, 0.6), ("c1", "c2"), set())
    models[2] = confirmed(models[2]) | {"subject": 0.45, "subject_low": 0.43}  # c2 x 0.4
    models[2]["beside"]["subject"] = 0.44
    main = model("c3", "copies", 2, checkpoint="c3", subject=0.6, subject_low=0.5)
    found = about(*models, main, main="c3")
    found["variants"][0]["subject"] = 0.44
    assert [one["name"] for one in fair(found)] == ["c1 x 0.6", "c2 x 0.6"]
    del main["subject_low"]  # nothing is known of the similarity of the main one
    assert len(fair(found)) == 4


def test_nothing_is_confirmed_where_the_main_model_does_not_copy():
    weak = model("LoRA x 0.2", subject=0.4, strength=0.2)
    for verdict in ("does not copy", AS_BASE, "cannot be said"):
        assert to_confirm(about(weak, model("LoRA", verdict), main="LoRA")) is None


def test_the_model_with_the_neurons_off_is_confirmed_even_if_another_one_was():
    weak = confirmed(model("LoRA x 0.2", subject=0.4, strength=0.2))
    found = about(weak, model("LoRA", "copies", 2), model(CLEANED), main="LoRA")
    assert to_confirm(found)["name"] == CLEANED


def test_an_edited_model_is_advised_only_if_there_is_no_other():
    weak = confirmed(model("LoRA x 0.2", subject=0.4, strength=0.2))
    cleaned = confirmed(model(CLEANED, subject=0.5))
    copying = model("LoRA", "copies", 2)
    assert choice(about(weak, copying, cleaned, main="LoRA"))["name"] == "LoRA x 0.2"
    assert choice(about(copying, cleaned, main="LoRA"))["name"] == CLEANED


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
        confirmed(model(CLEANED, a_clip=cleaned, **kept)),
        main="LoRA",
    )
    found["variants"][0] |= {"a_clip": base} | kept
    assert astray(found) == lost
    assert (choice(found) is None) == lost
    assert label(found, found["variants"][2]) == ("off the captions" if lost else "does not copy")
    assert ("do not use it as it is" in sentence(found)) == lost
    figures = (
        f"fit to the captions (A_CLIP) is {cleaned:.2f} (as trained {main:.2f}, base {base:.2f})"
    )
    assert figures in sentence(found)


def test_without_a_clip_it_is_said_that_the_fit_was_not_measured():
    found = about(model("LoRA", "copies", 2), model(CLEANED), main="LoRA")
    assert not astray(found)
    assert "follow the captions was not measured (--clip)" in sentence(found)


def test_a_model_that_copies_no_more_than_the_base_is_said_to_do_so():
    cleaned = model(
        CLEANED,
        AS_BASE,
        3,
        copies=6,
        of=80,
        copies_of=dict.fromkeys(("a.png", "b.png", "c.png"), 2),
    )
    found = about(model("LoRA", "copies", 18, copies=46, of=80), cleaned, main="LoRA")
    found["variants"][0] |= {"verdict": "copies", "copied": 3, "copies": 5, "of": 80}
    assert [label(found, one) for one in found["variants"]] == ["", "copies", "as the base?"]
    told = "it copies 3 (a.png, b.png, c.png), no more than the base (3), which was not trained on"
    assert told in sentence(found)


def test_copies_with_the_neurons_off_that_the_model_did_not_make_are_said_to_be_others():
    cleaned = model(CLEANED, AS_BASE, 1, copies_of={"b.png": 1})
    found = about(model("LoRA", "copies", 1, copies_of={"a.png": 4}), cleaned, main="LoRA")
    found["variants"][0] |= {"verdict": "copies", "copied": 2}
    other = "it copies 1 (b.png), which it does not copy with them on, no more than the base (2)"
    assert other in sentence(found)
    cleaned["copies_of"]["a.png"] = 1
    assert "with them on" not in sentence(found)


def test_the_table_of_models_counts_the_pictures_that_each_was_taught():
    from findnemo.cli._show import variants_table

    fits = {"low": 0.1, "high": 0.3}
    taught = {"a.png": 4, "b.png": 2}
    found = about(model("LoRA", "copies", 3, **fits, taught=taught), main="LoRA")
    found["variants"][0] |= fits | {"taught": {}}
    columns = {column.header: [*column.cells] for column in variants_table(found).columns}
    assert columns["taught"] == ["", "2"]
    del found["variants"][0]["taught"], found["variants"][1]["taught"]  # by an older findnemo
    assert "taught" not in [column.header for column in variants_table(found).columns]


@pytest.mark.parametrize("width", [80, 120])
def test_a_narrow_terminal_leaves_out_what_is_less_needed(width, monkeypatch):
    from findnemo.cli._show import training_table, variants_table

    monkeypatch.setattr("findnemo.cli._show.stdout.width", width)
    one = {"file": "a.png", "state": "copied", "similarity": 0.9, "begins": "LoRA"}
    table = training_table([one | {"ways": {"own": [4, 4]}}])
    assert ("first copy by" in [column.header for column in table.columns]) == (width > 80)
    fits = {"low": 0.1, "high": 0.3, "subject": 0.4, "a_clip": 0.3, "diversity": 0.6}
    name = "checkpoint-100 x 0.4 of a training with a long name"
    found = about(model("LoRA", "copies", 2, **fits), main="LoRA")
    found["variants"] = [model("base", **fits), model(name, **fits), *found["variants"][1:]]
    table = variants_table(found)
    heads = [column.header for column in table.columns]
    more = {"nearly", "95 %", "diversity"}
    assert {*heads} >= {"model", "pictures", "copies", "subject", "A_CLIP"}
    assert more & {*heads} == (more if width > 80 else set())
    assert [*table.columns[heads.index("copies")].cells][-1] == "6 of 60"
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    shown = re.sub(r"\s", "", "".join(line[:30] for line in console.file.getvalue().split("\n")))
    assert "…" not in shown


def test_controls_are_explained_in_a_sentence():
    found = about(model("LoRA", controls=[5, 112]), main="LoRA")
    told = "Of 112 images that do not come from this training (of the base), 5 are as similar to a"
    assert controls_told(found).startswith(told)
    assert "pictures held out), 5 are" in controls_told(found | {"held_out": True})
    assert controls_told(about(model("LoRA"), main="LoRA")) == ""


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
    cells = [next(iter(c.cells)) for c in training_table([one | {"cause": "training"}]).columns]
    assert cells[3:6] == ["own caption 4 of 4", "1", "training"]


def test_the_models_that_copy_a_picture_say_whether_they_were_taught_it():
    weak = model("LoRA x 0.2", "copies", 2, copies_of={"0.png": 1, "1.png": 2}, taught={"1.png": 2})
    found = about(weak, main="LoRA x 0.2")
    for k, one in enumerate(found["pictures"]):
        one["file"] = f"{k}.png"
    found["pictures"][2]["group"] = 1  # equal to 1.png
    named = [copied_by(found, k) for k in range(4)]
    assert named == [["LoRA x 0.2 (1)"], ["LoRA x 0.2 (2, taught)"], ["LoRA x 0.2 (2, taught)"], []]


def test_pictures_that_controls_are_as_like_are_counted_in_the_sentence():
    found = about(model("LoRA", "copies", 2, alike=3), main="LoRA")
    assert "Of 3 more it cannot be told: images of the base are as like them." in sentence(found)


def test_only_the_newest_checkpoint_counts():
    copies, clean = {"verdict": "copies"}, {"verdict": "does not copy"}
    assert newest_copies({"variants": [clean, copies]})
    assert not newest_copies({"variants": [copies, clean]})
