"""Learn one more task in a process of its own: `python -m lifelong.serving.worker`, which the server starts.

What is to be learned comes as a line of JSON on stdin; what happens goes out as lines of JSON on stdout: ["phase", "train"],
["epoch", ...], and at the end ["learned"], ["failed", line] or ["crashed", line, traceback]. The process ends when its stdin does, because
the server is gone then; what has been computed is on disk, and the next start goes on from there.
"""

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from lifelong.errors import OUT_OF_MEMORY, LifelongError, of_system
from lifelong.experiment.observer import Observer
from lifelong.records.task import TaskRecord
from lifelong.settings.run import environment_of
from lifelong.starting import start_learning
from lifelong.training.malloc import keep_freed_memory
from lifelong.training.stages import Epoch

PULSE = 0.2
"""Seconds between two epochs that are told."""


class Teller(Observer):
    """Tells the server how far learning has come.

    Args:
        out: where lines go.
    """

    def __init__(self, out: TextIO) -> None:
        self._out, self._told = out, -math.inf

    def tell(self, *words: Any) -> None:
        """Write a line."""
        self._out.write(json.dumps(words) + "\n")
        self._out.flush()

    def task_started(self, index: int, name: str) -> None:
        """See `Observer.task_started`."""
        self.tell("task", index)

    def phase(self, name: str) -> None:
        """See `Observer.phase`."""
        self.tell("phase", name)

    def epoch(self, event: Epoch) -> None:
        """See `Observer.epoch`."""
        numbers = [value if math.isfinite(value) else None for value in (event.loss, event.accuracy)]
        self._now_and_then("epoch", event.stage, event.epoch, event.epochs, *numbers)

    def advance(self, done: int, total: int) -> None:
        """See `Observer.advance`."""
        self._now_and_then("advance", done, total)

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """See `Observer.task_finished`."""
        self.tell("phase", "report")

    def note(self, text: str) -> None:
        """See `Observer.note`."""
        self.tell("note", text)

    def _now_and_then(self, *words: Any) -> None:
        now = time.monotonic()
        if now - self._told >= PULSE:
            self._told = now
            self.tell(*words)


def main() -> int:
    """Do what stdin says, and return the exit code."""
    told = json.loads(sys.stdin.readline())
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # Whatever the library prints is for the server's log.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; only the server ends this one
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)  # predictions go first
    keep_freed_memory()
    teller = Teller(out)
    try:
        options = dict(told["environment"])
        options.pop("at_once")
        place = environment_of("learn", None, options)
        start_learning(Path(told["run"]), told["address"], told["name"], place, teller)
        teller.tell("learned")
    except LifelongError as error:
        teller.tell("failed", str(error))
    except OSError as error:
        teller.tell("failed", str(of_system(error)))
    except MemoryError:
        teller.tell("failed", OUT_OF_MEMORY)
    except KeyboardInterrupt:
        return 143
    except Exception as error:
        teller.tell("crashed", f"{type(error).__name__}: {' '.join(str(error).split())}", traceback.format_exc())
    return 0


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _end_with_the_server() -> None:
    """End this process when its stdin ends."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
