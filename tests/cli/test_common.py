"""What commands print of unknown text and of values."""

from __future__ import annotations

import io
import json
import signal
import sys

import pytest
from _command import cli

from findnemo.cli._common import listening, plain, print_json, tell
from findnemo.errors import StoppedError


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


def test_unknown_text_is_one_line_without_control_characters_markup_or_secrets():
    told = plain("a \x1b[2J[red]fox[/]\n  at https://me:word@host/c\x07")
    assert told == "a [2J\\[red]fox\\[/] at https://***@host/c"


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", '"\\u00e9\\ud83d"'), ("utf-8", '"\u00e9\\ud83d"')]
)
def test_json_is_ascii_unless_the_stream_is_utf_8_and_half_of_a_pair_is_escaped(
    encoding, shown, monkeypatch
):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="findnemo")
    monkeypatch.setattr(sys, "stdout", stream)
    print_json("\u00e9\ud83d")
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)
    assert text == f"{shown}\n"
    assert json.loads(text) == "\u00e9\ud83d"


def test_a_sentence_stays_one_line_where_nobody_looks(capsys):
    tell("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize("quiet", [True, False])
def test_a_stopped_command_says_so_by_its_status_alone(quiet, capsys):
    def work() -> None:
        with listening(quiet) as listener:
            signal.raise_signal(signal.SIGTERM)
            assert listener.stop()
            raise StoppedError("in the midst of it")

    with pytest.raises(SystemExit) as left:
        work()
    assert left.value.code == 128 + signal.SIGTERM
    assert "in the midst of it" not in capsys.readouterr().err
