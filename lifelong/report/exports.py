"""Tables as Markdown, LaTeX and CSV. Names come from data: each form has characters of its own that are escaped."""

import csv
import io
from collections.abc import Sequence

from lifelong.report.page import Grid
from lifelong.report.wording import clean

_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "≤": r"$\leq$",
    "–": "--",
}


def markdown(grid: Grid) -> str:
    """A table in the form that GitHub and Pandoc read."""
    columns = ["---", *("---" if heading in grid.words else "---:" for heading in grid.headings[1:])]
    lines = [[escape_markdown(cell) for cell in row] for row in (grid.headings, *grid.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], columns, *lines[1:]))


def latex(grid: Grid) -> str:
    """A `tabular` with the rules of the package `booktabs`."""
    columns = "l" + "".join("l" if heading in grid.words else "r" for heading in grid.headings[1:])
    lines = [f"{' & '.join(escape_latex(cell) for cell in row)} \\\\\n" for row in (grid.headings, *grid.rows)]
    return "".join([f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n", lines[0], "\\midrule\n", *lines[1:], "\\bottomrule\n\\end{tabular}\n"])


def comma_separated(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV (RFC 4180, but for its line ends); None becomes an empty field, and no text a formula (see `no_formula`)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # A bare carriage return would end the row: Python's writer puts only its own line ends into quotes.
    writer.writerows(
        [[no_formula(cell.replace("\r", "\n") if isinstance(cell, str) else cell) for cell in row] for row in (headings, *rows)]
    )
    return text.getvalue()


def no_formula(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula: text that begins as one has an apostrophe before it; numbers are as they are."""
    if not isinstance(cell, str) or (not cell.lstrip().startswith(_FORMULA) and not cell.startswith(("\t", "\r", "\n"))):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def escape_markdown(text: object) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no link, no end of its cell."""
    return "".join(
        {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(character, f"\\{character}" if character in "\\`*_{}[]()#!|~$" else character)
        for character in clean(text)
    )


def escape_latex(text: object) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(character, character) for character in clean(text))
