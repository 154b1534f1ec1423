"""What the commands share: where they write, and how they are stopped."""

from __future__ import annotations

import io
import json
import os
import signal
import sys

import pytest

from findnemo.cli._common import (
    listening,
    plain,
    print_json,
    progress_watch,
    say,
    stdout,
    tell,
    warn,
)

LONG = "a sentence of many words " * 8


def test_words_of_a_command_go_to_standard_error_in_one_line_without_markup(capsys):
    warn(f"{LONG}[bold]\x1b[2J\nnext")
    say(LONG)
    say("not said", quiet=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"warning: {LONG}[bold][2J next", LONG.rstrip()]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_sentence_is_wrapped_in_a_terminal_alone(is_terminal, monkeypatch, capsys):
    monkeypatch.setattr(stdout, "_force_terminal", is_terminal)
    monkeypatch.setattr(stdout, "_width", 40)
    tell(LONG.strip())
    lines = capsys.readouterr().out.splitlines()
    assert (max(map(len, lines)) <= 40) == is_terminal
    assert " ".join(" ".join(lines).split()) == LONG.strip()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_json_is_ascii_unless_the_output_is_utf_8(encoding, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    print_json({"東": ["é"]})
    assert json.loads(raw.getvalue()) == {"東": ["é"]}
    assert raw.getvalue().isascii() == (encoding == "ascii")


def test_a_command_that_was_stopped_ends_after_its_piece_of_work():
    """The status is that of a process that SIGTERM ended."""
    asked = []

    def work() -> None:
        with listening(quiet=True) as listener:
            asked.append(listener.stop())
            os.kill(os.getpid(), signal.SIGTERM)
            asked.append(listener.stop())

    with pytest.raises(SystemExit) as ended:
        work()
    assert (ended.value.code, asked) == (128 + signal.SIGTERM, [False, True])


def test_a_quiet_command_is_not_watched():
    with progress_watch(quiet=True) as watch:
        assert watch is None
    with progress_watch(quiet=False) as watch:
        assert watch is not None


def test_unknown_text_is_one_line_without_control_characters_markup_or_secrets():
    told = plain("a \x1b[2J[red]fox[/]\n  at https://me:word@host/c\x07")
    assert told == "a [2J\\[red]fox\\[/] at https://***@host/c"
