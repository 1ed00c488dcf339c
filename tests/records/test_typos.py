"""A misspelled key of a record is found by the type checker: wherever the library reads one, and in a program of one's own."""

import ast
from pathlib import Path

from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from tests.typos import check_typos

READERS = {"summary": RunRecord, "entry": TaskRecord}
"""What records are called where they are read."""

PLACES = ("report", "reproduction", "experiment", "cli")

OWN = """
import lifelong

summary = lifelong.run("digits")
print(summary.parameters, summary["parameters"])
print(summary.paramters)
for task in summary.tasks:
    print(task.divergences, task.distances)
for one in lifelong.compare("digits"):
    print(one.aps)
print(lifelong.distances("digits").raw)
"""
"""A program of a user: four typos, on four lines."""

WRONG_IN_OWN = ("summary.paramters", "task.distances", "one.aps", ".raw")


def records_read(source: str) -> list[ast.Attribute]:
    """Find every attribute of a record that a module reads, except in lambdas, whose parameters have no type."""
    tree = ast.parse(source)
    in_lambdas = {node for outer in ast.walk(tree) if isinstance(outer, ast.Lambda) for node in ast.walk(outer)}
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.value, ast.Name)
        and node.value.id in READERS
        and node.attr in READERS[node.value.id].model_fields
        and node not in in_lambdas
    ]


def test_a_misspelled_key_of_a_record_is_found(tmp_path: Path) -> None:
    check_typos(tmp_path, PLACES, records_read, OWN, WRONG_IN_OWN, at_least=80)
