"""The commands of the path on a small model: what they print where, their exit status, and a
process that is killed.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from _command import Result, cli
from _killing import ended, forked
from _outcome import outcome
from _place import HOLDOUT, IMAGES, TEXTS, inputs, process
from _waiting import until
from PIL import Image

import findnemo
from findnemo.cli import main
from findnemo.files.marks import unmarked
from findnemo.passes.deltas import SEARCHES
from findnemo.prompts import read_prompts
from findnemo.runs import Run, neurons_of, summary
from findnemo.settings import Settings

# calibrate


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


# detect and localize


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


# audit


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


@pytest.mark.slow
def test_ctrl_c_is_status_130_and_says_how_to_go_on(usual, audited, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("findnemo.models.StableDiffusion.predict_noise", interrupted)
        result = cli("audit", *usual, *IMAGES, "--quiet", "--out", tmp_path / "run")
    assert result == Result(130, "", "stopped; run the same command again to go on\n")
    assert cli("audit", *usual, *IMAGES, "--quiet", "--out", tmp_path / "run").status == 0
    assert outcome(tmp_path / "run") == outcome(audited)


def test_a_run_that_another_process_writes_is_refused(usual, audited):
    settings = outcome(audited)["settings"]
    with Run.create(audited, settings):
        result = cli("audit", *usual, *IMAGES, "--out", audited)
        assert cli("inspect", audited).status == 0
    assert (result.status, result.out) == (2, "")
    assert "is in use by another findnemo process" in result.err


# Real processes


def test_exit_status_and_streams_of_a_real_process(tmp_path):
    with process(
        "audit", "model", "--prompts", tmp_path / "no.csv", "--out", tmp_path / "run"
    ) as run:
        out, err = run.communicate()
    assert (run.returncode, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert "no.csv: cannot be read" in err
    assert list(tmp_path.iterdir()) == []


def recorded(out: Path) -> dict[tuple[str, str], tuple]:
    """What the store holds:

    (caption, stage) -> payload and seconds, which nobody repeats by chance.
    """
    if not (out / "run.sqlite").exists():
        return {}
    try:
        with Run.open(out) as run:
            sql = (
                "SELECT text, stage, payload, results.seconds FROM results JOIN captions ON"
                " captions.id = caption"
            )
            return {row[:2]: row[2:] for row in run.query(sql)}
    except findnemo.FindnemoError:  # not begun yet
        return {}


def answers(stage: str, count: int) -> Callable[[Path], bool]:
    return lambda out: sum(key[1] == stage for key in recorded(out)) >= count


MOMENTS = {
    "while it calibrates": lambda out: (out / "calibration" / "partial.safetensors").exists(),
    "while it localizes": answers("localize", 1),
    "while it verifies": lambda out: any(out.rglob("before-00.png")),
}


@pytest.mark.slow
def test_a_process_killed_at_any_moment_goes_on_where_it_stopped(place, tmp_path):
    """Nothing is lost, nothing done twice, and in the end nothing is different."""
    many = tmp_path / "holdout.txt"  # more than share a pass, so that there is a half-way
    many.write_text("\n".join([*HOLDOUT, *(f"number {k}" for k in range(40))]))
    captions = ("--prompts", place / "captions.csv")
    holdout = ("--holdout", many, "--fpr", 0.3)
    arguments = ("audit", place / "model", *captions, *holdout, *IMAGES)
    out = tmp_path / "run"
    known = {}
    for moment, reached in MOMENTS.items():
        status, err = _kill(process(*arguments, "--out", out), out, reached)
        assert status == -signal.SIGKILL, (moment, err)
        now = recorded(out)
        assert known.items() <= now.items(), moment
        known = now
    with process(*arguments, "--json", "--fail-on-memorized", "--out", out) as last:
        printed, err = last.communicate()
    assert last.returncode == 1, err
    assert known.items() <= recorded(out).items()
    assert json.loads(printed) == json.loads((out / "results.json").read_text())

    assert cli(*arguments, "--out", tmp_path / "whole").status == 0
    assert outcome(out) == outcome(tmp_path / "whole")
    assert 0 < outcome(out)["memorized"] < 6
    for folder in ("calibration", "images", "sheets"):
        assert contents(out / folder) == contents(tmp_path / "whole" / folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in files.items() if not name.endswith(".part")}


def _kill(run: subprocess.Popen, out: Path, reached: Callable[[Path], bool]) -> tuple[int, str]:
    """Wait for a moment, kill the process there, and return its exit status and what it said."""
    with run:
        until(lambda: reached(out), still=lambda: run.poll() is None)
        run.kill()
        _, err = run.communicate()
    return run.returncode, err


STOPS = {"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}


@pytest.mark.slow
@pytest.mark.parametrize("how", STOPS)
def test_a_command_that_is_stopped_by_a_signal_says_how_to_go_on(usual, audited, tmp_path, how):
    """A process of its own, stopped in its first searches: the captions that share passes with
    the first are answered, nothing after them is begun.
    """
    number, status = STOPS[how]
    said = tmp_path / "said"
    out = tmp_path / "run"
    begun, begins = os.pipe()
    sent, sends = os.pipe()

    def work() -> None:
        module = importlib.import_module("findnemo.runs.audit")
        real = module.localize

        def localize(*arguments, **options):
            os.write(begins, b".")
            os.read(sent, 1)
            return real(*arguments, **options)

        module.localize = localize
        with (
            said.open("w") as err,
            mock.patch.object(
                sys, "argv", ["findnemo", "audit", *map(str, (*usual, *IMAGES, "--out", out))]
            ),
            redirect_stderr(err),
        ):
            main()

    child = forked(work)
    os.close(begins)
    assert os.read(begun, 1), "the child ended before its first search"
    os.kill(child, number)
    os.write(sends, b"." * SEARCHES)
    assert ended(child) == status
    assert said.read_text().splitlines()[-1] == "stopped; run the same command again to go on"
    assert ("Ctrl-C again stops at once" in said.read_text()) == (how == "Ctrl-C")
    with Run.open(out) as run:
        memorized = [c.id for c in run.captions() if c.detected and c.detected.memorized]
        assert sorted(run.done("localize")) == memorized  # all of them share passes
        assert not run.done("verify")
    assert (out / "results.csv").exists()
    assert cli("audit", *usual, *IMAGES, "--quiet", "--out", out).status == 0
    assert outcome(out) == outcome(audited)


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


# error rates


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


def test_a_gentle_choice_needs_captions_and_keeps_its_impact(tmp_path):
    from findnemo import demo
    from findnemo.errors import InputError
    from findnemo.tasks import Listener, Localizing, Pictures
    from findnemo.tasks.opening import gentle, plan_for, plan_of

    file = tmp_path / "ordinary.txt"
    file.write_text("\n".join(f"a red fox {k}" for k in range(20)))
    plan = plan_for("demo", Localizing("gradient"), Pictures(images=0), 0)

    def chosen_by(model, **options):
        return gentle(plan, Localizing("gradient", **options), model, None, None, Listener())

    with pytest.raises(InputError, match="give --unrelated FILE"):
        chosen_by("elsewhere", max_impact=0.1)
    with pytest.raises(InputError, match="goes with --max-impact"):
        chosen_by("elsewhere", unrelated=file)
    with pytest.raises(InputError, match="from 0 to 2"):
        chosen_by("elsewhere", max_impact=-1.0, unrelated=file)
    assert chosen_by("elsewhere") == plan
    chosen = chosen_by("elsewhere", max_impact=0.1, unrelated=file)
    assert chosen.unrelated == tuple(f"a red fox {k}" for k in range(16))
    model = findnemo.load("demo")
    calibration = demo.calibration()
    settings = chosen.settings(model, calibration)
    assert plan_of(settings) == chosen
    assert not {"max_impact", "unrelated"} & set(
        plan.settings(model, calibration)
    )  # runs of before go on
    own = chosen_by("demo", max_impact=0.1).unrelated
    assert len(own) == 16
    assert not set(own) & {*demo.holdout(), *demo.unrelated()[:64]}


def test_audit_logs_to_a_tracker_and_refuses_an_unknown_one_before_the_work(
    place, audited, tmp_path
):
    pytest.importorskip("tensorboardX")
    run = shutil.copytree(audited, tmp_path / "run")
    arguments = (place / "model", *inputs(place), *IMAGES)
    logged = cli(
        "audit",
        *arguments,
        "--out",
        run,
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
