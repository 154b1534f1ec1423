"""Results as CSV and JSON, and what a run counts."""

from __future__ import annotations

import csv
import json

import pytest

from findnemo.prompts import Prompt
from findnemo.runs import Run, any_failed, counts, write_results
from findnemo.runs.compare import failed_methods

NUMBERS = {"captions": 3, "memorized": 0, "suspected": 0, "unseen": 0}


@pytest.mark.parametrize(
    "text", ["=cmd|'/c calc'!A0", "+1", "-1", "@SUM(A1)", "=\U0001f600", '="a","b"']
)
def test_formulas_are_inert_in_csv_and_whole_in_json(tmp_path, text):
    with Run.create(tmp_path / "run", {}) as run:
        run.add([Prompt(text, 1, type="=TYPE()")])
        csv_path, json_path = write_results(run)
    with csv_path.open(newline="", encoding="utf-8") as file:
        (read,) = csv.DictReader(file)
    assert (read["caption"], read["type"], read["status"]) == ("'" + text, "'=TYPE()", "open")
    assert json.loads(json_path.read_text(encoding="utf-8"))["results"][0]["caption"] == text


def test_a_run_without_captions_has_results_too(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        csv_path, json_path = write_results(run)
    assert csv_path.read_text().split() == ["caption"]
    assert json.loads(json_path.read_text())["results"] == []


def test_a_failed_caption_or_quality_check_is_a_failure(finished_run, tmp_path):
    with Run.create(tmp_path / "run", {}) as made:
        assert not any_failed(made, NUMBERS | {"failed": 0})
        assert any_failed(made, NUMBERS | {"failed": 1})
        made.set_meta("quality", {"failed": 2, "prompts": 8, "neurons": 4})
        assert any_failed(made, NUMBERS | {"failed": 0})
    with Run.open(finished_run) as opened:
        assert not any_failed(opened, counts(opened))
        assert failed_methods(opened) == {}
