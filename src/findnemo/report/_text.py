"""Formatting for the report: numbers with a fixed number of digits, and text of unknown origin."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from findnemo.files.secrets import without_secrets
from findnemo.runs.overview import PRICES, name_of
from findnemo.runs.wording import count as count

if TYPE_CHECKING:
    from jinja2 import Environment

NONE = "\u2013"  # in place of a missing figure
LONGEST = 240  # characters of a caption before the rest is folded
PIXELS = "Change of pixels, of 1"
ALIGNMENT = "A_CLIP: fit with the caption"


def printable(text: object) -> str:
    """Text without characters that HTML cannot hold: control characters and lone surrogates become
    U+FFFD. Directional marks stay.

    >>> printable("a\\x00b") == "a\\ufffdb"
    True
    """
    return "".join(
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c
        for c in str(text)
    )


def placeless(name: str | None) -> str:
    """A name without folders of somebody's disk and without secrets; hub ids stay whole.

    >>> placeless("/home/me/models/sd"), placeless("runwayml/sd"), placeless("../private/sd")
    ('sd', 'runwayml/sd', 'sd')
    """
    if name is None:
        return "not recorded"
    text = without_secrets(name_of(name))
    is_path = text.startswith((".", "~", "/")) or "\\" in text or text.count("/") > 1
    if is_path and "://" not in text:
        return text.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return text


def clipped(text: object, longest: int = LONGEST) -> str:
    """The beginning of a text, with an ellipsis if it goes on.

    >>> clipped("a long caption", 7)
    'a long…'
    """
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with a true minus sign; a dash for none.

    >>> number(-0.04828), number(None)
    ('\u22120.048', '\u2013')
    """
    if value is None:
        return NONE
    text = f"{value:.{digits}f}"
    return minus(text if float(text) else f"{0:.{digits}f}")


def minus(text: str) -> str:
    """The text of a figure with a true minus sign."""
    return text.replace("-", "\u2212")


def percent(share: float) -> str:
    """
    >>> percent(0.0833)
    '8.3 %'
    """
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def interval(
    low: float | None, high: float | None, written: Callable[[float], str] = number
) -> str:
    """The ends of an interval; empty for none.

    >>> interval(0.25, 0.5), interval(None, None)
    ('0.250 to 0.500', '')
    """
    return "" if low is None or high is None else f"{written(low)} to {written(high)}"


def at_head(
    label: str, value: str, means: str = "", note: str = "", tone: str = ""
) -> dict[str, str]:
    """A figure at the head of a page, for its template."""
    return {"label": label, "value": value, "means": means, "note": note, "tone": tone}


def more_or_less(value: float, low: float | None = None, high: float | None = None) -> str:
    """A difference in words, with its interval.

    >>> more_or_less(-0.02, -0.03, -0.01)
    '0.020 less (95 % interval 0.030 less to 0.010 less)'
    >>> more_or_less(0.5)
    '0.500 more'
    """
    said = f"{number(abs(value))} {'less' if value < 0 else 'more'}"
    if low is None or high is None:
        return said
    return f"{said} (95 % interval {more_or_less(low)} to {more_or_less(high)})"


@cache
def environment() -> Environment:
    """Jinja templates with escaping for every name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(shown=printable, clipped=clipped, number=number)
    templates.globals.update(count=count, interval=interval, more_or_less=more_or_less)
    templates.globals.update(percent=percent, PRICES=PRICES)
    return templates
