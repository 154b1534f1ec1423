"""Tables in Markdown.

They are written by hand: a library for ten lines would be one more to keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Lines of a table, without a line feed at the end: the first column left, the others
    right, `|` in a cell escaped.

    >>> print(markdown_table(["method", "n"], [["a|b", "3"]]))
    | method | n |
    | --- | ---: |
    | a\|b | 3 |
    """
    rule = ["---", *["---:"] * (len(heads) - 1)]
    lines = [[cell.replace("|", r"\|") for cell in cells] for cells in (heads, rule, *rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
