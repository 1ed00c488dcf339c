"""How the test images of a task were answered, class by class."""

import math
from itertools import accumulate
from pathlib import Path

import pytest
import torch

from lifelong.data.task import Split
from lifelong.experiment.judging import MOST_CLASSES, judged, right_share
from lifelong.experiment.observer import Observer
from lifelong.experiment.run import run
from lifelong.training.examples import confusion, evaluate
from tests.learned import HERE, small_config

COUNTS = torch.tensor([[4, 1, 0], [2, 2, 0], [0, 0, 0]])


def test_by_hand() -> None:
    """Five images of the first class, four of them right; four of the second, two right; none of the third."""
    found = judged(COUNTS)
    assert found["recall"][:2] == pytest.approx([0.8, 0.5])
    assert found["recall"][2] is None
    assert found["confusion"] == [[4, 1, 0], [2, 2, 0], [0, 0, 0]]
    assert found["majority"] == 5 / 9
    assert right_share(COUNTS) == 6 / 9


def test_no_images_and_many_classes() -> None:
    nothing = judged(torch.zeros(2, 2, dtype=torch.int64))
    assert nothing["majority"] is None
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


class Told(Observer):
    """Keeps how far the phases come that train nothing."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[tuple[int, int]]]] = []

    def phase(self, name: str) -> None:
        self.told.append((name, []))

    def advance(self, done: int, total: int) -> None:
        self.told[-1][1].append((done, total))


def test_a_run_tells_how_far_its_evaluations_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each task all tasks so far are judged, in one count; at the end all images again, without the names of their tasks."""
    monkeypatch.setattr("lifelong.training.examples.CPU_BATCH", 16)
    listener = Told()
    summary = run(small_config(tmp_path, "finetune"), tmp_path / "run", HERE, listener)
    tests = [task["test"] for task in summary["tasks"]]
    told = [entry for entry in listener.told if entry[0].startswith("evaluate")]
    assert [name for name, _ in told] == ["evaluate"] * 3 + ["evaluate without task names"]
    totals = [tests[0], sum(tests[:2]), sum(tests), sum(tests)]
    learned = [1, 2, 3, 3]
    for (_, steps), total, tasks in zip(told, totals, learned, strict=True):
        ends = [
            size + start
            for start, test in zip(accumulate([0, *tests]), tests[:tasks], strict=False)
            for size in (*range(16, test, 16), test)
        ]
        assert steps == [(end, total) for end in ends]
        assert len(steps) > tasks


def test_the_numbers_do_not_depend_on_who_is_told() -> None:
    images = torch.randint(256, (150, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.randint(3, (150,), generator=torch.Generator().manual_seed(1)))
    weights = torch.randn(12, 3, generator=torch.Generator().manual_seed(2))

    def logits(part: torch.Tensor) -> torch.Tensor:
        return part.flatten(1).float() @ weights

    heard: list[int] = []
    assert torch.equal(confusion(logits, split, tell=heard.append), confusion(logits, split))
    assert heard == [64, 128, 150]
