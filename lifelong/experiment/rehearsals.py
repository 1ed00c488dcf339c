"""Rehearse the tasks of a stream, and work out from that how long each would take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from lifelong.data.feature_cache import Keeping, keeping
from lifelong.data.task import AbsentTaskError, Stream, Task, TaskDescription
from lifelong.errors import LifelongError
from lifelong.experiment.learning import digest_modules
from lifelong.experiment.machine import watch_device_memory
from lifelong.experiment.observer import Observer
from lifelong.experiment.task_agnostic import Shown, answer, recognize
from lifelong.methods.frozen_network import OnFrozenNetwork
from lifelong.methods.method import Context, Method
from lifelong.records.estimate import PhaseEstimate, TaskEstimate
from lifelong.records.task import TaskRecord
from lifelong.relatedness.extractor import Extractor
from lifelong.settings.run import RunConfig
from lifelong.training.examples import batched
from lifelong.training.rehearsal import Rehearsal, Rehearsed

SAMPLE = 256
"""Test images that are judged to see how long one takes."""

NAMELESS = (8, 32, 128)
"""Test images that are judged without the names of their tasks: each is looked at by all tasks, so few, unless that takes no time."""

SHORT = 0.3
"""Seconds that say enough of how long an image takes."""

STORED = 0.03
"""Seconds in which a task is stored (results/growth.csv, column `outside_s`)."""

REPORT = 1.1
"""Seconds in which a report is drawn and written, whatever the run."""

LATE = 0.75
"""Where a training is expected to stop, from the earliest possible epoch (0) to the last (1)."""

FAR = 4.0
"""Ratio within which the time of a task that was not rehearsed is expected, if only one was."""


@dataclass
class _Measured:
    """What was measured of a task.

    Attributes:
        decision: of the method.
        loops: its searches, trainings and sums.
        other: seconds of learning outside of them.
        judging: seconds of judging the tasks that have changed, itself among them.
        kept: seconds that features took which are kept: the run finds them ready.
        parameters, bytes: of the model after it.
    """

    decision: str | None
    loops: list[Rehearsed]
    other: float
    judging: float
    kept: float
    parameters: int
    bytes: int


class Rehearsals:
    """Rehearses the tasks of a stream one after another.

    Args:
        method: learns them; it may have learned others before.
        config: of the run.
        device: where to compute.
        extractors: opens a feature extractor by its name and input policy.
        progress: is told which task is rehearsed.
        earlier: what the method has learned before.

    Attributes:
        reading: seconds spent on reading images.
    """

    def __init__(
        self,
        method: Method,
        config: RunConfig,
        device: torch.device,
        extractors: Callable[[str, str], Extractor],
        progress: Observer,
        earlier: Sequence[TaskRecord] = (),
    ) -> None:
        self.method, self.config, self.device, self.extractors, self.progress = method, config, device, extractors, progress
        self.measured: list[_Measured] = []
        self.reading = 0.0
        self._learned = len(method.tasks)
        self._digests = [digest_modules(method, index) for index in range(self._learned)]
        self._to_judge = [0.0] * self._learned
        self._earlier, self._sizes = earlier, [entry.side for entry in earlier]
        self._samples: dict[int, UInt8[Tensor, "n 3 h w"]] = {}
        self._nameless = 0.0

    def all_of(self, stream: Stream, descriptions: list[TaskDescription], until: float) -> None:
        """Rehearse tasks until the end of the stream, or a time by `time.perf_counter`; the first always is."""
        watch_device_memory(self.device)
        self.progress.run_started(stream.name, f"{self.config.method} (first steps)", len(stream), 0)
        for index, description in enumerate(descriptions):
            if index and time.perf_counter() >= until:
                break
            self.progress.task_started(index, description.name)
            self.progress.phase("read images")
            started = time.perf_counter()
            task = stream[index].to(self.device)
            for split in (task.train, task.valid):
                len(split)
            self.reading += time.perf_counter() - started
            with keeping() as features:
                self._rehearse(task, description, features)
            self._sizes.append(description.image_size)
            task.retire()
        with keeping():
            self._judge_nameless()

    def _judge_nameless(self) -> None:
        """See how long an image takes whose task is not named."""
        views = {
            size: self._samples[size]
            if size in self._samples
            else torch.zeros(SAMPLE, 3, size, size, dtype=torch.uint8, device=self.device)
            for size in set(self._sizes)
        }
        # Of those on a frozen network: the very images whose features have been kept, as a run finds them.
        for count in [SAMPLE] if isinstance(self.method, OnFrozenNetwork) else NAMELESS:
            shown = Shown({size: view[:count] for size, view in views.items()}, tuple(self._sizes))
            started = time.perf_counter()
            with torch.no_grad():
                answer(self.method, shown, recognize(self.method, shown))
            spent = time.perf_counter() - started
            self._nameless = spent / min(count, *map(len, views.values()))
            if spent > SHORT:
                return

    def ending(self, descriptions: list[TaskDescription]) -> float:
        """Return the seconds of what comes besides learning and judging: storing, judging without names, the report."""
        tests = sum(entry.test for entry in self._earlier) + sum(each.test for each in descriptions)
        # Of an image that is looked at by all tasks, also by those that were not rehearsed.
        all_tasks = (len(self._earlier) + len(descriptions)) / len(self._sizes)
        return STORED * len(descriptions) + tests * self._nameless * all_tasks + REPORT

    def _rehearse(self, task: Task, description: TaskDescription, features: Keeping) -> None:
        rehearsal = Rehearsal()
        context = Context(
            task_index=self._learned + len(self.measured),
            task_name=task.name,
            training=self.config.training,
            seed=self.config.seed,
            device=self.device,
            open_extractor=self.extractors,
            on_phase=self.progress.phase,
            rehearsal=rehearsal,
        )
        started = time.perf_counter()
        record = self.method.learn(task, context)
        other = time.perf_counter() - started - sum(loop.spent for loop in rehearsal.loops) - features.seconds
        self.progress.phase("evaluate")
        judging = self._judging(task, description)
        sizes = self.method.num_parameters(), self.method.bytes_in_all()
        self.measured.append(_Measured(record.decision, rehearsal.loops, max(other, 0.0), judging, features.seconds, *sizes))

    def _judging(self, task: Task, description: TaskDescription) -> float:
        """Return the seconds of judging the tasks whose modules the newest has changed, and itself."""
        started = time.perf_counter()
        digests = [digest_modules(self.method, index) for index in range(len(self.method.tasks))]
        newest = len(digests) - 1
        try:
            test = task.test
        except (AbsentTaskError, LifelongError):
            self._digests, self._to_judge = digests, [*self._to_judge, 0.0]
            return time.perf_counter() - started
        fixed, begun = time.perf_counter() - started, time.perf_counter()
        sample = test.images[:SAMPLE]
        if len(sample):
            self._samples[description.image_size] = sample.clone()
        batched(lambda images: self.method.logits(images, newest), sample, together=self.method.batch_dependent)
        self._to_judge.append((time.perf_counter() - begun) * description.test / max(len(sample), 1))
        changed = [index for index, digest in enumerate(digests) if index >= len(self._digests) or digest != self._digests[index]]
        self._digests = digests
        return fixed + sum(self._to_judge[index] for index in changed)

    def sizes(self, count: int) -> tuple[int, int]:
        """Return the bytes and the parameters of the model after a number of tasks; those not rehearsed add as much as the others."""
        last, first = self.measured[-1], self.measured[0]
        missing, between = count - len(self.measured), max(len(self.measured) - 1, 1)
        return (
            last.bytes + missing * max(last.bytes - first.bytes, 0) // between,
            last.parameters + missing * max(last.parameters - first.parameters, 0) // between,
        )

    def tasks(self, descriptions: list[TaskDescription]) -> list[TaskEstimate]:
        """Return an estimate for each of the tasks that are described."""
        tuning = self.config.tuning
        candidates = 1 if tuning is None else tuning.trials or len(tuning.combinations())
        found: list[TaskEstimate] = []
        rates: list[tuple[float, float, float]] = []
        for index, description in enumerate(descriptions):
            images = max(description.train, 1)
            if index < len(self.measured):
                one = self.measured[index]
                phases = _phases(one, candidates)
                times = tuple(sum(getattr(phase, name) for phase in phases) for name in ("seconds", "lowest", "highest"))
                # The features of the others are still to be computed.
                rates.append(((times[0] + one.kept) / images, (times[1] + one.kept) / images, (times[2] + one.kept) / images))
                decision = one.decision
            else:
                phases, decision = [], None
                usual = sum(rate[0] for rate in rates) / len(rates)
                far = FAR if len(rates) == 1 else 1.0
                times = images * usual, images * min(rate[1] for rate in rates) / far, images * max(rate[2] for rate in rates) * far
            found.append(
                TaskEstimate(
                    name=description.name,
                    classes=len(description.classes),
                    train=description.train,
                    valid=description.valid,
                    test=description.test,
                    image_size=description.image_size,
                    measured=index < len(self.measured),
                    decision=decision,
                    seconds=times[0],
                    lowest=times[1],
                    highest=times[2],
                    phases=phases,
                )
            )
        return found


def _phases(measured: _Measured, candidates: int) -> list[PhaseEstimate]:
    """Return the parts of the time of a task: loops of the same phase together."""
    parts: dict[str, tuple[int, float, float, float]] = {}
    for loop in measured.loops:
        # Where a training may stop early, how long it improves is not known; most that were seen ran for long.
        times = (loop.seconds(loop.fewest + LATE * (loop.epochs - loop.fewest)), loop.seconds(loop.fewest), loop.seconds(loop.epochs))
        name = _phase(loop.stage)
        before = parts.get(name, (0, 0.0, 0.0, 0.0))
        parts[name] = (
            before[0] + candidates * loop.epochs,
            *(old + candidates * new for old, new in zip(before[1:], times, strict=True)),
        )  # ty: ignore[invalid-assignment]
    for name, seconds in (("other", candidates * measured.other), ("evaluate", measured.judging)):
        parts[name] = (0, seconds, seconds, seconds)
    return [
        PhaseEstimate(phase=name, epochs=epochs, seconds=seconds, lowest=lowest, highest=highest)
        for name, (epochs, seconds, lowest, highest) in parts.items()
    ]


def _phase(stage: str) -> str:
    """Return the phase of a stage: its name without a number or a weight decay."""
    head = stage.partition("-wd")[0]
    return head.rstrip("0123456789").rstrip("-") or head
