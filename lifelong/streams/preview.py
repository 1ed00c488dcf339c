"""Preview a task: the first images of its test split, class by class."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from lifelong.data.task import Stream, Task


def evaluation_images(stream: Stream, plan: Sequence[tuple[int, int]]) -> Iterator[list[list[UInt8[np.ndarray, "_ _ 3"]]]]:
    """Yield evaluation images of one task after another; at most one task's images are in memory.

    Args:
        stream: whose tasks to show.
        plan: for each task, in order, how many classes, in label order, and how many images of each.

    Yields:
        For each class its images, of height and width s and three colours: fewer where the test split has fewer.
    """
    for index, (classes, each) in enumerate(plan):
        yield _first_images(stream[index], classes, each)


def _first_images(task: Task, classes: int, each: int) -> list[list[UInt8[np.ndarray, "_ _ 3"]]]:
    test = task.test
    rows = [torch.nonzero(test.labels == label).flatten()[:each].tolist() for label in range(classes)]
    # Copies: a view of one image would hold the whole split.
    return [[test.images[row].permute(1, 2, 0).numpy().copy() for row in some] for some in rows]
