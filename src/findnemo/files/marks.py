"""A mark that keeps a spreadsheet from reading a cell as a formula: an apostrophe before it, added
and removed without loss.

A text that begins with any number of apostrophes and then a formula gets one more apostrophe. So
each text has a form of its own, and `unmarked(marked(text)) == text` for every text. Only
`results.csv` has marks; `is_ours` recognizes it by its columns. Apostrophes in other tables belong
to their captions.
"""

from __future__ import annotations

import re
from collections.abc import Collection

# first characters of a formula in some spreadsheet, in full width too
FORMULA = "=+-@\t\r\n＝＋－＠"
COLUMNS = (  # columns of every results.csv
    "row", "caption", "status", "memorized", "score", "tau", "reached", "neurons", "layers",
    "fresh_score_before", "fresh_score_after", "fresh_same_seed", "evaluations", "seconds", "error",
)  # fmt: skip
_MARKABLE = re.compile(f"'*[{re.escape(FORMULA)}]")


def marked(text: str) -> str:
    """
    >>> marked("=1+1"), marked("'=1+1"), marked("'tis a fox")
    ("'=1+1", "''=1+1", "'tis a fox")
    """
    return f"'{text}" if _MARKABLE.match(text) else text


def unmarked(cell: str) -> str:
    """The inverse of `marked`.

    >>> unmarked("'=1+1"), unmarked("''=1+1"), unmarked("'tis a fox")
    ('=1+1', "'=1+1", "'tis a fox")
    """
    return cell[1:] if cell.startswith("'") and _MARKABLE.match(cell) else cell


def is_ours(header: Collection[str]) -> bool:
    """Whether a table with such a header is a `results.csv`."""
    return set(COLUMNS) <= {name.strip() for name in header}
