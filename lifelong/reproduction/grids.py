"""Format the cells of a table for readers, and as a CSV file."""

from collections.abc import Callable, Sequence

from lifelong.report.exports import comma_separated
from lifelong.report.page import Grid
from lifelong.report.wording import ABSENT
from lifelong.reproduction.paper import QUANTITIES
from lifelong.reproduction.scales import Scale
from lifelong.reproduction.table_values import Cell

MISSING = "missing"

COLUMNS = (
    *("table", "row", "method", "stream", "stream_run", "quantity", "paper", "ours", "sd", "n", "seeds", "difference", "verdict"),
    *("scale", "minutes", "missing", "paper_backbone", "note"),
)
"""The columns of a table's CSV file, which has one row per cell."""


def by_stream(cells: Sequence[Cell], scale: Scale, tolerance: float) -> list[tuple[str, Grid]]:
    """Return a title and a table for each stream: one row per method, with the paper's number, ours and the difference for each quantity.

    Args:
        cells: of a table.
        scale: at which they were made; at the paper's own a word says whether a number agrees.
        tolerance: see `Cell.verdict`.
    """
    streams = dict.fromkeys((cell.stream.label, cell.stream_run) for cell in cells)
    return [
        (f"{label}, scale {scale.name}: {run}", _grid([cell for cell in cells if cell.stream_run == run], scale, tolerance))
        for label, run in streams
    ]


def _grid(cells: Sequence[Cell], scale: Scale, tolerance: float) -> Grid:
    quantities = list(dict.fromkeys(cell.quantity for cell in cells))
    headings = ["method"]
    for quantity in quantities:
        name = QUANTITIES[quantity]
        headings += [f"{name} paper", f"{name} ours (n)", f"{name} difference"]
    rows: dict[str, list[str]] = {}
    for cell in cells:
        row = rows.setdefault(
            cell.row.key, [cell.row.label + ("" if cell.row.backbone is None else f" ({cell.row.backbone} in the paper)")]
        )
        row += _texts(cell, scale, tolerance)
    return Grid(headings, list(rows.values()))


def _texts(cell: Cell, scale: Scale, tolerance: float) -> list[str]:
    """Return the paper's number, ours, and the difference. A number missing in the paper is a dash; one of ours is called missing."""
    form = form_of(cell)
    paper = ABSENT if cell.paper is None else form(cell.paper)
    if cell.mean is None:
        return [paper, ABSENT if cell.missing is None else MISSING, ABSENT]
    ours = form(cell.mean) + ("" if cell.sd is None else f" ± {form(cell.sd)}") + f" ({len(cell.values)})"
    if cell.difference is None:
        return [paper, ours, ABSENT]
    verdict = cell.verdict(scale, tolerance)
    return [paper, ours, signed(cell.difference, form) + ("" if verdict is None else f" {verdict}")]


def form_of(cell: Cell) -> Callable[[float], str]:
    """Return the format of a cell's numbers: three digits; four if the paper prints four, and for the (few) hours."""
    printed = 0 if cell.paper is None else len(f"{cell.paper:.4f}".rstrip("0").partition(".")[2])
    digits = 4 if cell.quantity == "t" else max(3, printed)

    def form(value: float) -> str:
        text = f"{value:.{digits}f}"
        return text.removeprefix("-") if float(text) == 0 else text

    return form


def signed(value: float, form: Callable[[float], str]) -> str:
    """Return a difference with its sign."""
    text = form(value)
    return text if text.startswith("-") else f"+{text}"


def notes(cells: Sequence[Cell]) -> list[str]:
    """Return notes on the rows, and the reasons for missing numbers, each once."""
    remarks = [f"{cell.row.label}: {cell.row.note}." for cell in cells if cell.row.note is not None]
    gaps = [f"Missing, {cell.stream.label}: {cell.missing}." for cell in cells if cell.missing is not None]
    return list(dict.fromkeys([*remarks, *gaps]))


def as_csv(table: str, cells: Sequence[Cell], scale: Scale, tolerance: float) -> str:
    """Return one row per cell, with every number at full length."""
    rows = [
        (
            *(table, cell.row.label, cell.row.key, cell.stream.label, cell.stream_run, cell.quantity, cell.paper, cell.mean, cell.sd),
            *(len(cell.values), " ".join(map(str, cell.seeds)), cell.difference, cell.verdict(scale, tolerance)),
            *(scale.name, f"{cell.minutes:.2f}", cell.missing, cell.row.backbone, cell.row.note),
        )
        for cell in cells
    ]
    return comma_separated(COLUMNS, rows)
