"""The ledger: a CSV file with one row per number, with its command, commit, machine and minutes.

Rows are only added. A number that it already contains (the same table, row, stream, quantity, scale, seeds and commit) is not added again.
"""

import csv
import datetime
import io
from collections.abc import Sequence
from pathlib import Path

from lifelong.errors import LifelongError
from lifelong.opening import read_text
from lifelong.report.exports import no_formula
from lifelong.reproduction.runs import commits_of
from lifelong.reproduction.scales import Scale
from lifelong.reproduction.table_values import Cell
from lifelong.storage import write_text

COLUMNS = (
    *("table", "row", "stream", "quantity", "paper", "ours", "sd", "n", "difference", "verdict", "scale", "seeds"),
    *("command", "commit", "machine", "minutes", "date"),
)
KEY = ("table", "row", "stream", "quantity", "scale", "seeds", "commit")
"""Equal in these, two rows are the same number."""


def add_rows(path: Path, table: str, cells: Sequence[Cell], scale: Scale, command: str, out: Path, tolerance: float) -> int:
    """Add the rows that it does not have yet; the file is replaced in one step.

    Args:
        path: of the ledger; created if it does not exist.
        table: such as "table1".
        cells: those without a number of ours are skipped.
        scale: at which they were made.
        command: by which.
        out: the folder of the runs, which knows their commits.
        tolerance: see `Cell.verdict`.

    Returns:
        How many rows were added.

    Raises:
        LifelongError: the file cannot be read or written, or is not a ledger.
    """
    old = read(path)
    known = {tuple(row[key] for key in KEY) for row in old}
    made = [_row(table, cell, scale, command, out, tolerance) for cell in cells if cell.values]
    new = [row for row in made if tuple(row[key] for key in KEY) not in known]
    if new:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*old, *new])
        write_text(path, text.getvalue())
    return len(new)


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a ledger; none if there is no such file.

    Raises:
        LifelongError: it cannot be read, or is not a ledger.
    """
    if not path.exists():
        return []
    try:
        with io.StringIO(read_text(path), newline="") as file:
            table = csv.DictReader(file)
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LifelongError(f"cannot read the ledger {path}: {getattr(error, 'strerror', None) or error}") from error
    if tuple(table.fieldnames or ()) != COLUMNS or any(None in row or None in row.values() for row in rows):
        raise LifelongError(f"{path} is not a ledger: expected the columns {', '.join(COLUMNS)}; name another file with --ledger")
    return rows


def _row(table: str, cell: Cell, scale: Scale, command: str, out: Path, tolerance: float) -> dict[str, str]:
    verdict = cell.verdict(scale, tolerance)
    row = {
        "table": table,
        "row": cell.row.label,
        "stream": cell.stream_run,
        "quantity": cell.quantity,
        "paper": _number(cell.paper),
        "ours": _number(cell.mean),
        "sd": _number(cell.sd),
        "n": str(len(cell.values)),
        "difference": _number(cell.difference),
        "verdict": verdict or "",
        "scale": scale.name,
        "seeds": " ".join(map(str, cell.seeds)),
        "command": command,
        "commit": " ".join(commits_of(out, cell.runs)) or "unknown",
        "machine": "; ".join(cell.machines),
        "minutes": f"{cell.minutes:.2f}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return {key: str(no_formula(value)) for key, value in row.items()}


def _number(value: float | None) -> str:
    """Six digits: hours at a small scale are thousandths."""
    return "" if value is None else f"{value + 0.0:.6f}".replace("-0.000000", "0.000000")
