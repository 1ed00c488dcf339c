"""Answers when nobody says which task an image belongs to, and how good they are.

A method that can tell tasks apart does so itself (`Method.task_probabilities`: PAR by its prototypes, Expert Gate and LMC by
reconstruction). For any other, and on demand, the confidence of the heads decides: the largest softmax probability of each task's head,
as far as it lies above chance (Hendrycks & Gimpel, ICLR 2017), divided by the sum over tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from lifelong.data.task import Split
from lifelong.devices import exact
from lifelong.methods.method import Method, Recognized
from lifelong.records.base import plain
from lifelong.records.run import TaskAgnostic
from lifelong.training.examples import evaluation_batch

Inference = Literal["auto", "method", "confidence"]
"""How a task is found: by the method's own way, by the confidence of its heads, or by the first of these that it has."""


class Answers(NamedTuple):
    """What images are taken for.

    Attributes:
        tasks: the most likely task of each, from 0.
        labels: the class that this task takes it for, from 0.
    """

    tasks: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"]


class Told(NamedTuple):
    """What a method says of images of an unknown task.

    Attributes:
        probabilities, strangeness: see `lifelong.methods.method.Recognized`.
        logits: of every task, if its heads were asked, and say the same of an image whatever others come with it; else None.
    """

    probabilities: Float[Tensor, "n t"] | None
    strangeness: Float[Tensor, "n"] | None
    logits: Sequence[Float[Tensor, "n _c"]] | None = None


@dataclass(frozen=True)
class Shown:
    """The same pictures as each task looks at them: in the size of its own images.

    Attributes:
        views: uint8 RGB by height and width in pixels.
        sizes: of each task.
    """

    views: Mapping[int, Tensor]
    sizes: tuple[int, ...]

    @classmethod
    def alike(cls, images: UInt8[Tensor, "n 3 h w"], tasks: int) -> "Shown":
        """All tasks look at the same tensor."""
        return cls({images.shape[-1]: images}, (images.shape[-1],) * tasks)

    def of(self, task: int) -> UInt8[Tensor, "n 3 h w"]:
        """Return what a task looks at."""
        return self.views[self.sizes[task]]

    def rows(self, which: Tensor) -> "Shown":
        """Return some of the pictures."""
        return replace(self, views={size: images[which] for size, images in self.views.items()})

    def split(self, count: int) -> list["Shown"]:
        """Return the pictures in parts of so many; nothing makes one empty part."""
        parts = zip(*(images.split(count) for images in self.views.values()), strict=True)
        return [replace(self, views=dict(zip(self.views, part, strict=True))) for part in parts]


Images = Tensor | Shown
"""What all tasks look at, uint8 RGB of shape (N, 3, H, W), or what each does."""


def _shown(method: Method, images: Images) -> Shown:
    return images if isinstance(images, Shown) else Shown.alike(images, len(method.tasks))


def recognize(method: Method, images: Images, by: Inference = "auto") -> Told:
    """How likely each learned task is for each image, and how unlike anything learned each is.

    Where tasks look at images of several sizes, the method is asked at each size: of a task counts what it says at the task's own, in
    proportion, and of strangeness the least.

    Args:
        method: has learned a task at least.
        images: uint8 RGB.
        by: how tasks are found.

    Returns:
        Probabilities are None only if `by` is "method" and the method has no way.
    """
    shown = _shown(method, images)
    if by == "confidence":
        return _by_heads(method, shown, _least([method.strangeness(view) for view in shown.views.values()]))
    told = {size: method.recognize(view) for size, view in shown.views.items()}
    probabilities, strangeness = _of_own_size(told, shown.sizes), _least([found.strangeness for found in told.values()])
    if probabilities is None and by == "auto":
        return _by_heads(method, shown, strangeness)
    return Told(probabilities, strangeness)


def _by_heads(method: Method, shown: Shown, strangeness: Float[Tensor, "n"] | None) -> Told:
    logits = heads(method, shown)
    return Told(confidence(logits), strangeness, None if method.batch_dependent else logits)


def _of_own_size(told: Mapping[int, Recognized], sizes: Sequence[int]) -> Float[Tensor, "n t"] | None:
    """Return the probability of each task at the size of its images, scaled to a sum of 1 if there are several."""
    found = {size: each.probabilities for size, each in told.items() if each.probabilities is not None}
    if len(found) < 2:
        return next(iter(found.values()), None)
    columns = torch.stack([found[size][:, task] for task, size in enumerate(sizes)], dim=1).clamp_min(1e-12)
    return columns / columns.sum(dim=1, keepdim=True)


def _least(strangeness: Sequence[Float[Tensor, "n"] | None]) -> Float[Tensor, "n"] | None:
    known = [each for each in strangeness if each is not None]
    return torch.stack(known).amin(dim=0) if known else None


def heads(method: Method, images: Images) -> list[Float[Tensor, "n _c"]]:
    """Return the logits of every task.

    Args:
        method: has learned a task at least.
        images: uint8 RGB.
    """
    shown = _shown(method, images)
    found: dict[int, Tensor] = {}
    for size, view in shown.views.items():
        tasks = [task for task, own in enumerate(shown.sizes) if own == size]
        found |= zip(tasks, method.logits_of(view, tasks), strict=True)
    return [found[task] for task in range(len(method.tasks))]


def confidence(logits: Sequence[Float[Tensor, "n _c"]]) -> Float[Tensor, "n t"]:
    """Return the share of each task in the confidence of all heads; equal shares where no head is above chance.

    Args:
        logits: of every task.
    """
    chances = [1 / task.shape[1] for task in logits]
    largest = [task.softmax(dim=1).amax(dim=1) for task in logits]
    above = torch.stack([(each - chance).clamp_min(1e-6) / (1 - chance) for each, chance in zip(largest, chances, strict=True)], dim=1)
    return above / above.sum(dim=1, keepdim=True)


def answer(method: Method, images: Images, told: Told) -> Answers:
    """Return what images are taken for: each is answered by its most likely task.

    Args:
        method: has learned a task at least.
        images: uint8 RGB.
        told: what `recognize` says of them; it has probabilities.
    """
    assert told.probabilities is not None
    tasks, shown = told.probabilities.argmax(dim=1), _shown(method, images)
    labels = torch.zeros_like(tasks)
    for task in tasks.unique().tolist():
        rows = tasks == task
        logits = method.logits(shown.of(task)[rows], task) if told.logits is None else told.logits[task][rows]
        labels[rows] = logits.argmax(dim=1)
    return Answers(tasks, labels)


def judge_task_agnostic(
    method: Method,
    test_split: Callable[[int], Split],
    classes: Sequence[Sequence[str]],
    show: Callable[[int], Shown] | None = None,
    tell: Callable[[int], None] | None = None,
) -> TaskAgnostic:
    """Judge by the test images of every task, in batches of one task, without the task's name.

    Args:
        method: has learned the whole stream.
        test_split: gives the test images of a task, on the method's device.
        classes: the names of each task's classes; no name twice in a task.
        show: gives the test images of a task as every task looks at them, where sizes differ; None: all look at the same.
        tell: is told now and then how many images are done.

    Returns:
        The means are over tasks. A class is named rightly also where another task with a class of this name was taken; "strange" is the
        share taken for unlike anything learned, if the method can tell.
    """
    names = sorted({name for task in classes for name in task})
    judged: dict[str, list[float]] = {"routing": [], "accuracy": []}
    by, done = "method", 0
    for index, task_classes in enumerate(classes):
        test = test_split(index)
        device = test.images.device
        told = method.recognize(test.images[:1])
        if told.probabilities is None:
            by = "confidence"
        shown = Shown.alike(test.images, len(classes)) if show is None else show(index)
        step = evaluation_batch(device, together=method.batch_dependent)
        parts: list[Tensor] = []
        with torch.no_grad():
            for part in shown.split(step):
                parts.append(_found(method, part))
                done += len(parts[-1])
                if tell is not None:
                    tell(done)
        found = torch.cat(parts)
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
    means = {f"mean_{key}": sum(values) / len(values) for key, values in judged.items()}
    return TaskAgnostic.model_validate(plain({"by": by} | judged | means))


def _found(method: Method, images: Shown) -> Int64[Tensor, "n 3"]:
    """Return the task and the class of each image, and whether it is unlike anything learned: 0 also where the method cannot tell."""
    told = recognize(method, images)
    tasks, labels = answer(method, images, told)
    strange = torch.zeros_like(tasks) if told.strangeness is None else (told.strangeness > 1).long()
    return torch.stack([tasks, labels, strange], dim=1)
