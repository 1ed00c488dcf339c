"""Answers when nobody says which task an image belongs to, and how good they are.

A method that can tell tasks apart does so itself (`Method.task_probabilities`: PAR by its prototypes, Expert Gate and LMC by
reconstruction). For any other, and on demand, the confidence of the heads decides: the largest softmax probability of each task's head,
as far as it lies above chance (Hendrycks & Gimpel, ICLR 2017), divided by the sum over tasks.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from lifelong.data.task import Split
from lifelong.devices import exact
from lifelong.methods.method import Method, Recognized
from lifelong.training.examples import batched

Inference = Literal["auto", "method", "confidence"]
"""How a task is found: by the method's own way, by the confidence of its heads, or by the first of these that it has."""


class TaskFree(NamedTuple):
    """What images are taken for.

    Attributes:
        tasks: the most likely task of each, from 0.
        labels: the class that this task takes it for, from 0.
    """

    tasks: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"]


def recognize(method: Method, images: UInt8[Tensor, "n 3 h w"], by: Inference = "auto") -> Recognized:
    """How likely each learned task is for each image, and how unlike anything learned each is.

    Args:
        method: has learned a task at least.
        images: uint8 RGB.
        by: how tasks are found.

    Returns:
        As `Method.recognize`; probabilities are None only if `by` is "method" and the method has no way.
    """
    if by == "confidence":
        return Recognized(confidence(method, images), method.strangeness(images))
    own = method.recognize(images)
    return own if own.probabilities is not None or by == "method" else own._replace(probabilities=confidence(method, images))


def confidence(method: Method, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"]:
    """The share of each task in the confidence of all heads; equal shares where no head is above chance.

    Args:
        method: has learned a task at least.
        images: uint8 RGB.
    """
    above = []
    for task, learned in enumerate(method.tasks):
        chance = 1 / learned.classes
        largest = method.logits(images, task).softmax(dim=1).amax(dim=1)
        above.append((largest - chance).clamp_min(1e-6) / (1 - chance))
    stacked = torch.stack(above, dim=1)
    return stacked / stacked.sum(dim=1, keepdim=True)


def answer(method: Method, images: UInt8[Tensor, "n 3 h w"], probabilities: Float[Tensor, "n t"]) -> TaskFree:
    """What images are taken for: each is answered by its most likely task.

    Args:
        method: has learned a task at least.
        images: uint8 RGB.
        probabilities: of its tasks, as from `recognize`.
    """
    tasks = probabilities.argmax(dim=1)
    labels = torch.zeros_like(tasks)
    for task in tasks.unique().tolist():
        rows = tasks == task
        labels[rows] = method.logits(images[rows], task).argmax(dim=1)
    return TaskFree(tasks, labels)


def judge_task_free(method: Method, test_split: Callable[[int], Split], classes: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Judge by the test images of every task, in batches of one task, without the task's name.

    Args:
        method: has learned the whole stream.
        test_split: gives the test images of a task, on the method's device.
        classes: the names of each task's classes.

    Returns:
        ``by``: "method" or "confidence", how tasks were found; ``routing``: for each task the share of its test images that are taken for
        its own; ``accuracy``: the share whose class is named rightly by the task that was taken, also where that is another task with a
        class of this name; ``strange``: the share that is taken for unlike anything learned, if the method can tell; and the means
        of these over tasks, ``mean_routing``, ``mean_accuracy``, ``mean_strange``.
    """
    names = sorted({name for task in classes for name in task})
    judged: dict[str, list[float]] = {"routing": [], "accuracy": []}
    by = "method"
    for index, task_classes in enumerate(classes):
        test = test_split(index)
        device = test.images.device
        told = method.recognize(test.images[:1])
        if told.probabilities is None:
            by = "confidence"
        found = batched(lambda images: _found(method, images), test.images, together=method.batch_dependent)
        wanted = torch.tensor([names.index(name) for name in task_classes], device=device)[test.labels]
        # From the class's number within the task that was taken to the name's number.
        table = torch.full((len(classes), max(map(len, classes))), -1, device=device)
        for other, its in enumerate(classes):
            table[other, : len(its)] = torch.tensor([names.index(name) for name in its], device=device)
        tasks, labels, strange = found.unbind(dim=1)
        judged["routing"].append(float(exact(tasks == index).mean()))
        judged["accuracy"].append(float(exact(table[tasks, labels] == wanted).mean()))
        if told.strangeness is not None:
            judged.setdefault("strange", []).append(float(exact(strange).mean()))
    return {"by": by} | judged | {f"mean_{key}": sum(values) / len(values) for key, values in judged.items()}


def _found(method: Method, images: UInt8[Tensor, "n 3 h w"]) -> Int64[Tensor, "n 3"]:
    """The task and the class of each image, and whether it is unlike anything learned: 0 also where the method cannot tell."""
    probabilities, strangeness = recognize(method, images)
    assert probabilities is not None
    tasks, labels = answer(method, images, probabilities)
    strange = torch.zeros_like(tasks) if strangeness is None else (strangeness > 1).long()
    return torch.stack([tasks, labels, strange], dim=1)
