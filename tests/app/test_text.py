"""Text of unknown origin is escaped, and can be read back."""

from __future__ import annotations

from _asking import Reader
from _captions import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from findnemo.app.text import alarm, command, note, numbers, short, whole


@given(st.text() | st.sampled_from([HOSTILE, "&lt;b&gt;", "</p><b>", "${1}`"]))
def test_text_is_escaped_and_can_be_read_back(text):
    for made in (whole(text), note(text), alarm(text), numbers([("name", text)])):
        read = Reader(made)
        assert read.tags <= {"p", "bdi", "table", "tr", "th", "td"}
        assert read.text == ("name" + text if made.startswith("<table") else text)
        assert not set(made) & set("${}`")
    assert short(text).isprintable()
    assert len(short(text, 10)) <= 10


def test_unknown_values_have_no_row_and_nothing_is_empty():
    assert numbers([("a", None), ("b", 0)]).count("<tr>") == 1
    assert numbers([("a", None)]) == note("") == ""
    assert Reader(command("findnemo export '<run>'")).text == "findnemo export '<run>'"
