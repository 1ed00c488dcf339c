"""Judging without task names, against numbers by hand."""

import pytest
import torch

from lifelong.data.task import Normalization, Split
from lifelong.experiment.task_agnostic import answer, confidence, heads, judge_task_agnostic, recognize
from lifelong.methods.finetune import Finetune
from lifelong.methods.method import LearnedTask
from lifelong.settings.baselines import FinetuneSettings

CLASSES = [["cat", "dog"], ["dog", "cat"], ["boat", "car", "bus"]]


class Knowing(Finetune):
    """Reads the task from the first pixel of an image and the class from the second."""

    def task_probabilities(self, images):
        return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 3).float()

    def logits(self, images, task_index):
        return torch.nn.functional.one_hot(images[:, 0, 0, 1].long(), 3).float()[:, : len(CLASSES[task_index])]


class Unknowing(Knowing):
    def task_probabilities(self, images):
        return None


def knowing(kind):
    method = kind(FinetuneSettings())
    method.tasks = [
        LearnedTask(str(index), len(names), Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))) for index, names in enumerate(CLASSES)
    ]
    return method


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
    found = judge_task_agnostic(knowing(Knowing), TESTS.__getitem__, CLASSES)
    assert found["by"] == "method"
    assert found["routing"] == [0.5, 1.0, 0.75]
    # Of the first task the cat is named rightly by itself and by the second task.
    assert found["accuracy"] == [0.5, 1.0, 0.5]
    assert found["mean_routing"] == pytest.approx(0.75)
    assert found["mean_accuracy"] == pytest.approx(2 / 3)
    assert "strange" not in found


def test_a_method_that_cannot_tell() -> None:
    """Its heads do: all are as sure as each other of a class they have, which says less where there are more classes."""
    method = knowing(Unknowing)
    assert recognize(method, TESTS[0].images, "method").probabilities is None
    found = judge_task_agnostic(method, TESTS.__getitem__, CLASSES)
    assert found["by"] == "confidence"
    e = 2.718281828459045
    two, three = (e / (e + 1) - 1 / 2) * 2, (e / (e + 2) - 1 / 3) / (2 / 3)
    shares = confidence(heads(method, TESTS[0].images))
    torch.testing.assert_close(shares[0], torch.tensor([two, two, three]) / (2 * two + three))
    # The most confident head is the first of the two that have two classes; but class 2 is known to the third alone.
    assert found["routing"] == [1.0, 0.0, 0.25]


def test_no_head_above_chance() -> None:
    class Even(Unknowing):
        def logits(self, images, task_index):
            return torch.zeros(len(images), len(CLASSES[task_index]))

    shares = confidence(heads(knowing(Even), TESTS[0].images))
    torch.testing.assert_close(shares[:, 0], shares[:, 1])
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(shares)))


def test_strange_images_are_counted() -> None:
    class Wary(Knowing):
        def strangeness(self, images):
            return images[:, 0, 0, 1].float() * 1.5

    found = judge_task_agnostic(knowing(Wary), TESTS.__getitem__, CLASSES)
    assert found["strange"] == [0.5, 0.5, 0.75]
    assert found["mean_strange"] == pytest.approx(7 / 12)


def test_each_image_is_answered_by_the_task_it_is_taken_for() -> None:
    method, images = knowing(Knowing), TESTS[2].images
    found = answer(method, images, recognize(method, images))
    assert torch.stack(found, dim=1).tolist() == [[2, 2], [0, 0], [2, 1], [2, 1]]


def test_heads_that_were_asked_for_the_task_are_not_asked_again() -> None:
    class Counting(Unknowing):
        asked = 0

        def logits(self, images, task_index):
            self.asked += len(images)
            return super().logits(images, task_index)

    class Together(Counting):
        batch_dependent = True

    images = TESTS[2].images
    for kind, again in ((Counting, 0), (Together, len(images))):
        method = knowing(kind)
        told = recognize(method, images)
        assert method.asked == 3 * len(images)
        found = answer(method, images, told)
        assert method.asked == 3 * len(images) + again
        assert found.labels.tolist() == [2, 0, 1, 1]
