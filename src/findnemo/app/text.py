"""Text of unknown origin for a page: all of it is escaped, and none can change how other text is
read.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

SHORT = 120  # characters of a caption in a table or a list


def escaped(text: object) -> str:
    """Text for HTML, inert for template languages too.

    >>> escaped('<b>${1}')
    '&lt;b&gt;&#36;&#123;1&#125;'
    """
    return escape(str(text)).translate({ord(c): f"&#{ord(c)};" for c in "${}`"})


def short(text: str, most: int = SHORT) -> str:
    """One line without invisible characters, such as those that change the direction of writing,
    cut to `most`.

    >>> short("a" + chr(0x202E) + "b" + chr(10) + "c"), short("abcdef", 4)
    ('ab c', 'abc…')
    """
    line = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return line if len(line) <= most else line[: most - 1] + "…"


def whole(caption: str) -> str:
    """A caption in full length."""
    return f'<p class="caption"><bdi>{escaped(caption)}</bdi></p>'


def numbers(rows: Iterable[tuple[str, Any]]) -> str:
    """Names and values as a table; unknown values are left out."""
    cells = "".join(
        f"<tr><th scope='row'>{escaped(n)}</th><td><bdi>{escaped(v)}</bdi></td></tr>"
        for n, v in rows
        if v is not None
    )
    return f"<table class='numbers'>{cells}</table>" if cells else ""


def note(text: str) -> str:
    """A note from an event."""
    return f'<p role="status" class="note">{escaped(text)}</p>' if text else ""


def command(text: str) -> str:
    """A shell command to copy."""
    return f'<pre class="command"><code>{escaped(text)}</code></pre>'


def alarm(text: object) -> str:
    """A reason why something cannot be done."""
    return f'<p role="alert" class="alarm">{escaped(text)}</p>'
