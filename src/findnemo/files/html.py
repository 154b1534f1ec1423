"""Pieces of HTML with which values are shown in a notebook (`_repr_html_`).

All text is escaped, and nothing is loaded from elsewhere. Only bars have a colour of their own,
because a notebook may be light or dark.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from functools import singledispatch
from typing import TYPE_CHECKING

from findnemo.files.secrets import without_secrets

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 200.0  # pixels of the longest bar
BAR = '<svg width="{:.0f}" height="10" aria-hidden="true"><rect width="100%" height="10" fill="#3b7dd8"/></svg>'
LEFT = ' style="text-align:left"'


@singledispatch
def in_notebook(value: object) -> str:
    """A value as HTML for a notebook. Modules that know a kind of value register how it is shown.

    >>> in_notebook("<b>one</b>")
    '&lt;b&gt;one&lt;/b&gt;'
    """
    return escaped(value)


def escaped(value: object) -> str:
    """A value as text of a page, without elements, control characters and secrets.

    >>> escaped("<b>one</b>")
    '&lt;b&gt;one&lt;/b&gt;'
    """
    plain = "".join(c if c.isprintable() else " " for c in without_secrets(str(value)))
    return html.escape(plain)


def block(title: str, *parts: str) -> str:
    """Parts under a title.

    >>> block("a title", "<p>one</p>")
    '<div><p><strong>a title</strong></p><p>one</p></div>'
    """
    return f"<div><p><strong>{escaped(title)}</strong></p>{''.join(parts)}</div>"


def paragraph(text: str) -> str:
    """
    >>> paragraph("a < b")
    '<p>a &lt; b</p>'
    """
    return f"<p>{escaped(text)}</p>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """A table of names and values.

    >>> facts([("tau", 0.4)]).count("<tr>")
    1
    """
    lines = (
        f"<tr><th{LEFT}>{escaped(name)}</th><td{LEFT}>{escaped(value)}</td></tr>"
        for name, value in pairs
    )
    return f"<table>{''.join(lines)}</table>"


def bars(title: str, rows: Iterable[tuple[str, float, str]]) -> str:
    """A chart: a line for each label, with a bar as long as its value, 0 or more, and a text.

    Empty without rows.

    >>> bars("neurons", [("mid", 2, "2"), ("up", 1, "1")]).count("<svg")
    2
    """
    lines = list(rows)
    most = max((value for _, value, _ in lines), default=0.0)
    if not lines:
        return ""
    drawn = "".join(
        f"<tr><td{LEFT}>{escaped(label)}</td>"
        f"<td{LEFT}>{BAR.format(LONGEST * value / most) if value > 0 else ''} {escaped(text)}</td></tr>"
        for label, value, text in lines
    )
    return f"<table><caption{LEFT}>{escaped(title)}</caption>{drawn}</table>"


def data_uri(picture: Image.Image, side: int, quality: int = 80) -> str:
    """A picture as `data:image/webp;base64,...`, reduced if its longer side has more than `side`
    pixels.
    """
    small = picture.copy()
    out = io.BytesIO()
    small.thumbnail((side, side))
    small.save(out, "WEBP", quality=quality, method=2)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
