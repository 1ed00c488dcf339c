"""Learns one more task at a time, in a process of its own, and shows how far it is; predictions go on meanwhile."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lifelong.errors import LifelongError, one_line
from lifelong.experiment.continuing import drop_begun_task
from lifelong.experiment.saved import open_run
from lifelong.records.run import RunRecord
from lifelong.serving.drafts import LIST, Draft, Drafts
from lifelong.serving.model import ServedModel
from lifelong.settings.fields import as_lists
from lifelong.settings.run import Environment

PATIENCE = 10.0
"""Seconds that the learning process gets to end before it is killed."""

MOST_NOTES = 20

Outcome = Literal["learned", "failed", "cancelled"]

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far the task under way is.

    Attributes:
        task: its name.
        draft: the draft that it is learned from.
        phase: what is being done, such as "distances", "search", "train" or "evaluate".
        done, total: epochs, or images, of this phase.
        loss, accuracy: of the last epoch; None where there is none.
        notes: remarks of the library.
        continued: whether an earlier start of the server began it.
        cancelling: whether it is being stopped.
    """

    task: str
    draft: str
    phase: str = "start"
    done: int = 0
    total: int = 0
    loss: float | None = None
    accuracy: float | None = None
    notes: list[str] = field(default_factory=list)
    continued: bool = False
    cancelling: bool = False
    began: float = field(default_factory=time.monotonic)
    started: float | None = None
    phase_began: float = field(default_factory=time.monotonic)
    expected: float | None = None

    def hear(self, words: list[Any]) -> None:
        """Take in a line of the learning process."""
        match words:
            case ["phase", str(name)]:
                self._begin(name)
            case ["epoch", str(stage), int(done), int(total), loss, accuracy]:
                if stage != self.phase:
                    self._begin(stage)
                self.done, self.total, self.loss, self.accuracy = done, total, loss, accuracy
            case ["advance", int(done), int(total)]:
                self.done, self.total = done, total
            case ["note", str(text)] if len(self.notes) < MOST_NOTES:
                self.notes.append(one_line(text))

    def seconds_left(self) -> float | None:
        """Estimate the time left: what this phase needs at its pace, but not less than tasks of so many images took before; None: unknown.

        An early end of training can only make it shorter.
        """
        now = time.monotonic()
        known = [] if self.expected is None or self.started is None else [self.expected - (now - self.started)]
        if self.done and self.total:
            known.append((now - self.phase_began) / self.done * (self.total - self.done))
        # Once it has taken longer than expected, nothing is known.
        return max((seconds for seconds in known if seconds >= 0), default=None)

    def plain(self) -> dict[str, Any]:
        """Return it as plain data for a client."""
        shown = {key: value for key, value in asdict(self).items() if key not in ("began", "started", "phase_began", "expected")}
        return shown | {"seconds": time.monotonic() - self.began, "seconds_left": self.seconds_left()}

    def _begin(self, phase: str) -> None:
        self.phase, self.phase_began, self.done, self.total = phase, time.monotonic(), 0, 0
        self.started = self.started or self.phase_began  # the process has started, which takes seconds
        self.loss = self.accuracy = None


class Workshop:
    """Learns drafts.

    Args:
        model: is opened again when a task has been learned.
        drafts: of the run.
        place: where data, weights and the device are.
        command: starts the learning process; for tests.
    """

    def __init__(self, model: ServedModel, drafts: Drafts, place: Environment, command: tuple[str, ...] = ()) -> None:
        self._model, self._drafts, self._place = model, drafts, place
        self._command = command or (sys.executable, "-m", "lifelong.serving.worker")
        self._taken = threading.Lock()  # to begin something, which may take seconds
        self._lock = threading.Lock()  # of what `status` says, which never waits
        self._progress: Progress | None = None
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._last: dict[str, Any] | None = None
        self._closing = False

    def begin(self, draft: Draft) -> None:
        """Begin to learn a draft.

        Raises:
            LifelongError: another one is being learned, a task has this name, or the draft cannot be learned.
        """
        with self._turn():
            self.check_free(draft.kept.name)
            self._drafts.write_list(draft)
            self._start(draft, continued=False)

    def check_free(self, name: str) -> None:
        """Check that no task of this name has been learned.

        Raises:
            LifelongError: one has.
        """
        if name in self._model.current.predictor.tasks:
            raise LifelongError(f"a task '{name}' has been learned; give this one another name")

    def resume(self) -> list[str]:
        """Go on with what an earlier start of the server was learning; returns what to tell about it."""
        begun = next((draft for draft in self._drafts if draft.kept.state == "learning"), None)
        if begun is None:
            return []
        with self._turn():
            self._start(begun, continued=True)
        return [f"'{begun.kept.name}' was being learned when the server ended; going on with it"]

    def cancel(self) -> bool:
        """Stop learning and leave the run as it was before; returns whether anything was being learned.

        It may be too late: then the task is learned, as `status` says afterwards.
        """
        with self._lock:
            if self._progress is None:
                return False
            self._progress.cancelling = True
            process = self._process
        if process is not None:
            threading.Thread(target=_end, args=(process,), daemon=True).start()
        return True

    def status(self) -> dict[str, Any]:
        """Return what is being learned, and what became of the task before, as plain data."""
        with self._lock:
            now = None if self._progress is None else self._progress.plain()
            return {"learning": now, "last": self._last}

    def quiet(self, work: Callable[[], None]) -> None:
        """Do something to the run while nothing is being learned.

        Raises:
            LifelongError: a task is being learned.
        """
        with self._turn():
            with self._drafts.held():
                work()
            with self._lock:
                last = self._last
                if last is not None and last["outcome"] == "learned" and last["task"] not in self._model.current.predictor.tasks:
                    self._last = None

    def close(self) -> None:
        """Stop learning; what has been computed is kept, and the next start goes on."""
        with self._lock:
            self._closing = True
            process, thread = self._process, self._thread
        if process is not None:
            _end(process)
        if thread is not None:
            thread.join()

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is being learned; returns whether that is so."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    @contextmanager
    def _turn(self) -> Generator[None]:
        """Be the only one that does something with the run; nobody waits for that, or many requests could keep all others waiting."""
        if not self._taken.acquire(blocking=False):
            raise LifelongError("another request is at work on the run; try again in a moment")
        try:
            with self._lock:
                if self._progress is not None:
                    raise LifelongError(f"'{self._progress.task}' is being learned; wait for it, or cancel it")
            yield
        finally:
            self._taken.release()

    def _start(self, draft: Draft, continued: bool) -> None:
        expected = _expected(self._model.current.summary, len(draft.kept.images))
        with self._lock:
            self._progress = Progress(draft.kept.name, draft.id, continued=continued, expected=expected)
            self._thread = threading.Thread(target=self._learn, args=(draft,), name="learn", daemon=True)
        self._thread.start()

    def _learn(self, draft: Draft) -> None:
        """Learn a draft, and put down what became of it; in a thread of its own."""
        try:
            outcome, line = self._carried_out(draft)
        except Exception as error:  # whatever happens, the next task can be learned
            log.exception("learning '%s' failed", draft.kept.name)
            outcome, line = "failed", str(error) if isinstance(error, LifelongError) else one_line(f"{type(error).__name__}: {error}")
            with suppress(LifelongError):
                draft.save("collecting", line)
        with self._lock:
            self._progress = self._process = None
            if outcome is not None:
                self._last = {"task": draft.kept.name, "draft": draft.id, "outcome": outcome, "line": line}
        if outcome is not None:
            log.info("'%s' %s%s", draft.kept.name, outcome, f": {line}" if line else "")

    def _carried_out(self, draft: Draft) -> tuple[Outcome | None, str]:
        """Learn a draft; returns what became of it, None if the server ends, and why it failed."""
        words = self._run(draft)
        if self._closing:
            return None, ""
        # The run itself says what it has learned, whatever the process said last.
        learned = draft.kept.name in open_run(self._model.run).names
        if learned and words[0] != "learned":
            with self._lock:
                assert self._progress is not None
                self._progress.cancelling = False
            # Stopped between the state and the files that follow from it: learning it again only writes those.
            self._run(draft)
        if learned:
            self._model.reopen()
            draft.save("learned")
            return "learned", ""
        cancelled = self._progress is not None and self._progress.cancelling
        drop_begun_task(self._model.run)
        line = "" if cancelled else " ".join(words[1:2])
        draft.save("collecting", line)
        return ("cancelled" if cancelled else "failed"), line

    def _run(self, draft: Draft) -> list[Any]:
        """Run the learning process; returns its last words."""
        # An option ends the path, which may hold question marks; images are not mirrored by default either.
        what = {"run": str(self._model.run.absolute()), "name": draft.kept.name}
        what["address"] = f"csv:{draft.folder.absolute() / LIST}?flip=false"
        environment = {key: str(value) if isinstance(value, Path) else as_lists(value) for key, value in asdict(self._place).items()}
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        )
        with self._lock:
            self._process = process
            stopped = self._closing or (self._progress is not None and self._progress.cancelling)
        assert process.stdin is not None
        assert process.stdout is not None
        last: list[Any] = []
        with process.stdin, process.stdout:
            try:
                process.stdin.write(json.dumps(what | {"environment": environment}) + "\n")
                process.stdin.flush()
            except OSError:
                pass  # it has ended; its exit code says how
            if stopped:
                process.terminate()
            for line in process.stdout:
                last = self._heard(line) or last
        code = process.wait()
        if not last:
            last = ["failed", f"the process that learned has ended with code {code} (killed, or out of memory?); learn it again"]
        return last

    def _heard(self, line: str) -> list[Any] | None:
        """Take in a line; returns it if it is the last."""
        try:
            words = json.loads(line)
        except ValueError:
            return None
        if not isinstance(words, list) or not words:
            return None
        if words[0] in ("learned", "failed", "crashed"):
            if words[0] == "crashed":
                log.error("%s", words[2])
            return words
        with self._lock:
            if self._progress is not None:
                self._progress.hear(words)
        return None


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process, by force if it takes long."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def _expected(summary: RunRecord, images: int) -> float | None:
    """Return the seconds that so many images would take if learned like earlier ones; None where that is not recorded."""
    known = [(task.seconds, task.train + task.valid + task.test) for task in summary.tasks if task.seconds]
    total = sum(count for _, count in known)
    return sum(seconds for seconds, _ in known) / total * images if total else None
