"""The end of a method's page: all its settings, from the code, and what was measured with it, from `results/*.csv`.

Both are made when the site is built, so that they are never older than the code and the results.
"""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lifelong.methods.registry import METHODS
from lifelong.report.wording import accuracy, parameters, size, spread
from lifelong.settings.fields import expected, settings_of, show_default

COLUMNS = {"stream", "method", "seed", "ap", "af", "parameters", "minutes", "command", "complete"}
"""Of a table of runs; other tables are passed over."""

Row = dict[str, str]


def settings_table(name: str) -> str:
    """Return the hyper-parameters of a method as a Markdown table."""
    rows = [
        [f"`{item.flag}`", expected(item.hint), f"`{show_default(item.default)}`", item.help]
        for item in settings_of(METHODS[name].settings).values()
    ]
    return _table(["flag", "accepts", "default", "what it does"], rows)


def measured(name: str, tables: Iterable[Path]) -> str:
    """Return what finished runs of a method came to, with mean and standard deviation over seeds, as a Markdown table and its commands.

    Args:
        name: of the method.
        tables: CSV files; rows with the same stream and settings make one line.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for table in tables:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not set(reader.fieldnames or ()) >= COLUMNS:
                continue
            for row in reader:
                if row["method"] == name and row["complete"] == "True":
                    groups.setdefault((table.name, row["stream"], _settings_of_run(row["command"])), []).append(row)
    if not groups:
        return "Nothing has been measured with this method yet."
    rows = [[str(number), *_line(runs)] for number, runs in enumerate(groups.values(), 1)]
    headings = ["", "seeds", "AP", "AF", "parameters", "kept besides", "minutes"]
    origins = [f"{number}. `{place[1]}`: `{runs[0]['command']}` ({place[0]})" for number, (place, runs) in enumerate(groups.items(), 1)]
    return _table(headings, rows) + "\n\nStream, and command of the first seed:\n\n" + "\n".join(origins)


def _line(runs: list[Row]) -> list[str]:
    def over(column: str, form: Any) -> str:
        values = [float(run[column]) for run in runs if run.get(column)]
        return spread(values[:1] if len(set(values)) == 1 else values, form)

    kept = over("memory_bytes", size)
    return [
        ", ".join(run["seed"] for run in runs),
        over("ap", accuracy),
        over("af", accuracy),
        over("parameters", parameters),
        "" if kept == size(0) else kept,
        over("minutes", lambda value: f"{value:.1f}"),
    ]


def _settings_of_run(command: str) -> str:
    """Return a command without what differs between the seeds of one measurement."""
    return re.sub(r" --(seed|out) \S+", "", command)


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Add both to the page of a registered method."""
    folder, _, file = page.file.src_uri.rpartition("/")
    name = file.removesuffix(".md")
    if folder != "methods" or name not in METHODS:
        return markdown
    tables = sorted((Path(config.config_file_path).parent / "results").glob("*.csv"))
    about = f"`lifelong methods {name}` prints them too, with those of training, which all methods share."
    return f"{markdown}\n\n## Settings\n\n{about}\n\n{settings_table(name)}\n\n## Measured here\n\n{measured(name, tables)}\n"
