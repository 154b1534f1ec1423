"""What a file holds decides its format, not its name (`reader_of`)."""

from __future__ import annotations

import io
import json

import polars as pl
import pytest
from _rows import read, texts

from findnemo.errors import InputError
from findnemo.prompts import Prompt, read_prompts

ROWS = [("a red fox", "VM"), ("ein Bär, 東京 🦊", "TM")]

TABLE = [Prompt(text, k, kind) for k, (text, kind) in enumerate(ROWS, 1)]


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
