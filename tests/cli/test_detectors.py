"""`findnemo detect --detector`: figures from the scores of a run, resumed where it
stopped, and what is refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from _command import Result, cli
from _tiny import SMALL, tiny_pipeline
from PIL import Image

import findnemo
from findnemo.calibration import threshold
from findnemo.detection import DETECTORS, Score
from findnemo.errors import InputError, MismatchError, NumericalError
from findnemo.images import ImageSettings
from findnemo.prompts import Prompt
from findnemo.runs import Run, Serial
from findnemo.runs import detectors as api
from findnemo.stats import auroc

TYPED = ("a red fox", "a grey owl", "a tree")
PLAIN = ("=1+1", "a moon", "[/sea]")
HOLDOUT = tuple(f"hold out {letter}" for letter in "abcdefghij")
SETTINGS = ImageSettings(steps=1, guidance=2.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a model, `captions.csv` of three typed and three other captions,
    `typed.csv` and `holdout.txt`.
    """
    folder = tmp_path_factory.mktemp("place")
    tiny_pipeline(**SMALL).save_pretrained(folder / "model")
    typed = "caption;type\n" + "".join(f"{t};VM\n" for t in TYPED)
    (folder / "typed.csv").write_text(typed)
    (folder / "captions.csv").write_text(typed + "".join(f"{t};\n" for t in PLAIN))
    (folder / "plain.txt").write_text("\n".join(PLAIN))
    (folder / "holdout.txt").write_text("\n".join(HOLDOUT))
    return folder


def command(place, names: str, out, *more: object, captions: str = "captions.csv") -> Result:
    files = ("--prompts", place / captions, "--holdout", place / "holdout.txt")
    return cli("detect", place / "model", *files, "--detector", names, "--out", out, *more)


@pytest.mark.slow
def test_the_figures_are_those_of_the_detectors_scores(place, tmp_path):
    status, out, _ = command(place, "one-step, entropy-e", tmp_path / "run", "--json")
    whole = json.loads(out)
    model = findnemo.load(place / "model")
    assert status == 0
    assert [r["detector"] for r in whole["detectors"]] == ["one-step", "entropy-e"]
    for found in whole["detectors"]:
        detector = DETECTORS[found["detector"]]
        value = {}
        for text in (*TYPED, *PLAIN, *HOLDOUT):
            value[text] = detector(model, text, ImageSettings()).value
        typed, plain, holdout = (
            torch.tensor([value[t] for t in group], dtype=torch.float64)
            for group in (TYPED, PLAIN, HOLDOUT)
        )
        assert found["threshold"] == pytest.approx(threshold(holdout))
        assert found["evaluation"]["auroc"] == auroc(typed, plain)
        assert found["found"] == int((torch.cat([typed, plain]) >= threshold(holdout)).sum())
        assert (found["captions"], found["failed"]) == (6, 0)
        assert found["evaluations"] == detector(model, TYPED[0], ImageSettings()).evaluations
        scores = {row["caption"]: row["scores"][found["detector"]] for row in whole["captions"]}
        assert scores == {t: pytest.approx(value[t]) for t in (*TYPED, *PLAIN)}


@pytest.mark.slow
def test_the_table_has_a_line_for_each_detector(place, tmp_path):
    status, out, _ = command(place, "magnitude", tmp_path / "run", captions="plain.txt")
    assert status == 0
    line = next(line for line in out.splitlines() if line.startswith("magnitude"))
    assert line.count("-") == 3  # nothing is known of the captions
    status, out, _ = command(place, "magnitude", tmp_path / "second")
    assert "AUROC" in out
    assert "magnitude" in out


def test_where_all_captions_have_a_type_holdout_captions_stand_in(place, tmp_path):
    status, out, err = command(place, "one-step", tmp_path / "run", "--json", captions="typed.csv")
    found = json.loads(out)["detectors"][0]["evaluation"]
    assert "every second hold-out caption" in err
    assert (status, found["positives"], found["negatives"], found["holdout"]) == (0, 3, 5, 5)


def test_pictures_are_drawn_for_the_captions_with_a_type(place, tmp_path):
    settings = SETTINGS
    model = findnemo.load(place / "model")
    with api.start_detectors(tmp_path / "run", model, settings) as run:
        ids = run.add([Prompt(TYPED[0], 1, "VM"), Prompt(PLAIN[1], 2)])
        paths = api.draw_pictures(run, list(run.captions(ids)), settings, Serial(model))
    assert [p.name for p in paths] == ["00001-a-red-fox-saliency.png", "00001-a-red-fox-mask.png"]
    assert set((tmp_path / "run" / "detectors").iterdir()) == set(paths)
    assert all(Image.open(p).size[0] >= 256 for p in paths)


# the run ------------------------------------------------------------------------------------------


class Asked(list):
    """Captions that a detector was asked for; `stop`: the one at which the user interrupts."""

    stop: str | None = None


@pytest.fixture
def counted(monkeypatch):
    """A detector that notes what it is asked and has NaN for one caption."""
    asked = Asked()

    def detector(model, prompt, settings):
        asked.append(prompt)
        if prompt == asked.stop:
            raise KeyboardInterrupt
        if prompt == PLAIN[0]:
            raise NumericalError("NaN")
        return Score(float(len(prompt)), 3)

    monkeypatch.setitem(DETECTORS, "counted", detector)
    return asked


def scored(out, model, names=("counted",)) -> list:
    with api.start_detectors(out, model, SETTINGS) as run:
        prompts = [
            Prompt(t, k, "VM" if t in TYPED else None) for k, t in enumerate((*TYPED, *PLAIN))
        ]
        return api.results(
            run,
            api.run_detectors(run, prompts, HOLDOUT, names, SETTINGS, Serial(model)),
            HOLDOUT,
            names,
        )


def test_what_is_usual_is_learned_from_holdout_captions_once_and_kept(tiny, tmp_path, monkeypatch):
    asked = Asked()

    def updates(model, prompt, settings):
        asked.append(prompt)
        if prompt == HOLDOUT[1]:
            raise NumericalError("NaN")
        return [float(ord(prompt[-1])), 0.5]

    def detector(model, prompt, settings, *, reference=None):
        return Score(sum(row[0] for row in reference), 1)

    monkeypatch.setitem(DETECTORS, "counted", detector)
    monkeypatch.setitem(api.REFERENCES, "counted", updates)
    monkeypatch.setattr(api, "CAPTIONS", 4)
    found = scored(tmp_path / "run", tiny)[0]
    assert asked == list(HOLDOUT[:4])
    assert found.threshold == ord("a") + ord("c") + ord("d")
    with Run.open(tmp_path / "run") as run:  # the threshold is not of what it has learned from
        assert set(run.meta("holdout:counted")) == {*HOLDOUT} - {HOLDOUT[k] for k in (0, 2, 3)}
    asked.clear()
    scored(tmp_path / "run", tiny)
    assert asked == [HOLDOUT[1]]  # what failed is tried again


def test_a_detector_is_not_judged_on_captions_that_it_has_learned_from(tiny, tmp_path, monkeypatch):
    learned = []

    def updates(model, prompt, settings):
        learned.append(prompt)
        return [0.5]

    def detector(model, prompt, settings, *, reference=None):
        return Score(0.0 if prompt in learned else 5.0 + (prompt in TYPED), 1)

    monkeypatch.setitem(DETECTORS, "counted", detector)
    monkeypatch.setitem(api.REFERENCES, "counted", updates)
    memories = [Prompt(text, k, "VM") for k, text in enumerate(TYPED, 1)]
    with api.start_detectors(tmp_path / "run", tiny, SETTINGS) as run:
        captions = api.run_detectors(run, memories, HOLDOUT, ["counted"], SETTINGS, Serial(tiny))
        (found,) = api.results(run, captions, HOLDOUT, ["counted"])
    assert learned == list(HOLDOUT[: len(HOLDOUT) // 2])
    assert found.evaluation.negatives + found.evaluation.holdout == len(HOLDOUT) - len(learned)
    assert found.threshold == 5.0


def test_what_is_answered_is_not_done_again_and_what_failed_is(tiny, tmp_path, counted):
    first = scored(tmp_path / "run", tiny)
    assert counted == [*TYPED, *PLAIN, *HOLDOUT]
    counted.clear()
    assert scored(tmp_path / "run", tiny) == first
    assert counted == [PLAIN[0]]
    assert (first[0].captions, first[0].failed, first[0].evaluations) == (5, 1, 3)
    with Run.open(tmp_path / "run") as run:
        captions = {c.text: c for c in run.captions()}
    assert captions[PLAIN[0]].failed == {"detect:counted": "NaN"}
    assert captions[TYPED[0]].results["detect:counted"]["value"] == 9


@pytest.mark.first(1)
@pytest.mark.parametrize("stop", [TYPED[2], HOLDOUT[5], HOLDOUT[9]])
def test_an_interrupted_run_goes_on_where_it_stopped(tiny, tmp_path, counted, stop):
    counted.stop = stop
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path / "run", tiny)
    before = [t for t in counted if t not in (stop, PLAIN[0])]
    counted.clear()
    counted.stop = None
    whole = scored(tmp_path / "run", tiny)
    assert not set(before) & set(counted)
    assert whole[0].evaluation.holdout == 10


def test_a_run_of_the_same_model_and_images_is_joined_and_another_refused(tiny, tmp_path, counted):
    known = {
        "model": tiny.fingerprint,
        "dtype": "float32",
        "image_settings": SETTINGS.to_json(),
        "tau": 0.5,
    }
    Run.create(tmp_path / "run", known).close()
    scored(tmp_path / "run", tiny)
    with Run.open(tmp_path / "run") as run:
        assert run.meta("settings") == known
    with pytest.raises(MismatchError, match=r"image_settings.steps 1, now 2"):
        api.start_detectors(tmp_path / "run", tiny, ImageSettings(2, 2.0))


def test_captions_that_are_holdout_captions_too_are_refused(tiny, tmp_path):
    with (
        api.start_detectors(tmp_path / "run", tiny, SETTINGS) as run,
        pytest.raises(InputError, match="hold-out captions among the captions: 1, such as"),
    ):
        api.run_detectors(
            run, [Prompt("a cat", 1)], ["a cat", "a dog"], ["one-step"], SETTINGS, Serial(tiny)
        )


def test_the_help_and_the_page_name_every_detector():
    told = " ".join(cli("detect", "--help").out.replace("│", " ").split())
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    for name in DETECTORS:
        assert re.search(rf"[ :,]{name}[,.]", told), name
        assert f"\n| `{name}` |" in page, name


def test_a_failed_caption_sets_the_exit_status(place, tmp_path, counted):
    status, out, err = command(place, "counted", tmp_path / "run")
    assert status == 1
    assert "failed:" in err
    assert "counted on 1 caption" in err
    assert "counted" in out


# what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--detector", "ssim,clip"),
            "detector 'clip' is not known: use agreement, ssim, magnitude",
        ),
        (("--detector", "ssim"), "give --holdout FILE"),
        (
            ("--detector", "ssim", "--calibration", "c"),
            "--calibration does nothing with --detector",
        ),
        (
            ("--detector", "ssim", "--fail-on-memorized"),
            "--fail-on-memorized does nothing with --detector",
        ),
        (("--pictures", "--calibration", "c"), "--pictures goes with --detector"),
        ((), "give --holdout FILE (captions that are not memorized) or --calibration DIR"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_done(
    place, tmp_path, options, message
):
    status, out, err = cli(
        "detect",
        place / "model",
        "--prompts",
        place / "captions.csv",
        *options,
        "--out",
        tmp_path / "run",
    )
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "run").exists()


def test_captions_are_asked_for_except_of_the_demo(place, tmp_path):
    for options in (
        ("--calibration", "c"),
        ("--detector", "ssim", "--holdout", place / "holdout.txt"),
    ):
        status, _, err = cli("detect", place / "model", *options, "--out", tmp_path / "run")
        assert (status, "give --prompts FILE" in err) == (2, True)


@pytest.mark.slow
def test_inspect_shows_what_a_run_of_detectors_holds(place, tmp_path):
    _, first, _ = command(place, "one-step, entropy-e", tmp_path / "run", "--json")
    status, out, _ = cli("inspect", tmp_path / "run", "--json")
    assert status == 0
    assert json.loads(out) == json.loads(first)
    assert "one-step" in cli("inspect", tmp_path / "run")[1]


def test_inspect_names_a_run_without_results(tmp_path):
    Run.create(tmp_path / "run", {}).close()
    status, _, said = cli("inspect", tmp_path / "run")
    assert status == 2
    assert "holds no results" in said
