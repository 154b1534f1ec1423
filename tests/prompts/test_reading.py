"""Tables from files, standard input and memory: read whole or as a stream, with errors that say the way out."""

import csv
import doctest
import io
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from types import SimpleNamespace

import polars as pl
import pytest
from _captions_of import CAPTIONS, ONE_LINE, save, texts, written_csv
from hypothesis import given, settings
from hypothesis import strategies as st

from findnemo import prompts
from findnemo.errors import InputError
from findnemo.prompts import DELIMITERS, read_prompts, repeated, stream_prompts
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


@pytest.mark.parametrize("captions", [list, tuple, iter, pl.Series])
def test_captions_in_memory(captions):
    assert texts(read_prompts(captions(CAPTIONS))) == CAPTIONS


def test_path_as_text_and_source_name(tmp_path):
    path = save(tmp_path / "captions.txt", "a fox")
    assert read_prompts(str(path)) == read_prompts(path)
    assert read_prompts(path).source == str(path)


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


@pytest.mark.parametrize("item", [7, b"a fox", ["a"]])
def test_captions_in_memory_must_be_text(item):
    with pytest.raises(
        InputError, match=r"captions in memory: row 2: .* is (int|bytes|list), not text"
    ):
        read_prompts(["a fox", item])


def test_examples_in_the_docstrings_run():
    assert doctest.testmod(prompts).failed == 0
