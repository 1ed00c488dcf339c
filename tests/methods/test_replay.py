"""A memory that is written after each task, and losses over batches of several tasks."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lifelong.methods.conformance import check_method
from lifelong.methods.er import ER
from lifelong.methods.registry import make_method
from lifelong.methods.replay import mixed_cross_entropy, mixed_features
from lifelong.methods.replay_buffer import Part
from lifelong.networks.tasknorm import add_task, use_task, with_task_norms
from lifelong.settings.baselines import ERSettings
from lifelong.training.examples import Examples
from lifelong.training.stages import seeded
from tests.methods.test_conformance import small_settings
from tests.methods.test_par import context
from tests.methods.test_replay_buffer import NORMS, chi_square, kept


def test_the_memory_of_a_method_is_as_uniform() -> None:
    """Through `consolidate`, over tasks of unequal sizes; an image is known by its first pixel."""
    trials, capacity, sizes = 500, 10, (30, 6, 44)
    counts = torch.zeros(sum(sizes))
    for trial in range(trials):
        method = ER(ERSettings(memory_policy="reservoir", memory_size=capacity))
        for index, size in enumerate(sizes):
            images = (torch.arange(size) + sum(sizes[:index])).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
            labels = torch.arange(size) % 2
            examples = Examples(images, labels, images[:0], labels[:0], NORMS[0])
            method.consolidate(examples, replace(context(index), seed=trial))
        assert len(method.buffer) == capacity
        counts[torch.cat([task.images[:, 0, 0, 0] for task in method.buffer.tasks]).long()] += 1
    assert method.seen == sum(sizes)
    assert chi_square(counts, trials, capacity / sum(sizes)) > 0.001


def network(policy: str = "shared", tasks: int = 3) -> nn.Module:
    with seeded(0):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        with_task_norms(net, policy)  # ty: ignore
        for task in range(1, tasks):
            add_task(net)
            with torch.no_grad():
                for module in net.modules():
                    if isinstance(module, nn.BatchNorm2d) and policy != "shared":
                        module.running_mean.add_(0.1 * task)  # ty: ignore
        return net.train()


def parts(*tasks: int, size: int = 8, count: int = 5) -> list[Part]:
    return [kept(count, task, size=size).part(task, None) for task in tasks]


@pytest.mark.parametrize("policy", ["shared", "frozen"])
def test_tasks_of_one_norm_pass_together(policy: str) -> None:
    net = network(policy)
    mixed = parts(0, 2, 1)
    expected = copy.deepcopy(net)(torch.cat([part.inputs for part in mixed]))
    assert torch.equal(torch.cat(mixed_features(net, mixed, own_statistics=False, learning=range(2, 3))), expected)
    sizes = [*parts(0, size=6), *parts(1), *parts(2, size=6)]
    features = mixed_features(net.eval(), sizes, own_statistics=False, learning=range(0))
    for feature, part in zip(features, sizes, strict=True):
        torch.testing.assert_close(feature, net(part.inputs))


@pytest.mark.parametrize("policy", ["per-task-stats", "per-task"])
def test_tasks_of_their_own_norms_pass_by_themselves(policy: str) -> None:
    net = network(policy)
    before = copy.deepcopy(net.state_dict())
    mixed = [*parts(0, 1), *parts(2, count=4)]
    features = mixed_features(net, mixed, own_statistics=True, learning=range(2, 3))
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"1.norms.2.running_mean", "1.norms.2.running_var", "1.norms.2.num_batches_tracked"}
    assert all(module.training for module in net.modules())
    plain = network(policy)
    for part, feature in zip(mixed, features, strict=True):
        use_task(plain, part.task)
        torch.testing.assert_close(feature, plain.train(part.task == 2)(part.inputs))
    # Of a single image there are no statistics: its task's running ones are used, and stay.
    before = copy.deepcopy(net.state_dict())
    mixed_features(net, parts(2, count=1), own_statistics=True, learning=range(2, 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_each_sample_is_answered_by_its_own_head() -> None:
    heads = [nn.Linear(4, 3), nn.Linear(4, 5), nn.Linear(4, 3)]
    mixed = [*parts(0, 1, count=3), *parts(2, count=7)]
    features = [torch.randn(len(part.labels), 4) for part in mixed]
    losses = [
        F.cross_entropy(heads[part.task](row), label)
        for part, rows in zip(mixed, features, strict=True)
        for row, label in zip(rows, part.labels, strict=True)
    ]
    torch.testing.assert_close(mixed_cross_entropy(features, mixed, heads), torch.stack(losses).mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("er", {"memory_policy": "reservoir", "memory_size": 20}),
        ("er", {"batch_norm": "per-task-stats", "memory_batch": 2, "memory_per_class": 2}),
        ("er", {"batch_norm": "per-task", "memory_batch": 2}),
        ("er", {"batch_norm": "frozen", "memory_batch": 2}),
        ("agem", {"batch_norm": "per-task-stats"}),
        ("agem", {"batch_norm": "per-task"}),
        ("agem", {"batch_norm": "frozen"}),
        ("joint", {"batch_norm": "per-task-stats"}),
        ("joint", {"batch_norm": "per-task"}),
    ],
)
def test_policies_keep_the_contract_too(name: str, changes: dict) -> None:
    check_method(lambda: make_method(name, small_settings(name, **changes)))
