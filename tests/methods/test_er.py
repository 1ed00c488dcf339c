"""Experience replay: its loss, and what its memory holds when."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.data.augment import augment, normalize
from lifelong.data.task import Augmentation
from lifelong.methods.er import ER
from lifelong.methods.finetune import Finetune
from lifelong.settings.baselines import ERSettings, FinetuneSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import evaluate, image_examples
from tests.made import made_batch, made_task
from tests.methods.test_par import context

SMALL = ERSettings(init_channels=4, memory_per_class=5, memory_batch=8)
TRAINING = TrainingSettings(epochs=2, batch_size=8, lr=0.05)
MOVES = Augmentation(crop=1, flip=True)


def learned(settings: ERSettings = SMALL, tasks: int = 2, training: TrainingSettings = TRAINING) -> ER:
    method = ER(settings)
    for index in range(tasks):
        method.learn(made_task(kind=index, seed=index, classes=2 + index, augmentation=MOVES), context(index, training))
    return method


def found(images: Tensor, among: Tensor) -> Tensor:
    """For each image where it stands in a larger set."""
    return (images.flatten(1)[:, None] == among.flatten(1)[None]).all(dim=2).int().argmax(dim=1)


def test_the_loss_is_the_mean_over_the_batch_and_the_memory_batch() -> None:
    method = learned()
    task = made_task(kind=2, seed=2, augmentation=MOVES)
    examples, head = image_examples(task), nn.Linear(4, 3)
    network = copy.deepcopy(method.backbone).train()  # ty: ignore
    method.backbone.train()  # ty: ignore
    inputs = examples.prepare(examples.train[:6])
    batch = made_batch(inputs, examples.train_labels[:6], torch.arange(6), generator=torch.Generator().manual_seed(4))
    loss = method.loss(head, examples)
    assert loss is not None
    value = loss(batch)

    # The same draws, sample by sample: 8 of the 10 + 15 images, each as its own task's.
    random = torch.Generator().manual_seed(4)
    drawn = torch.randperm(25, generator=random)[:8].tolist()
    pieces, labels, heads = [], [], []
    for index, start, count in ((0, 0, 10), (1, 10, 15)):
        rows = [place - start for place in drawn if start <= place < start + count]
        kept = method.buffer.tasks[index]
        pieces.append(normalize(augment(kept.images[rows], MOVES, random), method.tasks[index].normalization))
        labels += kept.labels[rows].tolist()
        heads += [method.heads[index]] * len(rows)
    features = network(torch.cat([*pieces, inputs]))
    labels += examples.train_labels[:6].tolist()
    heads += [head] * 6
    losses = [F.cross_entropy(h(row), torch.tensor(label)) for h, row, label in zip(heads, features, labels, strict=True)]
    assert len(losses) == 14
    torch.testing.assert_close(value, torch.stack(losses).mean())


@pytest.mark.parametrize("policy", ["ring", "reservoir"])
def test_the_memory_is_offered_each_image_once_as_it_came(policy: str) -> None:
    settings = replace(SMALL, memory_policy=policy, memory_size=20)
    long, short = learned(settings, training=replace(TRAINING, epochs=3)), learned(settings, training=replace(TRAINING, epochs=1))
    assert long.seen == 12 * 2 + 12 * 3
    for index, (kept, same) in enumerate(zip(long.buffer.tasks, short.buffer.tasks, strict=True)):
        train = made_task(kind=index, seed=index, classes=2 + index).train
        places = found(kept.images, train.images)
        assert torch.equal(train.images[places], kept.images)
        assert torch.equal(train.labels[places], kept.labels)
        assert len(set(places.tolist())) == len(places)
        assert torch.equal(kept.images, same.images)
        if policy == "ring":
            assert kept.labels.bincount().tolist() == [5] * (2 + index)
    assert len(long.buffer) == (25 if policy == "ring" else 20)
    assert long.memory() == {"exemplars": len(long.buffer) * 192, "exemplar labels": len(long.buffer) * 8}


def test_which_images_are_kept_is_chance() -> None:
    kept = [found(learned(tasks=1).buffer.tasks[0].images, made_task(classes=2).train.images).sort().values]
    # Not simply the first or the last of each class.
    assert kept[0].tolist() not in ([*range(5), *range(12, 17)], [*range(7, 12), *range(19, 24)])


def test_while_a_task_is_learned_the_memory_holds_earlier_ones_only() -> None:
    class Watched(ER):
        held: list[int]

        def replayed(self, batch):
            self.held.append(len(self.buffer))
            drawn = super().replayed(batch)
            assert sum(len(part.labels) for part in drawn) == 8
            return drawn

    method = Watched(SMALL)
    method.held = []
    for index in range(3):
        method.learn(made_task(kind=index, seed=index), context(index, TRAINING))
    assert method.held == [15] * 10 + [30] * 10


def test_old_heads_learn_along() -> None:
    method = learned(tasks=1)
    before = copy.deepcopy(method.heads[0].state_dict())
    method.learn(made_task(kind=1, seed=1), context(1, TRAINING))
    assert not torch.equal(method.heads[0].state_dict()["weight"], before["weight"])


@pytest.mark.parametrize("policy", ["per-task-stats", "per-task"])
def test_norms_of_old_tasks_stay(policy: str) -> None:
    method = learned(replace(SMALL, batch_norm=policy), tasks=1)
    old = {name: tensor.clone() for name, tensor in method.backbone.state_dict().items() if ".norms.0.running" in name}  # ty: ignore
    assert old
    method.learn(made_task(kind=1, seed=1), context(1, TRAINING))
    weights = method.backbone.state_dict()  # ty: ignore
    assert all(torch.equal(weights[name], tensor) for name, tensor in old.items())
    assert any(not torch.equal(weights[name.replace("norms.0", "norms.1")], tensor) for name, tensor in old.items())


def test_it_forgets_less_than_finetune() -> None:
    training = TrainingSettings(epochs=8, batch_size=8, lr=0.05)
    tasks = [made_task(kind=index, seed=index, classes=4) for index in range(2)]
    scores = []
    for method in (ER(replace(SMALL, init_channels=8)), Finetune(FinetuneSettings(init_channels=8))):
        for index in range(2):
            method.learn(made_task(kind=index, seed=index, classes=4), context(index, training))
        scores.append(evaluate(lambda images, learner=method: learner.logits(images, 0), tasks[0].test))
    assert scores[0] > scores[1] + 0.1, scores
