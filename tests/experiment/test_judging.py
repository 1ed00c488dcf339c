"""How the test images of a task were answered, class by class."""

import math

import pytest
import torch

from lifelong.data.task import Split
from lifelong.experiment.judging import MOST_CLASSES, judged, right_share
from lifelong.training.examples import confusion, evaluate

COUNTS = torch.tensor([[4, 1, 0], [2, 2, 0], [0, 0, 0]])


def test_by_hand() -> None:
    """Five images of the first class, four of them right; four of the second, two right; none of the third."""
    found = judged(COUNTS)
    assert found["recall"][:2] == pytest.approx([0.8, 0.5])
    assert math.isnan(found["recall"][2])
    assert found["confusion"] == [[4, 1, 0], [2, 2, 0], [0, 0, 0]]
    assert found["majority"] == 5 / 9
    assert right_share(COUNTS) == 6 / 9


def test_no_images_and_many_classes() -> None:
    nothing = judged(torch.zeros(2, 2, dtype=torch.int64))
    assert math.isnan(nothing["majority"])
    assert math.isnan(right_share(torch.zeros(2, 2, dtype=torch.int64)))
    many = judged(torch.eye(MOST_CLASSES + 1, dtype=torch.int64))
    assert many["confusion"] is None
    assert many["recall"] == [1.0] * (MOST_CLASSES + 1)


def test_counts_are_those_of_the_answers() -> None:
    """300 images in more than one step: the first pixel is the answer. Counted one by one."""
    generator = torch.Generator().manual_seed(0)
    labels, answers = torch.randint(3, (2, 300), generator=generator)
    images = answers.to(torch.uint8)[:, None, None, None].expand(300, 3, 2, 2).contiguous()

    def logits(part: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(part[:, 0, 0, 0].long(), 4).float()

    counts = confusion(logits, Split(images, labels))
    assert counts.shape == (4, 4)  # of a head with a class that nobody has
    for label in range(4):
        for answer in range(4):
            assert counts[label, answer] == sum(a == label and b == answer for a, b in zip(labels.tolist(), answers.tolist(), strict=True))
    assert right_share(counts) == evaluate(logits, Split(images, labels))
