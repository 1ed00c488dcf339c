"""Batch normalization in a network that several tasks share.

Shared convolutions forget slowly under a penalty or a mask; nothing protects running statistics, which after the last task are the last
task's. Four policies, one mechanism:

``shared``
    One batch norm for all tasks, as PAR's authors train their baselines.
``per-task-stats``
    Affine weights are shared, running statistics belong to a task (2,560 numbers per task in the light ResNet-18, no parameters).
``per-task``
    Affine weights too belong to a task (2,560 parameters per task, counted in M).
``frozen``
    Statistics stay fixed after the first task, in training too; affine weights are still trained (MNTDP's baselines).

A task's own batch norm starts as a copy of the previous task's.
"""

import copy
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from lifelong.networks.chosen import ChoosesTask, ChosenTask

BatchNormPolicy = Literal["shared", "per-task-stats", "per-task", "frozen"]


class TaskBatchNorm(ChoosesTask, nn.Module):
    """A batch norm that knows which task it works for.

    Args:
        norm: the batch norm of the first task.
        policy: any except "shared", which needs only `norm` itself.

    Attributes:
        tasks: how many tasks there are.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, policy: BatchNormPolicy) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm])
        self.policy = policy
        self.tasks = 1
        self._chosen = ChosenTask()

    def add_task(self) -> None:
        """Add the next task, and apply it."""
        if self.policy != "frozen":
            last = self.norms[-1]
            norm = copy.deepcopy(last)
            if self.policy == "per-task-stats":
                norm.weight, norm.bias = last.weight, last.bias
            self.norms.append(norm)
        self.tasks += 1
        self.task = self.tasks - 1
        self.train(self.training)

    def train(self, mode: bool = True) -> "TaskBatchNorm":
        """Set the mode, but keep frozen statistics fixed after the first task."""
        super().train(mode)
        if self.policy == "frozen" and self.task > 0:
            self.norms.eval()
        return self

    def forward(self, x: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        """Normalize maps or features."""
        return self.norms[0 if self.policy == "frozen" else self.task](x)


def with_task_norms(network: nn.Module, policy: BatchNormPolicy) -> nn.Module:
    """Apply the policy to every batch norm of the network, in place."""
    if policy == "shared":
        return network
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d) and not isinstance(module, nn.ModuleList):
                setattr(module, name, TaskBatchNorm(child, policy))
    return network


def add_task(network: nn.Module) -> None:
    """Add the next task to the batch norms of a network, and apply it from now on."""
    for norm in _task_norms(network):
        norm.add_task()


def use_task(network: nn.Module, task: int) -> None:
    """Apply the batch norms of a task, from 0, in every later call of the network by this thread."""
    for norm in _task_norms(network):
        norm.task = task


def other_parameters(network: nn.Module, task: int) -> list[nn.Parameter]:
    """Return the parameters of other tasks' batch norms, which are not trained with `task`."""
    return [parameter for index, parameter in _parameters_by_task(network) if index != task]


def own_parameters(network: nn.Module, task: int) -> list[nn.Parameter]:
    """Return the parameters of batch norms that only `task` uses."""
    return [parameter for index, parameter in _parameters_by_task(network) if index == task]


def _parameters_by_task(network: nn.Module) -> list[tuple[int, nn.Parameter]]:
    norms = [(norm, index) for norm in _task_norms(network) if norm.policy == "per-task" for index in range(len(norm.norms))]
    return [(index, parameter) for norm, index in norms for parameter in norm.norms[index].parameters()]


def _task_norms(network: nn.Module) -> list[TaskBatchNorm]:
    """Return the batch norms of a network that know their task, in order: a tenth of the time that `network.modules()` takes."""
    waiting, found = [network], dict[int, TaskBatchNorm]()
    while waiting:
        module = waiting.pop()
        if isinstance(module, TaskBatchNorm):
            found.setdefault(id(module), module)
        waiting += [inner for inner in reversed(module._modules.values()) if inner is not None]
    return list(found.values())
