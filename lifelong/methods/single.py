"""What methods with one network for all tasks share: a backbone, a head per task, their state."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.backbone import feature_dim, make_backbone
from lifelong.methods.method import Context, LearnRecord, Method, freeze
from lifelong.storage import Tree
from lifelong.training.examples import Examples, image_examples
from lifelong.training.fit import Loss
from lifelong.training.select import fit_selected


class SingleNetworkMethod(Method):
    """One backbone, made at the first task and trained on every task, and a linear head per task.

    A subclass may say which old heads are trained along and what the loss is.
    """

    def __init__(self, settings: object) -> None:
        super().__init__(settings)
        self.backbone: nn.Module | None = None
        self.heads = nn.ModuleList()

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """The backbone and the task's head."""
        assert self.backbone is not None
        return self.backbone, self.heads[task_index]

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """The task's head on the shared features."""
        assert self.backbone is not None
        return self.heads[task_index](self.backbone(inputs))

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Train the backbone, a fresh head and `trained_heads()` with `loss`."""
        before = self.num_parameters()
        if self.backbone is None:
            with context.seeded("backbone"):
                self.backbone = make_backbone(self.settings).to(context.device)
        head = new_head(self.backbone, task, context)
        module = nn.ModuleList([self.backbone, head, *self.trained_heads()]).requires_grad_(True)
        examples = image_examples(task, augmented=context.training.augment)
        backbone = self.backbone
        outcome = fit_selected(
            module,
            examples,
            lambda inputs: head(backbone(inputs)),
            context.training,
            context.stage("train"),
            loss=self.loss(backbone, head, examples),
        )
        freeze(module)
        self.heads.append(head)
        self._remember(task)
        record = LearnRecord(parameters_added=self.num_parameters() - before)
        record.trained(outcome)
        return record

    def trained_heads(self) -> list[nn.Module]:
        """The heads of earlier tasks that are trained along; none by default."""
        return []

    def loss(self, backbone: nn.Module, head: nn.Module, examples: Examples) -> Loss | None:
        """The loss of the new task; None: the cross-entropy."""
        return None

    def state_dict(self) -> Tree:
        """Tasks, backbone and heads."""
        weights = None if self.backbone is None else self.backbone.state_dict()
        return {"tasks": self._tasks_state(), "backbone": weights, "heads": [head.state_dict() for head in self.heads]}

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Become what `state_dict` described, on a device."""
        self._load_tasks(state["tasks"])
        self.backbone, self.heads = None, nn.ModuleList()
        if state["backbone"] is not None:
            self.backbone = make_backbone(self.settings).to(device)
            self.backbone.load_state_dict(state["backbone"])
            self.backbone.eval().requires_grad_(False)
        for weights in state["heads"]:
            self.heads.append(load_head(weights, device))


def new_head(backbone: nn.Module, task: Task, context: Context) -> nn.Linear:
    """A fresh linear head (C, d) for a task, with initial weights of its own."""
    with context.seeded("head"):
        return nn.Linear(feature_dim(backbone), len(task.classes)).to(context.device)


def load_head(weights: dict[str, Tensor], device: torch.device | str) -> nn.Linear:
    """A frozen linear head from its weights (C, d) and bias (C,)."""
    classes, features = weights["weight"].shape
    head = nn.Linear(features, classes).to(device)
    head.load_state_dict(weights)
    return head.eval().requires_grad_(False)
