"""Tables as people have them: what a file holds decides, quotes that are none stay, and what
findnemo wrote reads back as it was.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as tensors

from findnemo.errors import InputError
from findnemo.files.marks import COLUMNS, FORMULA, marked, unmarked
from findnemo.prompts import Prompt, read_prompts, stream_prompts
from findnemo.runs import Run
from findnemo.runs.export import row as row_of_results
from findnemo.runs.export import write_results

ROWS = [("a red fox", "VM"), ("ein Bär, 東京 🦊", "TM")]
TABLE = [Prompt(text, k, kind) for k, (text, kind) in enumerate(ROWS, 1)]


def read(path: Path, content: str | bytes, column: str | None = None) -> list[Prompt]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = read_prompts(path, column)
    assert [p for p in stream_prompts(path, column) if p in table.prompts] == list(table)
    return list(table)


def texts(prompts: list[Prompt]) -> list[str]:
    return [p.text for p in prompts]


# What a file holds decides


def delimited(delimiter: str) -> str:
    return (
        "\n".join(
            delimiter.join(f'"{cell}"' for cell in row) for row in (("caption", "type"), *ROWS)
        )
        + "\n"
    )


def parquet() -> bytes:
    out = io.BytesIO()
    pl.DataFrame(ROWS, schema=["caption", "type"], orient="row").write_parquet(out)
    return out.getvalue()


OBJECTS = [{"caption": text, "type": kind} for text, kind in ROWS]
CONTENTS: dict[str, str | bytes] = {
    "commas": delimited(","),
    "semicolons": delimited(";"),
    "tabs": delimited("\t"),
    "bars": delimited("|"),
    "a line that tells the delimiter": "sep=;\n" + delimited(";"),
    "byte order mark": "\ufeff" + delimited(","),
    "UTF-16": delimited("\t").encode("utf-16"),
    "UTF-16, big end first": "\ufeff".encode("utf-16-be") + delimited(";").encode("utf-16-be"),
    "UTF-32": delimited(",").encode("utf-32"),
    "objects on lines": "\n".join(map(json.dumps, OBJECTS)),
    "objects on lines, with gaps": "\n".join(json.dumps(o, ensure_ascii=False) for o in OBJECTS) + "\n\n\n",
    "a list": json.dumps(OBJECTS),
    "a list over lines": json.dumps(OBJECTS, indent=2, ensure_ascii=False),
    "an object with a list": json.dumps({"info": {"year": 2014}, "images": [{"id": 1}], "annotations": OBJECTS}, indent=1),
    "Parquet": parquet(),
    "old Mac": delimited(",").replace("\n", "\r"),
    "mixed line ends": delimited(",").replace("\n", "\r", 1).replace("TM\"\n", 'TM"\r\n\n'),
}  # fmt: skip


@pytest.mark.parametrize(
    "suffix", [".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".dat", "", ".xls"]
)
@pytest.mark.parametrize("kind", [kind for kind in CONTENTS if kind != "Parquet"])
def test_a_table_is_read_whatever_its_name(tmp_path, kind, suffix):
    assert read(tmp_path / f"table{suffix}", CONTENTS[kind]) == TABLE


def test_a_parquet_file_is_read_whatever_its_name(tmp_path):
    assert read(tmp_path / "table.csv", CONTENTS["Parquet"]) == TABLE
    assert list(read_prompts(tmp_path / "table.csv")) == TABLE
    with pytest.raises(InputError, match=r"table.txt: broken Parquet|this is|not UTF-8"):
        read(tmp_path / "table.txt", bytes(CONTENTS["Parquet"])[:-9])


@pytest.mark.parametrize("kind", CONTENTS)
def test_standard_input_too(kind):
    content = CONTENTS[kind]
    data = content.encode() if isinstance(content, str) else content
    assert list(read_prompts("-", stdin=io.BytesIO(data))) == TABLE


LINES = [
    "Text, illustration and more",
    "# no comment, a caption",
    '"No" and "yes"',
    '"Fox"',
    "[Free] a fox, a caption",
    "{Vintage} owl",
    '["a"] b',
    "BM 5000 bicycle | GIF89a, a picture",
    "PAR1 is a golf term; RIFF and II* are not",
    "12",
    "caption",
]


def test_captions_on_lines_that_look_like_something_else(tmp_path):
    assert texts(read(tmp_path / "a.txt", "\n".join(LINES))) == LINES
    for first in range(len(LINES)):
        lines = LINES[first:] + LINES[:first]
        if lines[0] != "caption":
            assert texts(read(tmp_path / "a.txt", "\n".join(lines))) == lines
    for line in LINES:
        assert texts(read(tmp_path / "a.txt", line)) == [line]


def test_a_lone_header_over_a_text(tmp_path):
    assert texts(read(tmp_path / "a.txt", 'Prompt \na fox, red\n"an owl, grey"\n')) == [
        "a fox, red",
        "an owl, grey",
    ]


def workbook(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name in names:
            file.writestr(name, "caption\na fox\n" * 9999)
    return out.getvalue()


def made(save) -> bytes:
    save(out := io.BytesIO())
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        file.addfile(tarfile.TarInfo("captions.csv"))
    return out.getvalue()


def database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE captions (caption TEXT)")
        return db.serialize() if hasattr(db, "serialize") else b"SQLite format 3\0" + bytes(84)


OTHERS = {
    "an Excel workbook": (
        workbook("[Content_Types].xml", "xl/workbook.xml"),
        "save the sheet of captions as CSV",
    ),
    "a Word document": (
        workbook("[Content_Types].xml", "word/document.xml"),
        "export the captions",
    ),
    "an OpenDocument spreadsheet": (
        b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
        "save the sheet of captions as CSV",
    ),
    "an old Excel workbook or Word document": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500),
        "save the sheet",
    ),
    "a ZIP archive": (workbook("captions.csv"), "unpack it"),
    "a PyTorch pickle": (made(lambda out: torch.save([1], out)), "export the captions"),
    "a gzip file": (gzip.compress(b"caption\na\n"), "unpack it"),
    "a bzip2 file": (bz2.compress(b"caption\na\n"), "unpack it"),
    "an xz file": (lzma.compress(b"caption\na\n"), "unpack it"),
    "a tar archive": (tar(), "unpack it"),
    "a pickle": (pickle.dumps(["a fox"]), "export the captions"),
    "a PDF document": (b"%PDF-1.7\n", "export the captions"),
    "a PNG picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "PNG")),
        "export the captions",
    ),
    "a JPEG picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "JPEG")),
        "export the captions",
    ),
    "a WebP picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "WEBP")),
        "export the captions",
    ),
    "a BMP picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "BMP")),
        "export the captions",
    ),
    "a GIF picture": (
        made(lambda out: Image.new("RGB", (4, 4)).save(out, "GIF")),
        "export the captions",
    ),
    "an SQLite database": (database(), "export the captions"),
    "tensors (safetensors)": (tensors({"a": torch.zeros(3)}), "export the captions"),
    "a NumPy array": (made(lambda out: np.save(out, np.zeros(3))), "export the captions"),
    "a web page": ("\ufeff\n<!DOCTYPE html>\n<p>caption</p>".encode(), "export the captions"),
    "an XML document": (b'<?xml version="1.0"?>\n<Workbook>', "export the captions"),
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "git lfs pull",
    ),
    "binary data": (bytes(5000), "export the captions"),
}


@pytest.mark.parametrize(
    "suffix", [".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet", "", ".xlsx"]
)
@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_table_is_refused_by_what_it_is(tmp_path, what, suffix):
    content, way_out = OTHERS[what]
    path = tmp_path / f"captions{suffix}"
    with pytest.raises(InputError) as caught:
        read(path, content)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert what in told
    assert way_out in told


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_any_protocol(tmp_path, protocol):
    with pytest.raises(InputError, match=r"a pickle|binary"):
        read(tmp_path / "a.txt", pickle.dumps([f"caption {k}" for k in range(40)], protocol))


# Quotes that are none


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


# What findnemo wrote


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
