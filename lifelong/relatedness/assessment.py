"""What a learner knows of how its tasks relate: prototypes, groups, and the decision for the next task."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.relatedness.extractor import Extractor
from lifelong.relatedness.groups import Decision, TaskGroups
from lifelong.settings.par import PARSettings
from lifelong.storage import Tree


class Relatedness:
    """The prototypes of the tasks so far and their groups.

    Args:
        settings: how distances are computed and what follows from them.
    """

    def __init__(self, settings: PARSettings) -> None:
        self.settings = settings
        self.bank = PrototypeBank()
        self.groups = TaskGroups()

    @property
    def needed(self) -> bool:
        """Whether a decision depends on distances at all: some ablations share always, or neither share nor reuse."""
        return self.settings.coarse or self.settings.shares == "related"

    def assess(self, task: Task, extractor: Extractor | None) -> Decision:
        """Measure a task against all earlier ones, remember its prototypes, and say what is to be done.

        Args:
            task: the next task.
            extractor: gives its features; None where distances are not needed.

        Raises:
            LifelongError: the task has no images to measure with, or a distance is not finite.
        """
        samples = len(task.train)
        if extractor is None:
            # Every action is then the same at any distance; zeros stand in.
            return self.groups.decide(torch.zeros(self.groups.tasks, dtype=torch.float64), samples, self.settings)
        features, labels = task_features(task, extractor, self.settings)
        own = prototypes(features, labels, len(task.classes))
        distances = divergences(features, labels, own, self.bank, self.settings)
        decision = self.groups.decide(distances, samples, self.settings)
        self.bank.add(own)
        return decision

    def state(self) -> Tree:
        """What must survive."""
        return {"bank": self.bank.state(), "groups": self.groups.state()}

    @classmethod
    def from_state(cls, settings: PARSettings, state: Tree, device: torch.device | str = "cpu") -> "Relatedness":
        """What `state` was taken from, its prototypes on `device`."""
        relatedness = cls(settings)
        relatedness.bank = PrototypeBank.from_state(state["bank"], device)
        relatedness.groups = TaskGroups.from_state(state["groups"])
        return relatedness


def task_features(
    task: Task, extractor: Extractor, settings: PARSettings
) -> tuple[Float[Tensor, "n d"], Int64[Tensor, "n"]]:
    """Features and labels of the images that a task is measured by (`feature_split`), un-augmented.

    Raises:
        LifelongError: the split has no image.
    """
    names = ("valid", "train") if settings.feature_split == "both" else (settings.feature_split,)
    splits = [task.valid if name == "valid" else task.train for name in names]
    if not sum(map(len, splits)):
        raise LifelongError(
            f"task '{task.name}' has no {settings.feature_split} images to measure its distance by; "
            "give it some (valid_per_class), or use --feature-split train"
        )
    features = [extractor.features(split.images, task.normalization) for split in splits if len(split)]
    return torch.cat(features), torch.cat([split.labels for split in splits])
