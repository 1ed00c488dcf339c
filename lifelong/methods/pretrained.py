"""The common part of methods that classify the frozen features of a pretrained network: the network, a head per task, their state."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.copies import with_copies
from lifelong.data.task import IMAGENET, Split, Task
from lifelong.methods.frozen_network import OnFrozenNetwork
from lifelong.methods.method import Context, Entangled, LearnRecord, Recognized
from lifelong.networks.frozen import freeze
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.recognition import Recognition, Router, measure_spread
from lifelong.settings.pretrained import PretrainedSettings
from lifelong.storage import Tree
from lifelong.training.closed_form import Rows, exact_rows
from lifelong.trees import weights_of

PretrainedSettingsT = TypeVar("PretrainedSettingsT", bound=PretrainedSettings)


class PretrainedMethod(OnFrozenNetwork[PretrainedSettingsT]):
    """One frozen network for all tasks, kept in the run so that no answer needs its file again, and a head per task.

    A subclass says how a head looks and how it is fitted to features. The class means of every task are kept as well: an image of an
    unknown task is recognized by the nearest of them.
    """

    def __init__(self, settings: PretrainedSettingsT) -> None:
        super().__init__(settings)
        self.heads = nn.ModuleList()
        self.bank = PrototypeBank()
        self.recognition = Recognition()

    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return the network and the task's head."""
        return self.frozen.module, self.heads[task_index]

    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Apply the task's head to the frozen features of prepared images."""
        return self.heads[task_index](self.frozen.features_of(inputs, self.tasks[task_index].normalization))

    def logits(self, images: UInt8[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Compute the logits of a task's classes; see `Method.logits`."""
        with torch.no_grad():
            return self.heads[task_index](self.frozen.features(images))

    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Compute the features of the task's images once, and fit a head to them."""
        before, record = self.num_parameters(), LearnRecord(frozen=True)
        with context.timed("features", record):
            self.open_network(context)
            copied = with_copies(task.train, task.augmentation, self.settings.feature_copies, context.seed_of("copies"))
            count = len(task.train)
            train, valid = self._rows(copied, task, count), self._rows(task.valid, task)
            features, labels = train.features[:count], train.labels[:count]
            own = prototypes(features, labels, train.classes)
            self.bank.check(own)
        with context.timed("head", record):
            head = self.fit_head(train, valid, task, context, record)
            freeze(head.to(device=context.device, dtype=torch.get_default_dtype()))
        self.heads.append(head)
        self.recognition.spreads.append(measure_spread(features, labels, own, IMAGENET))
        self.bank.add(own)
        self._remember(task)
        record.parameters_added = self.num_parameters() - before
        return record

    def answers(
        self, images: UInt8[Tensor, "n 3 h w"], tasks: Sequence[int] | None = None
    ) -> tuple[list[Float[Tensor, "n _c"]], Float[Tensor, "n t"] | None]:
        """Compute the features once, and from them the logits of tasks and task probabilities."""
        features = self.frozen.module(normalize(images, IMAGENET))
        logits = [head(features) for head in self.heads]
        probabilities = self.route(features, logits)
        return (logits if tasks is None else [logits[index] for index in tasks]), probabilities

    def route(self, features: Float[Tensor, "n d"], logits: Sequence[Float[Tensor, "n _c"]]) -> Float[Tensor, "n t"]:
        """Compute task probabilities from features and the logits of every task."""
        return Router(self.bank, self.recognition)(features)

    @abstractmethod
    def fit_head(self, train: Rows, valid: Rows, task: Task, context: Context, record: LearnRecord) -> nn.Module:
        """Make the head of a new task.

        Args:
            train, valid: features of its images, in float64; `valid` may be empty.
            task: the task.
            context: of learning it.
            record: takes what was chosen.
        """

    @abstractmethod
    def make_head(self, inputs: int, classes: int) -> nn.Module:
        """Make a head without its weights, to load them.

        Args:
            inputs: features d.
            classes: of the task.
        """

    def recognize(self, images: UInt8[Tensor, "n 3 h w"]) -> Recognized:
        """Compute task probabilities and strangeness from the distances to all class means."""
        return Recognized(*self.recognition.recognize(images, self.bank, self.frozen.extractor))

    def task_probabilities(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"] | None:
        """Compute task probabilities from the distances to all class means."""
        return self.recognize(images).probabilities

    def strangeness(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n"] | None:
        """Compute strangeness from the distance to the nearest class mean."""
        return self.recognize(images).strangeness

    def limits(self) -> list[float] | None:
        """Return the distance to each task's prototypes that most of its images stay below."""
        return self.recognition.limits()

    def memory(self) -> dict[str, int]:
        """Count the bytes of class means and spreads."""
        return {"prototypes": self.bank.bytes, "spreads": self.recognition.bytes}

    @property
    def heads_are_own(self) -> bool:
        """Whether a task's head was fitted to its own images alone, and nothing else is kept of it; False unless a method overrides it."""
        return False

    def forgettable(self, task_index: int) -> Entangled | None:
        """Tell that heads were fitted to the statistics of all tasks, unless `heads_are_own`."""
        if self.heads_are_own:
            return None
        return Entangled(f"'{self.name}' fits heads to sums over the images of all tasks", self._others(task_index))

    def _let_go(self, task_index: int) -> None:
        del self.heads[task_index], self.recognition.spreads[task_index]
        self.bank.forget(task_index)

    def state_dict(self) -> Tree:
        """Return tasks, the frozen network, heads, class means and spreads."""
        return self.network_state() | {
            "tasks": self._tasks_state(),
            "heads": [weights_of(head) for head in self.heads],
            "bank": self.bank.state(),
            "recognition": self.recognition.state(),
        }

    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device."""
        self._load_tasks(state["tasks"])
        self.bank = PrototypeBank.from_state(state["bank"], device)
        self.recognition = Recognition.from_state(state["recognition"])
        self.heads = nn.ModuleList()
        if not self.load_network(state, device):
            return
        for index, (task, weights) in enumerate(zip(self.tasks, state["heads"], strict=True)):
            head = self.make_head(self.bank[index].means.shape[1], task.classes).to(device)
            head.load_state_dict(weights)
            freeze(head)
            self.heads.append(head)

    def stages(self, network: nn.Module) -> tuple[str, ...]:
        """Return the stages whose averaged maps are the features; none: the network's own output."""
        return self.settings.feature_stages

    def _rows(self, split: Split, task: Task, originals: int | None = None) -> Rows:
        return exact_rows(self.frozen.features(split.images), split.labels, len(task.classes), originals)
