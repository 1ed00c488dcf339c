"""Engines, which carry out the runs of a sweep: processes of this machine, Ray, Slurm, or wherever a plugin runs them.

Your own engine is a class with the method `run`; an instance is made without arguments for every sweep:

    class InTurn:
        def run(self, jobs, workers, begin):
            for position, job in enumerate(jobs):
                yield position, lifelong.perform(job, begin(position))

    lifelong.register_engine("in-turn", InTurn)        # then: --engine in-turn
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from lifelong.errors import LifelongError, require
from lifelong.experiment.job import RunJob, RunOutcome
from lifelong.experiment.observer import Observer
from lifelong.experiment.run import run
from lifelong.experiment.summaries import read_summary
from lifelong.settings.arguments import checked
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.sockets import ENGINES
from lifelong.settings.training import TrainingSettings
from lifelong.training.process import as_found


class Engine(Protocol):
    """Carries out jobs, each of which is a run with its own folder.

    It may also have a method `check()`, which is called before any run is looked at, and raises a `LifelongError` if the engine lacks
    something on this machine.
    """

    def run(self, jobs: Sequence[RunJob], workers: int, begin: Callable[[int], Observer]) -> Iterator[tuple[int, RunOutcome]]:
        """Carry out jobs, in this process or in others; a failing job does not stop the others.

        In this process, `perform` carries out a job; in another one, `perform_plain(job.plain())` or the command
        `job.command(file)` does. If the caller closes the generator (Ctrl-C, an error), running jobs are stopped, or left to a batch
        system that has them; they continue when the same sweep is run again. Where another process works on the run of a job, its outcome
        says that it is `taken`: the sweep waits for that process, and asks for the job once more.

        Args:
            jobs: in the order in which they should begin, unless the engine knows a better one.
            workers: largest number of jobs to run at once.
            begin: must be called with a job's position when the job begins. The observer it returns may be told about the run's
                progress, and must at least be told that it has finished.

        Yields:
            The position and the outcome of each job, once, as it ends.
        """
        ...


@checked
def register_engine(name: str, engine: Any, *, summary: str = "") -> None:
    """Register your own engine for `--engine` and the argument `engine`.

    Args:
        name: letters, digits, dashes and underscores.
        engine: a class with the methods of `Engine`, or a function without arguments that makes one; called once per sweep.
        summary: what it does, in one line.

    Raises:
        LifelongError: the name is taken or invalid, or `engine` cannot make an engine.
    """
    if not callable(engine) or (isinstance(engine, type) and not callable(getattr(engine, "run", None))):
        raise LifelongError(f"register_engine: {engine!r}: give a class with the method run(jobs, workers, begin); see lifelong.Engine")
    ENGINES.register(name, engine, summary=summary)


@checked
def check_engine(name: str) -> None:
    """Try a registered engine on three small runs of the digits, one of which fails, two at a time.

    Checked: each job begins once and has one outcome; a finished run has the summary that is in its folder, and the same numbers as in
    this process; the failing one is reported in one line, and does not stop the others.

    Raises:
        ConformanceError: what is broken.
        LifelongError: there is no such engine.
    """
    with as_found(), tempfile.TemporaryDirectory() as name_of_folder:
        folder, here = Path(name_of_folder), Environment(device="cpu", threads=1)
        jobs = [RunJob(_small_run(seed), folder / str(seed), here) for seed in range(3)]
        jobs[1].out.mkdir()
        (jobs[1].out / "mine.txt").write_text("of another program")
        begun: list[int] = []

        def begin(position: int) -> Observer:
            begun.append(position)
            return Observer()

        found = list(ENGINES[name]().run(jobs, 2, begin))
        for said, positions in (("begins", begun), ("has one outcome", [position for position, _ in found])):
            require(sorted(positions) == [0, 1, 2], f"engine '{name}': not every one of the jobs 0, 1, 2 {said} once: {positions}")
        outcomes = dict(found)
        failed = outcomes[1]
        said = "is not empty and holds no run"
        require(failed.summary is None and said in failed.failure, f"engine '{name}': a job that fails is not reported: {failed}")
        require("\n" not in failed.failure, f"engine '{name}': the failure of a job is not one line: {failed.failure!r}")
        for position in (0, 2):
            summary, job = outcomes[position].summary, jobs[position]
            require(summary is not None, f"engine '{name}': a job after one that fails is not finished: {outcomes[position]}")
            require(summary == read_summary(job.out), f"engine '{name}': the summary of a job is not that of its folder")
        same = run(jobs[2].config, folder / "here", here)
        differ = [key for key in ("accuracy", "parameters") if same[key] != (outcomes[2].summary or {})[key]]
        require(not differ, f"engine '{name}': a run has other numbers than in this process: {', '.join(differ)}")


def _small_run(seed: int) -> RunConfig:
    stream = "digits?tasks=1&train_per_class=4&valid_per_class=2&test_per_class=4"
    training = TrainingSettings(epochs=1, batch_size=16, lr=0.05, patience=0)
    settings = FinetuneSettings(init_channels=2)
    return RunConfig(stream=stream, method="finetune", seed=seed, preset="quick", training=training, settings=settings)
