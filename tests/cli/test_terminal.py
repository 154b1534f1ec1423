"""What the terminal offers besides the commands: completion, `--debug`, examples in every
help, and a run at a glance.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from _command import cli
from _place import COMMANDS, TEXTS, inputs, make_place

import findnemo
from findnemo.runs import Run, neurons_of

IMAGES = ("--images", 2, "--image-steps", 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a small model; tests leave it as it is."""
    place = make_place(tmp_path_factory.mktemp("place"))
    arguments = (*inputs(place), *IMAGES, "-q")
    assert cli("audit", place / "model", *arguments, "--out", place / "run").status == 0
    return place / "run"


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join(
        filter(None, [str(Path(findnemo.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'findnemo'; from findnemo.cli import main; main()",
        *arguments,
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


# completion


def test_completion_for_bash_is_printed_and_is_a_script():
    shown = python("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown.returncode == 0, shown.stderr
    assert "complete -o default -F _findnemo_completion findnemo" in shown.stdout
    assert subprocess.run(["bash", "-n"], input=shown.stdout, text=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "offered"), [("findnemo insp", "inspect"), ("findnemo audit --descr", "--descriptor")]
)
def test_completion_completes_commands_and_options(words, offered):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert python(_FINDNEMO_COMPLETE="complete_bash", **asked).stdout.split() == [offered]


# errors


def broken(monkeypatch, error: Exception) -> None:
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(Run, "open", fails)


UNEXPECTED = KeyError("no [red]such\x1b[2J key")


def test_an_unexpected_error_is_one_line_that_names_the_way(monkeypatch):
    broken(monkeypatch, UNEXPECTED)
    result = cli("inspect", "run")
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert result.err.startswith("error: KeyError: ")
    assert "findnemo --debug" in result.err
    assert "https://github.com/findnemo/findnemo/issues" in result.err
    assert "Traceback" not in result.err
    assert "\x1b" not in result.err


@pytest.mark.parametrize(
    ("error", "status"),
    [(UNEXPECTED, 1), (findnemo.FindnemoError("known"), 2), (PermissionError(13, "denied"), 2)],
)
def test_debug_shows_where_any_error_comes_from(monkeypatch, error, status):
    broken(monkeypatch, error)
    quiet = cli("inspect", "run")
    loud = cli("--debug", "inspect", "run")
    assert quiet.status == loud.status == status
    assert "Traceback" not in quiet.err
    assert loud.err.startswith("Traceback (most recent call last):")
    assert "in inspect" in loud.err
    assert "\x1b" not in loud.err
    assert loud.err.endswith(
        quiet.err
    )  # the line that says what is wrong is the last one, in either case


def test_debug_of_one_call_is_not_kept_for_the_next(monkeypatch):
    broken(monkeypatch, UNEXPECTED)
    assert "Traceback" in cli("--debug", "inspect", "run").err
    assert "Traceback" not in cli("inspect", "run").err


# examples


def examples(command: str) -> list[str]:
    return re.findall(r"Example: `(findnemo [^`]+)`", COMMANDS[command].help)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_a_help_are_calls_that_the_command_understands(command):
    """Every option of an example exists, and its arguments are as many as the command takes."""
    assert examples(command)
    for example in examples(command):
        name, *arguments = shlex.split(example)[1:]
        assert name == command
        with COMMANDS[name].make_context(name, list(arguments)) as context:
            assert context.params


MATTER = {
    "audit": 4,
    "calibrate": 3,
    "detect": 3,
    "localize": 2,
    "export": 4,
    "inspect": 3,
    "compare": 2,
    "study": 2,
    "demo": 2,
}


@pytest.mark.parametrize("command", MATTER)
def test_commands_whose_options_matter_have_several_examples(command):
    assert len(examples(command)) >= MATTER[command]


# a run at a glance


def test_inspect_shows_what_a_report_shows(run):
    shown = cli("inspect", run)
    assert (shown.status, shown.err) == (0, "")
    with Run.open(run) as opened:
        tau = opened.meta("settings")["tau"]
    for text in (
        "Of 3 memorized captions, 3 still gave copies.",
        "captions memorized",
        "3 of 6",
        "neurons off",
        "memories gone on fresh seeds",
        "captions suspected",
        "change of pixels, ",
        f"tau = {tau:.3f}: suspected from here on",
        "Neurons off, per layer",
    ):
        assert text in shown.out, text
    bars = [
        int(line.split()[-1])
        for line in shown.out.splitlines()
        if re.match(r" *-?\d\.\d{3} *█", line)
    ]
    assert sum(bars) == 6


def test_inspect_shows_a_caption_with_its_neurons_before_and_after(run):
    with Run.open(run) as opened:
        caption = next(c for c in opened.captions() if len(neurons_of(c)))
    shown = cli("inspect", run, caption.row).out
    words = " ".join(shown.split())
    assert words.startswith("copies: its finished images still hold copies ")
    assert f"Its score, {caption.score:.3f}, reaches tau, " in words
    assert "share of finished images that copy" in words
    assert "largest similarity of a search seed's noise difference" in words
    assert f"{caption.results['verify']['score_after']:.3f}" in words
    z = caption.results["localize"]["z"]
    for name, index in neurons_of(caption):
        assert re.search(rf"\({re.escape(name)}\): [^:]*#{index}\b", words)
    assert words.count("(z ") == len([n for n in neurons_of(caption) if f"{n[0]}:{n[1]}" in z])
    other = cli(
        "inspect", run, next(k for k, t in enumerate(TEXTS, 1) if k != caption.row and "[" not in t)
    ).out
    assert "memorized" in other


# trackers


def test_audit_logs_to_a_tracker_and_refuses_an_unknown_one_before_the_work(run, tmp_path):
    pytest.importorskip("tensorboardX")
    place = run.parent
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


# the hub


def test_a_card_is_pushed_only_when_asked(run, tmp_path, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        "findnemo.export.push_card",
        lambda section, repo: pushed.append((section, repo)) or "https://hub/commit",
    )
    assert cli("export", run, "--to", "card", "--out", tmp_path / "card.md").status == 0
    assert pushed == []
    result = cli("export", run, "--to", "card", "--push", "me/my-model")
    advice = "the audit's advice: Do not release yet: 3 of 3 memories are still there."
    assert (result.status, result.err) == (0, f"{advice}\ncard pushed: https://hub/commit\n")
    assert pushed == [((tmp_path / "card.md").read_text(), "me/my-model")]
    assert not (run / "export").exists()  # to the hub, not to a file
    refused = cli("export", run, "--push", "me/my-model")
    assert (refused.status, len(pushed)) == (2, 1)
    assert "give --to card" in refused.err
