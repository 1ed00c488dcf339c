"""What a person sees while a run goes on: live bars on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from lifelong.errors import LifelongError, one_line
from lifelong.experiment.console import make_console
from lifelong.experiment.counting import LINE_EVERY, rest
from lifelong.experiment.observer import Observer
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.settings.fields import show_default
from lifelong.training.stages import Epoch
from lifelong.words import duration

QUIET = 30.0
"""Seconds between two lines about one of very many runs."""


class ConsoleProgress(Observer):
    """Progress on a console.

    On a terminal: a bar for the tasks and one for the epochs of the phase, with loss, accuracy and the time left. Elsewhere:
    lines without control codes, at the end of every phase and at most every `LINE_EVERY` seconds within one. Names are printed
    as they are, never read as markup.

    The time left in a phase supposes that all its epochs are run; the time left in the run, that the tasks to come take as
    long as those of this start did on average.

    Args:
        console: where to; None: stdout, whatever characters it can take.
        clock: gives seconds; for tests.
    """

    def __init__(self, console: Console | None = None, clock: Any = time.monotonic) -> None:
        self._console = console or make_console()
        self._clock = clock
        self._live: Any = None
        self._bars: dict[str, Any] = {}
        self._started = False
        self._tasks = 0
        self._index = 0
        self._seconds: list[float] = []
        self._task_began = self._phase_began = self._said = clock()
        self._phase = ""
        self._stage = ""
        self._last: Epoch | None = None
        self._unsaid = False

    def close(self) -> None:
        """Take the live bars away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def beside(self, label: str) -> Observer:
        """Lines for one of several runs at once, each with its label in front."""
        return _Lines(self._say, f"{label}: ", LINE_EVERY, self._clock)

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """See `Observer.run_started`."""
        self.close()
        self._tasks, self._seconds = tasks, []
        self._started = True
        again = f", going on after task {done}" if done else ""
        self._say(f"{method} on {stream}: {tasks} tasks{again}")
        if self._console.is_terminal:
            self._open(done)

    def task_started(self, index: int, name: str) -> None:
        """See `Observer.task_started`."""
        self._index, self._task_began = index, self._clock()
        self._phase = ""
        self._last = None
        title = f"task {index + 1} of {self._tasks}: {name}"
        if self._live is None:
            self._say(title)
        else:
            self._update("run", description=title, completed=index, detail=self._time_left())
            self._update("phase", description="", completed=0, total=None, detail="")

    def candidate(self, number: int, count: int, values: dict[str, Any]) -> None:
        """See `Observer.candidate`."""
        self._end_phase()
        self._last, self._unsaid = None, False
        self._say(f"  candidate {number + 1} of {count}: {_words(values)}")

    def phase(self, name: str) -> None:
        """See `Observer.phase`."""
        self._end_phase()
        self._begin(name)

    def epoch(self, event: Epoch) -> None:
        """See `Observer.epoch`."""
        now = self._clock()
        if event.stage != self._stage and self._last is not None:
            # A second stage in the same phase (a search followed by training, say) has a clock and a count of its own.
            self._end_phase()
            self._begin(event.stage)
        self._stage, self._last, self._unsaid = event.stage, event, True
        if self._live is not None:
            self._update("phase", total=event.epochs, completed=event.epoch, detail=self._epoch_text(event))
            self._update("run", detail=self._time_left())
        elif now - self._said >= LINE_EVERY:
            self._say_epoch(event)

    def advance(self, done: int, total: int) -> None:
        """See `Observer.advance`."""
        now = self._clock()
        text = _part_words(done, total, now - self._phase_began)
        if self._live is not None:
            self._update("phase", total=total, completed=done, detail=text)
        elif done < total and now - self._said >= LINE_EVERY:
            self._say(f"  {self._phase}: {text}")
            self._said = now

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """See `Observer.task_finished`."""
        self._end_phase()
        self._phase = ""
        seconds = self._clock() - self._task_began
        self._seconds.append(seconds)
        decision = record.decision
        words = [f"task {index + 1} of {self._tasks} done: {record.name}"]
        if decision:
            words.append(decision if record.expert is None else f"{decision}, expert {record.expert}")
        if record.tuning:
            trials, chosen = record.tuning.candidates, record.tuning.chosen
            words.append(f"chosen {_words(record.tuning.choice.chosen_values)} (candidate {chosen + 1} of {len(trials)})")
        words.append(f"accuracy {accuracy[-1]:.3f}" if accuracy else "not evaluated")
        words.append(duration(seconds))
        left = self._tasks - index - 1
        if left and self._live is None:
            words.append(f"about {duration(self._mean_seconds() * left)} left for {left} more")
        self._say(", ".join(words))
        if record.reason:
            self._say(f"  {record.reason}")
        if self._live is not None:
            self._index = index + 1
            self._task_began = self._clock()
            self._update("run", completed=index + 1, detail=self._time_left())

    def note(self, text: str) -> None:
        """See `Observer.note`."""
        self._say(f"note: {text}")

    def run_failed(self, failure: str) -> None:
        """See `Observer.run_failed`."""
        self.close()
        self._say(f"this run has failed, and the others go on: {failure}")

    def run_finished(self, summary: RunRecord) -> None:
        """See `Observer.run_finished`."""
        self.close()
        if not self._started:
            self._say(f"{summary.method} on {summary.stream}: finished before, nothing to do")
        self._started = False

    def _begin(self, name: str) -> None:
        """Start the clock of a phase."""
        self._phase = self._stage = name
        self._phase_began = self._said = self._clock()
        self._last, self._unsaid = None, False
        if self._live is not None:
            self._update("phase", description=f"  {name}", completed=0, total=None, detail="")

    def _end_phase(self) -> None:
        """Say where a phase ended, unless that has just been said."""
        if self._live is None and self._last is not None and self._unsaid:
            self._say_epoch(self._last)

    def _say_epoch(self, event: Epoch) -> None:
        self._say(f"  {event.stage}: {self._epoch_text(event)}")
        self._said, self._unsaid = self._clock(), False

    def _epoch_text(self, event: Epoch) -> str:
        return _epoch_words(event, self._clock() - self._phase_began)

    def _mean_seconds(self) -> float:
        return sum(self._seconds) / len(self._seconds) if self._seconds else 0.0

    def _time_left(self) -> str:
        """Return an estimate for the run; empty before a task of this start has been learned."""
        if not self._seconds:
            return ""
        spent = self._clock() - self._task_began
        mean = self._mean_seconds()
        return f"about {duration(max(mean - spent, 0.0) + mean * (self._tasks - self._index - 1))} left"

    def _say(self, text: str) -> None:
        """One line, as it is: no markup, no highlighting, no wrapping; names in it come from data."""
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def _open(self, done: int) -> None:
        """Show the live bars."""
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        name = TextColumn("{task.description}", markup=False)
        detail = TextColumn("{task.fields[detail]}", markup=False)
        self._live = Bars(name, BarColumn(bar_width=24), detail, console=self._console, transient=True)
        self._bars = {
            "run": self._live.add_task("tasks", total=self._tasks, completed=done, detail=""),
            "phase": self._live.add_task("", total=None, detail=""),
        }
        self._live.start()

    def _update(self, bar: str, **fields: Any) -> None:
        self._live.update(self._bars[bar], **{key: one_line(value) if isinstance(value, str) else value for key, value in fields.items()})


class Heartbeat(Observer):
    """Says in a line now and then what a run is at, and how long its tasks will take.

    Args:
        say: is given each line.
        label: stands in front of each.
        every: seconds between two lines.
        clock: gives seconds; for tests.
    """

    def __init__(
        self, say: Callable[[str], None], label: str = "", every: float = QUIET, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say_line, self._label, self._every, self._clock = say, label, every, clock
        self._tasks = 0
        self._index = 0
        self._seconds: list[float] = []
        self._phase = ""
        self._said = self._task_began = self._phase_began = clock()

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        """See `Observer.run_started`."""
        self._tasks, self._index = tasks, done
        if done:
            self._say(f"going on after task {done} of {tasks}")

    def task_started(self, index: int, name: str) -> None:
        """See `Observer.task_started`."""
        self._index, self._task_began, self._phase = index, self._clock(), ""

    def phase(self, name: str) -> None:
        """See `Observer.phase`."""
        self._begin(name)
        self._beat()

    def epoch(self, event: Epoch) -> None:
        """See `Observer.epoch`."""
        if event.stage != self._phase:
            self._begin(event.stage)
        self._beat(_epoch_words(event, self._clock() - self._phase_began))

    def advance(self, done: int, total: int) -> None:
        """See `Observer.advance`."""
        self._beat(_part_words(done, total, self._clock() - self._phase_began))

    def run_failed(self, failure: str) -> None:
        """See `Observer.run_failed`."""
        self._say(f"this run has failed, and the others go on: {failure}")

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """See `Observer.task_finished`."""
        now = self._clock()
        self._seconds.append(now - self._task_began)
        self._index, self._task_began, self._phase = index + 1, now, ""

    def time_left(self, spent: float) -> float | None:
        """Seconds for the tasks that remain, as the tasks so far took on average; None: there is none yet.

        Args:
            spent: seconds on the task under way.
        """
        if not self._seconds:
            return None
        mean = sum(self._seconds) / len(self._seconds)
        return max(mean - spent, 0.0) + mean * (self._tasks - self._index - 1)

    def _begin(self, phase: str) -> None:
        self._phase, self._phase_began = phase, self._clock()

    def _beat(self, doing: str = "") -> None:
        """Print a line of what the run is at, unless one has just been printed."""
        now = self._clock()
        if now - self._said < self._every:
            return
        text = f"task {self._index + 1} of {self._tasks}, {self._phase}" if self._index < self._tasks else self._phase
        left = self.time_left(now - self._task_began) if self._index < self._tasks else None
        known = "" if left is None else f"; about {duration(left)} left of this run"
        self._say(f"{text}{': ' if doing else ''}{doing}{known}")

    def _say(self, text: str) -> None:
        self._said = self._clock()
        self._say_line(f"{self._label}{text}")


class _Lines(Heartbeat):
    """Says of one of several runs also when it begins, when a task of it is done, and what should be known."""

    def run_started(self, stream: str, method: str, tasks: int, done: int) -> None:
        self._tasks, self._index = tasks, done
        self._say(f"{tasks} tasks{f', going on after task {done}' if done else ''}")

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        super().task_finished(index, record, accuracy)
        known = f", accuracy {accuracy[-1]:.3f}" if accuracy else ""
        self._say(f"task {index + 1} of {self._tasks} done: {record.name}{known}")

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def run_finished(self, summary: RunRecord) -> None:
        # Told nothing else, it was finished before, or an engine tells only the end.
        self._say("done" if self._tasks else "finished")


def _epoch_words(event: Epoch, seconds: float) -> str:
    """Such as "epoch 3 of 30, loss 0.412, accuracy 0.871, 1 min 20 s left"; where nothing is trained, "3 of 30, 1 min 20 s left".

    Args:
        event: the end of an epoch.
        seconds: that its stage has taken so far.
    """
    text = f"{event.epoch} of {event.epochs}"
    if not math.isnan(event.loss):
        text = f"epoch {text}, loss {event.loss:.3f}"
    if not math.isnan(event.accuracy):
        # What has no accuracy, an auto-encoder say, reports none.
        text += f", accuracy {event.accuracy:.3f}"
    return text + rest(event.epoch, event.epochs, seconds)


def _part_words(done: int, total: int, seconds: float) -> str:
    """Such as "2000 of 10000 images, 40 s left"."""
    return f"{done} of {total} images{rest(done, total, seconds)}"


def _words(values: dict[str, Any]) -> str:
    """Hyper-parameters in words: "lr 0.1, augment true"."""
    return ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {show_default(value)}" for key, value in values.items())


def listening(progress: object) -> Observer:
    """Return what listens to a call: True prints progress, False is silent.

    Raises:
        LifelongError: it is neither, nor an observer.
    """
    if isinstance(progress, Observer):
        return progress
    if not isinstance(progress, bool):
        raise LifelongError(f"progress = {progress!r}: expected true or false, or a lifelong.Observer")
    return ConsoleProgress() if progress else Observer()
