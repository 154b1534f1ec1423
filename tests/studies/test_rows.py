"""Rows of tables: medians beside what was published, and columns left out with the reason."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from findnemo.studies.rows import FIGURES, comparison, judge_of, medians


@pytest.mark.parametrize(
    ("missing", "note"),
    [
        ((), "Note."),
        (
            ("sscd_orig", "sscd_gen", "d_sscd"),
            "Note. Left out: SSCD_orig, SSCD_gen, D_SSCD (no descriptor: `findnemo audit --descriptor"
            " sscd.pt` gives the run one).",
        ),
        (
            ("sscd_orig", "a_clip"),
            "Note. Left out: A_CLIP (no CLIP: `findnemo audit --clip NAME` gives the run one);"
            " SSCD_orig (no training images: the column `image` of the captions names them).",
        ),
    ],
)
def test_a_column_of_which_nothing_was_measured_is_left_out_with_the_reason(missing, note):
    figures = {"sscd_orig": 0.1, "sscd_gen": 0.2, "d_sscd": 0.3, "a_clip": 0.4}
    row = {"neurons": 2} | {k: v for k, v in figures.items() if k not in missing}
    paper = {"NeMo": {"VM": (4, 0.09, 0.1, 0.16, 0.31)}}
    shown = comparison("Mitigations", {"NeMo": {"VM": [row, row]}}, paper, "Note.")
    heads = dict(zip(figures, ("SSCD_orig", "SSCD_gen", "D_SSCD", "A_CLIP"), strict=True))
    kept = ["median neurons", *(head for key, head in heads.items() if key not in missing)]
    assert shown.columns == ["", "type", "n", *kept, *(f"{head}, paper" for head in kept)]
    assert all(len(line) == len(shown.columns) for line in shown.rows)
    line = dict(zip(shown.columns, shown.rows[0], strict=True))
    assert line["n"] == 2
    assert (line["median neurons"], line["median neurons, paper"]) == ("2", "4")
    assert [line[h] for h in kept[1:]] == [f"{row[k]:.2f} ± 0.00" for k in figures if k in row]
    assert shown.note.partition(" A_CLIP is with")[0] == f"{FIGURES} {note}"


def test_the_copies_that_are_left_are_a_mean_without_a_published_figure():
    rows = {
        "NeMo": {"VM": [{"copies": 1.0}, {"copies": 0.25}, {"copies": 0.0}]},
        "none": {"VM": [{}]},
    }
    shown = comparison("Mitigations", rows, {"NeMo": {"VM": (4, 0.09, 0.1, 0.16, 0.31)}}, "Note.")
    assert [row[shown.columns.index("copies left")] for row in shown.rows] == ["0.42", None]
    assert "copies left, paper" not in shown.columns
    assert "mean over captions" in shown.note


def test_judges_are_named_by_the_plan_and_else_as_those_of_the_run(work):
    assert judge_of(work.run, {"clip": "some/clip"}) == "some/clip"
    assert judge_of(work.run, {"descriptor": "sscd.pt"}, "descriptor") == "sscd.pt"
    assert judge_of(work.run, {}, "descriptor") == "a descriptor that the run does not name"
    shipped = SimpleNamespace(meta=lambda key: "demo")
    assert judge_of(shipped, {}) == "the demo's own CLIP"


def test_medians_are_over_the_captions_that_have_a_figure():
    payloads = [{"sscd_gen": 0.2}, {"sscd_gen": 0.6, "a_clip": 0.3}, {"sscd_gen": 0.5}]
    assert medians(payloads) == {"sscd_orig": None, "sscd_gen": 0.5, "d_sscd": None, "a_clip": 0.3}
