"""Independent: a network of its own for every task. Nothing is shared and nothing is forgotten; M grows with the stream."""

from collections.abc import Hashable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.methods.backbone import make_backbone
from lifelong.methods.method import Context, Entangled, LearnRecord, Method, count_parameters
from lifelong.methods.single import IMAGE_SIZE, load_head, new_head
from lifelong.networks.copies import LoadedModules
from lifelong.networks.frozen import freeze
from lifelong.settings.baselines import IndependentSettings
from lifelong.storage import Tree
from lifelong.training.examples import image_examples
from lifelong.training.select import fit_selected
from lifelong.trees import weights_of


class Independent(Method[IndependentSettings]):
    """A fresh backbone and head per task, trained with cross-entropy, each from initial weights of its own."""

    name = "independent"

    def __init__(self, settings: IndependentSettings) -> None:
        super().__init__(settings)
        self.backbones: list[nn.Module] = []
        self.heads: list[nn.Module] = []
        self.image_sizes: list[int] = []

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the task's backbone and head."""
        return self.backbones[task_index], self.heads[task_index]

    def form_of(self, task_index: int) -> Hashable | None:
        """Return the size for which the task's backbone was made, and the shape of its head."""
        own = (type(self).logits, type(self).predict, type(self).modules) != (Method.logits, Independent.predict, Independent.modules)
        return None if own else (self.image_sizes[task_index], self.heads[task_index].weight.shape)

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's head to the features of its backbone."""
        return self.heads[task_index](self.backbones[task_index](inputs))

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Train a new network."""
        image_size = int(task.train.images.shape[-1])
        with context.seeded("backbone"):
            backbone = make_backbone(self.settings, image_size).to(context.device)
        network = nn.Sequential(backbone, new_head(backbone, task, context))
        examples = image_examples(task, augmented=context.training.augment)
        outcome = fit_selected(network, examples, network, context.training, context.stage("train"))
        freeze(network)
        self.backbones.append(network[0])
        self.heads.append(network[1])
        self.image_sizes.append(image_size)
        self._remember(task)
        record = LearnRecord(expert=len(self.tasks) - 1, parameters_added=count_parameters([network]))
        record.trained(outcome)
        return record

    def forgettable(self, task_index: int) -> Entangled | None:
        """Return None: a task's network is its own."""
        return None

    def _let_go(self, task_index: int) -> None:
        del self.backbones[task_index], self.heads[task_index], self.image_sizes[task_index]

    def state_dict(self) -> Tree:
        """Return tasks, backbones and heads."""
        return {
            "tasks": self._tasks_state(),
            "image_sizes": list(self.image_sizes),
            "backbones": [weights_of(backbone) for backbone in self.backbones],
            "heads": [weights_of(head) for head in self.heads],
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.backbones, self.heads = [], []
        self.image_sizes = list(state.get("image_sizes", [IMAGE_SIZE] * len(self.tasks)))
        loaded = LoadedModules(device)
        for weights, image_size in zip(state["backbones"], self.image_sizes, strict=True):
            self.backbones.append(loaded(image_size, partial(make_backbone, self.settings, image_size), weights))
        for weights in state["heads"]:
            self.heads.append(load_head(weights, device))
