"""Streams of any encoding: what they lack is replaced, and nothing is an error."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from findnemo.cli import _streams
from findnemo.cli._common import plain, print_json
from findnemo.cli._streams import displayable, output_encoding, showable_streams


def to_stream(monkeypatch, encoding: str) -> io.BytesIO:
    raw = io.BytesIO()
    monkeypatch.setattr(
        sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)
    )
    showable_streams()
    return raw


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoding", ["utf-8", "ascii", "latin-1", "cp1252", "cp437", "koi8-r", "gbk", "shift-jis"]
)
@given(
    value=st.recursive(
        st.text(st.characters(exclude_categories=[])),
        lambda v: st.lists(v, max_size=3),
        max_leaves=4,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_text_goes_through_json_also_half_of_a_surrogate_pair(encoding, value):
    with pytest.MonkeyPatch.context() as patch:
        raw = to_stream(patch, encoding)
        print_json(value)
        assert json.loads(raw.getvalue()) == json.loads(json.dumps(value))
        print(plain(str(value)), value)


@pytest.mark.slow
def test_what_cannot_be_shown_is_replaced(monkeypatch):
    raw = to_stream(monkeypatch, "ascii")
    print("█─·…±→\u00d7—“\u2019 東 \ud83d é")
    assert raw.getvalue() == b"#-..+-->x-\"' \\u6771 \\ud83d \\xe9\n"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", _streams.HANDLER)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("ascii", "B\\xe4r - \\u6771"), ("cp1252", "Bär \u2013 \\u6771"), ("utf-8", "Bär \u2013 東")],
)
def test_text_is_known_before_it_is_shown(encoding, text, monkeypatch):
    to_stream(monkeypatch, encoding)
    assert output_encoding() == encoding
    assert displayable("Bär \u2013 東") == text


def test_a_stream_without_a_known_encoding_gets_what_any_can_show(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert output_encoding() == "utf-8"
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding="no such"))
    assert output_encoding() == "ascii"
