"""Tables of studies: rows of text and numbers, written as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from findnemo.files.markdown import markdown_table

Cell = str | float | int | None
LATEX = {
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "^": r"\^{}",
    "~": r"\textasciitilde{}",
    "±": r"$\pm$",
}


@dataclass(frozen=True)
class Table:
    """A table: `columns`, and `rows` of equal length; `note`: what a reader must know.

    Numbers are shown with three digits, small ones with two significant digits.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    digits: int = field(default=3, repr=False)

    def markdown(self) -> str:
        """The table in Markdown, with its title above and its note below."""
        rows = [[self._text(cell) for cell in row] for row in self.rows]
        parts = [f"**{self.title}**", markdown_table(self.columns, rows)]
        return "\n\n".join([*parts, self.note] if self.note else parts) + "\n"

    def csv(self) -> str:
        """The table as CSV in full precision, one line a row; `None` is empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()

    def latex(self) -> str:
        """The table for LaTeX, with booktabs and a caption."""
        head = " & ".join(latex_escaped(c) for c in self.columns)
        body = "\n".join(
            "  " + " & ".join(latex_escaped(self._text(c)) for c in row) + r" \\"
            for row in self.rows
        )
        return (
            "\\begin{table}\n  \\centering\n  \\caption{" + latex_escaped(self.title) + "}\n  \\begin{tabular}{l" + "r" * (len(self.columns) - 1)
            + "}\n  \\toprule\n  " + head + " \\\\\n  \\midrule\n" + body + "\n  \\bottomrule\n  \\end{tabular}\n\\end{table}\n"
        )  # fmt: skip

    def _text(self, cell: Cell) -> str:
        if cell is None:
            return "-"
        if not isinstance(cell, float):
            return str(cell)
        small = 0 < abs(cell) < 10 ** (1 - self.digits)  # a KID of -.0003 is not zero
        return f"{cell:.2g}" if small else f"{cell:.{self.digits}f}"


def latex_escaped(text: str) -> str:
    """Text with what LaTeX would take for itself escaped; a backslash is a slash.

    >>> latex_escaped("50 %")
    '50 \\\\%'
    """
    return "".join(LATEX.get(c, c) for c in str(text).replace("\\", "/"))


def plus_minus(pair: tuple[float, float] | None, digits: int = 2) -> str | None:
    """A value with its deviation as in the paper: `.09 ± .02`.

    >>> plus_minus((0.09, 0.021))
    '0.09 ± 0.02'
    """
    return None if pair is None else f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"
