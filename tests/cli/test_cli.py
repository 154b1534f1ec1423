"""The command line: every command on a small model, what it prints where, its exit status, and
a process that is killed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

import pytest
from _command import Result, cli
from _killing import ended, forked
from _outcome import outcome
from _place import HOLDOUT, IMAGES, process
from _waiting import until

import findnemo
from findnemo.cli import main
from findnemo.passes.deltas import SEARCHES
from findnemo.runs import Run


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


def test_captions_cannot_steer_the_terminal(place, tmp_path):
    (tmp_path / "evil.txt").write_text("a \x1b[2J\x1b]0;title\x07 fox [bold]\\\n")
    arguments = (
        "--prompts",
        tmp_path / "evil.txt",
        "-c",
        place / "calibration",
        "--out",
        tmp_path / "run",
    )
    shown = [
        cli("detect", place / "model", *arguments).out,
        cli("inspect", tmp_path / "run", 1).out,
    ]
    for text in shown:
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "fox [bold]\\" in shown[1]


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
