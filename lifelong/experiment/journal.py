"""The journal of one of the runs of a sweep: who works on it and how far it has come, for whoever asks meanwhile.

It decides nothing: what is learned stands in the run's own folder, and whether someone works there, the folder's lock says.
"""

import json
import os
import socket
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lifelong.errors import LifelongError, one_line
from lifelong.experiment.observer import Observer
from lifelong.opening import parse_json, read_text, refuse_links
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord


@dataclass(frozen=True)
class Noted:
    """What a journal says of its run.

    Attributes:
        what: the last event: "started", "task" (one more is learned), "finished" or "failed"; "" if there was none.
        starts: how often the run was started or continued.
        tasks: tasks of its stream.
        done: tasks learned.
        host: machine that works on it, or has last.
        process: number of the process there.
        since: when it was last started, as ISO 8601 with the time zone.
        failure: why it failed, in one line; else empty.
    """

    what: str = ""
    starts: int = 0
    tasks: int = 0
    done: int = 0
    host: str = ""
    process: int = 0
    since: str = ""
    failure: str = ""


class Journal(Observer):
    """Notes the events of a run, each as a line of JSON at the end of a file.

    Args:
        file: the journal; it and its folders are made with the first line.
    """

    def __init__(self, file: Path) -> None:
        self.file = Path(file)

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """See `Observer.run_started`."""
        self._note("started", tasks=tasks, done=done, host=socket.gethostname(), process=os.getpid())

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """See `Observer.task_finished`."""
        self._note("task", done=index + 1)

    def run_finished(self, summary: RunRecord) -> None:
        """See `Observer.run_finished`."""
        if self.read().what != "finished":  # a finished run may be opened again
            self._note("finished")

    def failed(self, failure: str) -> None:
        """Note why the run failed."""
        self._note("failed", failure=one_line(failure))

    def read(self) -> Noted:
        """Return what the journal says; lines that cannot be read count as none.

        Raises:
            LifelongError: the file cannot be read.
        """
        try:
            text = read_text(self.file, errors="replace")
        except FileNotFoundError:
            return Noted()
        except OSError as error:
            raise LifelongError(f"cannot read {self.file}: {error.strerror}; delete it") from error
        noted = Noted()
        for line in text.splitlines():
            try:
                noted = _after(noted, parse_json(line))
            except (ValueError, TypeError, AttributeError, KeyError):  # truncated by a kill, or not ours
                continue
        return noted

    def _note(self, what: str, **values: Any) -> None:
        line = json.dumps({"what": what, "time": datetime.now(UTC).isoformat(timespec="seconds"), **values})
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            refuse_links(self.file.parent, (self.file.name,))
            with self.file.open("a", encoding="utf-8") as file:
                # On its own line, even after a line that a kill has truncated.
                file.write(f"\n{line}\n")
        except OSError as error:
            raise LifelongError(f"cannot write {self.file}: {error.strerror}; choose another folder with --out") from error


def _after(noted: Noted, line: dict[str, Any]) -> Noted:
    """Return what is known after one more line."""
    what = str(line["what"])
    if what == "started":
        about = {"tasks": int(line["tasks"]), "host": str(line["host"]), "process": int(line["process"]), "since": str(line["time"])}
        return replace(noted, what=what, starts=noted.starts + 1, done=int(line["done"]), failure="", **about)
    if what == "task":
        return replace(noted, what=what, done=int(line["done"]))
    return replace(noted, what=what, failure=str(line["failure"]) if what == "failed" else "")
