"""Lines of a file: encodings, line ends and their places, in blocks of any size."""

from __future__ import annotations

import pytest
from _captions_of import save, texts

from findnemo.errors import InputError
from findnemo.prompts import read_prompts, stream_prompts


def test_the_place_of_a_byte_that_is_no_text_is_right_in_any_block(tmp_path, monkeypatch):
    path = tmp_path / "table.txt"
    path.write_bytes("ein Bär\n".encode() * 3 + b"ein B\xe4r\n")
    monkeypatch.setattr("findnemo.prompts._lines.BLOCK", 7)
    with pytest.raises(InputError, match=r"line 4, byte offset 32 \(0xe4\)"):
        stream_prompts(path)


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
