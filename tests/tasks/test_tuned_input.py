"""What is asked of the models of a fine-tune audit, and what is refused before any is loaded."""

from __future__ import annotations

import pytest

import findnemo
from findnemo import tasks
from findnemo.errors import InputError
from findnemo.prompts import TrainingPicture, TrainingSet
from findnemo.tasks import FineTune, Source
from findnemo.tasks.tuned_input import candidates, questions_of


def training(*captions: str | None, trigger: str | None = None) -> TrainingSet:
    pictures = (TrainingPicture(f"{k}.png", c, 1, trigger) for k, c in enumerate(captions))
    return TrainingSet("photos", tuple(pictures))


def test_each_caption_is_asked_once_and_trigger_and_nothing_beside():
    found, notes = questions_of(
        training("a sks dog", "a sks dog", "sks dog asleep", None, trigger="sks dog"),
        ["a poster"],
        ["a boat", "sks dog asleep"],
        3,
        FineTune(),
    )
    asked = [(q.prompt, q.kind) for q in found]
    assert asked == [
        ("a sks dog", "own"),
        ("sks dog asleep", "own"),
        ("sks dog", "trigger"),
        ("a poster", "given"),
        ("", "none"),
        ("a boat", "control"),
    ]
    assert {q.images for q in found} == {3}
    assert not notes


def test_by_default_so_many_images_are_made_that_no_copy_says_something():
    one, _ = questions_of(training("sks"), [], [], None, FineTune())
    assert (one[0].kind, one[0].images) == ("own", 59)
    many, _ = questions_of(training(*map(str, range(40))), [], [], None, FineTune())
    assert {q.images for q in many if q.kind == "own"} == {4}
    strict, _ = questions_of(training("sks"), [], [], None, FineTune(copy_rate=0.01))
    assert strict[0].images == 299


def test_of_many_captions_some_are_asked_and_that_is_said():
    found, notes = questions_of(training(*map(str, range(300))), [], [], 1, FineTune())
    assert sum(q.kind == "own" for q in found) == 100
    assert "100 of 300 captions are asked" in notes[0]
    fewer, _ = questions_of(training(*map(str, range(300))), [], [], 1, FineTune(limit=7))
    assert sum(q.kind == "own" for q in fewer) == 7


def test_pictures_without_captions_and_trigger_are_refused_with_the_way_out():
    with pytest.raises(InputError, match="give --prompts FILE"):
        questions_of(training(None, None), [], [], None, FineTune())


@pytest.mark.parametrize(
    ("source", "tuned", "why"),
    [
        (Source("demo"), FineTune("p"), "either --lora, on MODEL, or --tuned"),
        (Source("demo", lora="a"), FineTune("p", tuned="b"), "either --lora, on MODEL, or --tuned"),
        (Source("demo", lora="a:0.5"), FineTune("p", lora_scale="1"), "has a strength"),
        (Source("demo", lora="a"), FineTune("p", lora_scale="0,1"), "names no strengths"),
        (Source("demo", lora="a"), FineTune("p", lora_scale="full"), "names no strengths"),
        (Source("demo"), FineTune("p", tuned="b", lora_scale="1"), "the strength of a LoRA"),
        (Source("demo", lora="a"), FineTune("p", copy_rate=0.0), "between 0 and 1"),
        (Source("demo", lora="nowhere.safetensors"), FineTune("p"), "no LoRA nowhere"),
    ],
)
def test_options_that_do_not_fit_are_refused(source, tuned, why):
    with pytest.raises(InputError, match=why):
        candidates(source, tuned)


def test_base_and_tuned_model_may_be_of_two_kinds(tmp_path):
    """A directory and a single file: each gets the options that say something of it."""
    (tmp_path / "tuned.safetensors").write_bytes(b"12345678")
    source = Source("owner/base", revision="main", weights_variant="fp16", config="owner/base")
    base, tuned = candidates(source, FineTune("p", tuned=str(tmp_path / "tuned.safetensors")))
    assert base.source.options == {"revision": "main", "variant": "fp16"}
    assert tuned.source.options == {"config": "owner/base"}


def test_a_fine_tune_without_training_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="give --train-images DIR"):
        findnemo.audit(tasks.Source("base", lora="l"), tasks.FineTune(), tmp_path / "run")
    with pytest.raises(InputError, match="give --train-images DIR"):
        next(tasks.watch("base", tasks.FineTune(), tmp_path / "run"))
