"""The commands `inspect`, `repair`, `report` and `merge`, which load no model."""

from __future__ import annotations

import json
import shutil
from unittest import mock

import pytest
import typer
from _command import Result, cli
from _outcome import outcome
from _place import IMAGES, TEXTS

from findnemo.cli._runs import LISTED, show_check
from findnemo.report import Checked
from findnemo.runs import Run


def test_report_needs_no_model_and_goes_where_it_is_told(audited, tmp_path):
    shutil.copytree(audited, tmp_path / "run")
    with Run.open(tmp_path / "run") as run:
        run.set_meta("source", str(tmp_path / "a model that is gone"))
    told = cli("report", tmp_path / "run")
    assert (told.status, told.err) == (0, "")
    assert "report in" in told.out
    assert "3 of 6" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert cli("report", tmp_path / "run", "--out", tmp_path / "page.html", "-q") == Result(
        0, "", ""
    )
    assert "Memorization audit of" in (tmp_path / "page.html").read_text(encoding="utf-8")
    with mock.patch("typer.launch") as launch:
        assert cli("report", tmp_path / "run", "--open").status == 0
    launch.assert_called_once_with((tmp_path / "run" / "report.html").as_uri())
    assert cli("report", tmp_path / "run", "--out", tmp_path).status == 2
    assert cli("report", tmp_path).status == 2


def test_inspect_the_whole(audited):
    result = cli("inspect", audited)
    assert (result.status, result.err) == (0, "")
    assert "Of 3 memorized captions, 3 still gave copies." in result.out
    assert cli("inspect", audited, "--json").json == json.loads(
        (audited / "results.json").read_text()
    )


def test_inspect_one_caption(audited):
    rows = outcome(audited)["rows"]
    text = next(t for t in TEXTS if rows[t]["memorized"])
    result = cli("inspect", audited, text.upper())
    assert result.status == 0
    assert result.out.startswith("copies: its finished images still hold copies\n")
    assert f"{text}  row {rows[text]['row']}, type VM[/]" in result.out
    assert result.out.count("#") == rows[text]["neurons"]
    assert "sheets" in result.out
    by_row = cli("inspect", audited, rows[text]["row"], "--json")
    assert [r["caption"] for r in by_row.json] == [text]
    assert {k: v for k, v in by_row.json[0].items() if k != "seconds"} == rows[text]


def test_a_repair_says_what_it_found(usual, audited, tmp_path):
    shutil.copytree(audited, tmp_path / "run")
    assert cli("repair", tmp_path / "run").out.strip().endswith("nothing is damaged")
    file = tmp_path / "run" / "run.sqlite"
    file.write_bytes(b"?" * 100 + file.read_bytes()[100:])
    refused = cli("inspect", tmp_path / "run")
    assert refused.status == 2
    assert f"findnemo repair {tmp_path / 'run'}" in " ".join(refused.err.split())
    found = cli("repair", tmp_path / "run", "--json").json
    assert (found["captions"], found["lost"]) == (6, [])
    assert outcome(tmp_path / "run")["quality"] is None
    # what is of the whole run is measured again by the next audit
    assert cli("audit", *usual, *IMAGES, "-q", "--out", tmp_path / "run").status == 0
    assert outcome(tmp_path / "run") == outcome(audited)


def test_runs_that_are_no_shards_are_not_joined(audited, tmp_path):
    for shards, said in (
        ((audited,), "is not a shard: it was made without --shard"),
        ((tmp_path / "none",), "is not a run directory"),
    ):
        result = cli("merge", tmp_path / "whole", *shards)
        assert (result.status, result.out) == (2, "")
        assert said in " ".join(result.err.split())
    assert not (tmp_path / "whole").exists()


def test_differences_of_a_pack_are_listed_up_to_a_limit(tmp_path, monkeypatch, capsys):
    found = Checked("0" * 64, None, tuple(f"row {k}: [/]" for k in range(LISTED + 2)), ("a note",))
    monkeypatch.setattr("findnemo.report.verify_evidence", lambda file, run: found)
    with pytest.raises(typer.Exit) as left:
        show_check(tmp_path / "evidence.json", None, quiet=False)
    told = capsys.readouterr()
    assert left.value.exit_code == 1
    lines = told.out.splitlines()
    assert lines[:2] == ["differs: row 0: [/]", "differs: row 1: [/]"]
    assert len(lines) == LISTED + 1
    assert lines[-1] == "and 2 more differences"
    assert told.err == "a note\n"
