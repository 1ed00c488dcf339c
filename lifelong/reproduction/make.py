"""Make a table or a figure of the paper: plan the runs, run those that are not finished, and write the results."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.data.known_sources import KNOWN_SOURCES
from lifelong.errors import LifelongError, near_miss
from lifelong.experiment.sweep import check_sweep
from lifelong.report.page import Grid
from lifelong.report.wording import clean
from lifelong.reproduction import distances, grids, sweeps
from lifelong.reproduction.ledger import add_rows
from lifelong.reproduction.paper import TABLES, paper_table
from lifelong.reproduction.plan import Choice, check_names, plan
from lifelong.reproduction.runs import Outcome, find_finished, run_all
from lifelong.reproduction.table_values import Cell, cells_of
from lifelong.reproduction.write import Part, claim, write_all
from lifelong.settings.run import Environment

WHAT = (*TABLES, *sweeps.SWEEPS, *distances.MAPS)
"""What can be made."""


@dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
        name: such as "table1".
        said: what its numbers can be used for.
        grids: its tables, each with a title.
        notes: what to know.
        page: the HTML file.
        cells: of a table; none of a figure.
        ledger_rows: number of rows added to the ledger; None: no ledger was given.
    """

    name: str
    said: str
    grids: tuple[tuple[str, Grid], ...]
    notes: tuple[str, ...]
    page: Path
    cells: tuple[Cell, ...] = ()
    ledger_rows: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a program."""
        tables = [{"title": title, "headings": grid.headings, "rows": grid.rows} for title, grid in self.grids]
        cells = [
            {
                "row": cell.row.label,
                "stream": cell.stream_run,
                "quantity": cell.quantity,
                "paper": cell.paper,
                "ours": cell.mean,
                "sd": cell.sd,
                "n": len(cell.values),
                "difference": cell.difference,
                "missing": cell.missing,
            }
            for cell in self.cells
        ]
        return {"name": self.name, "said": self.said, "tables": tables, "cells": cells, "notes": list(self.notes), "page": str(self.page)}


def default_out(choice: Choice) -> Path:
    """Return the default folder. All tables of a scale share it, and thus also their common runs."""
    return Path("runs") / f"reproduction-{choice.scale.name}"


def make(
    what: str,
    choice: Choice,
    out: Path,
    environment: Environment,
    say: Callable[[str], None],
    *,
    tolerance: float,
    ledger: Path | None = None,
    workers: int = 1,
    engine: str = "local",
) -> Made:
    """Make a table or a figure.

    Args:
        what: one of `WHAT`.
        choice: the scale, the seeds, and which rows and streams.
        out: the folder for the runs and the output files.
        environment: where data, weights and the device are.
        say: called with a line of progress.
        tolerance: for AP and AF at the paper's scale; see `Cell.verdict`.
        ledger: to which rows are added; only tables have numbers of the paper.
        workers: how many runs are under way at once.
        engine: name of the engine that carries them out; see `lifelong.experiment.engine`.

    Raises:
        LifelongError: something given cannot be used.
    """
    check_what(what)
    check_sweep(workers, engine)
    check_names("without", choice.without, KNOWN_SOURCES, "the known sources")
    if ledger is not None and what not in TABLES:
        raise LifelongError(f"--ledger {ledger}: it is for the numbers of tables, and {what} has none of the paper's")
    if what in distances.MAPS:
        return _map(distances.MAPS[what], choice, out, environment, say)
    if what in sweeps.SWEEPS:
        return _sweep(sweeps.SWEEPS[what], choice, out, environment, say, workers, engine)
    return _table(what, choice, out, environment, say, tolerance, ledger, workers, engine)


def check_what(what: str) -> None:
    """Check that a table or figure of this name exists.

    Raises:
        LifelongError: it does not.
    """
    if what not in WHAT:
        raise LifelongError(f"cannot reproduce '{clean(what)}'{near_miss(what, WHAT)}")


def _table(
    name: str,
    choice: Choice,
    out: Path,
    environment: Environment,
    say: Callable[[str], None],
    tolerance: float,
    ledger: Path | None,
    workers: int,
    engine: str,
) -> Made:
    table, outcome = paper_table(name), Outcome()
    jobs = plan(table, choice)
    find_finished(jobs, out, outcome)
    try:
        run_all(jobs, out, environment, say, outcome, workers, engine)
    finally:
        # Stopped runs leave their finished numbers, too.
        cells = cells_of(table, choice, jobs, outcome)
        shown, notes = grids.by_stream(cells, choice.scale, tolerance), grids.notes(cells)
        said = claim(choice.scale, tolerance)
        parts = [Part(label, grid) for label, grid in shown]
        write_all(out, name, table.title, choice.scale, said, parts, notes, grids.as_csv(name, cells, choice.scale, tolerance))
    added = None if ledger is None else add_rows(ledger, name, cells, choice.scale, command(name, choice), out, tolerance)
    return Made(name, said, tuple(shown), tuple(notes), out / f"{name}.html", tuple(cells), added)


def _sweep(
    sweep: sweeps.Sweep, choice: Choice, out: Path, environment: Environment, say: Callable[[str], None], workers: int, engine: str
) -> Made:
    outcome = Outcome()
    jobs = sweeps.plan_sweep(sweep, choice)
    find_finished(jobs, out, outcome)
    try:
        run_all(jobs, out, environment, say, outcome, workers, engine)
    finally:
        part = sweeps.shown(sweep, jobs, outcome, out / "figures")
        said = f"Scale {choice.scale.name}, {choice.scale.about}. The paper's figure shows a trend, not numbers to compare with."
        notes = [f"Missing: {reason}" for reason in outcome.missing.values()]
        csv = sweeps.as_csv(jobs, outcome, choice.scale.name)
        write_all(out, sweep.name, sweep.title, choice.scale, said, [part], notes, csv)
    assert part.grid is not None
    return Made(sweep.name, said, ((part.title, part.grid),), tuple(notes), out / f"{sweep.name}.html")


def _map(map_: distances.Map, choice: Choice, out: Path, environment: Environment, say: Callable[[str], None]) -> Made:
    measured = distances.measure_all(map_, choice, out, environment, say)
    parts = distances.shown(map_, measured, out / "figures")
    notes = list(dict.fromkeys(f"Missing, {one.stream.label}: {one.missing}" for one in measured if one.missing is not None))
    said = f"Scale {choice.scale.name}: distances of frozen features, nothing is trained."
    csv = distances.as_csv(measured, choice.scale.name)
    write_all(out, map_.name, map_.title, choice.scale, said, parts, notes, csv)
    shown = tuple((part.title, part.grid) for part in parts if part.grid is not None)
    told = [f"{part.title}: {part.text}" for part in parts if part.grid is not None]
    return Made(map_.name, said, shown, (*told, *notes), out / f"{map_.name}.html")


def command(what: str, choice: Choice) -> str:
    """Return the command that makes it, without paths of this machine."""
    words = ["lifelong", "reproduce", what, "--scale", choice.scale.name, "--seeds", ",".join(map(str, choice.seeds))]
    for flag, names in (("--methods", choice.methods), ("--streams", choice.streams), ("--without", choice.without)):
        words += [flag, ",".join(names)] if names else []
    return " ".join(words)
