"""Judging without task names, against numbers by hand."""

import pytest
import torch

from lifelong.data.task import Split
from lifelong.experiment.taskfree import judge_task_free, task_free
from lifelong.methods.finetune import Finetune
from lifelong.settings.baselines import FinetuneSettings

CLASSES = [["cat", "dog"], ["dog", "cat"], ["boat", "car", "bus"]]


class Knowing(Finetune):
    """Reads the task from the first pixel of an image and the class from the second."""

    def task_probabilities(self, images):
        return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).float()

    def logits(self, images, task_index):
        return torch.nn.functional.one_hot(images[:, 0, 0, 1].long(), len(CLASSES[task_index])).float()


class Unknowing(Knowing):
    def task_probabilities(self, images):
        return None


def shown(rows, labels):
    images = torch.zeros(len(rows), 3, 2, 2, dtype=torch.uint8)
    for image, (task, label) in zip(images, rows, strict=True):
        image[0, 0, 0], image[0, 0, 1] = task, label
    return Split(images, torch.tensor(labels))


# What the method reads from each test image, and its true class within its task.
TESTS = [
    shown([(0, 0), (0, 1), (1, 1), (2, 0)], [0, 0, 0, 0]),  # right; wrong class; another task's cat; a boat
    shown([(1, 0), (1, 1)], [0, 1]),
    shown([(2, 2), (0, 0), (2, 1), (2, 1)], [2, 1, 1, 0]),
]


def test_by_hand() -> None:
    found = judge_task_free(Knowing(FinetuneSettings()), TESTS.__getitem__, CLASSES)
    assert found is not None
    assert found["routing"] == [0.5, 1.0, 0.75]
    # Of the first task the cat is named rightly by itself and by the second task.
    assert found["accuracy"] == [0.5, 1.0, 0.5]
    assert found["mean_routing"] == pytest.approx(0.75)
    assert found["mean_accuracy"] == pytest.approx(2 / 3)


def test_a_method_that_cannot_tell() -> None:
    assert judge_task_free(Unknowing(FinetuneSettings()), TESTS.__getitem__, CLASSES) is None


def test_each_image_is_answered_by_the_task_it_is_taken_for() -> None:
    assert task_free(Knowing(FinetuneSettings()), TESTS[2].images).tolist() == [[2, 2], [0, 0], [2, 1], [2, 1]]
