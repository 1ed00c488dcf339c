"""The common part of methods with one network for all tasks: a backbone, a head per task, their state."""

from collections.abc import Hashable
from functools import cache
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.backbone import feature_dim, has_own_statistics, head_bias, make_shared_backbone
from lifelong.methods.method import Context, LearnRecord, Method
from lifelong.methods.two_steps import TwoSteps
from lifelong.networks.copies import LoadedModules
from lifelong.networks.frozen import freeze
from lifelong.networks.tasknorm import add_task, other_parameters, use_task
from lifelong.settings.baselines import SharedBackboneSettings
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples, image_examples
from lifelong.training.fit import Loss, Update
from lifelong.training.select import fit_selected
from lifelong.trees import weights_of

IMAGE_SIZE = 32
"""Image size assumed for states of earlier versions, which do not record it: their networks took images of any size."""


SharedSettingsT = TypeVar("SharedSettingsT", bound=SharedBackboneSettings)


class SingleNetworkMethod(Method[SharedSettingsT]):
    """One backbone, made at the first task and trained on every task, and a linear head per task.

    A subclass says what differs from plain training: the loss, what surrounds an update of the weights, which old heads are trained
    along, and what is kept of a task when it has been learned. The optimizer is a new one for every task, over the backbone, the new
    head and nothing else unless `trained_heads` says so.
    """

    def __init__(self, settings: SharedSettingsT) -> None:
        super().__init__(settings)
        self.backbone: nn.Module | None = None
        self.image_size = IMAGE_SIZE
        self.heads = nn.ModuleList()

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the backbone and the task's head."""
        return self._network(), self.heads[task_index]

    def form_of(self, task_index: int) -> Hashable | None:
        """Return the shape of the task's head: the backbone is the same for all, and so are the shapes of its batch norms."""
        kind = type(self)
        known = (kind.logits, kind.predict, kind.answer, kind.features, kind.load_head)
        usual = (Method.logits, *(getattr(SingleNetworkMethod, name) for name in ("predict", "answer", "features", "load_head")))
        return self.heads[task_index].weight.shape if known == usual else None

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Compute the logits of the task's head."""
        return self.answer(self.heads[task_index], inputs, task_index)

    def answer(self, head: nn.Module, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply a head to the shared features."""
        return head(self.features(inputs, task_index))

    def features(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n d"]:
        """Compute features of prepared images with the batch norm of a task."""
        network = self._network()
        use_task(network, task_index)
        return network(inputs)

    @property
    def features_by_task(self) -> bool:
        """Whether the features of the same prepared images depend on the task."""
        return has_own_statistics(self.settings)

    def two_steps(self, task_index: int) -> TwoSteps | None:
        """Return the shared features and the task's head; None if the features depend on the task, or a subclass answers otherwise."""
        kind = type(self)
        own = (kind.logits, kind.predict, kind.answer) != (Method.logits, SingleNetworkMethod.predict, SingleNetworkMethod.answer)
        if own or self.features_by_task:
            return None
        return TwoSteps(id(self._network()), lambda inputs: self.features(inputs, task_index), self.heads[task_index])

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Train the backbone, a fresh head and `trained_heads()`, then call `consolidate`."""
        before = self.num_parameters()
        index = len(self.tasks)
        with context.seeded("backbone"):
            if self.backbone is None:
                self.image_size = int(task.train.images.shape[-1])
                self.backbone = self.make_network().to(context.device)
            else:
                self.add_task(self.backbone)
        head = self.make_head(task, context)
        module = nn.ModuleList([self.backbone, head, *self.trained_heads()]).requires_grad_(True)
        for parameter in self.fixed_parameters(self.backbone, index):
            parameter.requires_grad_(False)
        examples = image_examples(task, augmented=context.training.augment)
        record = LearnRecord()
        self.train_network(module, head, examples, context, record)
        freeze(module)
        self.heads.append(head)
        self._remember(task)
        record.parameters_added = self.num_parameters() - before
        with context.timed("consolidate", record):
            self.consolidate(examples, context)
        return record

    def train_network(
        self, module: nn.Module, head: nn.Module, examples: Examples, context: Context, record: LearnRecord, phase: str = "train"
    ) -> None:
        """Train what requires gradients.

        Args:
            module: the backbone, the new task's head and `trained_heads()`.
            head: the new task's, not yet among `heads`.
            examples: the new task's, whose number is `len(self.tasks)`.
            context: of the task.
            record: gets the outcome.
            phase: the name of the stage.
        """
        index = len(self.tasks)
        outcome = fit_selected(
            module,
            examples,
            lambda inputs: self.answer(head, inputs, index),
            self.training(context.training),
            context.stage(phase),
            loss=self.loss(head, examples),
            update=self.update(head, examples),
        )
        record.trained(outcome, phase)

    def make_network(self) -> nn.Module:
        """Make the backbone for the first task; initial weights are drawn from torch's global generator."""
        return make_shared_backbone(self.settings, self.image_size)

    def add_task(self, network: nn.Module) -> None:
        """Add to the backbone what the next task needs: by default its batch norms, as the policy says."""
        add_task(network)

    def make_head(self, task: Task, context: Context) -> nn.Module:
        """Make a fresh head for a task."""
        return new_head(self._network(), task, context)

    def load_head(self, weights: dict[str, Tensor], device: torch.device | str) -> nn.Module:
        """Load a frozen head from its weights."""
        return load_head(weights, device)

    def fixed_parameters(self, network: nn.Module, task_index: int) -> list[nn.Parameter]:
        """Return the backbone's parameters that are not trained with a task: by default other tasks' batch norms."""
        return other_parameters(network, task_index)

    def training(self, settings: TrainingSettings) -> TrainingSettings:
        """Return how the network is trained; by default as in every method."""
        return settings

    def trained_heads(self) -> list[nn.Module]:
        """Return the heads of earlier tasks to train along; none by default."""
        return []

    def loss(self, head: nn.Module, examples: Examples) -> Loss | None:
        """Return the loss of the new task; None: the cross-entropy.

        Args:
            head: the new task's, not yet among `heads`.
            examples: the new task's, whose number is `len(self.tasks)`.
        """
        return None

    def update(self, head: nn.Module, examples: Examples) -> Update | None:
        """Return a context manager around every weight update; None: no such context. Arguments as for `loss`."""
        return None

    def consolidate(self, examples: Examples, context: Context) -> None:
        """Keep what is needed of the task just learned, the last of `tasks`; nothing by default."""

    def state_dict(self) -> Tree:
        """Return tasks, backbone and heads."""
        return {
            "tasks": self._tasks_state(),
            "image_size": self.image_size,
            "backbone": None if self.backbone is None else weights_of(self.backbone),
            "heads": [weights_of(head) for head in self.heads],
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.image_size = state.get("image_size", IMAGE_SIZE)
        self.backbone, self.heads = None, nn.ModuleList()
        if state["backbone"] is not None:
            self.backbone = self.make_network()
            for _ in self.tasks[1:]:
                self.add_task(self.backbone)
            self.backbone.to(device).load_state_dict(state["backbone"])
            freeze(self.backbone)
        for weights in state["heads"]:
            self.heads.append(self.load_head(weights, device))

    def _network(self) -> nn.Module:
        assert self.backbone is not None, "no task has been learned"
        return self.backbone


def new_head(backbone: nn.Module, task: Task, context: Context) -> nn.Linear:
    """Make a fresh linear head (C, d) for a task, with initial weights of its own."""
    with context.seeded("head"):
        return nn.Linear(feature_dim(backbone), len(task.classes), bias=head_bias(backbone)).to(context.device)


def load_head(weights: dict[str, Tensor], device: torch.device | str) -> nn.Linear:
    """Load a frozen linear head from its weights (C, d) and its bias (C,), if it has one."""
    classes, features = weights["weight"].shape
    shape = features, classes, "bias" in weights
    head = _heads(str(device), torch.get_default_dtype())(shape, lambda: nn.Linear(features, classes, bias=shape[2]), weights)
    assert isinstance(head, nn.Linear)
    return head


@cache
def _heads(device: str, dtype: torch.dtype) -> LoadedModules:
    return LoadedModules(device)
