"""Assessment of a new task against earlier ones: the prototypes, spreads and groups that a method keeps, and the decision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from lifelong.data.task import Split, Task
from lifelong.devices import exact_device
from lifelong.errors import LifelongError
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.experts import EarlierExperts
from lifelong.relatedness.extractor import Extractor
from lifelong.relatedness.groups import Decision, TaskGroups, needs_distances
from lifelong.relatedness.measures import Measure, Sample, keeps_prototypes, measure_divergences
from lifelong.relatedness.recognition import Recognition, measure_spread
from lifelong.settings.par import PARSettings, RelatednessSettings
from lifelong.settings.sockets import MEASURES
from lifelong.storage import Tree
from lifelong.trees import on_device, tensor_bytes

FEW = 20
"""With fewer images of a class the paper's distances are too large by the gap between the two thresholds (results/few-images.csv)."""


def task_features(
    task: Task,
    extractor: Extractor,
    settings: RelatednessSettings,
    modules: Callable[[int], tuple[nn.Module, ...]] | None = None,
) -> Sample:
    """Extract the features that the divergences of a task are computed from.

    Args:
        task: the task; no augmentation is applied to its images.
        extractor: the frozen extractor.
        settings: `feature_split` and `few_images` are used here.
        modules: gives the expert and the head of an earlier task (`Method.modules`), for measures that look through them.

    Raises:
        LifelongError: the split has no images.
    """
    splits = [task.train, task.valid] if settings.feature_split == "both" else [getattr(task, settings.feature_split)]
    least = _smallest_class(splits)
    few = least < settings.few_images
    splits = [split for split in ([task.train, task.valid] if few else splits) if len(split)]
    if not splits:
        raise LifelongError(
            f"task '{task.name}' has no {settings.feature_split} images, from which its distances would be computed; "
            "give it some (valid_per_class), or use --feature-split train"
        )
    features = torch.cat([extractor.features(split.images, task.normalization) for split in splits])
    features = features.to(exact_device(features.device))
    labels = torch.cat([split.labels for split in splits]).to(features.device)
    experts = None
    if modules is not None:
        experts = EarlierExperts(modules, torch.cat([split.images for split in splits]), task.normalization)
    return Sample(features, labels, len(task.classes), least, few, experts=experts)


def _smallest_class(splits: Sequence[Split]) -> int:
    """Count the images of the smallest class in these splits together; 0 if there are none."""
    labels = torch.cat([split.labels for split in splits])
    return int(labels.unique(return_counts=True)[1].min()) if len(labels) else 0


def _few_images_warning(sample: Sample, settings: RelatednessSettings) -> str:
    """Return the warning about a task measured by few images, as in the paper; empty if they suffice."""
    if sample.few or sample.least >= FEW:
        return ""
    split = {"valid": "validation", "train": "training", "both": "training and validation"}[settings.feature_split]
    return (
        f"distances of some tasks are measured by fewer than {FEW} {split} images of a class, as in the paper, and come out too large; "
        f"--few-images {FEW} measures such tasks by all their images"
    )


@dataclass(frozen=True)
class Measured:
    """What a decision about a task is based on.

    Attributes:
        sample: the task's features.
        divergences: from each earlier task.
        warning: why they may be wrong; empty if no reason is known.
    """

    sample: Sample
    divergences: Float64[Tensor, "t"]
    warning: str

    def noted(self, decision: Decision) -> Decision:
        """Return the decision with the warning, and with what its reason leaves out about the sample."""
        decision = replace(decision, warning=self.warning)
        if self.sample.few and decision.divergences:
            how = f"; measured by all its images: {self.sample.least} of a class were few"
            decision = replace(decision, reason=decision.reason + how)
        return decision


class Relatedness:
    """The groups of learned tasks, and the prototypes that new tasks are measured against.

    Raises:
        LifelongError: the measure cannot work with the settings.

    Attributes:
        groups: which tasks share an expert.
        bank: the prototypes of every task that was assessed.
        kept: what the measure keeps of each task, if it does not use the prototypes.
        recognition: infers an image's task from the same prototypes.
    """

    def __init__(self, settings: PARSettings) -> None:
        self.settings = settings
        self.measure: Measure = MEASURES[settings.measure]()
        if self.needed and (refusal := self.measure.refusal(settings)):
            raise LifelongError(refusal)
        self.groups = TaskGroups()
        self.bank = PrototypeBank()
        self.recognition = Recognition()
        self.kept: list[Tree] = []

    @property
    def needed(self) -> bool:
        """Whether the variant decides by distances; otherwise no extractor is needed."""
        return needs_distances(self.settings)

    @property
    def bytes(self) -> int:
        """Memory of the prototypes, and of what another measure keeps."""
        return self.bank.bytes + tensor_bytes(self.kept)

    @property
    def _keeps_prototypes(self) -> bool:
        return keeps_prototypes(self.settings.measure)

    def assess(self, task: Task, extractor: Extractor | None, modules: Callable[[int], tuple[nn.Module, ...]] | None = None) -> Decision:
        """Measure a task against all earlier ones, keep its prototypes, and decide by the thresholds where it belongs.

        The caller then records the decision (`groups.open` or `groups.join`).

        Args:
            task: the new task.
            extractor: the frozen extractor; None if no distance is `needed`.
            modules: see `task_features`.
        """
        if extractor is None:
            return self.groups.decide(None, len(task.train), self.settings)
        measured = self.examine(task, extractor, modules)
        return measured.noted(self.groups.decide(measured.divergences, len(task.train), self.settings))

    def examine(self, task: Task, extractor: Extractor, modules: Callable[[int], tuple[nn.Module, ...]] | None = None) -> Measured:
        """Measure a task against all earlier ones, and keep its prototypes.

        Args:
            task: the new task.
            extractor: the frozen extractor.
            modules: see `task_features`.
        """
        sample = task_features(task, extractor, self.settings, modules if self.measure.needs_experts else None)
        own = prototypes(sample.features, sample.labels, sample.classes)
        self.bank.check(own)
        kept = self.bank.state() if self._keeps_prototypes else self.kept
        if not self._keeps_prototypes:
            sample = replace(sample, first=kept[0] if kept else None)
            sample = replace(sample, own=self.measure.keep(sample, self.settings))
        divergences = measure_divergences(self.settings.measure, sample, kept, self.settings)
        if not self._keeps_prototypes:
            self.kept.append(sample.own)
        self.bank.add(own)
        self.recognition.spreads.append(measure_spread(sample.features, sample.labels, own, task.normalization))
        return Measured(sample, divergences, _few_images_warning(sample, self.settings))

    def entangled(self, task: int) -> bool:
        """Tell whether what is kept of later tasks may hang on a task: other measures than the paper's may refer to the first one."""
        return not task and not self._keeps_prototypes and len(self.kept) > 1

    def forget(self, task: int) -> None:
        """Delete what is kept of a task that is alone in its group; later tasks move up by one."""
        self.groups.forget(task)
        if len(self.bank):
            self.bank.forget(task)
            del self.recognition.spreads[task]
        if self.kept:
            del self.kept[task]

    def state(self) -> Tree:
        """Return groups, prototypes, spreads, and what another measure keeps."""
        state = {"groups": self.groups.state(), "bank": self.bank.state(), "recognition": self.recognition.state()}
        return state | ({} if self._keeps_prototypes else {"kept": list(self.kept)})

    @classmethod
    def from_state(cls, settings: PARSettings, state: Tree, device: torch.device | str = "cpu") -> "Relatedness":
        """Restore what `state` returned, on `device`."""
        relatedness = cls(settings)
        relatedness.groups = TaskGroups.from_state(state["groups"])
        relatedness.bank = PrototypeBank.from_state(state["bank"], device)
        relatedness.recognition = Recognition.from_state(state["recognition"])
        relatedness.kept = on_device(state.get("kept", []), exact_device(device))
        return relatedness
