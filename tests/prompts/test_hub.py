"""Data sets of the hub, read piece by piece (`of_hub`)."""

from __future__ import annotations

import sys

import pytest

from findnemo.errors import InputError
from findnemo.prompts import read_prompts, stream_prompts


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


def test_a_data_set_in_csv_is_streamed_too(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "train.csv").write_text("caption,kind\na red fox,VM\na grey owl,\n")
    assert [(p.text, p.type) for p in stream_prompts(f"hf:{tmp_path}")] == [
        ("a red fox", "VM"),
        ("a grey owl", None),
    ]
