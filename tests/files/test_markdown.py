"""Tables in Markdown."""

from __future__ import annotations

from findnemo.files.markdown import markdown_table


def test_a_bar_in_a_cell_makes_no_column():
    lines = markdown_table(["a|b", "n", "m"], [["x|y|z", "1", "2"], ["", "", ""]]).splitlines()
    assert len(lines) == 4
    # bars that are not escaped part the columns: one before, one after, and two between three
    assert {line.replace(r"\|", "").count("|") for line in lines} == {4}
    assert lines[1] == "| --- | ---: | ---: |"
