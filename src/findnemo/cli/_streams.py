"""Standard output and error in any encoding: characters that it lacks are replaced, and never end a
command.

Terminals of Windows, logs and pipes in an old locale may lack Chinese, emoji, or anything beyond
ASCII. Half of a surrogate pair, which a path or a caption may hold, exists in no encoding.
"""

from __future__ import annotations

import codecs
import sys

HANDLER = "findnemo"  # name among the error handlers of Python's encodings
PLAINER = {
    "\u2588": "#",
    "\u2500": "-",
    "\u2501": "-",
    "\u2578": "-",
    "\u257a": "-",
    "\u2192": "->",
    "\u2013": "-",
    "\u2014": "-",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2026": ".",
    "\u00b7": ".",
    "\u00b1": "+-",
    "\u00d7": "x",
}


def showable_streams() -> None:
    """Let both streams replace characters that they cannot show, until the process ends."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # streams of notebooks and tests have none
            stream.reconfigure(errors=HANDLER)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(PLAINER.get(c) or escaped(c) for c in missing), error.end


codecs.register_error(HANDLER, _replaced)


def escaped(text: str) -> str:
    """
    >>> escaped("a \u6771")
    'a \\\\u6771'
    """
    return text.encode("ascii", "backslashreplace").decode()


def displayable(text: str) -> str:
    """The text that standard output will show, needed before a table is laid out."""
    encoding = output_encoding()
    return text.encode(encoding, HANDLER).decode(encoding)


def output_encoding() -> str:
    """The encoding of standard output; UTF-8 if it has none."""
    try:
        return codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name
    except LookupError:
        return "ascii"
