"""What a method keeps of earlier tasks to tell how related a new one is: prototypes, spreads and groups; and the assessment itself."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lifelong.data.task import Task
from lifelong.devices import exact_device
from lifelong.errors import LifelongError
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.relatedness.extractor import Extractor
from lifelong.relatedness.groups import Decision, TaskGroups, needs_distances
from lifelong.relatedness.recognition import Recognition, measure_spread
from lifelong.settings.par import PARSettings, RelatednessSettings
from lifelong.storage import Tree


def task_features(task: Task, extractor: Extractor, settings: RelatednessSettings) -> tuple[Float[Tensor, "n d"], Int64[Tensor, "n"]]:
    """Features and labels of the split of a task that distances are computed from.

    Args:
        task: the task; no augmentation is applied to its images.
        extractor: the frozen extractor.
        settings: `feature_split` is used here.

    Returns:
        Both where distances are computed, in float64: on the extractor's device, or on the CPU where that has none.

    Raises:
        LifelongError: the split has no images.
    """
    splits = [task.train, task.valid] if settings.feature_split == "both" else [getattr(task, settings.feature_split)]
    splits = [split for split in splits if len(split)]
    if not splits:
        raise LifelongError(
            f"task '{task.name}' has no {settings.feature_split} images, from which its distances would be computed; "
            "give it some (valid_per_class), or use --feature-split train"
        )
    features = torch.cat([extractor.features(split.images, task.normalization) for split in splits])
    features = features.to(exact_device(features.device))
    return features, torch.cat([split.labels for split in splits]).to(features.device)


class Relatedness:
    """The groups of learned tasks, and the prototypes that new tasks are measured against.

    Attributes:
        groups: which tasks share an expert.
        bank: the prototypes of every task that was assessed.
        recognition: tells by the same prototypes which task an image is of.
    """

    def __init__(self, settings: PARSettings) -> None:
        self.settings = settings
        self.groups = TaskGroups()
        self.bank = PrototypeBank()
        self.recognition = Recognition()

    @property
    def needed(self) -> bool:
        """Whether the variant decides by distances; without, no extractor is needed."""
        return needs_distances(self.settings)

    def assess(self, task: Task, extractor: Extractor | None) -> Decision:
        """Measure a task against all earlier ones, keep its prototypes, and decide where it belongs.

        The caller then puts it there (`groups.open` or `groups.join`).

        Args:
            task: the new task.
            extractor: the frozen extractor; None where no distance is `needed`.
        """
        if extractor is None:
            return self.groups.decide(None, len(task.train), self.settings)
        features, labels = task_features(task, extractor, self.settings)
        own = prototypes(features, labels, len(task.classes))
        decision = self.groups.decide(divergences(features, labels, own, self.bank, self.settings), len(task.train), self.settings)
        self.bank.add(own)
        self.recognition.spreads.append(measure_spread(features, labels, own, task.normalization))
        return decision

    def state(self) -> Tree:
        """Groups, prototypes and spreads."""
        return {"groups": self.groups.state(), "bank": self.bank.state(), "recognition": self.recognition.state()}

    @classmethod
    def from_state(cls, settings: PARSettings, state: Tree, device: torch.device | str = "cpu") -> "Relatedness":
        """What `state` was taken from, on `device`."""
        relatedness = cls(settings)
        relatedness.groups = TaskGroups.from_state(state["groups"])
        relatedness.bank = PrototypeBank.from_state(state["bank"], device)
        relatedness.recognition = Recognition.from_state(state["recognition"])
        return relatedness
