"""How well a method does when nobody tells it which task an image belongs to."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from lifelong.data.task import Split
from lifelong.methods.method import Method
from lifelong.training.examples import batched


def judge_task_free(method: Method, test_split: Callable[[int], Split], classes: Sequence[Sequence[str]]) -> dict[str, Any] | None:
    """Judge by the test images of every task, in batches of one task, without the task's name.

    Args:
        method: has learned the whole stream.
        test_split: gives the test images of a task, on the method's device.
        classes: the names of each task's classes.

    Returns:
        ``routing``: for each task the share of its test images that are taken for its own; ``accuracy``: the share whose class is named
        rightly by the task that was taken, also where that is another task with a class of this name; and ``mean_routing`` and
        ``mean_accuracy`` over tasks. None: the method cannot tell tasks apart.
    """
    names = sorted({name for task in classes for name in task})
    routing, accuracy = [], []
    for index, task_classes in enumerate(classes):
        test = test_split(index)
        device = test.images.device
        found = batched(lambda images: task_free(method, images), test.images)
        if not found.shape[1]:
            return None
        wanted = torch.tensor([names.index(name) for name in task_classes], device=device)[test.labels]
        # From the class's number within the task that was taken to the name's number.
        table = torch.full((len(classes), max(map(len, classes))), -1, device=device)
        for other, its in enumerate(classes):
            table[other, : len(its)] = torch.tensor([names.index(name) for name in its], device=device)
        tasks, labels = found.unbind(dim=1)
        routing.append(float((tasks == index).double().mean()))
        accuracy.append(float((table[tasks, labels] == wanted).double().mean()))
    means = {f"mean_{key}": sum(values) / len(values) for key, values in (("routing", routing), ("accuracy", accuracy))}
    return {"routing": routing, "accuracy": accuracy} | means


def task_free(method: Method, images: UInt8[Tensor, "n 3 h w"]) -> Int64[Tensor, "n k"]:
    """The most likely task of each image, and the class that this task takes it for.

    Args:
        method: has learned a task at least.
        images: uint8 RGB.

    Returns:
        Of shape (N, 2): task and class, from 0; of shape (N, 0) if the method cannot tell tasks apart.
    """
    with torch.no_grad():
        probabilities = method.task_probabilities(images)
    if probabilities is None:
        return torch.zeros(len(images), 0, dtype=torch.int64, device=images.device)
    tasks = probabilities.argmax(dim=1)
    labels = torch.zeros_like(tasks)
    for task in tasks.unique().tolist():
        rows = tasks == task
        labels[rows] = method.logits(images[rows], task).argmax(dim=1)
    return torch.stack([tasks, labels], dim=1)
