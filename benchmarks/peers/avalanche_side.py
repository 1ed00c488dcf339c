"""Avalanche's side, run by an interpreter that has it: strategies, plugins and transforms as its users put them together.

Transforms are torchvision's, image by image on uint8 tensors, which take two thirds of the time of those on PIL images. Only accuracies
are measured and nothing is logged. Validation images are judged after every epoch, test images of all tasks so far after every task.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.peers.job import LR, MEAN, MOMENTUM, PAD, STD, WEIGHT_DECAY, Job, Turns, read_job

if torch.version.cuda is None:
    # A torchvision that was built for CUDA cannot load its compiled operators with a CPU-only PyTorch, and then fails
    # to import, because it describes two operators of object detection that are not there. Nothing here calls them.
    _operators = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

warnings.simplefilter("ignore")

import avalanche  # noqa: E402 # ty: ignore
import torchvision  # noqa: E402 # ty: ignore
from avalanche.benchmarks.scenarios.deprecated.generic_benchmark_creation import (  # noqa: E402 # ty: ignore
    create_multi_dataset_generic_benchmark,
)
from avalanche.benchmarks.utils import _make_taskaware_classification_dataset  # noqa: E402 # ty: ignore
from avalanche.evaluation.metrics import accuracy_metrics  # noqa: E402 # ty: ignore
from avalanche.models import as_multitask  # noqa: E402 # ty: ignore
from avalanche.training.plugins import EvaluationPlugin  # noqa: E402 # ty: ignore
from avalanche.training.supervised import AGEM, EWC, MAS, Cumulative, LwF, Naive, Replay  # noqa: E402 # ty: ignore
from torchvision import transforms  # noqa: E402 # ty: ignore


class Images(Dataset):
    """A split of a task, with the attribute by which Avalanche knows labels."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.targets = images, labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], self.targets[index]


def tasks(job: Job) -> Any:
    """Build the job's tasks like Avalanche's classic benchmarks, with validation images as a separate stream."""
    ending = [transforms.ConvertImageDtype(torch.float32), transforms.Normalize(MEAN, STD)]
    augmented = [transforms.RandomCrop(job.size, padding=PAD), transforms.RandomHorizontalFlip()]
    train, valid, test = (
        [_make_taskaware_classification_dataset(Images(*job.split(task, split)), task_labels=task) for task in range(job.tasks)]
        for split in ("train", "valid", "test")
    )
    return create_multi_dataset_generic_benchmark(
        train,
        test,
        other_streams_datasets={"valid": valid},
        train_transform=transforms.Compose([*augmented, *ending]),
        eval_transform=transforms.Compose(ending),
    )


class Classifier(nn.Module):
    """The network with a head, which Avalanche makes one for each task."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.features = job.network()
        self.classifier = nn.Linear(job.channels, job.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return self.classifier(self.features(images))


def strategy(job: Job, model: nn.Module) -> Any:
    """Avalanche's counterpart of our method."""
    kept = job.memory_per_class * job.classes
    kinds = {
        "finetune": (Naive, {}),
        "joint": (Cumulative, {}),
        "ewc": (EWC, {"ewc_lambda": 1.0}),
        "mas": (MAS, {}),
        "lwf": (LwF, {"alpha": 1, "temperature": 2}),
        "er": (Replay, {"mem_size": kept * (job.tasks - 1)}),
        "agem": (AGEM, {"patterns_per_exp": kept, "sample_size": job.batch}),
    }
    kind, own = kinds[job.method]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True), loggers=[])
    sizes = {"train_mb_size": job.batch, "eval_mb_size": job.batch, "train_epochs": job.epochs}
    return kind(model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), evaluator=evaluator, eval_every=1, **sizes, **own)


def main() -> None:
    """Learn the job's tasks, turn by turn."""
    job, turns = read_job(), Turns()
    benchmark = tasks(job)
    classifier = Classifier(job)
    features = job.first_features(classifier.features)
    learner = strategy(job, as_multitask(classifier, "classifier"))
    train, valid, test = (benchmark.streams[name] for name in ("train", "valid", "test"))
    versions = {"avalanche-lib": avalanche.__version__, "torchvision": torchvision.__version__, "torch": torch.__version__}
    found: dict[str, float] = {}
    turns.ready(versions, features)
    for task in range(job.tasks):
        learner.train(train[task], eval_streams=[valid[task]])
        found = learner.eval(test[: task + 1])
        turns.learned()
    accuracies = [value for name, value in found.items() if name.startswith("Top1_Acc_Exp/eval_phase/test_stream")]
    assert len(accuracies) == job.tasks, f"no accuracies of the {job.tasks} tasks among {sorted(found)}"
    turns.done(sum(accuracies) / len(accuracies))


if __name__ == "__main__":
    main()
