"""Tables of any length: the same rows and the same warnings as `read_prompts`, and no
more memory for more rows.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import tempfile
import tracemalloc
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from findnemo.errors import InputError
from findnemo.prompts import read_prompts, repeated, stream_prompts
from findnemo.runs import Run, enter

CELL = st.none() | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
)
ROWS = st.lists(st.tuples(CELL, st.none() | st.sampled_from(["VM", "TM"])), min_size=1, max_size=12)


def as_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("caption", "type"))
        writer.writerows((caption or "", kind or "") for caption, kind in rows)


def as_json_lines(path, rows):
    path.write_text(
        "".join(json.dumps({"caption": c, "type": k}) + "\n" for c, k in rows), encoding="utf-8"
    )


def as_parquet(path, rows):
    columns = {"caption": [c for c, _ in rows], "type": [k for _, k in rows]}
    pl.DataFrame(columns, schema={"caption": pl.String, "type": pl.String}).write_parquet(
        path, row_group_size=3
    )


def as_text(path, rows):
    path.write_bytes("\n".join(" ".join((c or "").split()) for c, _ in rows).encode())


FORMS = {"csv": as_csv, "jsonl": as_json_lines, "parquet": as_parquet, "txt": as_text}


def _or_error(read, path):
    try:
        return read(path)
    except InputError as error:
        return str(error)


@pytest.mark.first(2)
@pytest.mark.parametrize("suffix", FORMS)
@given(rows=ROWS)
@settings(max_examples=12, deadline=None)
def test_a_stream_that_enters_a_run_gives_what_read_prompts_gives(tmp_path_factory, suffix, rows):
    folder = tmp_path_factory.mktemp("stream")
    path = folder / f"table.{suffix}"
    FORMS[suffix](path, rows)
    patch = pytest.MonkeyPatch()
    patch.setattr(
        "findnemo.prompts._lines.BLOCK", 5
    )  # characters and line ends are cut in the middle
    patch.setattr("findnemo.prompts._formats.PARQUET_ROWS", 2)
    try:
        table = _or_error(read_prompts, path)
        if isinstance(table, str):
            assert _or_error(stream_prompts, path) == table
            return
    finally:
        patch.undo()
    assert read_prompts(path) == table  # in one block
    stream = stream_prompts(path)
    with Run.create(folder / "run", {}) as run:
        entered = enter(run, stream)
        kept = [(c.text, c.row, c.type, c.image) for c in run.captions()]
    assert kept == [(p.text, p.row, p.type, p.image) for p in table]
    assert (
        stream.warnings() + repeated(stream.source, entered.repeats, entered.some)
        == table.warnings()
    )


def test_standard_input_is_read_again_and_again():
    stream = stream_prompts("-", stdin=io.BytesIO(b"a red fox\n\na grey owl\n"))
    assert [p.text for p in stream] == [p.text for p in stream] == ["a red fox", "a grey owl"]
    assert stream.missing == 1


class DataSet:
    """Like an iterable data set of Hugging Face: rows, names of columns, read anew each time."""

    column_names = ("url", "TEXT")

    def __iter__(self):
        return iter([{"url": "a.png", "TEXT": "a red fox"}, {"url": "b.png", "TEXT": None}])


def test_a_data_set_and_a_function_are_sources_too():
    (prompt,) = stream_prompts(DataSet())
    assert (prompt.text, prompt.row, prompt.image) == ("a red fox", 1, "a.png")
    assert [p.text for p in stream_prompts(lambda: iter(["a", "b"]))] == ["a", "b"]


def test_a_fault_in_the_last_row_is_found_before_anything_is_yielded(tmp_path):
    (tmp_path / "table.jsonl").write_text('{"caption": "a"}\n' * 1000 + '{"caption": 7}\n')
    with pytest.raises(InputError, match="row 1001"):
        stream_prompts(tmp_path / "table.jsonl")


def test_the_place_of_a_byte_that_is_no_text_is_right_in_any_block(tmp_path, monkeypatch):
    path = tmp_path / "table.txt"
    path.write_bytes("ein Bär\n".encode() * 3 + b"ein B\xe4r\n")
    monkeypatch.setattr("findnemo.prompts._lines.BLOCK", 7)
    with pytest.raises(InputError, match=r"line 4, byte offset 32 \(0xe4\)"):
        stream_prompts(path)


@pytest.mark.parametrize(
    "suffix", ["csv", *(pytest.param(s, marks=pytest.mark.slow) for s in ("jsonl", "txt"))]
)
def test_memory_does_not_grow_with_the_table(tmp_path, suffix, monkeypatch):
    for size in (
        "_lines.BLOCK",
        "_lines.LONGEST",
        "_formats.LONGEST",
        "_content.LONGEST",
    ):  # many blocks in a small table
        monkeypatch.setattr(f"findnemo.prompts.{size}", 1 << 14)

    def peak(rows):
        path = tmp_path / f"{rows}.{suffix}"
        FORMS[suffix](
            path, [(f"caption number {k} of a long table of captions", None) for k in range(rows)]
        )
        tracemalloc.start()
        assert sum(1 for _ in stream_prompts(path)) == rows
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(20_000) < 1.2 * peak(10_000)


def test_a_pipe_that_does_not_end_does_not_fill_the_disk(tmp_path, monkeypatch):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            return b"a caption\n" * 100_000

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=20 << 20))
    with pytest.raises(InputError, match=f"half of the room in {tmp_path}"):
        stream_prompts("-", stdin=Endless())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def data_set(tmp_path):
    """A data set as the hub keeps them: two splits in Parquet, with
    pictures beside the captions.
    """
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "set"
    for split, texts in (("train", ["a red fox", None, "a red fox"]), ("test", ["a grey owl"])):
        rows = datasets.Dataset.from_dict(
            {
                "caption": texts,
                "kind": ["VM"] * len(texts),
                "image": [{"bytes": b"no picture", "path": None}] * len(texts),
            },
            features=datasets.Features(
                {
                    "caption": datasets.Value("string"),
                    "kind": datasets.Value("string"),
                    "image": datasets.Image(),
                }
            ),
        )
        folder.mkdir(exist_ok=True)
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


def test_a_data_set_of_the_hub_is_streamed(data_set):
    stream = stream_prompts(f"hf:{data_set}")
    for _ in range(2):
        assert [(p.text, p.row, p.type, p.image) for p in stream] == [
            ("a red fox", 1, "VM", None),
            ("a red fox", 3, "VM", None),
        ]
    assert stream.warnings() == (f"hf:{data_set}: skipped 1 row without caption (row 2).",)
    assert [p.text for p in read_prompts(f"hf:{data_set}:test")] == ["a grey owl"]


@pytest.mark.parametrize(
    ("name", "column", "says"),
    [
        ("{}:other", None, "Bad split: other.*hf:OWNER/NAME:SPLIT"),
        ("{}", "text", "no column 'text': the columns are 'caption', 'kind'"),
        ("nobody/nothing", None, "nobody/nothing: cannot be read"),
        ("../../etc", None, "etc: cannot be read"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_named(data_set, name, column, says):
    with pytest.raises(InputError, match=says):
        stream_prompts("hf:" + name.format(data_set), column)


def test_without_the_library_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install findnemo\[datasets\]"):
        stream_prompts("hf:owner/captions")


def test_a_function_of_rows_and_a_set_that_tells_no_columns_are_not_kept(tmp_path):
    alive = 0
    most = 0

    class Row(dict):
        def __init__(self, k):
            nonlocal alive, most
            super().__init__(caption=f"caption {k}")
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    class Set:  # as `datasets` reads CSV
        column_names = None

        def __iter__(self):
            return map(Row, range(500))

    for source in (lambda: map(Row, range(500)), Set()):
        assert sum(1 for _ in stream_prompts(source)) == 500
    assert most < 10


def test_a_data_set_in_csv_is_streamed_too(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "train.csv").write_text("caption,kind\na red fox,VM\na grey owl,\n")
    assert [(p.text, p.type) for p in stream_prompts(f"hf:{tmp_path}")] == [
        ("a red fox", "VM"),
        ("a grey owl", None),
    ]
