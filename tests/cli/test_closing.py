"""How commands end: on one screen, with what to do, what that rests on, where the pictures are and
the next command; in any terminal.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest
from _command import cli
from _place import COMMANDS
from _tiny_files import make_run

import findnemo
from findnemo.cli import _detectors, _studies
from findnemo.cli._common import stderr, stdout
from findnemo.cli._robustness import attempts_table
from findnemo.neurons import NeuronSet
from findnemo.runs import Run
from findnemo.runs.verdict import advice_of
from findnemo.settings import Settings
from findnemo.studies import Table

LONG = "a caption of more letters than there is room for in a line of a table, number"
SCREEN = 20  # lines of a terminal of 24 that the end of a command may take
ESCAPE = "\x1b"
TOGETHER = "cleaned/feed0123/sheets"  # pictures with all neurons off


@pytest.fixture(scope="module")
def make(model, tmp_path_factory):
    """Makes a run of 30 captions, of which so many are memorized, and so many of these remain."""
    calibration = findnemo.calibrate(model, ["an owl", "the sea"], settings=Settings(samples=3))
    layers = list(model.value_layers)

    def run(memorized: int, left: int) -> Path:
        out = tmp_path_factory.mktemp("closing") / "run with a space"
        found = {
            f"{LONG} {k}": NeuronSet({layers[k % 2]: [k % 8]} if k < memorized else {})
            for k in range(30)
        }
        make_run(out, model, found, tuple(found)[:left])
        calibration.save(out / "calibration")
        (out / "sheets").mkdir()
        if memorized and not left:
            look_together(out)
        for name in ("report.html", "results.csv"):
            (out / name).write_text("", encoding="utf-8")
        return out

    return run


def look_together(path: Path) -> None:
    """All memories of a run are gone with all of its neurons off."""
    with Run.open(path) as old:
        settings = old.meta("settings")
    with Run.create(path, settings) as run:
        for caption in run.captions(stage="localize"):
            seen = {"same_seed": 0.3, "copies_before": 1.0, "copies_after": 0.0}
            run.record(caption.id, "union:feed0123", seen, 1.0)
        run.set_meta("union", {"digests": ["feed0123"]})
    (path / TOGETHER).mkdir(parents=True)


@pytest.fixture(scope="module")
def run(make) -> Path:
    """A run with memories that are gone, and such that are not; tests leave it as it is."""
    return make(20, 3)


def environment(**given: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    paths = os.pathsep.join(
        [str(Path(findnemo.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    return {**kept, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8", **given}


COMMAND = (sys.executable, "-m", "findnemo")


def in_terminal(columns: int, *arguments: object, **given: str) -> str:
    """What a command writes to a terminal of so many columns, standard error too."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**{"TERM": "xterm-256color", **given}),
    ) as process:
        os.close(theirs)
        told = b""
        while part := _read(ours):
            told += part
    os.close(ours)
    assert process.returncode in (0, 2), told
    return told.decode(given.get("PYTHONIOENCODING", "utf-8")).replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the command has ended
        return b""


def plain(text: str) -> str:
    return re.sub(rf"{ESCAPE}\[[0-9;]*m", "", text)


def closing(told: str, sentence: str) -> list[str]:
    """The lines from the advice on."""
    lines = plain(told).rstrip("\n").split("\n")
    return lines[lines.index(sentence) :]


@pytest.fixture(autouse=True)
def wide_as_the_environment_says(monkeypatch):
    """Consoles that were made under another COLUMNS would keep it."""
    for console in (stdout, stderr):
        monkeypatch.setattr(console, "_width", None)


@pytest.fixture
def terminal(monkeypatch):
    """What a command writes to a terminal of so many columns, in this process."""

    def shown(columns: int, *arguments: object) -> str:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(columns))
        result = cli(*arguments)
        assert (result.status, result.err) == (0, "")
        return result.out

    return shown


# one screen


@pytest.mark.parametrize(
    ("memorized", "left", "sentence", "follows"),
    [
        (0, 0, "Nothing to switch off: release it as it is.", None),
        (20, 0, "Release it with these 8 neurons off.", "export"),
        (20, 3, "Do not release yet: 3 of 20 memories are still there.", "audit"),
        (20, 20, "Do not release yet: 20 of 20 memories are still there.", "audit"),
    ],
)
def test_a_run_ends_with_what_to_do_on_one_screen_of_80_columns(
    make, terminal, memorized, left, sentence, follows
):
    out = make(memorized, left)
    with Run.open(out) as opened:
        advice = advice_of(opened, list(opened.captions()), place=str(out))
    assert advice.sentence == sentence
    lines = closing(terminal(80, "inspect", out), advice.sentence)
    ends = [line for line in lines if str(out) in line]
    assert max(len(line) for line in lines if line not in ends) <= 80
    assert len(lines) <= SCREEN
    text = " ".join(" ".join(lines).split())
    for shown in (
        advice.because,
        f"captions memorized {memorized} of 30",
        "captions suspected 0 of 30",
        f"memories gone on fresh seeds {f'{memorized - left} of {memorized}' if memorized else 'not known yet'}",
        "change of pixels, 3 other captions 1.2 %",
    ):
        assert shown in text
    for what, name in (
        ("report", "report.html"),
        ("pictures", TOGETHER if follows == "export" else "sheets"),
        ("results", "results.csv"),
    ):
        assert f"{what:<9} {out / name}" in lines
    assert [line[10:] for line in lines if line.startswith("next ")] == list(advice.next_commands)
    assert follows is None or f"findnemo {follows} " in text


def test_the_next_command_is_one_that_findnemo_understands(run):
    shown = cli("inspect", run)
    (line,) = [line for line in shown.out.splitlines() if line.startswith("next ")]
    _, program, name, *arguments = shlex.split(line)
    assert program == "findnemo"
    with COMMANDS[name].make_context(name, arguments) as context:
        assert str(run) in str(context.params)


def test_what_is_not_there_is_not_named(make):
    out = make(0, 0)
    (out / "report.html").unlink()
    (out / "sheets").rmdir()
    shown = cli("inspect", out).out
    assert "report.html" not in shown
    assert "sheets" not in shown
    assert f"results   {out / 'results.csv'}\n" in shown


# any terminal


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("about", [(), ("1",)], ids=["run", "caption"])
def test_no_line_is_wider_than_the_terminal(run, terminal, columns, about):
    told = terminal(columns, "inspect", run, *about)
    lines = [line for line in plain(told).split("\n") if str(run) not in line]
    assert len(lines) > 20 - 10 * bool(about)
    assert [line for line in lines if len(line) > columns] == []


def test_a_narrow_table_keeps_the_caption_and_how_it_stands(run, terminal):
    wide, narrow = (plain(terminal(columns, "inspect", run)) for columns in (80, 60))
    assert "type" in wide.split("\n")[0].split()
    assert narrow.split("\n")[0].split() == ["caption", "score", "copies", "standing"]
    for told in (wide, narrow):
        first = told.split("\n")[1]
        assert first.startswith("a caption of more")
        assert first.rstrip().endswith("out of reach")


@pytest.mark.slow
def test_a_terminal_gets_its_colours_and_its_width(run):
    told = in_terminal(70, "inspect", run)
    assert ESCAPE in told
    assert max(map(len, plain(told).split("\n")[:20])) <= 70


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("inspect", "RUN"), ("insepct",)], ids=" ".join)
@pytest.mark.parametrize(
    "given", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=lambda given: next(iter(given))
)
def test_a_terminal_without_colour_gets_no_escape_codes(run, arguments, given):
    told = in_terminal(80, *(run if word == "RUN" else word for word in arguments), **given)
    assert len(told) > 80
    assert ESCAPE not in told


@pytest.mark.slow
def test_a_pipe_gets_no_escape_codes_and_sentences_of_one_line(run):
    command = [*COMMAND, "inspect", run]
    done = subprocess.run(command, capture_output=True, env=environment(COLUMNS="60"))
    told = done.stdout.decode()
    with Run.open(run) as opened:
        advice = advice_of(opened, list(opened.captions()), place=str(run))
    assert (done.returncode, done.stderr, ESCAPE in told) == (0, b"", False)
    assert f"\n{advice.because}\n" in told


@pytest.mark.slow
def test_an_ascii_terminal_gets_ascii_and_the_same_columns(run):
    told = plain(in_terminal(80, "inspect", run, PYTHONIOENCODING="ascii"))
    lines = told.split("\n")
    assert "100 -> 0 %" in told
    assert "\\u" not in told
    assert re.search(r"^ *-?\d\.\d{3} #+ \d+", told, re.MULTILINE)
    begins = lines[0].index("standing")
    assert {line[begins - 1] for line in lines[1:21]} == {" "}
    assert {line[begins:].split()[0] for line in lines[1:21]} == {"out", "gone"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("insepct", "run"), "inspect"),
        (("audti", "demo"), "audit"),
        (("audit", "demo", "--promts", "x"), "--prompts"),
        (("demo", "--limt", "3"), "--limit"),
        (("study", "tabel3", "run"), "table3"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_one_that_was_meant(typed, meant):
    result = cli(*typed)
    assert result.status == 2
    assert meant in re.sub(r"[│╭╮╰╯─\s]+", " ", result.err)


# studies


def test_a_study_without_a_run_is_refused_with_the_way(run):
    refused = cli("study", "table3")
    assert (refused.status, refused.out) == (2, "")
    assert "findnemo study table3 RUN" in refused.err


# other tables


ROWS = [["random-1 and more", "VM", *["0.96 ± 0.02 [0.90, 0.98]"] * 4, "12 of 16"]]
TRIED = {"captions": 1, "n": 5, "low": 0.04, "high": 0.62}
MODELS = ("untouched", "neurons off", "controls, untouched", "controls, neurons off", "hardened")


def shown_study():
    heads = ["mitigation", "type", "SSCD_orig", "SSCD_gen", "D_SSCD", "A_CLIP", "copies"]
    _studies.show(Table("Table 1", heads, ROWS, "A note."))


def shown_attempts():
    table = {"other prompts: paraphrase": dict.fromkeys(MODELS, TRIED)}
    stdout.print(attempts_table({"columns": MODELS, "table": table}))


def shown_detectors():
    ends = {f"{name}_interval": (0.8, 0.95) for name in ("auroc", "accuracy", "tpr")}
    found = SimpleNamespace(auroc=0.9, accuracy=0.9, tpr=0.9, **ends)
    numbers = {"threshold": 0.8123, "found": 12, "captions": 48, "evaluations": 20.0}
    result = SimpleNamespace(detector="bright-ending", evaluation=found, seconds=0.33, **numbers)
    stdout.print(_detectors.figures_table([result]))


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("show", [shown_study, shown_attempts, shown_detectors])
def test_tables_fold_and_cut_nothing(show, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    show()
    lines = capsys.readouterr().out.split("\n")
    assert max(map(len, lines)) <= columns
    assert not any("\u2026" in line for line in lines)


def test_published_figures_are_named_without_colour_and_intervals_break_no_number(
    monkeypatch, capsys
):
    monkeypatch.setenv("COLUMNS", "80")
    own = ["-0.10 ± 0.07 [-0.13, -0.01]"] * 4
    heads = ["", "type", "n", "median neurons", "SSCD_orig", "SSCD_gen", "D_SSCD", "A_CLIP"]
    papers = ["median neurons, paper", "SSCD_orig, paper", "A_CLIP with ViT-B/32, paper"]
    row = ["Deactivated neurons (NeMo)", "VM", 16, "1", *own, "0.09", "4", "0.10", "0.31"]
    bare = ["Deactivated neurons (findnemo)", *row[1:9], None, None, None]
    _studies.show(Table("", [*heads, "copies left", *papers], [row, bare], "A note."))
    told = capsys.readouterr().out
    lines = told.split("\n")
    assert max(len(line) for line in lines if not line.startswith("A note")) <= 80
    assert [line.split() for line in lines if line.startswith("paper")] == [["paper", "4", "0.10"]]
    assert told.count("-0.10±0.07") == 8
    assert all(word in told for word in ("Deactivated", "(findnemo)", " 0.09"))
    assert "Lines `paper`: the published figures" in told


def test_an_interval_stands_under_its_value(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    shown_study()
    lines = capsys.readouterr().out.split("\n")
    (above,) = [k for k, line in enumerate(lines) if "0.96±0.02" in line]
    assert (
        lines[above + 1].split("[", 1)[1].rstrip()
        == "0.90 0.98] [0.90 0.98] [0.90 0.98] [0.90 0.98]"
    )
