"""What a run would learn and how long it would take, from the first steps of each of its computations; no run is begun.

Every task is learned by the method itself, in a rehearsal (`lifelong.training.rehearsal`): distances and decisions are those of the run,
but of each search and each training only a few steps are run. So what follows from trained weights (which cell a search finds, when a
training stops early) is not known, and the estimate is a range.
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from lifelong.data.sources import Sources
from lifelong.data.task import Stream, Task, TaskDescription
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import open_task
from lifelong.experiment.identity import difference
from lifelong.experiment.locking import HELD, LOCK
from lifelong.experiment.machine import choose_device, machine_name, peak_device_memory, peak_memory, set_threads
from lifelong.experiment.observer import Observer
from lifelong.experiment.rehearsals import Rehearsals
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import extractor_opener, identity_of, resolve_extractor
from lifelong.experiment.saved import open_run
from lifelong.experiment.tuning import check_tuning
from lifelong.methods.registry import make_method
from lifelong.records.estimate import EstimateRecord
from lifelong.settings.resolve import default_values
from lifelong.settings.run import Environment, RunConfig
from lifelong.streams.check import BEGINNING, data_check
from lifelong.streams.named_streams import open_stream
from lifelong.training.denormals import flush_denormals
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import check_training, exact_float32
from lifelong.training.process import alone

BUDGET = 60.0
"""Seconds after which no further task is rehearsed."""


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
            rehearsed = Rehearsals(saved.method, saved.config, device, extractors, progress or Observer(), saved.entries)
            rehearsed.all_of(images, descriptions, 0.0)
        checks = [*notes, _room(run, rehearsed.sizes(1)[0])]
        return _record(rehearsed, images, descriptions, (device, threads, began), checks, stops)


def _record(
    rehearsed: Rehearsals,
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
        ending_seconds=rehearsed.ending(descriptions),
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
