"""Fields with delimiters: quotes that are none, rows with too many delimiters (`rows_of`)."""

from __future__ import annotations

import pytest
from _rows import read, texts
from hypothesis import example, given, settings
from hypothesis import strategies as st

from findnemo.errors import InputError
from findnemo.prompts import read_prompts


def test_a_quote_at_the_beginning_of_a_caption_swallows_nothing(tmp_path):
    rows = ['"I love you', '"Bad" boy', 'Screen 15"', '"', '""', '"a', 'b"c"', '"Fox" ', "plain"]
    for delimiter in "\t|;,":
        table = "".join(f"{text}{delimiter}{k}.png\n" for k, text in enumerate(rows))
        found = {
            p.image: p.text
            for p in read(
                tmp_path / "a.csv", f'caption{delimiter}url\n{table}15" wide{delimiter}9.png\n'
            )
        }
        assert found == {
            "0.png": '"I love you',
            "1.png": '"Bad" boy',
            "2.png": 'Screen 15"',
            "3.png": '"',
            "5.png": '"a',
            "6.png": 'b"c"',
            "7.png": "Fox",
            "8.png": "plain",
            "9.png": '15" wide',
        }  # row 5 holds an empty field in quotes


def test_a_caption_of_several_lines_between_stray_quotes(tmp_path):
    table = (
        'id\tcaption\turl\n1\t"I love\tx\n2\t"first\nsecond ""line"""\ty\n3\tScreen'
        ' 15"\tz\n4\t"a\tz\n'
    )
    assert texts(read(tmp_path / "a.tsv", table)) == [
        '"I love',
        'first\nsecond "line"',
        'Screen 15"',
        '"a',
    ]


CELL = st.text(
    st.characters(
        exclude_categories=["Cs"], exclude_characters="\0\r\n\t\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"
    ),
    max_size=20,
)


@settings(max_examples=200, deadline=None, database=None)
@given(
    captions=st.lists(
        CELL.map(str.strip).filter(bool) | st.text('" ab', min_size=1).map(str.strip).filter(bool),
        min_size=1,
    )
)
@example(['"a', 'b"', '"', 'c "d" e', '"f'])
def test_a_table_without_quoting_gives_each_row_its_caption(tmp_path_factory, captions):
    """Joined by tabs, as `"\\t".join` writes them: a field is taken out of quotes only if it is
    wholly and rightly in them.
    """
    path = tmp_path_factory.getbasetemp() / "unquoted.tsv"
    path.write_text(
        "id\tcaption\turl\n" + "".join(f"{k}\t{c}\tu{k}\n" for k, c in enumerate(captions, 1)),
        encoding="utf-8",
    )
    expected = {}
    for k, caption in enumerate(captions, 1):
        inner = caption[1:-1]
        quoted = (
            len(caption) > 1
            and caption[0] == caption[-1] == '"'
            and '"' not in inner.replace('""', "")
        )
        text = inner.replace('""', '"').strip() if quoted else caption
        if text and text not in expected:
            expected[text] = f"u{k}"
    told = ""
    try:
        assert {p.text: p.image for p in read_prompts(path)} == expected
    except InputError as error:
        told = str(error)
    assert not told or not expected or "backslashes" in told


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_at_the_end_of_rows_and_empty_rows(tmp_path, delimiter):
    table = f"url;caption;type;\nx;a fox;VM;;;\n\n{';;;' * 1}\n" + ";;\n" * 5000 + "y;an owl;TM;\n"
    prompts = read(tmp_path / "a.csv", table.replace(";", delimiter))
    assert [(p.text, p.type, p.image) for p in prompts] == [
        ("a fox", "VM", "x"),
        ("an owl", "TM", "y"),
    ]


def test_spaces_before_quotes(tmp_path):
    assert texts(read(tmp_path / "a.csv", 'id, caption\n1, "a fox, red"\n2, "b" \n')) == [
        "a fox, red",
        "b",
    ]
