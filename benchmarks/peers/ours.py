"""This library's side: a run as `lifelong run` makes it, of a stream that lies in memory, with its judging, its files and its report."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import lifelong
from benchmarks.peers.job import LR, MEAN, MOMENTUM, PAD, STD, WEIGHT_DECAY, Job, Turns, read_job
from lifelong.api import configure
from lifelong.data.split_names import SplitName
from lifelong.data.task import Augmentation, Normalization, Split, Task, TaskDescription
from lifelong.experiment.evaluation import Evaluation
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.runner import Runner
from lifelong.methods.method import Method
from lifelong.networks.resnet import LightResNet
from lifelong.records.task import TaskRecord
from lifelong.relatedness.extractor import Extractor
from lifelong.report.html import write_report
from lifelong.training.denormals import flush_denormals
from lifelong.training.malloc import keep_freed_memory
from lifelong.training.stages import SAVE_EVERY


class MadeStream:
    """The job's tasks as a stream."""

    name = "made"

    def __init__(self, job: Job) -> None:
        self.job = job

    def __len__(self) -> int:
        return self.job.tasks

    def __getitem__(self, index: int) -> Task:
        def load(split: SplitName) -> Split:
            return Split(*self.job.split(index, split))

        classes = [f"class {number}" for number in range(self.job.classes)]
        augmentation = Augmentation(crop=PAD, flip=True)
        return Task(f"task {index}", classes, load, normalization=Normalization(MEAN, STD), augmentation=augmentation)

    def __iter__(self) -> Iterator[Task]:
        return (self[index] for index in range(len(self)))

    def describe(self) -> list[TaskDescription]:
        """Describe the tasks."""
        job = self.job
        return [TaskDescription(task.name, "made", task.classes, job.train, job.valid, job.test, job.size) for task in self]

    def prepare(self) -> None:
        """Do nothing: images are made on request."""

    def fingerprint(self) -> str:
        """Run the job."""
        return self.job.text()


class TurnByTurn(Observer):
    """Hands the turn over whenever a task has been learned and judged."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns

    def task_finished(self, index: int, record: TaskRecord, accuracy: list[float]) -> None:
        """Wait for the next task's turn."""
        self.turns.learned()


def begin_alike(method: Method, job: Job) -> None:
    """Let the method's network begin with the job's first weights, as the other side's does."""
    make = method.make_network  # ty: ignore

    def made() -> nn.Module:
        network = make()
        network.load_state_dict(job.network().state_dict())
        return network

    method.make_network = made  # ty: ignore


def judge_uncounted(evaluation: Evaluation, turns: Turns) -> None:
    """Leave judging without task names, which the other sides do not do, out of the seconds of learning."""
    judge = evaluation.task_agnostic

    def judged(*given: Any) -> Any:
        with turns.uncounted():
            return judge(*given)

    evaluation.task_agnostic = judged  # ty: ignore


def settings(job: Job) -> dict[str, Any]:
    """Return the settings that differ from our method's defaults."""
    own: dict[str, Any] = {}
    if job.method in ("er", "agem"):
        own = {"memory_per_class": job.memory_per_class, "memory_batch": job.batch}
    if job.method == "ewc":
        # The estimator that Avalanche has too; ours by default costs a backward pass for each class.
        own = {"fisher": "batched", "penalty_weight": 1.0}
    return own | {
        "lr": LR,
        "momentum": MOMENTUM,
        "weight_decay": WEIGHT_DECAY,
        "batch_size": job.batch,
        "epochs": job.epochs,
        "patience": 0,
    }


def no_extractor(name: str, feature_input: str) -> Extractor:
    """None of the methods that are shared looks at features."""
    raise ValueError(f"the extractor {name} is asked for")


def main() -> None:
    """Learn the job's tasks, turn by turn."""
    job, turns = read_job(), Turns()
    # As `lifelong.experiment.run.run` does before it begins.
    keep_freed_memory()
    flush_denormals()
    torch.set_num_threads(1)
    config = configure("made", job.method, 0, init_channels=job.channels, stem_pool=job.stem_pool, **settings(job))
    network = LightResNet(job.channels, job.stem_pool)
    network.load_state_dict(job.network().state_dict())
    versions = {"lifelong": lifelong.__version__, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        directory.path.mkdir()
        runner = Runner(config, MadeStream(job), directory, torch.device("cpu"), no_extractor, TurnByTurn(turns), [], 1, SAVE_EVERY)
        begin_alike(runner.method, job)
        judge_uncounted(runner.evaluation, turns)
        turns.ready(versions, job.first_features(network))
        summary = runner.to_end()
        write_report(directory.path, summary)
    turns.done(sum(value or 0.0 for value in summary.accuracy[-1]) / job.tasks)


if __name__ == "__main__":
    main()
