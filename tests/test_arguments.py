"""Arguments that Python users get wrong: said before any work, never a number."""

from __future__ import annotations

import polars as pl
import pytest
from _tiny import tiny_pipeline

import findnemo
from findnemo.errors import InputError
from findnemo.images import ImageSettings, generate
from findnemo.metrics.kind import ORDINARY, is_memory
from findnemo.prompts import Prompt
from findnemo.runs import Run, enter
from findnemo.runs.ordinary import ordinary
from findnemo.settings import Settings

SETTINGS = Settings(samples=2)


@pytest.fixture(scope="module")
def calibration(model):
    return findnemo.calibrate(model, ["a red fox", "a tree", "the sea"], settings=SETTINGS)


def test_one_text_is_not_taken_letter_by_letter(model, calibration):
    for ask in (
        lambda: findnemo.calibrate(model, "holdout.txt", settings=SETTINGS),
        lambda: findnemo.detect_many(model, "a fox", calibration),
        lambda: findnemo.localize(model, "a fox", calibration, max_impact=0.1, unrelated="a tree"),
    ):
        with pytest.raises(InputError, match="is one text where several captions belong"):
            ask()


def test_rows_of_a_table_are_captions(model, calibration):
    table = findnemo.read_prompts(["a red fox", "a tree", "the sea"])
    assert findnemo.calibrate(model, table, settings=SETTINGS).tau == calibration.tau
    assert [d.score for d in findnemo.detect_many(model, table, calibration)] == [
        d.score for d in findnemo.detect_many(model, [p.text for p in table], calibration)
    ]
    assert findnemo.detect_many(model, [], calibration) == []


def test_one_caption_many_times_is_no_calibration(model):
    with pytest.raises(InputError, match="all 6 hold-out captions are 'a dog'"):
        findnemo.calibrate(model, ["a dog"] * 6, settings=SETTINGS)


@pytest.mark.parametrize("caption", [None, 3, ["a dog"], "a \ud800 dog"])
def test_what_is_no_caption_is_named(model, caption):
    with pytest.raises(InputError, match="caption"):
        findnemo.score(model, caption, settings=SETTINGS)
    with pytest.raises(InputError, match="caption"):
        generate(model, caption, [0], ImageSettings(steps=1))


def test_a_sample_is_not_compared_with_itself(model):
    with pytest.raises(InputError, match="name a sample twice"):
        findnemo.score(model, "a dog", settings=SETTINGS, samples=[0, 0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 3000},
        {"timestep": 99},
        {"timestep": -1},
        {"samples": 1},
        {"guidance": float("nan")},
    ],
)
def test_settings_are_checked_when_they_are_made(wrong):
    with pytest.raises(InputError, match=f"settings cannot have {next(iter(wrong))}"):
        Settings(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"steps": 2000}, {"guidance": float("nan")}, {"guidance": float("inf")}]
)
def test_image_settings_are_checked_when_they_are_made(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}"):
        ImageSettings(**wrong)


def test_steps_that_a_sampler_cannot_make_are_refused(model):
    with pytest.raises(InputError, match="cannot make images in 900 steps"):
        generate(_distilled(), "a dog", [0], ImageSettings(steps=900))
    assert generate(model, "a dog", [], ImageSettings(steps=1)) == []


def _distilled():
    import diffusers

    pipeline = tiny_pipeline()
    pipeline.scheduler = diffusers.LCMScheduler()
    return findnemo.load(pipeline)


def test_a_device_that_is_not_there_is_named():
    for device in ("mps", "xpu"):
        with pytest.raises(InputError, match=f"device '{device}' is not there"):
            findnemo.load("demo", device=device)


def test_frames_are_read_by_rows_and_dicts_refused():
    frame = pl.DataFrame({"caption": ["a", "b"], "type": ["VM", None]})
    assert [(p.text, p.type) for p in findnemo.read_prompts(frame)] == [("a", "VM"), ("b", None)]
    with pytest.raises(InputError, match="a dict of columns is not a list of captions"):
        findnemo.read_prompts({"caption": ["a", "b"]})
    with pytest.raises(InputError, match="is not a table of captions"):
        findnemo.read_prompts(None)


def test_captions_in_lists_are_refused_by_what_they_are(tmp_path):
    pl.DataFrame({"caption": [["a", "b"]], "id": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="the column 'caption' holds lists"):
        findnemo.read_prompts(tmp_path / "t.parquet")


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", {"model": "0"}) as made:
        yield made


def test_words_for_no_memory_are_the_same_in_python_and_in_the_store(run):
    words = [
        "VM",
        "TM",
        "1.0",
        "x",
        *map(str.strip, ORDINARY),
        "Not_Memorized",
        "non-memorized",
        "NaN",
        "-",
    ]
    run.add(Prompt(f"caption {k}", k, word or None) for k, word in enumerate(words, 1))
    known = {c.text: c.type for c in run.captions()}
    assert set(ordinary(run)) == {text for text, kind in known.items() if not is_memory(kind)}
    assert [word for word in words if is_memory(word)] == ["VM", "TM", "1.0", "x"]


def test_types_that_come_later_are_taken_and_others_told(run):
    enter(run, [Prompt("a", 1), Prompt("b", 2, "TM")])
    with pytest.warns(
        UserWarning, match="row 2: the run has this caption with the type 'TM', the table says 'VM'"
    ):
        enter(run, [Prompt("a", 1, "VM", "a.png"), Prompt("b", 2, "VM")])
    assert [(c.type, c.image) for c in run.captions()] == [("VM", "a.png"), ("TM", None)]
