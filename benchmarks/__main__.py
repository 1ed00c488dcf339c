"""Run every benchmark, show what came out, and add it to results/speed.csv.

    python -m benchmarks [--quick] [NAME ...]
    python -m benchmarks gpu [...]          what a GPU is worth: a command of its own (`benchmarks/gpu`)
    python -m benchmarks growth [...]       what one more task costs after many: a command of its own (`benchmarks/growth.py`)

A benchmark is a module of this folder with `main(quick: bool = False)`. It times our way and a plain way in one run, turn by
turn, and returns `name`, `ratio` (plain / ours, of medians), `ours_s`, `plain_s`, `parity` (how far the two results differ) and
`detail` (one line: sizes, settings), or a list of such rows. One that bounds something other than a time says so in `detail`.
"""

import argparse
import csv
import datetime
import importlib
import io
import pkgutil
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks import gpu, growth
from benchmarks.rows import ROOT, commit
from lifelong.experiment.machine import machine_name
from lifelong.storage import write_text

RESULTS = ROOT / "results" / "speed.csv"
COLUMNS = ("name", "ratio", "ours", "plain", "parity", "detail", "machine", "torch", "threads", "commit", "date")


def main(arguments: list[str] | None = None) -> int:
    """Run benchmarks by name, or all.

    Args:
        arguments: of the command line; None: those of this process.

    Returns:
        The exit code: 1 if a benchmark failed, 2 if there is no benchmark of that name.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["gpu"]:
        return gpu.main(given[1:])
    if given[:1] == ["growth"]:
        return growth.start(given[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time the fast paths against plain ones.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repeats; nothing is added to results/speed.csv")
    options = parser.parse_args(given)
    known = available()
    if strangers := [name for name in options.names if name not in known]:
        print(f"no benchmark named {', '.join(strangers)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    console, rows, failed = Console(), [], []
    for name in options.names or known:
        console.print(f"{name} ...", highlight=False)
        try:
            found = importlib.import_module(f"benchmarks.{name}").main(quick=options.quick)
            rows += [row(one) for one in (found if isinstance(found, list) else [found])]
        except Exception as error:  # The other benchmarks are still worth their time.
            failed.append(name)
            console.print(Text(f"{name} failed: {type(error).__name__}: {error}"))
    console.print(table(rows))
    if rows and not options.quick:
        append(RESULTS, rows)
        console.print(Text(f"added to {RESULTS.relative_to(ROOT)}"))
    return 1 if failed else 0


def available() -> list[str]:
    """List the modules of this folder that have a `main`."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    names = sorted(module.name for module in found if module.name != "__main__" and not module.ispkg)
    return [name for name in names if "\ndef main(" in (Path(__file__).parent / f"{name}.py").read_text()]


def row(found: dict[str, Any]) -> dict[str, str]:
    """Make a row of the results: what a benchmark returned, and where it ran."""
    return {
        "name": str(found["name"]),
        "ratio": _number(found.get("ratio")),
        "ours": _number(found.get("ours_s")),
        "plain": _number(found.get("plain_s")),
        "parity": _number(found.get("parity")),
        "detail": str(found.get("detail", "")),
        "machine": machine_name(torch.device("cpu")),
        "torch": torch.__version__,
        "threads": str(found.get("threads", torch.get_num_threads())),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def table(rows: list[dict[str, str]]) -> Table:
    """Format the rows as a table."""
    shown = Table(title="plain / ours")
    shown.add_column("benchmark")
    for heading in ("ratio", "ours, s", "plain, s", "parity"):
        shown.add_column(heading, justify="right")
    shown.add_column("detail", overflow="fold")
    for one in rows:
        shown.add_row(*(Text(one[column]) for column in COLUMNS[:6]))
    return shown


def append(path: Path, rows: list[dict[str, str]]) -> None:
    """Add rows to a CSV file, with its headings if it is new."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    before = path.read_text() if path.exists() else ""
    if not before:
        writer.writeheader()
    writer.writerows(rows)
    write_text(path, before + text.getvalue())


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
