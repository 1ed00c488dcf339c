"""Answers for the test images of many tasks, of which those with few images pass a network together that they share.

A pass for a dozen small images takes nearly as long as one for a batch: it is the layers that take time, not the images. So the images of
tasks that answer by one network (`Method.two_steps`), in one size and fewer than an evaluation batch, pass it in common batches, each
prepared as its task says; then each task's head answers by its own features. Other tasks are answered by themselves.

The last digit of a feature depends on the batch, so that logits differ by rounding from those of a task alone. The same tasks, asked in
the same order, make the same batches.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lifelong.data.augment import normalize
from lifelong.data.task import Split
from lifelong.methods.method import Method
from lifelong.methods.two_steps import TwoSteps
from lifelong.training.examples import batched, evaluation_batch

FULL_SIDE = 16
"""Height and width of the images of which a batch has as many as any evaluation has; smaller ones are packed by their pixels."""


class Answered(NamedTuple):
    """The answers for the images of a task.

    Attributes:
        task: its position.
        logits: of its classes.
        labels: the true ones.
    """

    task: int
    logits: Float[Tensor, "n c"]
    labels: Int64[Tensor, "n"]


class _Waiting(NamedTuple):
    """A task whose images wait for others to pass the network with."""

    task: int
    split: Split
    steps: TwoSteps


def packed(method: Method, tests: Iterable[tuple[int, Split]], tell: Callable[[int], None] = lambda done: None) -> Iterator[Answered]:
    """Answer for the images of tasks, each by its own head; no more than a batch for each network and image size is held.

    Args:
        method: has learned the tasks.
        tests: of each its position and its images, on the method's device.
        tell: is told now and then how many images are done.

    Returns:
        The answers, in the order in which they are found.
    """
    waiting: dict[Hashable, list[_Waiting]] = {}
    held: Counter[Hashable] = Counter()
    done = 0

    def told(found: Iterable[Answered]) -> Iterator[Answered]:
        nonlocal done
        for answered in found:
            done += len(answered.labels)
            tell(done)
            yield answered

    for task, split in tests:
        steps = None if method.batch_dependent else method.two_steps(task)
        if steps is None or not 0 < len(split) < evaluation_batch(split.images.device, together=False):
            yield _alone(method, task, split, lambda more, before=done: tell(before + more))
            done += len(split)
            continue
        place = steps.network, split.images.shape[1:]
        if held[place] + len(split) > _batch(split.images):
            del held[place]
            yield from told(_passed(method, waiting.pop(place)))
        waiting.setdefault(place, []).append(_Waiting(task, split, steps))
        held[place] += len(split)
    for together in waiting.values():
        yield from told(_passed(method, together))


def _alone(method: Method, task: int, split: Split, tell: Callable[[int], None]) -> Answered:
    """Let the images of a task pass its network by themselves."""
    logits = batched(lambda images: method.logits(images, task), split.images, together=method.batch_dependent, tell=tell)
    return Answered(task, logits, split.labels)


def _batch(images: Tensor) -> int:
    """Return how many images of a size pass a network together."""
    full = evaluation_batch(images.device, together=False)
    return max(full, full * FULL_SIDE**2 // images[0, 0].numel())


def _passed(method: Method, tasks: list[_Waiting]) -> Iterator[Answered]:
    """Let the images of tasks pass their network together."""
    with torch.no_grad():
        prepared = torch.cat([normalize(each.split.images, method.tasks[each.task].normalization) for each in tasks])
        features = tasks[0].steps.features(prepared).split([len(each.split) for each in tasks])
        found = [each.steps.head(own) for each, own in zip(tasks, features, strict=True)]
    for each, logits in zip(tasks, found, strict=True):
        yield Answered(each.task, logits, each.split.labels)
