"""RanPAC: ridge regression on random features of a frozen network, in closed form.

Features f are projected once, h = max(0, f R) with a fixed normal R, and W = (H'H + lambda I)^-1 H'Y maps them to one-hot labels; lambda
is chosen by the squared error on the task's validation images. With `statistics` "task" each task has its own H'H and H'Y, which are not
kept, and no earlier answer ever changes; with "common" they add up over all tasks, as in the paper, and all heads are solved again.

Source: McDonnell et al., NeurIPS 2023, arXiv 2307.02251, without its first phase (no part of the network is trained).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.method import Context, LearnRecord, Recognized
from lifelong.methods.pretrained import PretrainedMethod
from lifelong.networks.pretrained import RandomFeatures
from lifelong.settings.pretrained import RanPACSettings
from lifelong.storage import Tree
from lifelong.training.closed_form import Rows, choose_ridge, ridge, scale_of, solve_ridge, to_judge


class RanPAC(PretrainedMethod[RanPACSettings]):
    """A ridge regression on random features per task, or one for all tasks."""

    name = "ranpac"

    def __init__(self, settings: RanPACSettings) -> None:
        super().__init__(settings)
        self.projection: nn.Module | None = None
        self.seed = 0
        self.gram: Float64[Tensor, "m m"] | None = None
        self.moments: list[Float64[Tensor, "m c"]] = []
        self.scales: list[float] = []

    def fit_head(self, train: Rows, valid: Rows, task: Task, context: Context, record: LearnRecord) -> nn.Module:
        """Solve the ridge regression of the task, or of all tasks so far."""
        if not self.tasks:
            self.seed = context.seed
        inputs = train.features.shape[1]
        project = self._projection(inputs).to(train.features.device)
        train, valid = (replace(rows, features=project(rows.features)) for rows in (train, valid))
        fitted_on, judges = to_judge(train, valid)
        penalty = choose_ridge(fitted_on, judges)
        self.scales.append(scale_of(judges.features @ ridge(fitted_on, penalty), judges.labels))
        record.hyperparameters["penalty"] = penalty
        whole = train.with_rows(valid) if self.settings.refit else train
        if self.settings.statistics == "task":
            return self._head(inputs, ridge(whole, penalty), self.scales[-1])
        gram = whole.features.T @ whole.features
        self.gram = gram if self.gram is None else self.gram.to(gram) + gram
        self.moments.append(whole.features.T @ whole.targets)
        solved = zip((solve_ridge(self.gram, moments.to(gram), penalty) for moments in self.moments), self.scales, strict=True)
        heads = [self._head(inputs, weight, scale) for weight, scale in solved]
        for old, new in zip(self.heads, heads, strict=False):
            old.load_state_dict(new.state_dict())
        return heads[-1]

    def recognize(self, images: UInt8[Tensor, "n 3 h w"]) -> Recognized:
        """Compute task probabilities and strangeness: with common statistics the former from the scores of all classes."""
        found = super().recognize(images)
        return found if self.settings.statistics == "task" else Recognized(self._shares(images), found.strangeness)

    def _shares(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"]:
        """Return how the softmax over the classes of all tasks divides among the tasks."""
        with torch.no_grad():
            features = self.frozen.features(images)
            return _divided([head(features) for head in self.heads])

    def route(self, features: Float[Tensor, "n d"], logits: Sequence[Float[Tensor, "n _c"]]) -> Float[Tensor, "n t"]:
        """Compute task probabilities, with common statistics from the scores of all classes."""
        return super().route(features, logits) if self.settings.statistics == "task" else _divided(logits)

    def make_head(self, inputs: int, classes: int) -> nn.Module:
        """Make the projection, which all heads share, followed by a linear map."""
        return nn.Sequential(self._projection(inputs), nn.Linear(self.settings.random_features or inputs, classes, bias=False))

    def _projection(self, inputs: int) -> nn.Module:
        if self.projection is None:
            wanted = self.settings.random_features
            self.projection = RandomFeatures(inputs, wanted, self.seed) if wanted else nn.Identity()
        return self.projection

    def _head(self, inputs: int, weight: Float64[Tensor, "m c"], scale: float) -> nn.Module:
        """Return the head of a solution; the scale makes the softmax of its scores fit the validation labels."""
        head = self.make_head(inputs, weight.shape[1])
        assert isinstance(head, nn.Sequential)
        assert isinstance(head[1], nn.Linear)
        with torch.no_grad():
            head[1].weight.copy_(scale * weight.T)
        return head

    @property
    def heads_are_own(self) -> bool:
        """Whether the statistics are not common to all tasks."""
        return self.settings.statistics == "task"

    def _let_go(self, task_index: int) -> None:
        super()._let_go(task_index)
        del self.scales[task_index]

    def memory(self) -> dict[str, int]:
        """Count the bytes of class means and spreads, of the seed, and of common statistics."""
        kept = 0 if self.gram is None else self.gram.nbytes + sum(moments.nbytes for moments in self.moments)
        return super().memory() | {"seed": 8} | ({"statistics": kept} if kept else {})

    def state_dict(self) -> Tree:
        """Return the state of `PretrainedMethod`, and seed, scales and common statistics."""
        common = {} if self.gram is None else {"gram": self.gram, "moments": list(self.moments)}
        return super().state_dict() | {"seed": self.seed, "scales": list(self.scales)} | common

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self.seed, self.scales = state["seed"], list(state["scales"])
        self.gram, self.moments = state.get("gram"), list(state.get("moments", []))
        self.projection = None
        super().load_state_dict(state, device)


def _divided(scores: Sequence[Float[Tensor, "n _c"]]) -> Float[Tensor, "n t"]:
    """Return how the softmax over all classes divides among the tasks that they belong to."""
    shares = torch.cat(list(scores), dim=1).softmax(dim=1).split([part.shape[1] for part in scores], dim=1)
    return torch.stack([share.sum(dim=1) for share in shares], dim=1)
