"""Tables as text: by hand."""

from __future__ import annotations

import csv
import io

from findnemo.studies import Table
from findnemo.studies.table import plus_minus

TABLE = Table(
    "Scores & such",
    ["", "SSCD_orig", "n"],
    [["50 % | off", 0.12345, 3], ["none", None, 0]],
    "Two rows.",
)


def test_markdown():
    assert (
        TABLE.markdown()
        == "**Scores & such**\n\n|  | SSCD_orig | n |\n| --- | ---: | ---: |\n| 50 % \\| off |"
        " 0.123 | 3 |\n| none | - | 0 |\n\nTwo rows.\n"
    )


def test_csv_keeps_every_digit():
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [
        ["", "SSCD_orig", "n"],
        ["50 % | off", "0.12345", "3"],
        ["none", "", "0"],
    ]


def test_latex_escapes_what_latex_would_take_for_itself():
    text = TABLE.latex()
    assert r"\caption{Scores \& such}" in text
    assert r"  50 \% | off & 0.123 & 3 \\" in text
    assert r" & SSCD\_orig & n \\" in text
    assert text.count(r"\\") == 3
    assert text.startswith("\\begin{table}")


def test_a_pair_is_printed_as_the_paper_does():
    assert plus_minus((0.09, 0.021)) == "0.09 ± 0.02"
    assert plus_minus(None) is None


def test_what_is_small_is_not_shown_as_zero():
    table = Table("KID", ["", "KID"], [["found", -0.00031], ["none", 0.0], ["random", 0.0104]])
    assert [line.split("|")[2].strip() for line in table.markdown().splitlines()[4:7]] == [
        "-0.00031",
        "0.000",
        "0.010",
    ]
