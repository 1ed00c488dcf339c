"""What a run would learn and how long it would take, from the first steps of each of its computations; no run is begun.

Every task is learned by the method itself, in a rehearsal (`lifelong.training.rehearsal`): distances and decisions are those of the run,
but of each search and each training only a few steps are run. So what follows from trained weights (which cell a search finds, when a
training stops early) is not known, and the estimate is a range.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lifelong.data.feature_cache import Keeping, keeping
from lifelong.data.sources import Sources
from lifelong.data.task import AbsentTaskError, Stream, Task, TaskDescription
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import open_task
from lifelong.experiment.identity import difference
from lifelong.experiment.learning import digest_modules
from lifelong.experiment.locking import HELD, LOCK
from lifelong.experiment.machine import choose_device, machine_name, peak_device_memory, peak_memory, set_threads, watch_device_memory
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import extractor_opener, identity_of, resolve_extractor
from lifelong.experiment.saved import open_run
from lifelong.experiment.tuning import check_tuning
from lifelong.methods.method import Context, Method
from lifelong.methods.registry import make_method
from lifelong.records.estimate import EstimateRecord, PhaseEstimate, TaskEstimate
from lifelong.relatedness.extractor import Extractor
from lifelong.settings.resolve import default_values
from lifelong.settings.run import Environment, RunConfig
from lifelong.streams.check import BEGINNING, data_check
from lifelong.streams.named_streams import open_stream
from lifelong.training.denormals import flush_denormals
from lifelong.training.examples import batched
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import check_training, exact_float32
from lifelong.training.process import alone
from lifelong.training.rehearsal import Rehearsal, Rehearsed

SAMPLE = 256
"""Test images that are judged to see how long one takes."""

BUDGET = 60.0
"""Seconds after which no further task is rehearsed."""

LATE = 0.75
"""Where a training is expected to stop, from the earliest possible epoch (0) to the last (1)."""

FAR = 4.0
"""Ratio within which the time of a task that was not rehearsed is expected, if only one was."""


def estimate(
    config: RunConfig, out: Path, environment: Environment, progress: Observer | None = None, budget: float = BUDGET
) -> EstimateRecord:
    """Estimate a run. Nothing is written but what every command caches: decoded images, and features of a frozen network.

    Args:
        config: what decides the numbers of the run.
        out: its run directory.
        environment: where data, weights and the device are.
        progress: is told which task is rehearsed; None: nobody.
        budget: seconds after which no further task is rehearsed; the first always is.

    Raises:
        LifelongError: as a run, before it starts.
    """
    with alone("estimate"):
        return _estimate(config, out, environment, progress or Observer(), budget)


def _estimate(config: RunConfig, out: Path, environment: Environment, progress: Observer, budget: float) -> EstimateRecord:
    began = time.perf_counter()
    keep_small_blocks()
    flush_denormals()
    device = choose_device(environment.device)
    stream = open_stream(
        config.stream, config.seed, Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)
    )
    settings, notes = resolve_extractor(config.settings, stream.name)
    descriptions = stream.describe()
    notes += check_training(config.training, device, min(task.image_size for task in descriptions))
    config = replace(config, settings=settings)
    method = make_method(config.method, config.settings)
    extractors = extractor_opener(environment, device)
    wanted = method.extractor()
    if wanted is not None:
        extractors(*wanted)
        notes.append(
            f"features: {wanted[0]}, found" + (f" in {environment.weights}" if wanted[0] != "pixels" and environment.weights else "")
        )
    check_tuning(config, {task.name: task.valid for task in descriptions})
    threads = set_threads(environment.threads, max(task.image_size for task in descriptions), environment.at_once)
    stream.prepare()
    found = data_check(stream)
    notes += [f"{BEGINNING}{line}" for line in found or ["nothing found"]]
    where, stops = _place(out, config, stream, environment)
    with exact_float32(device):
        rehearsed = Rehearsals(method, config, device, extractors, progress)
        rehearsed.all_of(stream, descriptions, began + budget)
    checks = [*notes, where, _room(out, rehearsed.sizes(len(descriptions))[0])]
    return _record(rehearsed, stream, descriptions, (device, threads, began), checks, stops)


def estimate_learning(
    run: Path, wanted: str | Task, environment: Environment, progress: Observer | None = None, *, name: str | None = None
) -> EstimateRecord:
    """Estimate the learning of one more task in a finished run; see `estimate`.

    Args:
        run: the run directory, which is only read.
        wanted: the task, or the address of its images, such as `folder:PATH` with a folder for each class.
        environment: where data, weights and the device are.
        progress: is told what is rehearsed; None: nobody.
        name: of the task; None: its own, or the last part of its address.

    Raises:
        LifelongError: the run is not finished, or the images cannot be used.
    """
    with alone("estimate"):
        began = time.perf_counter()
        keep_small_blocks()
        flush_denormals()
        device = choose_device(environment.device)
        saved = open_run(run, device)
        if not saved.summary().complete:
            raise LifelongError(f"{run} is not finished; continue it first, with the command that started it")
        if saved.method.extractor() is not None:
            saved.check_weights(environment.weights)
        sources = Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)
        task, images = open_task(saved, wanted, name, sources)
        descriptions = images.describe()
        check_tuning(saved.config, {each.name: each.valid for each in descriptions})
        threads = set_threads(environment.threads, max(entry.side for entry in saved.entries))
        notes = [f"{BEGINNING}{line}" for line in data_check(images) or ["nothing found"]]
        stops = [f"{run} has a task '{task.name}'; give another name with --name"] if task.name in saved.names else []
        extractors = extractor_opener(environment, device)
        saved.method.attach_extractor(extractors)
        with exact_float32(device):
            rehearsed = Rehearsals(saved.method, saved.config, device, extractors, progress or Observer())
            rehearsed.all_of(images, descriptions, 0.0)
        checks = [*notes, _room(run, rehearsed.sizes(1)[0])]
        return _record(rehearsed, images, descriptions, (device, threads, began), checks, stops)


def _record(
    rehearsed: "Rehearsals",
    stream: Stream,
    descriptions: list[TaskDescription],
    made_by: tuple[torch.device, int, float],
    checks: list[str],
    stops: list[str],
) -> EstimateRecord:
    config, (device, threads, began) = rehearsed.config, made_by
    tasks = rehearsed.tasks(descriptions)
    bytes_, parameters = rehearsed.sizes(len(descriptions))
    kept = sum(one.kept for one in rehearsed.measured)
    if kept:
        checks = [*checks, f"features of the frozen network: kept ({kept:.1f} s); the run finds them ready"]
    return EstimateRecord(
        stream=stream.name,
        method=config.method,
        preset=config.preset,
        seed=config.seed,
        tasks=tasks,
        seconds=sum(task.seconds for task in tasks),
        lowest=sum(task.lowest for task in tasks),
        highest=sum(task.highest for task in tasks),
        reading_seconds=rehearsed.reading,
        parameters=parameters,
        bytes=bytes_,
        peak_memory_bytes=peak_memory(),
        peak_device_memory_bytes=peak_device_memory(device),
        device=device.type,
        machine=machine_name(device),
        threads=threads,
        checks=checks,
        stops=stops,
        rehearsal_seconds=time.perf_counter() - began,
    )


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

    Attributes:
        reading: seconds spent on reading images.
    """

    def __init__(
        self, method: Method, config: RunConfig, device: torch.device, extractors: Callable[[str, str], Extractor], progress: Observer
    ) -> None:
        self.method, self.config, self.device, self.extractors, self.progress = method, config, device, extractors, progress
        self.measured: list[_Measured] = []
        self.reading = 0.0
        self._learned = len(method.tasks)
        self._digests = [digest_modules(method, index) for index in range(self._learned)]
        self._to_judge = [0.0] * self._learned

    def all_of(self, stream: Stream, descriptions: list[TaskDescription], until: float) -> None:
        """Rehearse tasks until the end of the stream, or a time by `time.perf_counter`; the first always is."""
        watch_device_memory(self.device)
        self.progress.run_started(stream.name, f"{self.config.method} (first steps)", len(stream), 0)
        for index, description in enumerate(descriptions):
            if index and time.perf_counter() >= until:
                return
            self.progress.task_started(index, description.name)
            self.progress.phase("read images")
            started = time.perf_counter()
            task = stream[index].to(self.device)
            for split in (task.train, task.valid):
                len(split)
            self.reading += time.perf_counter() - started
            with keeping() as features:
                self._rehearse(task, description, features)
            task.retire()

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


def _place(out: Path, config: RunConfig, stream: Stream, environment: Environment) -> tuple[str, list[str]]:
    """Return what is in the run directory, in a sentence, and why a run would not start there."""
    directory = RunDirectory(out)
    if out.exists() and not out.is_dir():
        return f"{out}: a file", [f"{out} is a file; choose a folder with --out"]
    try:
        if directory.begun():
            identity, defaults = identity_of(config, stream, environment), default_values(config)
            key = difference(directory.identity(), identity, defaults)
            if key is None:
                state = directory.plain_state()
                learned = 0 if state is None else len(state.tree["entries"])
                return f"{out}: holds this run, with {learned} of {len(stream)} tasks learned; the estimate is for all of them", []
            return f"{out}: holds another run", [f"{out} holds a run with another {key}; choose another --out"]
    except LifelongError as error:
        return f"{out}: holds a run that cannot be continued", [str(error)]
    if any(child.name not in (LOCK, HELD, "checkpoint") for child in out.glob("*")):
        return f"{out}: holds other files", [f"{out} is not empty and holds no run; choose another folder with --out"]
    return f"{out}: free", []


def _room(out: Path, needed: int) -> str:
    """Say how much of the disk is free."""
    folder = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    free = shutil.disk_usage(folder).free
    # Two states are kept, and for a moment a third one is written.
    return f"disk: {free / 2**30:.1f} GB free; the states of the run take about {3 * needed / 2**20:.0f} MB"
