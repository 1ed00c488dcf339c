"""Joint: textbook training on all tasks at once, restarted at every task, from images that are counted."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lifelong.data.task import NO_AUGMENTATION, Augmentation, Task
from lifelong.methods import joint
from lifelong.methods.backbone import make_backbone
from lifelong.methods.joint import Joint, SingleTaskBatches
from lifelong.methods.replay_buffer import ReplayBuffer
from lifelong.settings.baselines import JointSettings
from lifelong.settings.fields import check, settings_of
from lifelong.settings.training import TrainingSettings
from lifelong.storage import load_tree, save_tree
from lifelong.training.examples import accuracy
from lifelong.training.stages import derive_seed, seeded
from tests.made import made_task
from tests.methods.test_par import context

SMALL = JointSettings(init_channels=4)
TRAINING = TrainingSettings(epochs=3, batch_size=8, lr=0.005, clip_norm=0.0, patience=0)


def task(index: int, augmentation: Augmentation = NO_AUGMENTATION) -> Task:
    return made_task(
        f"task {index}", kind=index, seed=index, classes=2 + index, train=6 + 3 * index, valid=8 + index, augmentation=augmentation
    )


def learned(tasks: int, settings: JointSettings = SMALL, training: TrainingSettings = TRAINING) -> Joint:
    method = Joint(settings)
    for index in range(tasks):
        method.learn(task(index), context(index, training))
    return method


@pytest.mark.usefixtures("in_float64")
def test_equals_a_plain_loop_over_all_images() -> None:
    method = learned(2)
    tasks = [task(0), task(1)]
    with seeded(derive_seed(0, 0, "backbone")):
        network = make_backbone(SMALL, 8)
    heads = torch.nn.ModuleList()
    for index in range(2):
        with seeded(derive_seed(0, index, "head")):
            heads.append(torch.nn.Linear(4, 2 + index))

    def prepared(split: str) -> list[tuple[torch.Tensor, int, int]]:
        """Image, label and task of every image, each normalized as its task has it."""
        samples = []
        for index, one in enumerate(tasks):
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (one.normalization.mean, one.normalization.std))
            chosen = getattr(one, split)
            samples += [((image / 255 - mean) / std, int(label), index) for image, label in zip(chosen.images, chosen.labels, strict=True)]
        return samples

    train, valid = prepared("train"), prepared("valid")
    assert len(train) == 2 * 6 + 3 * 9
    optimizer = torch.optim.SGD([*network.parameters(), *heads.parameters()], lr=0.005, momentum=0.9, weight_decay=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    generator = torch.Generator().manual_seed(derive_seed(0, 1, "train"))
    best, expected = -1.0, []
    for _ in range(3):
        network.train()
        for part in torch.randperm(len(train), generator=generator).split(8):
            # In the order of tasks, as the sums of batch norm are taken.
            samples = sorted((train[place] for place in part.tolist()), key=lambda sample: sample[2])
            features = network(torch.stack([image for image, _, _ in samples]))
            losses = [F.cross_entropy(heads[t](row), torch.tensor(label)) for row, (_, label, t) in zip(features, samples, strict=True)]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            features = network(torch.stack([image for image, _, _ in valid]))
            hits = sum(int(heads[t](row).argmax()) == label for row, (_, label, t) in zip(features, valid, strict=True))
            if hits / len(valid) > best:
                best = hits / len(valid)
                expected = [heads[index](network(torch.stack([image for image, _, t in valid if t == index]))) for index in range(2)]
    for index, one in enumerate(tasks):
        torch.testing.assert_close(method.logits(one.valid.images, index), expected[index], rtol=1e-8, atol=1e-10)


def test_it_starts_anew_at_every_task() -> None:
    """However badly the first task was trained, the second gives the same bits."""
    methods = []
    for epochs in (1, 3):
        method = Joint(SMALL)
        method.learn(task(0), context(0, replace(TRAINING, epochs=epochs)))
        record = method.learn(task(1), context(1, TRAINING))
        methods.append(method)
    one, other = (method.state_dict() for method in methods)
    assert all(torch.equal(tensor, other["backbone"][name]) for name, tensor in one["backbone"].items())
    assert all(torch.equal(a["weight"], b["weight"]) for a, b in zip(one["heads"], other["heads"], strict=True))
    assert record.epochs == 3
    assert record.parameters_added == 4 * 3 + 3
    assert "39 training images" in record.reason


def test_an_epoch_passes_over_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, list[int]]] = []

    class Watched(ReplayBuffer):
        def parts(self, positions, generator):
            if generator is not None:
                seen.append((len(self), positions.tolist()))
            return super().parts(positions, generator)

    monkeypatch.setattr(joint, "ReplayBuffer", Watched)
    learned(2, training=replace(TRAINING, epochs=1))
    second = [positions for size, positions in seen if size == 39]
    assert sorted(place for positions in second for place in positions) == list(range(39))
    # Batches mix the tasks.
    assert any(min(positions) < 12 <= max(positions) for positions in second)


def test_the_epoch_is_chosen_by_all_tasks() -> None:
    method = Joint(SMALL)
    for index in range(3):
        record = method.learn(task(index), context(index, TRAINING))
    hits = total = 0.0
    for index in range(3):
        valid = task(index).valid
        hits += accuracy(method.logits(valid.images, index), valid.labels) * len(valid)
        total += len(valid)
    assert record.hyperparameters["valid_accuracy"] == pytest.approx(hits / total, abs=1e-9)


def test_every_image_is_counted_and_survives_a_file(tmp_path) -> None:
    method = learned(2)
    train, valid = 12 + 27, 16 + 27
    assert method.memory() == {"training images": train * 192, "validation images": valid * 192, "labels": (train + valid) * 8}
    save_tree(tmp_path / "state", method.state_dict())
    again = Joint(SMALL)
    again.load_state_dict(load_tree(tmp_path / "state"))
    assert again.memory() == method.memory()
    for index in range(2):
        assert torch.equal(again.train.tasks[index].images, task(index).train.images)
        assert torch.equal(again.train.tasks[index].labels, task(index).train.labels)
        assert torch.equal(again.valid.tasks[index].images, task(index).valid.images)


def test_images_are_augmented_by_their_own_tasks_policy() -> None:
    method = Joint(SMALL)
    moves = Augmentation(crop=1, flip=True)
    method.learn(task(0, moves), context(0, replace(TRAINING, epochs=1)))
    method.learn(task(1), context(1, replace(TRAINING, epochs=1)))
    assert [kept.augmentation for kept in method.train.tasks] == [moves, NO_AUGMENTATION]
    assert [kept.augmentation for kept in method.valid.tasks] == [NO_AUGMENTATION] * 2
    plain = Joint(SMALL)
    plain.learn(task(0, moves), context(0, replace(TRAINING, epochs=1, augment=False)))
    assert plain.train.tasks[0].augmentation == NO_AUGMENTATION


@pytest.mark.parametrize("policy", ["per-task-stats", "per-task"])
def test_tasks_may_have_norms_of_their_own(policy: str) -> None:
    method = learned(2, replace(SMALL, batch_norm=policy, init_channels=8), replace(TRAINING, epochs=10, lr=0.02))
    weights = method.state_dict()["backbone"]
    means = [weights[f"bn1.norms.{index}.running_mean"] for index in range(2)]
    assert all(mean.abs().sum() > 0 for mean in means)
    assert not torch.equal(*means)
    affine = [weights[f"bn1.norms.{index}.weight"] for index in range(2)]
    assert torch.equal(*affine) == (policy == "per-task-stats")
    for index in range(2):
        assert accuracy(method.logits(task(index).train.images, index), task(index).train.labels) > 0.9


def test_their_batches_then_hold_one_task_each() -> None:
    labels = torch.zeros(20, dtype=torch.int64)
    examples = SingleTaskBatches(torch.arange(20), labels, labels[:0], labels[:0], counts=(9, 4, 7))
    generator = torch.Generator().manual_seed(0)
    epochs = [[part.tolist() for part in examples.epoch(4, generator)] for _ in range(2)]
    for epoch in epochs:
        assert sorted(place for part in epoch for place in part) == list(range(20))
        assert sorted(map(len, epoch)) == [3, 4, 4, 4, 5]
        owners = [{(place >= 9) + (place >= 13) for place in part} for part in epoch]
        assert all(len(owner) == 1 for owner in owners)
        assert owners != sorted(owners, key=min)
    assert epochs[0] != epochs[1]


def test_there_is_nothing_to_freeze() -> None:
    with pytest.raises(ValueError, match="one of 'shared', 'per-task-stats', 'per-task'"):
        check(settings_of(JointSettings)["batch_norm"].hint, "frozen")
