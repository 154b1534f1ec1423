"""The commands `calibrate`, `detect`, `localize` and `audit` on a small model."""

from __future__ import annotations

import csv
import json
import re
import shutil
import stat
from dataclasses import replace

import pytest
import torch
from _command import Result, cli
from _outcome import outcome
from _place import HOLDOUT, IMAGES, TEXTS, inputs
from PIL import Image

import findnemo
from findnemo.files.marks import unmarked
from findnemo.prompts import read_prompts
from findnemo.runs import Run, neurons_of, summary
from findnemo.settings import Settings


@pytest.mark.slow
def test_calibrate(place, tmp_path):
    model = findnemo.load(place / "model")
    captions = ["--prompts", place / "holdout.txt", "--limit", 3]
    result = cli(
        "calibrate", place / "model", *captions, "--seed", 7, "--json", "--out", tmp_path / "c"
    )
    assert result.status == 0
    made = findnemo.Calibration.load(tmp_path / "c")
    want = findnemo.calibrate(model, HOLDOUT[:3], "findnemo", seed=7)
    assert (made.tau, made.count, made.settings, made.model) == (
        want.tau,
        3,
        want.settings,
        model.fingerprint,
    )
    assert result.json == {
        "tau": made.tau,
        "prompts": 3,
        "scored": 3,
        "variant": "findnemo",
        "fpr": None,
        "calibration": str(tmp_path / "c"),
    }
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "calibration.json",
        "calibration.safetensors",
    ]

    other = cli(
        "calibrate", place / "model", *captions, "--seed", 8, "--fpr", 0.5, "--out", tmp_path / "d"
    )
    made = findnemo.Calibration.load(tmp_path / "d")
    assert (other.status, made.settings.seed, made.fpr) == (0, 8, 0.5)
    assert int((made.scores < made.tau).sum()) == 2  # the second smallest stays under it
    assert made.tau == pytest.approx(sorted(made.scores.tolist())[1]) != want.tau
    assert f"tau = {made.tau:.4f} from 3 captions" in other.out
    assert cli(
        "calibrate", place / "model", *captions, "--quiet", "--out", tmp_path / "e"
    ) == Result(0, "", "")


def test_calibrate_imports_published_statistics(place, tmp_path):
    widths = findnemo.load(place / "model").widths().values()
    torch.save(
        ([torch.zeros(w) for w in widths], [torch.ones(w) for w in widths]),
        tmp_path / "statistics.pt",
    )
    arguments = (
        "--import-statistics",
        tmp_path / "statistics.pt",
        "--tau",
        0.3,
        "--json",
        "--out",
        tmp_path / "c",
    )
    result = cli("calibrate", place / "model", *arguments)
    assert (result.status, result.json["tau"], result.json["variant"]) == (0, 0.3, "released")
    assert findnemo.Calibration.load(tmp_path / "c").tau == 0.3


def test_detect(usual, audited, tmp_path):
    result = cli("detect", *usual, "--out", tmp_path / "run")
    assert result.status == 0
    assert "None of the 6 captions looked at is known to be a memory." in result.out
    assert "3 are over the threshold and suspected (p = " in result.out
    assert "With 5 hold-out captions no p-value is under 1/6." in result.out
    assert result.out.count("suspected (p = ") == 3 + 1  # in the table, and in the verdict
    assert f"results   {tmp_path / 'run' / 'results.csv'}\n" in result.out
    want = outcome(audited)["rows"]
    for caption, row in outcome(tmp_path / "run")["rows"].items():
        assert {k: row[k] for k in ("score", "tau")} == {
            k: want[caption][k] for k in ("score", "tau")
        }
        assert (row["state"], row["memorized"]) == (
            ("suspected", None) if want[caption]["memorized"] else ("not memorized", False)
        )
        assert row["neurons"] is row["fresh_score_before"] is None

    flagged = cli("detect", *usual, "--fail-on-memorized", "--json", "--out", tmp_path / "run")
    assert (flagged.status, flagged.json["memorized"], flagged.json["unseen"]) == (1, 0, 3)
    assert cli("detect", *usual, "--quiet", "--out", tmp_path / "run") == Result(0, "", "")

    refused = cli("verify", tmp_path / "run")
    assert (refused.status, refused.out) == (2, "")
    told = " ".join(refused.err.split())
    assert "has 3 captions over the threshold and no search for their neurons was made" in told
    assert "findnemo localize" in told
    assert "loading" not in told


def test_captions_from_standard_input(place, usual, audited, tmp_path):
    arguments = (
        place / "model",
        "--prompts",
        "-",
        "--calibration",
        place / "calibration",
        "--json",
    )
    result = cli(
        "detect", *arguments, "--out", tmp_path / "run", stdin="a red fox\n\na moon\na red fox\n"
    )
    assert result.status == 0
    assert {r["caption"]: r["row"] for r in result.json["results"]} == {"a red fox": 1, "a moon": 3}
    assert "standard input: skipped 1 row without caption (row 2)" in result.err
    assert "row 4 repeats row 1" in result.err
    want = outcome(audited)["rows"]
    assert all(r["score"] == want[r["caption"]]["score"] for r in result.json["results"])


@pytest.mark.slow
def test_localize_then_verify(place, usual, audited, tmp_path):
    want = outcome(audited)["rows"]
    first = next(k for k, text in enumerate(TEXTS, 1) if want[text]["memorized"])
    out = tmp_path / "run[/]"
    result = cli("localize", *usual, "--limit", first, "--out", out)
    assert result.status == 0
    assert "The search found a set for 1 of 1" in result.out
    assert "are switched off for 1 of them all the same" in result.out
    assert f"results   {out / 'results.csv'}\n" in result.out
    found = outcome(out)["rows"]
    for text in TEXTS[:first]:
        assert {k: found[text][k] for k in ("score", "neurons", "layers", "same_seed")} == {
            k: want[text][k] for k in ("score", "neurons", "layers", "same_seed")
        }
    assert not (out / "sheets").exists()

    moved = shutil.copytree(place / "model", tmp_path / "elsewhere")
    result = cli("verify", out, "--model", moved, "--json", "--no-attack", "--no-attempts")
    assert (result.status, result.json["source"]) == (0, str(moved))
    (row,) = [r for r in result.json["results"] if r["memorized"]]
    assert row["fresh_score_before"] == want[row["caption"]]["fresh_score_before"]
    assert len(list((out / "sheets").iterdir())) == 1
    assert len(list((out / "cleaned").glob("*/sheets/*.png"))) == 1  # all neurons off
    names = sorted(file.stem for file in (out / "cleaned").glob("*/images/*/*.png"))
    quick = [name for name in names if name.startswith("quick-")]
    assert quick == [f"quick-{when}-0{k}" for when in ("after", "before") for k in range(4)]
    after, before = [name for name in names if name not in quick]  # of one seed, in all steps
    assert (after[:-1], before[:-1]) == ("after-0", "before-0")
    assert after[-1] == before[-1]


def test_audit_writes_results_and_sheets(audited):
    names = {p.name for p in audited.iterdir()} - {"run.sqlite-wal", "run.sqlite-shm"}
    assert names == {
        ".lock",
        "backup.sqlite",
        "calibration",
        "cleaned",
        "images",
        "noise",
        "report.html",
        "results.csv",
        "settings.json",
        "results.json",
        "run.sqlite",
        "sheets",
    }
    found = outcome(audited)
    assert (found["memorized"], found["failed"]) == (3, 0)
    assert len(list((audited / "sheets").glob("*.png"))) == 3
    with Run.open(audited) as run:
        assert json.loads((audited / "results.json").read_text()) == summary(run)
    assert "'=1+1" in (audited / "results.csv").read_text()


def test_a_run_may_be_read_and_written_as_the_umask_says(audited):
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (audited, *audited.rglob("*"))}
    ours = {p: mode for p, mode in modes.items() if not p.name.endswith(("-wal", "-shm"))}
    wrong = {str(p): oct(m) for p, m in ours.items() if m != (0o775 if p.is_dir() else 0o664)}
    assert wrong == {}


def test_neurons_are_layers_with_indices_in_json_and_in_writing_in_csv(audited):
    with Run.open(audited) as run:
        held = {c.text: neurons_of(c).to_json() for c in run.captions()}
    rows = json.loads((audited / "results.json").read_text())["results"]
    assert {r["caption"]: r["layers"] or {} for r in rows} == held
    assert sum(bool(layers) for layers in held.values()) == 3
    with (audited / "results.csv").open(newline="", encoding="utf-8") as file:
        cells = {unmarked(r["caption"]): r["layers"] for r in csv.DictReader(file)}
    for text, layers in held.items():
        parts = [part.split(": ") for part in cells[text].split("; ") if part]
        assert {name: list(map(int, indices.split())) for name, indices in parts} == layers
    assert [p.text for p in read_prompts(audited / "results.json")] == list(held)


def test_an_audit_says_where_its_report_is_or_leaves_it_out(usual, audited, tmp_path):
    shutil.copytree(audited, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    without = cli("audit", *usual, *IMAGES, "--no-report", "--out", tmp_path / "run")
    assert without.status == 0
    assert "report.html" not in without.out
    assert not (tmp_path / "run" / "report.html").exists()
    told = cli("audit", *usual, *IMAGES, "--out", tmp_path / "run")
    assert f"report    {tmp_path / 'run' / 'report.html'}\n" in told.out
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_a_second_audit_prints_the_same_and_changes_nothing(usual, audited):
    before = (audited / "results.json").read_bytes()
    as_json = cli("audit", *usual, *IMAGES, "--json", "--out", audited)
    assert (as_json.status, as_json.json) == (0, json.loads(before))
    assert cli("audit", *usual, *IMAGES, "--quiet", "--out", audited) == Result(0, "", "")
    assert cli("audit", *usual, *IMAGES, "-q", "--fail-on-memorized", "--out", audited) == Result(
        1, "", ""
    )
    table = cli("audit", *usual, *IMAGES, "--out", audited)
    assert "Of 3 memorized captions, 3 still gave copies." in table.out
    assert re.search(r"change of pixels, \d+ other captions +\d+\.\d %", table.out)
    assert "the [/sea]" in table.out  # no markup
    assert (audited / "results.json").read_bytes() == before


@pytest.mark.slow
def test_a_limit_in_two_steps_is_the_whole(usual, audited, tmp_path):
    assert cli("audit", *usual, *IMAGES, "-q", "--limit", 2, "--out", tmp_path / "run").status == 0
    assert set(outcome(tmp_path / "run")["rows"]) == set(TEXTS[:2])
    assert cli("audit", *usual, *IMAGES, "-q", "--out", tmp_path / "run").status == 0
    assert outcome(tmp_path / "run") == outcome(audited)


def test_the_seed_reaches_scores_and_images(place, tmp_path):
    arguments = (
        place / "model",
        "--prompts",
        place / "captions.csv",
        "--holdout",
        place / "holdout.txt",
        "--limit",
        1,
    )
    rows = []
    for seed in (0, 5):
        result = cli(
            "audit",
            *arguments,
            "--images",
            0,
            "--seed",
            seed,
            "--json",
            "--out",
            tmp_path / str(seed),
        )
        assert (
            result.json["settings"]["calibration"]["seed"]
            == result.json["settings"]["image_settings"]["seed"]
            == seed
        )
        rows += result.json["results"]
    assert rows[0]["score"] != rows[1]["score"]


def test_a_caption_with_nan_is_status_1_and_named(usual, tmp_path, monkeypatch):
    from findnemo.models import StableDiffusion

    encode = StableDiffusion.encode

    def poisoned(model, prompts):
        text = encode(model, prompts)
        factors = torch.tensor([float("nan") if p == "a tree" else 1 for p in prompts])
        return replace(text, tokens=text.tokens * factors[:, None, None])

    with monkeypatch.context() as patch:
        patch.setattr(StableDiffusion, "encode", poisoned)
        result = cli("detect", *usual, "--out", tmp_path / "run")
    assert result.status == 1
    assert "failed: row 4 (a tree): the noise prediction holds NaN or infinity" in result.out
    assert outcome(tmp_path / "run")["failed"] == 1
    assert cli("detect", *usual, "-q", "--out", tmp_path / "run").status == 0
    assert outcome(tmp_path / "run")["failed"] == 0


def test_a_run_that_another_process_writes_is_refused(usual, audited):
    settings = outcome(audited)["settings"]
    with Run.create(audited, settings):
        result = cli("audit", *usual, *IMAGES, "--out", audited)
        assert cli("inspect", audited).status == 0
    assert (result.status, result.out) == (2, "")
    assert "is in use by another findnemo process" in result.err


@pytest.mark.parametrize("search", ["gradient", "listing"])
def test_another_search_is_recorded(usual, tmp_path, search):
    assert cli("localize", *usual, "--search", search, "--out", tmp_path / "run").status == 0
    assert outcome(tmp_path / "run")["settings"]["search"] == search


@pytest.mark.slow
def test_images_are_judged_with_the_descriptor_that_was_given_and_originals_come_from_the_table(
    place, tmp_path
):
    descriptor = torch.jit.trace(
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten()),
        torch.rand(1, 3, 320, 320),
    )
    descriptor.save(str(tmp_path / "descriptor.pt"))
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    table = "caption;type;image\n" + "".join(
        f"{t};VM;{'red.png' if k else 'gone.png'}\n" for k, t in enumerate(TEXTS)
    )
    (tmp_path / "captions.csv").write_text(table)
    arguments = (
        place / "model",
        "--prompts",
        tmp_path / "captions.csv",
        "--calibration",
        place / "calibration",
        *IMAGES,
    )
    result = cli(
        "audit", *arguments, "--descriptor", tmp_path / "descriptor.pt", "--out", tmp_path / "run"
    )
    assert result.status == 0, result.err
    rows = list(csv.DictReader((tmp_path / "run" / "results.csv").open()))
    judged = [r for r in rows if r["memorized"] == "True"]
    assert all(r["sscd_gen"] for r in judged)
    assert {bool(r["sscd_orig_after"]) for r in judged if r["caption"] != TEXTS[0]} == {True}
    with Run.open(tmp_path / "run") as run:
        assert run.meta("preprocessing")["descriptor"]["size"] == 320
    # a run that has begun keeps its judge
    again = cli("audit", *arguments, "--out", tmp_path / "run")
    assert again.status == 0, again.err
    assert list(csv.DictReader((tmp_path / "run" / "results.csv").open())) == rows
    missing = cli(
        "audit", *arguments, "--descriptor", tmp_path / "none.pt", "--out", tmp_path / "new"
    )
    assert missing.status == 2
    assert "no descriptor file" in " ".join(missing.err.split())


def test_calibrate_says_what_a_rate_promises(place, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(f"hold out number {k}" for k in range(20)))
    arguments = ("calibrate", place / "model", "--prompts", tmp_path / "many.txt", "--fpr", 0.2)
    plain = cli(*arguments, "--out", tmp_path / "plain")
    made = findnemo.Calibration.load(tmp_path / "plain")
    bound = made.rate_bound()
    assert plain.status == 0
    assert "at most 20 % of ordinary captions reach it on average over calibrations" in " ".join(
        plain.out.split()
    )
    assert f"under {100 * bound:.2g} % with 95 % confidence" in " ".join(plain.out.split())

    sure = cli(*arguments, "--confidence", 0.8, "--json", "--out", tmp_path / "sure")
    other = findnemo.Calibration.load(tmp_path / "sure")
    assert (
        (sure.json["confidence"], sure.json["rate_under"])
        == (0.8, other.rate_bound())
        == (other.confidence, other.rate_bound())
    )
    assert other.tau > made.tau
    few = cli(*arguments, "--confidence", 0.999, "--out", tmp_path / "few")
    assert few.status == 2
    assert "20 hold-out prompts are too few" in few.err
    assert "it takes 31" in few.err
    assert cli(*arguments[:-2], "--confidence", 0.9, "--out", tmp_path / "x").status == 2


def test_a_list_is_made_shown_and_asked_for_at_another_level(place, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(f"hold out number {k}" for k in range(20)))
    model = findnemo.load(place / "model")
    texts = [f"hold out number {k}" for k in range(20)]
    made = findnemo.calibrate(model, texts, settings=Settings(samples=3))
    made.save(tmp_path / "calibration")
    common = ("--prompts", place / "captions.csv", "--calibration", tmp_path / "calibration")
    run = cli("detect", place / "model", *common, "--fdr", 0.2, "--out", tmp_path / "run")
    assert run.status == 0
    assert "no p-value is under 1/21" in run.err
    assert "for a single one it takes 29 hold-out captions" in run.err
    with Run.open(tmp_path / "run") as opened:
        whole = summary(opened)
    assert f"{len(whole['discoveries']['listed'])} of 6 captions" in run.out
    assert all(c["p"] is not None and c["q"] >= c["p"] for c in whole["results"])

    shown = cli("inspect", tmp_path / "run", "--fdr", 0.9)
    assert (shown.status, "Listed at a false discovery rate of 90 %" in shown.out) == (0, True)
    assert (
        cli("inspect", tmp_path / "run", "--fdr", 0.9, "--json").json["discoveries"]["level"] == 0.9
    )
    one = cli("inspect", tmp_path / "run", 1)
    first = whole["results"][0]
    assert f"q = {first['q']:.3g} (the false discovery rate" in one.out
    rare = f"at most {100 * first['p']:.2g} % of ordinary captions score as high"
    assert (rare in one.out) == (first["score"] >= first["tau"])
    assert cli("inspect", tmp_path / "run", 1, "--json").json[0]["q"] == whole["results"][0]["q"]


@pytest.mark.parametrize("level", [0, 1, -0.1, 5])
def test_a_level_outside_zero_to_one_is_refused_before_the_work(place, tmp_path, level):
    common = (*inputs(place), "--out", tmp_path / "run")
    result = cli("detect", place / "model", *common, "--fdr", level)
    assert (result.status, "is not a rate between 0 and 1" in result.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_audit_logs_to_a_tracker_and_refuses_an_unknown_one_before_the_work(
    place, audited, tmp_path
):
    pytest.importorskip("tensorboardX")
    arguments = (place / "model", *inputs(place), *IMAGES)
    logged = cli(
        "audit",
        *arguments,
        "--out",
        audited,
        "--track",
        f"tensorboard={tmp_path / 'logs'}",
        "--fail-on-memorized",
    )
    assert logged.status == 1  # its own meaning is kept
    assert "logged to tensorboard" in logged.err
    assert list((tmp_path / "logs").rglob("events.*"))
    refused = cli("audit", *arguments, "--out", tmp_path / "new", "--track", "nonsense")
    assert (refused.status, (tmp_path / "new").exists()) == (2, False)
    assert "tracker 'nonsense' is not known" in refused.err
