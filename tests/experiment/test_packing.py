"""The test images of many small tasks pass the network that they share together."""

import math
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from lifelong.data.task import IMAGENET, Split, Task
from lifelong.experiment.observer import Observer
from lifelong.experiment.packing import packed
from lifelong.experiment.results import read_summary
from lifelong.experiment.run import run
from lifelong.methods.finetune import Finetune
from lifelong.methods.method import Context, Method
from lifelong.methods.par import PAR
from lifelong.relatedness.extractor import open_extractor
from lifelong.settings.baselines import FinetuneSettings
from lifelong.settings.par import PARSettings
from lifelong.settings.run import RunConfig
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import confusion, counted
from tests.learned import HERE

TRAINING = TrainingSettings(epochs=1, batch_size=8, lr=0.05)
SIDE = 16


def images(seed: int, count: int, side: int = SIDE) -> Split:
    generator = torch.Generator().manual_seed(seed)
    # Darker from task to task, so that each is normalized in a way of its own.
    drawn = torch.randint(0, 256 - 20 * (seed % 8), (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return Split(drawn, torch.arange(count) % 2)


def learned(method: Method, tasks: int, **about) -> Method:
    """A method that has learned a few tasks, of two classes each."""
    for index in range(tasks):
        task = Task(f"task {index}", ["a", "b"], lambda _, index=index: images(index, 8), **about)
        context = Context(
            task_index=index,
            task_name=task.name,
            training=TRAINING,
            seed=0,
            device=torch.device("cpu"),
            open_extractor=lambda name, policy: open_extractor("pixels"),
        )
        method.learn(task, context)
    return method


def finetune(tasks: int, batch_norm="shared", **about) -> Method:
    return learned(Finetune(FinetuneSettings(init_channels=4, backbone="cells", batch_norm=batch_norm)), tasks, **about)


def one_by_one(method: Method, tests: dict[int, Split]) -> None:
    """Packed answers are those of each task by itself."""
    found = {each.task: each for each in packed(method, tests.items())}
    assert sorted(found) == sorted(tests)
    for task, split in tests.items():
        alone = confusion(lambda part, task=task: method.logits(part, task), split)
        assert torch.equal(counted(found[task].logits, found[task].labels), alone)
        torch.testing.assert_close(found[task].logits, method.logits(split.images, task), rtol=1e-4, atol=1e-5)


def test_answers_are_those_of_each_task_by_itself() -> None:
    one_by_one(finetune(6), {index: images(10 + index, 5 + index) for index in range(6)})


def test_so_are_those_of_groups_with_experts() -> None:
    """A wide alpha: the tasks share an expert. Without groups each has one, and none passes with another's images."""
    for alpha, experts in ((100.0, 1), (0.0, 4)):
        settings = PARSettings(alpha=alpha, beta=1000.0, init_channels=4, cells=3, search_epochs=1, extractor="pixels")
        method = PAR(settings)
        learned(method, 4)
        assert len(method.experts) == experts
        one_by_one(method, {index: images(10 + index, 6) for index in range(4)})


@pytest.mark.parametrize(("side", "batch"), [(16, 64), (8, 256)])
def test_the_network_is_passed_once_for_each_batch(side: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each task. Of images with a quarter of the pixels four times as many make a batch."""
    method, passed = finetune(4), []
    features = Finetune.features
    monkeypatch.setattr(Finetune, "features", lambda self, inputs, task: passed.append(len(inputs)) or features(self, inputs, task))
    tests, told = [(index % 4, images(index, 8, side)) for index in range(50)], []
    assert [each.task for each in packed(method, tests, told.append)] == [task for task, _ in tests]
    assert sum(passed) == 400
    assert len(passed) == math.ceil(400 / batch)
    assert told == list(range(8, 401, 8))


def test_large_test_sets_pass_by_themselves_and_are_equal_to_the_bit() -> None:
    method = finetune(3)
    tests = {0: images(10, 5), 1: images(11, 70), 2: images(12, 64)}
    told: list[int] = []
    found = {each.task: each.logits for each in packed(method, tests.items(), told.append)}
    assert list(found) == [1, 2, 0]
    assert told == [64, 70, 134, 139]
    for task in (1, 2):
        assert torch.equal(found[task], torch.cat([method.logits(part, task) for part in tests[task].images.split(64)]))


@pytest.mark.parametrize("policy", ["shared", "frozen", "per-task", "per-task-stats"])
def test_statistics_of_its_own_are_those_a_task_answers_with(policy: str) -> None:
    """Also where the images of all tasks are normalized alike, so that only batch norm tells the tasks' features apart."""
    method = finetune(3, policy, normalization=IMAGENET)
    assert (method.two_steps(0) is None) == policy.startswith("per-task")
    one_by_one(method, {index: images(10 + index, 6) for index in range(3)})
    shown = images(20, 5).images
    for task, together in enumerate(method.logits_of(shown, range(3))):
        assert torch.equal(together, method.logits(shown, task))


def test_nothing_is_asked_of_no_images() -> None:
    method = finetune(1)
    (answered,) = packed(method, [(0, images(0, 0))])
    assert answered.logits.shape == (0, 2)
    assert list(packed(method, [])) == []


class Stop(Observer):
    """Stops a run before a task."""

    def task_started(self, index: int, name: str) -> None:
        if index == 3:
            raise KeyboardInterrupt


def test_a_run_that_goes_on_judges_as_one_that_was_not_interrupted(tmp_path: Path) -> None:
    stream = tmp_path / "tiny.toml"
    task = """
    [[task]]
    name = "{0}"
    source = "digits"
    classes = ["{0}", "{1}"]
    train_per_class = 8
    valid_per_class = 4
    test_per_class = 6
    overlap = true
    """
    stream.write_text('name = "tiny"\nimage_size = 8\n' + "".join(task.format(index, index + 1) for index in range(5)))
    settings = FinetuneSettings(init_channels=4, backbone="cells")
    config = RunConfig(stream=str(stream), method="finetune", seed=0, preset="paper", training=TRAINING, settings=settings)
    whole = run(config, tmp_path / "whole", HERE)
    with suppress(KeyboardInterrupt):
        run(config, tmp_path / "halted", HERE, Stop())
    assert len(read_summary(tmp_path / "halted").tasks) == 3
    again = run(config, tmp_path / "halted", HERE)
    assert again["accuracy"] == whole["accuracy"]
    assert [each["judged"] for each in again["tasks"]] == [each["judged"] for each in whole["tasks"]]
