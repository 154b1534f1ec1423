"""Files from anywhere: a right value, or a FindnemoError that names the file.

Never another exception, and nothing written elsewhere.

Each target is tried with free bytes, with bytes of a valid file in which some are changed, removed
or repeated, and with free values of its format. Hundreds of cases in the normal suite, more than
ten thousand in the slow one, which prints its counts.
"""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from _here import refused
from _tiny import tiny_pipeline
from _tiny_files import make_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

import findnemo
from findnemo.calibration import Calibration
from findnemo.neurons import NeuronSet
from findnemo.prompts import stream_prompts
from findnemo.runs import Run, captions_of, settings_of, summary
from findnemo.settings import PAPER, Settings

# cases of each target
FEW = 40
MANY = 1300
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of a valid file with a few changes."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["byte", "cut", "repeat", "insert"]))
        if how == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


def table(suffix: str, whole: bytes) -> tuple[str, st.SearchStrategy[bytes], Callable[[Path], Any]]:
    def read(path: Path) -> None:
        for prompt in stream_prompts(path):
            assert prompt.text.strip() == prompt.text != ""

    return f"captions{suffix}", st.binary(max_size=300) | changed(whole), read


def parquet() -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"caption": ["a red fox", "a tree"], "type": ["VM", None]}).write_parquet(buffer)
    return buffer.getvalue()


def neuron_file(path: Path) -> None:
    assert isinstance(NeuronSet.load(path), NeuronSet)


def neurons_of_tensors() -> bytes:
    return save({"down.0": torch.tensor([1, 5]), "mid": torch.tensor([0])})


NEURONS = b'{"layers": {"down.0": [1, 5], "mid": [0]}}'
TARGETS = {
    "CSV": table(".csv", b'caption,type\n"a red, fox",VM\na tree,\n'),
    "TSV": table(".tsv", b"caption\ttype\na red fox\tVM\n"),
    "text": table(".txt", b"a red fox\n\na tree\r\nthe sea"),
    "JSON Lines": table(
        ".jsonl", b'{"caption": "a red fox", "type": "VM"}\n{"caption": "a tree"}\n'
    ),
    "JSON": table(".json", b'[{"caption": "a red fox"}, {"caption": "a tree", "image": "a.png"}]'),
    "neurons, bytes": ("neurons.json", st.binary(max_size=200) | changed(NEURONS), neuron_file),
    "neurons, values": (
        "neurons.json",
        JSON.map(lambda v: json.dumps({"layers": v}).encode()),
        neuron_file,
    ),
    "neurons, tensors": (
        "neurons.safetensors",
        st.binary(max_size=200) | changed(neurons_of_tensors()),
        neuron_file,
    ),
    "settings, one changed": (
        "settings.json",
        st.tuples(st.sampled_from(sorted(PAPER.to_json())), JSON).map(
            lambda kv: json.dumps(PAPER.to_json() | dict([kv])).encode()
        ),
        lambda p: Settings.from_json(json.loads(p.read_text())),
    ),
    "settings": (
        "settings.json",
        JSON.map(lambda v: json.dumps(v).encode()),
        lambda p: Settings.from_json(json.loads(p.read_text())),
    ),
}


def cases(name: str, folder: Path, count: int) -> Counter[str]:
    """So many cases of a target; how they ended."""
    file, contents, read = TARGETS[name]
    ended: Counter[str] = Counter()

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(contents)
    def one(content: bytes) -> None:
        path = folder / file
        path.write_bytes(content)
        ended[told(lambda: read(path), None if name.startswith("settings") else path)] += 1
        assert [p.name for p in folder.iterdir()] == [file]

    one()
    return ended


def told(read: Callable[[], Any], path: Path | None) -> str:
    reason = refused(read)
    assert reason is None or path is None or str(path) in reason, (
        f"the error does not name the file: {reason}"
    )
    return "read" if reason is None else "refused"


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_of_anything_is_read_or_refused_by_name(name, tmp_path):
    assert sum(cases(name, tmp_path, FEW).values()) >= FEW // 2


@pytest.mark.slow
def test_ten_thousand_files_of_anything(tmp_path, capsys):
    counts = {}
    for name in TARGETS:
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        counts[name] = cases(name, folder, MANY)
    with capsys.disabled():
        print(
            f"\n{sum(map(Counter.total, counts.values()))} files:"
            f" { {n: dict(c) for n, c in counts.items()} }"
        )
    assert sum(map(Counter.total, counts.values())) >= 10_000


# what costs a process or a copy of a directory a case ---------------------------------------------


def many_parquets(folder: Path, count: int) -> Counter[str]:
    ended: Counter[str] = Counter()

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(changed(parquet()))
    def one(content: bytes) -> None:
        path = folder / "captions.parquet"
        path.write_bytes(content)
        ended[told(lambda: list(stream_prompts(path)), path)] += 1

    one()
    return ended


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path):
    assert many_parquets(tmp_path, 4)["refused"] >= 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    model = findnemo.load(tiny_pipeline())
    name = next(iter(model.value_layers))
    folder = make_run(
        tmp_path_factory.mktemp("whole") / "run",
        model,
        {"a red fox": NeuronSet({name: [3]}), "a tree": NeuronSet({})},
    )
    made = findnemo.calibrate(model, ["a grey owl", "the sea"], settings=Settings(samples=3))
    made.save(folder / "calibration")
    return folder


ROWS = {
    "meta": ("key", "value"),
    "captions": ("text", "row", "type", "image"),
    "results": ("stage", "status", "seconds", "payload"),
}
SCALARS = (
    st.none()
    | st.integers(-(2**70), 2**70).filter(lambda k: abs(k) < 2**63)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=9)
)


def many_runs(whole: Path, folder: Path, count: int) -> Counter[str]:
    """A value of a run's database exchanged for any other, with a checksum that fits, and
    all that faces read of it.
    """
    from findnemo.report import write
    from findnemo.runs.store import COLUMNS, checksum

    ended: Counter[str] = Counter()
    places = [(table, column) for table, columns in ROWS.items() for column in columns]

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(places), st.integers(0, 9), SCALARS | JSON.map(json.dumps))
    def one(place: tuple[str, str], at: int, value: Any) -> None:
        out = folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        table, column = place
        with closing(sqlite3.connect(out / "run.sqlite")) as db, db:
            rows = [r[0] for r in db.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
            row = rows[at % len(rows)]
            try:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
                stored = db.execute(
                    f"SELECT {', '.join(COLUMNS[table])} FROM {table} WHERE rowid = ?", (row,)
                ).fetchone()
                db.execute(
                    f"UPDATE {table} SET checksum = ? WHERE rowid = ?",
                    (checksum(table, stored), row),
                )
            except (sqlite3.Error, UnicodeError):
                return

        def read() -> None:
            with Run.open(out) as run:
                settings_of(run)
                captions_of(run)
                json.dumps(summary(run))
                write(run)

        ended[told(read, out)] += 1
        assert sorted(p.name for p in folder.iterdir()) == ["run"]

    one()
    return ended


def test_a_run_with_any_value_in_it_is_shown_or_refused_by_name(whole, tmp_path):
    assert many_runs(whole, tmp_path, 40).total() >= 10


@pytest.mark.slow
def test_runs_calibrations_and_parquet_files_with_anything_in_them(whole, tmp_path, capsys):
    counts = {}
    for name, many in (
        ("runs", lambda f: many_runs(whole, f, 1500)),
        ("Parquet", lambda f: many_parquets(f, 100)),
    ):
        (tmp_path / name).mkdir()
        counts[name] = dict(many(tmp_path / name))
    counts["calibrations"] = dict(many_calibrations(whole, tmp_path, 1000))
    with capsys.disabled():
        print(f"\n{counts}")


def many_calibrations(whole: Path, folder: Path, count: int) -> Counter[str]:
    ended: Counter[str] = Counter()
    files = {
        name: (whole / "calibration" / name).read_bytes()
        for name in ("calibration.json", "calibration.safetensors")
    }

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(sorted(files)), st.data())
    def one(name: str, data: st.DataObject) -> None:
        out = folder / "calibration"
        out.mkdir(exist_ok=True)
        for file, content in files.items():
            (out / file).write_bytes(data.draw(changed(content)) if file == name else content)
        ended[told(lambda: Calibration.load(out), out)] += 1

    one()
    return ended


def test_a_damaged_calibration_is_refused_by_name(whole, tmp_path):
    assert many_calibrations(whole, tmp_path, 40)["refused"] >= 20
