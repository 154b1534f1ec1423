"""Prompt tables: every format gives the same captions, nothing is lost in silence, and
each error says the way out.
"""

import csv
import doctest
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from findnemo import prompts
from findnemo.errors import InputError
from findnemo.prompts import DELIMITERS, Prompt, PromptTable, read_prompts

SHARED = Path(os.environ.get("FINDNEMO_SHARED", Path(__file__).parents[3] / "shared")) / "prompts"
CAPTIONS = [
    'Two "friendly" foxes; one, red | one grey',
    "first line\nsecond line",
    "The No Limits &amp; Business <b>Woman</b> Podcast",
    "東京タワー 🗼 в тумане",
    "line\u2028separator, next\x85line and \x07 bell",
    "nan",
    "'single' \\ back\\slash",
]
ONE_LINE = [caption for caption in CAPTIONS if "\n" not in caption]


def texts(table: PromptTable) -> list[str]:
    return [prompt.text for prompt in table]


def written_csv(captions: list[str], delimiter: str, columns: int = 3, **options) -> str:
    """A table with the captions between an index without name and a URL, or in a lone column."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, **options)
    writer.writerow(["", "Caption", "URL"] if columns == 3 else ["Caption"])
    writer.writerows(
        [n, text, f"https://x.org/{n}"] if columns == 3 else [text]
        for n, text in enumerate(captions)
    )
    return file.getvalue()


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# Formats


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_csv_with_any_delimiter(tmp_path, delimiter, columns):
    path = save(tmp_path / "captions.csv", written_csv(CAPTIONS, delimiter, columns))
    assert texts(read_prompts(path)) == CAPTIONS


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_csv_with_any_line_end(tmp_path, newline):
    path = save(
        tmp_path / "captions.csv",
        written_csv(CAPTIONS, ";", lineterminator=newline, quoting=csv.QUOTE_ALL),
    )
    assert texts(read_prompts(path)) == CAPTIONS


def test_tsv_and_upper_case_suffix(tmp_path):
    assert (
        texts(read_prompts(save(tmp_path / "captions.TSV", written_csv(CAPTIONS, "\t"))))
        == CAPTIONS
    )


def test_parquet(tmp_path):
    rows = {
        "index": range(8),
        "Text": [*CAPTIONS, None],
        "image": [{"bytes": b"1", "path": "a.png"}] * 8,
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "captions.parquet")
    table = read_prompts(tmp_path / "captions.parquet")
    assert texts(table) == CAPTIONS
    assert table.missing == (8,)
    assert table.prompts[0].image is None  # a struct with pixels is not a path


def test_parquet_with_categories_and_numbered_types(tmp_path):
    frame = pl.DataFrame(
        {"kind": [0, 1], "prompt": ["a fox", "an owl"], "image_path": ["a.png", None]}
    )
    frame.with_columns(pl.col("prompt").cast(pl.Categorical)).write_parquet(
        tmp_path / "captions.parquet"
    )
    assert read_prompts(tmp_path / "captions.parquet").prompts == (
        Prompt("a fox", 1, "0", "a.png"),
        Prompt("an owl", 2, "1", None),
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_lines(tmp_path, suffix, ascii_only):
    rows = [json.dumps({"n": 1, "Prompt": text}, ensure_ascii=ascii_only) for text in CAPTIONS]
    assert texts(read_prompts(save(tmp_path / f"captions{suffix}", "\n".join(rows)))) == CAPTIONS


def test_json_lines_of_strings_and_gaps(tmp_path):
    path = save(
        tmp_path / "captions.jsonl",
        '"a fox"\r\n\r\n{"caption": null}\n{}\n"an owl"\nNaN\nnull\n\n\n',
    )
    table = read_prompts(path)
    assert [(prompt.text, prompt.row) for prompt in table] == [("a fox", 1), ("an owl", 5)]
    assert table.missing == (2, 3, 4, 6, 7)


def test_json_list(tmp_path):
    rows = [{"caption": text, "type": "VM"} for text in CAPTIONS[1:]]
    table = read_prompts(
        save(tmp_path / "captions.json", json.dumps([CAPTIONS[0], *rows], indent=1))
    )
    assert texts(table) == CAPTIONS
    assert [prompt.type for prompt in table] == [None, *["VM"] * 6]


@pytest.mark.parametrize("name", ["captions.txt", "captions", "captions.v2"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_text_has_a_caption_on_each_line(tmp_path, name, newline):
    assert texts(read_prompts(save(tmp_path / name, newline.join(["", *ONE_LINE, ""])))) == ONE_LINE


def test_text_counts_lines(tmp_path):
    table = read_prompts(save(tmp_path / "captions.txt", "\na fox\n \nan owl\na fox\n\n"))
    assert [prompt.row for prompt in table] == [2, 4]
    assert (table.missing, table.duplicates) == ((1, 3), ((5, 2),))


@pytest.mark.parametrize("captions", [list, tuple, iter, pl.Series])
def test_captions_in_memory(captions):
    assert texts(read_prompts(captions(CAPTIONS))) == CAPTIONS


def test_path_as_text_and_source_name(tmp_path):
    path = save(tmp_path / "captions.txt", "a fox")
    assert read_prompts(str(path)) == read_prompts(path)
    assert read_prompts(path).source == str(path)


# Standard input


@pytest.mark.parametrize(
    "content",
    [
        *(written_csv(ONE_LINE, delimiter) for delimiter in DELIMITERS),
        "\n\n" + written_csv(ONE_LINE, ",", quoting=csv.QUOTE_ALL),
        "\n".join(json.dumps({"caption": text}) for text in ONE_LINE),
        "\n".join(json.dumps(text) for text in ONE_LINE),
        json.dumps(ONE_LINE, indent=1),
        "\n".join(ONE_LINE),
    ],
    ids=[*map(repr, DELIMITERS), "quoted csv", "objects", "strings", "list", "text"],
)
def test_standard_input(content):
    for mark in ("", "\ufeff"):
        table = read_prompts("-", stdin=io.BytesIO((mark + content).encode()))
        assert texts(table) == ONE_LINE
        assert table.source == "standard input"


def test_standard_input_with_a_column_is_a_table():
    assert texts(read_prompts("-", column="Titel", stdin=io.BytesIO(b"Titel\na fox, red\n"))) == [
        "a fox, red"
    ]


def test_standard_input_that_only_looks_like_a_table_or_json():
    lines = ["[Free] a fox, a caption", "{Vintage} owl", '"No" and "yes"']
    assert texts(read_prompts("-", stdin=io.BytesIO("\n".join(lines).encode()))) == lines


def test_standard_input_of_the_process():
    code = "from findnemo.prompts import read_prompts; print(*read_prompts('-'))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"a fox\n", capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "Prompt(text='a fox', row=1, type=None, image=None)"


# Columns


@pytest.mark.parametrize("name", ["caption", "PROMPT", "Text", "captions", " prompts "])
def test_caption_columns(tmp_path, name):
    assert texts(read_prompts(save(tmp_path / "t.csv", f"id,{name}\n1,a fox\n"))) == ["a fox"]


@pytest.mark.parametrize("kind", ["type", "Kind", "memorization"])
@pytest.mark.parametrize("image", ["URL", "image", "image_url", "image_path"])
def test_type_and_image_columns(tmp_path, kind, image):
    path = save(tmp_path / "t.csv", f"{image};caption;{kind}\n a.png ;a fox;VM\n;an owl;\n")
    assert read_prompts(path).prompts == (Prompt("a fox", 1, "VM", "a.png"), Prompt("an owl", 2))


def test_column_overrides(tmp_path):
    path = save(tmp_path / "t.csv", "Caption;title;TITLE\na;b;c\n")
    assert texts(read_prompts(path, column="TITLE")) == ["c"]
    assert texts(read_prompts(path, column="title")) == ["b"]
    assert texts(read_prompts(path, column="CAPTION")) == ["a"]


def test_column_decides_the_delimiter(tmp_path):
    path = save(tmp_path / "t.csv", "n, of many, or few;Alt text\n1;a fox, red\n")
    assert texts(read_prompts(path, column="alt text")) == ["a fox, red"]


# Captions


def test_whitespace_and_nul_go_and_all_else_stays(tmp_path):
    raw = "\u3000 \ta \0 fox\x01 \u200b\r\n "
    assert texts(read_prompts([raw])) == ["a  fox\x01 \u200b"]
    assert texts(read_prompts(save(tmp_path / "t.csv", written_csv([raw], ";")))) == [
        "a  fox\x01 \u200b"
    ]


def test_null_is_missing_and_nan_as_text_is_not():
    table = read_prompts([None, float("nan"), "nan", "NULL", "\0", "  "])
    assert texts(table) == ["nan", "NULL"]
    assert table.missing == (1, 2, 5, 6)


def test_byte_order_mark(tmp_path):
    content = b"\xef\xbb\xbfcaption,url\na fox,\n"
    assert texts(read_prompts(save(tmp_path / "t.csv", content))) == ["a fox"]
    assert texts(
        read_prompts(save(tmp_path / "t.txt", content.replace(b"caption,url\n", b"")))
    ) == ["a fox,"]


def test_long_captions_and_short_rows(tmp_path):
    long = "fox, " * 100_000
    table = read_prompts(save(tmp_path / "t.csv", f'url,caption\n\nx.png,"{long}"\ny.png\n'))
    assert (texts(table), table.missing) == ([long.strip()], (2,))


# The table


def test_table_is_a_value():
    table = read_prompts(["a", "b", "c", "a"])
    assert len(table) == 3
    assert [prompt.row for prompt in table] == [1, 2, 3]
    assert table.limit(None) == table
    assert texts(table.limit(2)) == ["a", "b"]
    assert table.limit(2).duplicates == ((4, 1),)
    assert len(table.limit(99)) == 3
    with pytest.raises(InputError, match="a limit of 0 leaves no prompt: give 1 or more"):
        table.limit(0)


def test_warnings_count_and_show_the_first_rows():
    assert read_prompts(["a", "b"]).warnings() == ()
    assert read_prompts(["a", "", *["a"] * 7]).warnings() == (
        "captions in memory: skipped 1 row without caption (row 2).",
        (
            "captions in memory: skipped 7 rows with the caption of an earlier row (row 3 repeats"
            " row 1, row 4 repeats row 1, row 5 repeats row 1, row 6 repeats row 1, row 7 repeats"
            " row 1, and 2 more)."
        ),
    )


# Errors

ERRORS = {
    "gone.csv": (
        None,
        "cannot be read .No such file or directory.: name a file, or pass captions as a list",
    ),
    "empty.txt": ("", "no caption in 0 rows: give at least one"),
    "empty.csv": ("\n\n", "no caption in 0 rows"),
    "empty.json": ("", "no caption in 0 rows"),
    "header.csv": ("caption,url\n", "no caption in 0 rows"),
    "blank.csv": ("caption,url\n,x\n ,y\n", "no caption in 2 rows"),
    "lone.csv": (
        "title\na fox\n",
        r"no caption column \(caption, prompt, text, captions, prompts\): the columns are 't",
    ),
    "other.csv": (
        "id;title;tags\n1;a;b\n",
        "the columns are 'id', 'title', 'tags'; choose one of them with --column",
    ),
    "two.csv": (
        "Text,caption\na,b\n",
        "more than one caption column .*: the columns are 'Text', 'caption'; choose",
    ),
    "wide.csv": (
        "caption,url\na,x\n\na fox, red,x\n",
        "line 4: 3 fields under a header of 2: put captions that hold",
    ),
    "open.csv": (
        'caption,url\na,x\n"b\nc",\nd,z,\n"e\n',
        "line 6: 1 fields under a header of 2: leave none out, and put captions",
    ),
    "header_open.csv": (
        '"caption,url\n' + "a,x\n" * 300_000,
        "no caption column .*: the columns are '\"caption', 'url'",
    ),
    "backslash.csv": (
        'caption,url\n"\\"a\\" b",y\n',
        r"row at line 2 \(quotes behind backslashes\): write a quote inside quotes twice",
    ),
    "short.csv": (
        "n,caption,url\n1,first\nsecond,x\n",
        "line 2: 2 fields under a header of 3: .*line breaks in quotes",
    ),
    "twice.csv": (
        "url,caption,URL\nx,a,y\n",
        "more than one column 'url'.*: the columns are 'url', 'caption', 'URL'",
    ),
    "nameless.csv": (
        "a red fox\nan owl\n",
        "no caption column .*if these are captions and no header, name the file .txt",
    ),
    "huge.csv": (
        f"caption,url\n{'x' * 1_048_577},\n",
        r"row at line 2 \(field larger than field limit \(1048576\)\)",
    ),
    "latin.csv": (
        b"caption\nfox\ncaf\xe9\n",
        r"not UTF-8 at line 3, byte offset 15 \(0xe9\).*iconv -f WINDOWS-1252",
    ),
    "marked.txt": (b"\xef\xbb\xbf\xff", "line 1, byte offset 3 "),
    "unmarked.txt": (
        "a fox".encode("utf-16-le"),
        "this is UTF-16 without a byte order mark.*iconv -f UTF-16LE -t UTF-8",
    ),
    "unmarked.csv": ("caption\nein Bär\n".encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
    "odd.txt": ("a fox".encode("utf-16")[:-1], "not UTF-16 at byte offset 10"),
    "line.jsonl": ('"a"\n\n{"caption": "b"\n', "line 3: broken JSON .*: repair it"),
    "deep.jsonl": ("[" * 200_000, "line 1: broken JSON"),
    "keys.jsonl": ('{"title": "a"}\n{"alt": "b"}\n', "the columns are 'title', 'alt'"),
    "number.jsonl": ('"a"\n{"caption": 7}\n', "row 2: 7 is int, not text"),
    "half.jsonl": ('"a \\ud83d"\n', r"row 1: 'a \\ud83d' holds half of a surrogate pair"),
    "lines.json": (
        '{"caption": "a"}\n{"caption": "b"\n',
        "line 2: broken JSON .*jsonl for a value on each",
    ),
    "names.jsonl": (
        '{"caption": "a", "caption": "b"}\n',
        "line 1: broken JSON .two values for 'caption'",
    ),
    "object.json": ('{"caption": "a"}', "holds one dict: make it a list"),
    "broken.parquet": (b"PAR1 no more", "broken Parquet .*: write it again, or export it as .csv"),
    "empty.parquet": (b"", "broken Parquet"),
    "captions.xlsx": (b"PK", r"\.xlsx is not read .*: export the captions as .csv"),
    "captions.csv.gz": (b"\x1f\x8b", r"\.gz is not read"),
    "captions.PKL": (
        pickle.dumps(["a"]),
        r"\.pkl is not read .*pickles, which can run code, are not opened",
    ),
    "unknown.dat": (
        bytes(range(8, 256)),
        r"not UTF-8 at line 2, byte offset 120 .*: this is binary data, no text",
    ),
}


@pytest.mark.first(11)
@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_the_file_and_the_way_out(tmp_path, name):
    content, message = ERRORS[name]
    path = tmp_path / name if content is None else save(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_prompts(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["", "a\0b", "a red fox " * 500])
def test_text_that_is_no_path(source):
    with pytest.raises(
        InputError, match=r"cannot be read .*: name a file, or pass captions as a list"
    ):
        read_prompts(source)


def test_directory(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\): name a file"):
        read_prompts(tmp_path)


def test_column_that_is_not_there(tmp_path):
    path = save(tmp_path / "t.csv", "caption,url\na,b\n")
    with pytest.raises(
        InputError, match="no column 'Titel': the columns are 'caption', 'url'; choose one"
    ):
        read_prompts(path, column="Titel")
    with pytest.raises(
        InputError, match="no column 'Titel': there are no columns; leave --column out"
    ):
        read_prompts(["a fox"], column="Titel")


def test_parquet_without_captions(tmp_path):
    pl.DataFrame({"title": ["a"], "n": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"no caption column .*: the columns are 'title', 'n'"):
        read_prompts(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="row 1: 1 is int, not text"):
        read_prompts(tmp_path / "t.parquet", column="n")


@pytest.mark.parametrize("item", [7, b"a fox", ["a"]])
def test_captions_in_memory_must_be_text(item):
    with pytest.raises(
        InputError, match=r"captions in memory: row 2: .* is (int|bytes|list), not text"
    ):
        read_prompts(["a fox", item])


# Properties and published tables


@settings(max_examples=150, deadline=None, database=None)
@given(
    captions=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\uffff"))
    ),
    delimiter=st.sampled_from(DELIMITERS),
    columns=st.sampled_from([1, 3]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
@example(['"', "a,b;c\td|e", "\r", "x\r\ny", '"quoted"', "\u2028"], ";", 1, csv.QUOTE_MINIMAL)
def test_csv_reads_back_what_was_written(tmp_path_factory, captions, delimiter, columns, quoting):
    path = tmp_path_factory.getbasetemp() / "property.csv"
    save(path, written_csv(captions, delimiter, columns, quoting=quoting))
    stripped = [caption.strip() for caption in captions]
    distinct = list(dict.fromkeys(filter(None, stripped)))
    if not distinct:
        with pytest.raises(InputError, match="no caption in"):
            read_prompts(path)
        return
    table = read_prompts(path)
    assert texts(table) == distinct
    assert [stripped[prompt.row - 1] for prompt in table] == distinct
    assert len(table) + len(table.missing) + len(table.duplicates) == len(captions)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no published prompt tables in {SHARED}")
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("memorized_laion_prompts", 500),
        ("unmemorized_laion_prompts", 500),
        ("coco2014_val_10000", 10_000),
    ],
)
def test_published_tables_read_as_polars_reads_them(name, rows):
    path = SHARED / f"{name}.csv"
    frame = pl.read_csv(path, separator=";", infer_schema=False)
    table = read_prompts(path)
    assert frame.height == rows == len(table) + len(table.missing) + len(table.duplicates)
    for prompt in table:
        expected = frame.row(prompt.row - 1, named=True)
        assert prompt.text == expected["Caption"].strip()
        assert (prompt.type, prompt.image) == (expected.get("type"), expected["URL"] or None)
    for row, first in table.duplicates:
        assert frame["Caption"][row - 1].strip() == frame["Caption"][first - 1].strip()
    assert all(not (frame["Caption"][row - 1] or "").strip() for row in table.missing)


def test_examples_in_the_docstrings_run():
    assert doctest.testmod(prompts).failed == 0
