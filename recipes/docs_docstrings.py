"""A griffe extension for the site: doctests in docstrings become code, as they are no Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"(?m)^>>> .*(?:\n(?!\s*$).*)*")  # to the next empty line


def fenced(text: str) -> str:
    """A docstring with its doctests in fences.

    >>> print(fenced("Words.\\n\\n>>> 1 + 1\\n2").replace(chr(96), "'"))
    Words.
    <BLANKLINE>
    '''pycon
    >>> 1 + 1
    2
    '''
    """
    return DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", text)


class Doctests(griffe.Extension):
    """Fences the doctests of every object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
