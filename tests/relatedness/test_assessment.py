from dataclasses import replace

import pytest
import torch

from lifelong.data.task import Normalization, Split, Task
from lifelong.errors import LifelongError
from lifelong.relatedness.assessment import Relatedness, task_features
from lifelong.relatedness.extractor import open_extractor
from lifelong.settings.par import PARSettings
from lifelong.storage import load_tree, save_tree
from tests.relatedness.plain import plain_divergences

EXTRACTOR = open_extractor("pixels")
NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SIZES = {"train": 40, "valid": 30, "test": 10}


def make_task(seed, classes=2, family=0, **sizes):
    """Images of a few patterns with noise; a family shares its patterns."""
    patterns = torch.randint(40, 216, (classes, 3, 8, 8), generator=torch.Generator().manual_seed(family))

    def load(split):
        generator = torch.Generator().manual_seed(seed * 10 + list(SIZES).index(split))
        labels = torch.arange((SIZES | sizes)[split]) % classes
        noise = torch.randint(-40, 40, (len(labels), 3, 8, 8), generator=generator)
        return Split((patterns[labels] + noise).to(torch.uint8), labels)

    return Task(f"task {seed}", [str(c) for c in range(classes)], load, normalization=NORMALIZATION)


def place(relatedness, decision):
    if decision.decision == "reuse-expert":
        relatedness.groups.join(decision.group, decision.samples)
    else:
        relatedness.groups.open(decision.samples)


def run(relatedness, tasks):
    decisions = []
    for task in tasks:
        decisions.append(relatedness.assess(task, EXTRACTOR))
        place(relatedness, decisions[-1])
    return decisions


TASKS = [(1, 2, 0), (2, 3, 5), (3, 2, 0), (4, 3, 5), (5, 2, 9)]


def test_tasks_of_a_family_share_a_group():
    relatedness = Relatedness(PARSettings())
    decisions = run(relatedness, [make_task(*task) for task in TASKS])
    assert [decision.decision for decision in decisions] == ["search", "search", "reuse-expert", "reuse-expert", "search"]
    assert relatedness.groups.members == [[0, 2], [1, 3], [4]]
    assert relatedness.groups.largest == [40, 40, 40]


def test_distances_are_those_of_the_plain_version():
    relatedness = Relatedness(PARSettings(clamp="none"))
    tasks = [make_task(*task) for task in TASKS]
    decisions = run(relatedness, tasks)
    plain = [(EXTRACTOR.features(task.valid.images, task.normalization), task.valid.labels, len(task.classes)) for task in tasks]
    for index, decision in enumerate(decisions[1:], start=1):
        assert decision.divergences == pytest.approx(plain_divergences(*plain[index], plain[:index], clamp="none"), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("split", "count"), [("valid", 30), ("train", 40), ("both", 70)])
def test_the_split_of_the_features(split, count):
    task = make_task(1)
    sample = task_features(task, EXTRACTOR, PARSettings(feature_split=split))
    features, labels = sample.features, sample.labels
    assert (sample.least, sample.few) == (count // 2, False)
    assert len(features) == len(labels) == count
    first = task.valid if split == "valid" else task.train
    assert torch.equal(features[: len(first)], EXTRACTOR.features(first.images, task.normalization))


def test_only_the_split_that_is_asked_for_is_loaded():
    task = make_task(1)

    def load(split):
        assert split == "valid"
        return task.valid

    task_features(Task("t", task.classes, load, normalization=task.normalization), EXTRACTOR, PARSettings())


def test_a_split_without_images():
    with pytest.raises(LifelongError, match="task 'task 7' has no valid images"):
        task_features(make_task(7, valid=0), EXTRACTOR, PARSettings())
    for settings in (PARSettings(feature_split="both"), PARSettings(few_images=20)):
        assert len(task_features(make_task(7, valid=0), EXTRACTOR, settings).features) == 40


def test_it_goes_on_from_its_state_to_the_bit(tmp_path):
    settings = PARSettings()
    straight = run(Relatedness(settings), [make_task(*task) for task in TASKS])
    first = Relatedness(settings)
    run(first, [make_task(*task) for task in TASKS[:3]])
    save_tree(tmp_path / "state.safetensors", first.state())
    again = Relatedness.from_state(settings, load_tree(tmp_path / "state.safetensors"))
    assert run(again, [make_task(*task) for task in TASKS[3:]]) == straight[3:]


def test_variants_without_distances_need_no_extractor():
    relatedness = Relatedness(replace(PARSettings(), variant="fine"))
    assert not relatedness.needed
    for task in TASKS[:2]:
        decision = relatedness.assess(make_task(*task), None)
        assert (decision.decision, decision.divergences) == ("search", ())
        place(relatedness, decision)
    assert relatedness.groups.members == [[0], [1]]
    assert len(relatedness.bank) == 0
    assert Relatedness(PARSettings()).needed


def test_tasks_of_other_image_sizes_cannot_be_compared_by_pixels():
    relatedness = Relatedness(PARSettings())
    run(relatedness, [make_task(1)])
    large = Split(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    task = Task("large", ["a", "b"], lambda _: large, normalization=NORMALIZATION)
    with pytest.raises(LifelongError, match="length 768, the tasks before it 192"):
        relatedness.assess(task, EXTRACTOR)


@pytest.mark.parametrize("each", [5, 10, 20])
def test_where_a_class_has_few_images_all_of_the_task_are_measured(each):
    """Of one distribution drawn twice the paper's estimate makes two tasks; of two distributions two are made either way."""

    def decided(**options):
        relatedness = Relatedness(PARSettings(**options))
        few = {"train": 8 * each, "valid": 2 * each}
        return run(relatedness, [make_task(seed, 10, family, **few) for seed, family in ((1, 0), (2, 0), (3, 5))])

    paper, ours = decided(), decided(few_images=20)
    assert [decision.decision for decision in paper] == ["search"] * 3
    assert all("--few-images 20" in decision.warning for decision in paper)
    assert [decision.decision for decision in ours] == ["search", "reuse-expert", "search"]
    assert not any(decision.warning for decision in ours)
    assert ours[1].reason.endswith(f"shared; measured by all its images: {each // 5} of a class were few")


def test_with_enough_images_of_a_class_the_paper_is_followed():
    tasks = [make_task(*task, valid=60) for task in TASKS]
    assert run(Relatedness(PARSettings()), tasks) == run(Relatedness(PARSettings(few_images=20)), tasks)
    assert not any(decision.warning for decision in run(Relatedness(PARSettings()), tasks))
