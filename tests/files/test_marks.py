"""Marks against formulas are put and taken away without loss."""

from __future__ import annotations

import csv

import pytest
from _rows import read, texts
from hypothesis import example, given, settings
from hypothesis import strategies as st

from findnemo.files.marks import COLUMNS, FORMULA, marked, unmarked
from findnemo.prompts import Prompt, read_prompts
from findnemo.runs import Run
from findnemo.runs.export import row as row_of_results
from findnemo.runs.export import write_results


@pytest.mark.slow
@given(st.text())
@example("'=1")
@example("''''@")
@example("=")
@settings(max_examples=500, deadline=None, database=None)
def test_marks_are_taken_away_as_they_were_put(text):
    assert unmarked(marked(text)) == text
    assert not marked(text).startswith(tuple(FORMULA))


@given(
    st.text(st.sampled_from("'=+-@\t＝＠a"), max_size=6),
    st.text(st.sampled_from("'=+-@\t＝＠a"), max_size=6),
)
@settings(max_examples=500, deadline=None, database=None)
def test_no_two_texts_have_one_form(one, other):
    assert (marked(one) == marked(other)) == (one == other)


ANY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)

TRICKY = st.text(
    st.sampled_from("'\"=+-@,;\t|\r\n \\＝＋－＠\u2028\x85\ufeffa東"), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None, database=None)
@given(
    captions=st.lists(
        (ANY | TRICKY).map(str.strip).filter(bool), min_size=1, max_size=8, unique=True
    )
)
@example(
    [
        "-1",
        "'-1",
        "''-1",
        "=cmd|' /C calc'!A0",
        "@a",
        "+a",
        "\uff1d1",
        "'\uff1d1",
        "'tis",
        '"',
        "'",
        '=a,b;c\td|e\n"f"',
    ]
)
@example(["a\r\nb", "x\ry", "a\u2028b\x85c", "\ufeff-1"])
def test_results_read_back_as_a_table_give_the_captions_of_the_run(tmp_path_factory, captions):
    folder = tmp_path_factory.mktemp("results")
    with Run.create(folder / "run", {}) as run:
        run.add(
            Prompt(text, row, text if len(text) < 9 else None)
            for row, text in enumerate(captions, 1)
        )
        run.set_meta("source", "demo")
        for caption, stage in ((1, "detect"), (1, "localize")):
            run.record(caption, stage, {}, 0.0, "=a failure")
        run.set_meta("settings", {"tau": 0.5})
        table, whole = write_results(run)
    for path in (table, whole):
        assert [(p.text, p.type) for p in read_prompts(path)] == [
            (c, c if len(c) < 9 else None) for c in captions
        ], path
    as_spreadsheets_save = folder / "again.csv"
    with (
        table.open(newline="", encoding="utf-8") as old,
        as_spreadsheets_save.open("w", newline="", encoding="utf-16") as new,
    ):
        csv.writer(new, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(csv.reader(old))
    assert texts(list(read_prompts(as_spreadsheets_save))) == captions


def test_apostrophes_of_a_foreign_table_are_its_own(tmp_path):
    assert texts(read(tmp_path / "a.csv", "row,caption,score\n1,'=1+1,0\n2,''@a,0\n3,'-1,0\n")) == [
        "'=1+1",
        "''@a",
        "'-1",
    ]


def test_results_have_the_columns_by_which_they_are_known(tmp_path):
    with Run.create(tmp_path / "run", {}) as run:
        run.add([Prompt("a", 1)])
        assert set(COLUMNS) <= set(row_of_results(next(iter(run.captions()))))
