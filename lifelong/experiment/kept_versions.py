"""checkpoint/versions.jsonl: a line for each state that the run has had, by which it can be put back.

A line names the parts of its state. It is added before `run.safetensors`, which has the number of its own version: lines with a higher
number are of a save that was interrupted, or of states that were rolled back, and the next save replaces them.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.errors import DamagedError
from lifelong.experiment.lines import append_line
from lifelong.headers import Part, Tree
from lifelong.json_files import Lines, as_lines, read_lines
from lifelong.storage import Seal
from lifelong.words import counted
from lifelong.writing import write_text

FILE = "versions.jsonl"

VERSION = "version"
"""The key of a root that says which version it is."""


@dataclass(frozen=True)
class Kept:
    """A state that can be put back.

    Attributes:
        version: its number, from 1.
        tasks: how many tasks it has learned.
        task: the name of the newest.
        when: it was saved, in seconds since 1970.
        state: a `Part` for each of its large values, and the others.
    """

    version: int
    tasks: int
    task: str
    when: float
    state: dict[str, Tree]


class Journal:
    """The versions of a run.

    Args:
        folder: the folder of its states.
        seal: of the run.

    Attributes:
        count: how many there are, once one was added.
    """

    def __init__(self, folder: Path, seal: Seal) -> None:
        self.file, self.seal = Path(folder) / FILE, seal
        self._last: int | None = None
        self.count = 0

    def lines(self) -> Lines:
        """Read the lines, without those that are damaged or another run's."""
        return read_lines(self.file, self.seal)

    def kept(self, current: int | None = None) -> list[Kept]:
        """Return the versions that can be put back, oldest first.

        Args:
            current: the number of the last one to return; None: all.
        """
        found = [_parsed(self.file, line) for line in self.lines().found]
        return [each for each in found if current is None or each.version <= current]

    def add(self, state: Mapping[str, Tree], tasks: int, task: str, before: int) -> int:
        """Note a new version, which follows the current one; returns its number.

        Args:
            state: of which it consists.
            tasks, task: see `Kept`.
            before: the number of the current version; 0: none.
        """
        version = before + 1
        if self._last != before:
            lines = self.lines()
            self.count = len(lines.found)
            if not lines.whole or any(line.get(VERSION, 0) > before for line in lines.found):
                self.write(self.kept(before))
        append_line(self.file, _line(Kept(version, tasks, task, time.time(), dict(state))), self.seal.run)
        self._last = version
        self.count += 1
        return version

    def mend(self) -> list[str]:
        """Drop lines that are damaged or another run's; return what was done."""
        lines = self.lines()
        if lines.whole:
            return []
        self.write([_parsed(self.file, line) for line in lines.found])
        return [f"{FILE}: {counted(lines.lost + lines.torn, 'line')} damaged or another run's, dropped: these versions cannot be put back"]

    def write(self, kept: Sequence[Kept]) -> None:
        """Write all lines anew."""
        write_text(self.file, as_lines([_line(each) for each in kept], self.seal.run))
        self._last, self.count = None, len(kept)


def _line(kept: Kept) -> dict[str, Any]:
    state = {key: {"part": value.name} if isinstance(value, Part) else {"value": value} for key, value in kept.state.items()}
    return {VERSION: kept.version, "tasks": kept.tasks, "task": kept.task, "when": kept.when, "state": state}


def _parsed(file: Path, line: Mapping[str, Any]) -> Kept:
    try:
        state = {key: Part(value["part"]) if "part" in value else value["value"] for key, value in line["state"].items()}
        return Kept(int(line[VERSION]), int(line["tasks"]), str(line["task"]), float(line["when"]), state)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"cannot read {file}: a line is not of its form; delete it, and earlier versions are lost") from error
