"""Pieces of HTML for notebooks: escaped text, bars as long as their values, pictures inside."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from findnemo.files.html import bars, block, data_uri, escaped, facts, in_notebook, paragraph

HOSTILE = '<img src=x onerror=alert(1)> \x07 & " https://me:secret@host/'


@pytest.mark.parametrize(
    "page",
    [
        escaped(HOSTILE),
        in_notebook(HOSTILE),
        block(HOSTILE),
        paragraph(HOSTILE),
        facts([(HOSTILE, HOSTILE)]),
        bars(HOSTILE, [(HOSTILE, 1.0, HOSTILE)]),
    ],
)
def test_text_is_escaped_printable_and_without_secrets(page):
    assert "<img" not in page
    assert "&lt;img" in page
    assert "\x07" not in page
    assert "secret" not in page


def test_bars_are_as_long_as_their_values():
    page = bars("t", [("a", 4.0, ""), ("b", 1.0, ""), ("c", 0.0, "")])
    widths = [float(width) for width in re.findall(r'svg width="(\d+)"', page)]
    assert widths == [200, 50]
    assert page.count("<tr>") == 3
    assert bars("t", []) == ""


@pytest.mark.parametrize(("size", "expected"), [((40, 20), (10, 5)), ((8, 4), (8, 4))])
def test_a_picture_is_reduced_and_never_enlarged(size, expected):
    picture = Image.new("RGB", size, "red")
    head, data = data_uri(picture, 10).split(",")
    assert head == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == expected
    assert picture.size == size
