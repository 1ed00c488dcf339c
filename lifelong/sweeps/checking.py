"""Check all runs of a sweep before any is trained: streams, weights, devices, and what stands in their folders."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from lifelong.data.task import Stream
from lifelong.errors import LifelongError
from lifelong.experiment.locking import held
from lifelong.experiment.machine import choose_device
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import Ready, extractor_opener, prepare, sources_of
from lifelong.settings.resolve import default_values
from lifelong.settings.run import Environment
from lifelong.streams.named_streams import open_stream
from lifelong.sweeps.spec import Plan, Planned

SHOWN = 3
"""Largest number of different reasons in one message."""


def check_runs(plan: Plan, environment: Environment, here: bool = True) -> None:
    """Check that every run can start; nothing is written or trained.

    Args:
        plan: the runs.
        environment: where data, weights and the device are.
        here: whether they run on this machine, so that it must have the device.

    Raises:
        LifelongError: some cannot; the message gives the reasons, each with the first run that it holds for.
    """
    device = choose_device(environment.device) if here else torch.device("cpu")
    sources, extractors = sources_of(environment), extractor_opener(environment, device)

    @cache
    def opened(stream: str, seed: int) -> Stream | str:
        try:
            return open_stream(stream, seed, sources)
        except LifelongError as error:
            return str(error)

    reasons: dict[str, list[Planned]] = {}
    for run in plan.runs:
        stream = opened(run.config.stream, run.config.seed)
        try:
            if isinstance(stream, str):
                raise LifelongError(stream)
            directory = RunDirectory(plan.out / run.name)
            ready = prepare(run.config, directory, environment, stream, extractors, device)
            _check_folder(directory, ready, lambda ready=ready, stream=stream: ready.identity(stream, environment, extractors))
        except LifelongError as error:
            reasons.setdefault(str(error), []).append(run)
    if reasons:
        raise LifelongError(_message(reasons, len(plan.runs)))


def _check_folder(directory: RunDirectory, ready: Ready, identity: Callable[[], dict[str, Any]]) -> None:
    """Check that a run can begin in a folder, or is the one that was begun there; where another process works, that one has found out."""
    if held(directory.path):
        return
    try:
        if ready.stored is not None:
            directory.check_same(ready.stored, identity(), default_values(ready.config))
        else:
            directory.check_free()
    except LifelongError:
        # Begun meanwhile: what was read first, and what then, do not fit together.
        if not held(directory.path):
            raise


def _message(reasons: dict[str, list[Planned]], number: int) -> str:
    count = sum(map(len, reasons.values()))
    words = [_reason(reason, runs) for reason, runs in reasons.items()]
    more = [f"and {len(words) - SHOWN} more reasons"] if len(words) > SHOWN else []
    return f"{count} of {number} runs cannot start, and nothing was run: {'; '.join([*words[:SHOWN], *more])}"


def _reason(reason: str, runs: Sequence[Planned]) -> str:
    others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{runs[0].name}{others}: {reason}"
