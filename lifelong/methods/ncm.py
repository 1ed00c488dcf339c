"""NCM: the nearest class mean on frozen features. Nothing is trained, and nothing can be forgotten.

The mean of each class is that of raw features; an image gets the class whose mean has the largest cosine with its features.

Source: Mensink et al., TPAMI 2013; in continual learning SimpleCIL (Zhou et al., IJCV 2024).
"""

import torch
from torch import nn

from lifelong.data.task import Task
from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.pretrained import PretrainedMethod
from lifelong.networks.pretrained import CosineHead
from lifelong.relatedness.bank import prototypes
from lifelong.settings.pretrained import NCMSettings
from lifelong.training.closed_form import Rows, scale_of, to_judge


class NCM(PretrainedMethod[NCMSettings]):
    """Class means of frozen features, compared by their cosine."""

    name = "ncm"

    def fit_head(self, train: Rows, valid: Rows, task: Task, context: Context, record: LearnRecord) -> nn.Module:
        """Average the features of each class; the scale that makes cosines probabilities is chosen on validation images."""
        head = self.make_head(train.features.shape[1], train.classes)
        assert isinstance(head, CosineHead)
        head.double().to(train.features.device)
        with torch.no_grad():
            head.weight.copy_(prototypes(train.features, train.labels, train.classes).means)
            _, judges = to_judge(train, valid)
            head.scale.fill_(scale_of(head(judges.features), judges.labels))
        return head

    @property
    def heads_are_own(self) -> bool:
        """True: a head knows its task alone."""
        return True

    def make_head(self, inputs: int, classes: int) -> CosineHead:
        """Make a head of cosines."""
        return CosineHead(inputs, classes)
