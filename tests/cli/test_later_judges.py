"""Judges and image settings that are given to a run later: what stands, what is judged anew from
stored pictures, what is made again; and what a command says of judges before it begins.
"""

import csv
import os
import shutil
import signal
from collections import Counter
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from _command import cli
from _killing import ended, forked
from _place import COMMANDS, inputs, make_place

from findnemo import Calibration
from findnemo.runs import Run, judging
from findnemo.verification import effect

pytestmark = pytest.mark.slow

AUDIT = import_module("findnemo.runs.audit")
IMAGES = ("--images", 2, "--image-steps", 5)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = make_place(tmp_path_factory.mktemp("place"))
    for name, size in (("descriptor.pt", 4), ("other.pt", 2)):
        pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(size), torch.nn.Flatten())
        torch.jit.trace(pooled, torch.rand(1, 3, 320, 320)).save(str(folder / name))
    return folder


@pytest.fixture(scope="module")
def usual(place):
    return (place / "model", *inputs(place))


@pytest.fixture(scope="module")
def judged(place, usual, tmp_path_factory):
    """Audits without a judge, and with one from the start; tests leave them as they are."""
    out = tmp_path_factory.mktemp("judged")
    first = cli("audit", *usual, *IMAGES, "--out", out / "without")
    given = ("--descriptor", place / "descriptor.pt")
    second = cli("audit", *usual, *IMAGES, *given, "--out", out / "with")
    assert (first.status, second.status) == (0, 0), first.err + second.err
    return out, first


def rows(out):
    """results.csv without what time and the way to it decide."""
    with (out / "results.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "evaluations")}
            for row in csv.DictReader(file)
        ]


def never(*arguments, **options):
    raise AssertionError("this was to be kept")


def said(result):
    return " ".join(result.err.split())


def again(out, *options):
    return cli("audit", *options, "--out", out)


@pytest.fixture
def without(judged, tmp_path):
    return shutil.copytree(judged[0] / "without", tmp_path / "run")


@pytest.fixture
def found(monkeypatch):
    """What detection and the search found is not sought again."""
    monkeypatch.setattr(AUDIT, "detect_many", never)
    monkeypatch.setattr(AUDIT, "localize", never)


@pytest.fixture
def kept(monkeypatch, found, without):
    """No stored picture of verification is made again."""
    pictures = {file: file.read_bytes() for file in (without / "images").rglob("quick-*.png")}
    with Run.open(without) as run:
        stored = {
            (c.text, file.stem)
            for c in run.captions()
            for file in (without / "images" / c.slug).glob("*.png")
        }
    real = effect.fresh_images

    def finished(model, prompt, seeds, settings, neurons, first):
        assert neurons or not stored & {(prompt, f"before-{k:02d}") for k in seeds}
        return real(model, prompt, seeds, settings, neurons, first)

    monkeypatch.setattr(effect, "fresh_images", finished)
    yield
    assert pictures
    changed = [file for file, data in pictures.items() if file.read_bytes() != data]
    assert changed == []


def test_what_a_judge_would_give_is_said_before_the_work(judged):
    told = said(judged[1])
    assert "no descriptor: copies are told by the correlation of pixels" in told
    assert "https://github.com/facebookresearch/sscd-copy-detection" in told
    assert "no clip: nothing is said of how images fit their captions" in told
    assert told.index("no clip") < told.index("loading") < told.index("detect 0/6")


def test_a_judge_that_comes_later_judges_the_stored_pictures(judged, place, usual, without, kept):
    result = again(without, *usual, "--descriptor", place / "descriptor.pt")
    assert result.status == 0, result.err
    told = said(result)
    assert f"goes on with other settings: descriptor none, now {place / 'descriptor.pt'}" in told
    assert "kept: what detection found (6 captions) and the neurons that were found (3 cap" in told
    assert "judged anew: the stored pictures of 3 captions" in told
    assert "made again: what was seen with the neurons of all captions off, the quality" in told
    assert told.index("judged anew") < told.index("judge 0/3")
    whole = judged[0] / "with"
    assert rows(without) == rows(whole)
    assert any(row["sscd_gen"] for row in rows(without))
    with Run.open(without) as run, Run.open(whole) as other:
        assert run.meta("quality") == other.meta("quality")
        assert run.meta("settings") == other.meta("settings")
    # the judge is the run's own now, whoever names it or does not
    twice = again(without, *usual)
    assert twice.status == 0, twice.err
    assert "other settings" not in said(twice)
    assert rows(without) == rows(whole)


def test_a_killed_judgement_goes_on(judged, place, usual, without, monkeypatch, found):
    commits = []

    def dying(*arguments):
        if commits:
            os.kill(os.getpid(), signal.SIGKILL)
        commits.append(1)
        return keep(*arguments)

    keep = judging.keep
    with monkeypatch.context() as patch:
        patch.setattr(judging, "keep", dying)
        given = ("--descriptor", place / "descriptor.pt")
        assert ended(forked(lambda: again(without, *usual, *given))) == -signal.SIGKILL
    with Run.open(without) as run:
        stages = Counter(s for c in run.captions() for s in c.results)
        assert (stages["verify"], stages["pictured"]) == (1, 2)
        assert run.meta("settings")["judges"] == {"descriptor": str(place / "descriptor.pt")}
    result = again(without, *usual)
    assert result.status == 0, result.err
    assert "judge 0/2" in said(result)
    assert rows(without) == rows(judged[0] / "with")
    with Run.open(without) as run:
        assert not any("pictured" in c.results for c in run.captions())


def test_verify_and_compare_take_a_judge_too(judged, place, usual, without, found):
    tried = ("--no-attempts", "--no-attack", "--quiet")
    result = cli("verify", without, "--descriptor", place / "descriptor.pt", *tried)
    assert result.status == 0, result.err
    assert rows(without) == rows(judged[0] / "with")
    compared = ("compare", *usual[:1], "--out", without, "--mitigations", "neurons")
    first = cli(*compared, "--json")
    assert first.status == 0, first.err
    told = said(cli(*compared))  # --json leaves notices out
    assert "no clip: Table 1 leaves out A_CLIP" in told
    assert "no training images (column 'image'): Table 1 leaves out SSCD_orig" in told
    assert {"SSCD_gen", "D_SSCD"} <= set(first.json[0])
    assert not {"SSCD_orig", "A_CLIP"} & set(first.json[0])
    page = (without / "table1.md").read_text()
    assert "Left out: A_CLIP (no CLIP: " in page
    other = ("--descriptor", place / "other.pt")
    second = cli(*compared, *other)
    assert second.status == 0, second.err
    assert "kept apart: comparisons of mitigations" in said(second)
    with Run.open(without) as run:
        stages = {s.partition(":")[0] for c in run.captions() for s in c.results}
    # those of each judge under its settings, and none under those of the run's beginning
    assert sum(stage.startswith("compare@") for stage in stages) == 2
    assert "compare" not in stages


def test_other_image_settings_make_again_what_depends_on_them(judged, usual, without, tmp_path):
    before = rows(without)
    guided = ("--guidance", 3)
    result = again(without, *usual, *guided)
    assert result.status == 0, result.err
    told = said(result)
    assert "goes on with other settings: guidance 7.0, now 3.0" in told
    assert "kept: what detection found (6 captions)" in told
    assert "made again: the search for neurons of 3 captions, the pictures of 3 captions" in told
    assert again(tmp_path / "fresh", *usual, *IMAGES, *guided, "--quiet").status == 0
    assert rows(without) == rows(tmp_path / "fresh")
    with pytest.MonkeyPatch.context() as patch:  # what was put aside comes back
        patch.setattr(AUDIT, "localize", never)
        patch.setattr("findnemo.runs.work.scan", never)
        assert again(without, *usual, "--guidance", 7, "--quiet").status == 0
    assert rows(without) == before


def test_more_images_keep_those_that_are_there(judged, usual, without, tmp_path, found):
    whole = {f: f.read_bytes() for f in (without / "images").glob("*/[ba]*.png")}
    result = again(without, *usual, "--images", 3)
    assert result.status == 0, result.err
    assert "judged anew: the stored pictures of 3 captions; those that are miss" in said(result)
    assert all(file.read_bytes() == content for file, content in whole.items())
    assert len(list((without / "noise").glob("*/before-*.png"))) == 9
    fewer = again(without, *usual, "--images", 2, "--quiet")
    assert fewer.status == 0, fewer.err
    assert not list(without.glob("*/*/*-02.png"))
    assert rows(without) == rows(judged[0] / "without")


def test_a_setting_of_the_search_is_refused_and_nothing_changes(judged, place, usual):
    out = judged[0] / "without"
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    given = ("--descriptor", place / "descriptor.pt", "--scope", "all")
    result = again(out, *usual, *given)
    assert result.status == 2
    assert "scope 'auto', now 'all'" in said(result)
    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == before


def test_a_judge_that_cannot_be_opened_changes_nothing(judged, usual, tmp_path):
    out = judged[0] / "without"
    (tmp_path / "no.pt").write_bytes(b"no program")
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    for name in ("none.pt", "no.pt"):
        result = again(out, *usual, "--descriptor", tmp_path / name)
        assert result.status == 2, result.err
        assert "descriptor" in said(result)
    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == before


def test_a_judge_that_somebody_else_names_is_not_opened(judged, usual, tmp_path, monkeypatch):
    out = shutil.copytree(judged[0] / "with", tmp_path / "run")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    result = again(out, *usual)
    assert result.status == 2
    assert "names descriptor" in said(result)


# thresholds ---------------------------------------------------------------------------------------


def test_a_rate_takes_its_threshold_from_the_scores_that_a_calibration_keeps(
    place, usual, tmp_path
):
    made = Calibration.load(place / "calibration")
    result = cli("detect", *usual, "--fpr", 0.3, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    with Run.open(tmp_path / "run") as run:
        tau = run.meta("settings")["tau"]
    # of 5 scores the ceil(6 * .7) = 5th smallest, and the number next above
    assert tau == pytest.approx(float(made.scores.max()), abs=1e-6)
    assert tau > float(made.scores.max())
    few = cli("detect", *usual, "--fpr", 0.01, "--out", tmp_path / "few")
    assert few.status == 2
    assert "5 hold-out prompts are too few for a false-positive rate of 0.01: it takes 99" in said(
        few
    )
    bare = replace(made, trajectories=made.trajectories[:0])
    bare.save(tmp_path / "bare")
    none = cli(
        "detect",
        *usual[:3],
        "--calibration",
        tmp_path / "bare",
        "--fpr",
        0.3,
        "--out",
        tmp_path / "x",
    )
    assert none.status == 2
    assert "keeps no hold-out scores (imported statistics)" in said(none)


def test_a_calibration_is_not_written_over_in_silence(place, tmp_path, monkeypatch):
    out = tmp_path / "calibration"
    asked = ("calibrate", place / "model", "--prompts", place / "holdout.txt", "--out", out)
    assert cli(*asked).status == 0
    file = out / "calibration.json"
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("findnemo.tasks.calibrating.calibrate_with", never)
        same = cli(*asked)
        assert same.status == 0, same.err
        assert "holds this calibration already" in said(same)
        for options, differs in (
            (("--limit", 3), "5 captions, now 3"),
            (("--fpr", 0.3), "fpr None, now 0.3"),
            (("--seed", 3), "seed 0 instead of 3"),
        ):
            other = cli(*asked, *options)
            assert other.status == 2
            told = said(other)
            assert f"holds another calibration: {differs}; give another --out, or --force" in told
    assert file.read_bytes() == before
    assert cli(*asked, "--limit", 3, "--force").status == 0
    assert Calibration.load(out).count == 3


@pytest.mark.parametrize(
    "command",
    [
        *("calibrate", "detect", "localize", "audit", "verify", "compare", "study", "harden"),
        *("benchmark", "watch", "export", "app", "demo"),
    ],
)
def test_whatever_computes_takes_a_number_of_threads(command):
    assert any("--threads" in option.opts for option in COMMANDS[command].params)
