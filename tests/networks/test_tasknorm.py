"""Batch-norm policies: whose statistics are applied, which weights are trained, what changes for an old task."""

import copy
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from lifelong.methods.method import count_parameters
from lifelong.networks.resnet import LightResNet
from lifelong.networks.tasknorm import BatchNormPolicy, TaskBatchNorm, add_task, other_parameters, use_task, with_task_norms
from lifelong.settings.baselines import BatchNorm

POLICIES = get_args(BatchNormPolicy)


def images(task: int) -> Tensor:
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(task)) * (task + 1) + task


def network(policy: BatchNormPolicy) -> nn.Module:
    torch.manual_seed(0)
    return with_task_norms(LightResNet(4), policy)


def train(net: nn.Module, task: int) -> None:
    """A few steps on a task's images, on all that may be trained."""
    net.requires_grad_(True)
    for parameter in other_parameters(net, task):
        parameter.requires_grad_(False)
    net.train()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        net(images(task)).square().mean().backward()
        optimizer.step()
    net.eval().requires_grad_(False)


def norms(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, (nn.BatchNorm2d, TaskBatchNorm))]


def test_the_settings_know_the_policies():
    assert get_args(BatchNorm) == POLICIES


@pytest.mark.parametrize("policy", POLICIES)
def test_one_task_is_a_plain_network(policy):
    plain, made = network("shared"), network(policy)
    for net in (plain, made):
        train(net, 0)
    assert torch.equal(plain(images(3)), made(images(3)))
    assert count_parameters([made]) == count_parameters([plain])


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_second_task_changes(policy):
    """The weights of the convolutions stand still here: what changes for the first task is batch norm's doing."""
    net = network(policy)
    train(net, 0)
    before = net(images(0))
    parameters = count_parameters([net])
    frozen = [module.weight.clone() for module in net.modules() if isinstance(module, nn.Conv2d)]
    add_task(net)
    train(net, 1)
    with torch.no_grad():
        for module, weight in zip((m for m in net.modules() if isinstance(m, nn.Conv2d)), frozen, strict=True):
            module.weight.copy_(weight)
    use_task(net, 0)
    same = torch.equal(net(images(0)), before)
    assert same == (policy == "per-task")
    # 2,560 affine weights a task at 64 channels: 20 batch norms of 2 * 64.
    assert count_parameters([net]) - parameters == (20 * 2 * 4 if policy == "per-task" else 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_whose_statistics_are_applied(policy):
    net = network(policy)
    train(net, 0)
    first = [buffer.clone() for buffer in net.buffers()]
    add_task(net)
    train(net, 1)
    stems = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if policy == "shared":
        assert not torch.equal(stems[0].running_mean, first[0])
    elif policy == "frozen":
        assert all(torch.equal(now, then) for now, then in zip(net.buffers(), first, strict=True))
    else:
        assert torch.equal(stems[0].running_mean, first[0])  # the first task's
        assert not torch.equal(stems[1].running_mean, first[0])  # the second's, which began as a copy
        use_task(net, 0)
        one = net(images(2))
        use_task(net, 1)
        assert not torch.equal(net(images(2)), one)


@pytest.mark.parametrize("policy", ["per-task", "per-task-stats", "frozen"])
def test_the_state_survives(policy):
    net = network(policy)
    train(net, 0)
    add_task(net)
    train(net, 1)
    again = network(policy)
    add_task(again)
    again.load_state_dict(copy.deepcopy(net.state_dict()))
    again.eval()
    for task in (0, 1):
        use_task(net, task)
        use_task(again, task)
        assert torch.equal(net(images(task)), again(images(task)))
    assert count_parameters([again]) == count_parameters([net])


def test_an_earlier_task_may_be_applied_before_the_next_comes():
    net = network("per-task")
    train(net, 0)
    add_task(net)
    use_task(net, 0)
    add_task(net)
    assert {norm.task for norm in norms(net) if isinstance(norm, TaskBatchNorm)} == {2}
