"""The linear probe: a multinomial logistic regression on frozen features for each task.

The penalty on its weights is chosen on the task's validation images. Features are standardized; the head has that folded in.

Source: the protocol of Kornblith et al., CVPR 2019.
"""

import torch
from torch import nn

from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.pretrained import PretrainedMethod
from lifelong.settings.pretrained import LinearProbeSettings
from lifelong.training.closed_form import Linear, Rows, choose_logistic, logistic, to_judge


class LinearProbe(PretrainedMethod[LinearProbeSettings]):
    """A logistic regression on frozen features per task."""

    name = "linear-probe"

    def fit_head(self, train: Rows, valid: Rows, task: Task, context: Context, record: LearnRecord) -> nn.Module:
        """Fit the regression with each penalty, and keep the best on validation images."""
        if not self.settings.probe_penalties:
            raise LifelongError("probe_penalties is empty; give at least one penalty, such as 0.01")
        fitted_on, judges = to_judge(train, valid)
        penalty, found = choose_logistic(fitted_on, judges, self.settings.probe_penalties)
        if fitted_on is not train or self.settings.refit:
            found = logistic(train.with_rows(valid) if self.settings.refit else train, penalty)
        record.hyperparameters["penalty"] = penalty
        return as_module(found)

    @property
    def heads_are_own(self) -> bool:
        """True: a head knows its task alone."""
        return True

    def make_head(self, inputs: int, classes: int) -> nn.Linear:
        """Make a linear head."""
        return nn.Linear(inputs, classes)


def as_module(found: Linear) -> nn.Linear:
    """Return a linear classifier as a module."""
    inputs, classes = found.weight.shape
    head = nn.Linear(inputs, classes, dtype=found.weight.dtype, device=found.weight.device)
    with torch.no_grad():
        head.weight.copy_(found.weight.T)
        head.bias.copy_(found.bias)
    return head
