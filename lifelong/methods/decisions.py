"""Decision rules, which decide which tasks share an expert; PAR's thresholds are the default.

A rule sees a new task, its distances to the earlier ones, their experts, and what it has stored about them. It chooses the group whose
expert the task shares, or none, and gives the reason in words. Without sharing, the allocation provides a new expert. Your own rule:

    class Mine(DecisionRule):
        def decide(self, question):
            near = question.distances[question.nearest] < 0.3
            return question.share(question.nearest, "close enough") if near else question.allocate("too far")
        def keep(self, learned): ...                    # optional: what to store

    lifelong.register_decision("mine", Mine)            # then: --decision mine

A rule is asked about every task but the first, in the variants in which related tasks share experts; the other variants always or never
share.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

from annotated_types import Ge
from jaxtyping import Float64
from torch import Tensor, nn

from lifelong.data.task import Split, Task
from lifelong.errors import LifelongError
from lifelong.methods.conformance import check_method
from lifelong.methods.method import Context
from lifelong.relatedness.extractor import Extractor
from lifelong.relatedness.groups import Choice, Decision, Kind, TaskGroups, allocated
from lifelong.relatedness.measures import Sample
from lifelong.settings.arguments import checked
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import DECISIONS
from lifelong.storage import Tree
from lifelong.training.closed_form import Rows, exact_rows
from lifelong.training.examples import batched, image_examples


@dataclass(frozen=True)
class View:
    """A task's images as features, in float64.

    Attributes:
        train, valid: of the training and the validation images, un-augmented.
    """

    train: Rows
    valid: Rows

    @property
    def judged(self) -> Rows:
        """The features by which tasks are compared: of validation images, which no expert was trained on, if there are any."""
        return self.valid if len(self.valid) else self.train


class Views:
    """A task's images as seen by the frozen extractor and by experts; each view is computed when first requested.

    Args:
        task: whose images they are.
        extractor: the frozen features that all tasks have in common.
    """

    def __init__(self, task: Task, extractor: Extractor) -> None:
        self._task, self._extractor = task, extractor
        self._seen: dict[int, tuple[nn.Module, View]] = {}

    @cached_property
    def common(self) -> View:
        """The task's features from the frozen extractor."""
        return self._view(lambda split: self._extractor.features(split.images, self._task.normalization))

    def by(self, expert: nn.Module) -> View:
        """Return the features of an expert, frozen."""
        if id(expert) not in self._seen:
            prepare = image_examples(self._task).prepare
            self._seen[id(expert)] = expert, self._view(lambda split: batched(expert, split.images, prepare))
        return self._seen[id(expert)][1]

    def anew(self) -> "Views":
        """Drop the views of experts, which may have been trained since."""
        self._seen.clear()
        return self

    def _view(self, features: Callable[[Split], Tensor]) -> View:
        classes = len(self._task.classes)
        return View(*(exact_rows(features(split), split.labels, classes) for split in (self._task.train, self._task.valid)))


@dataclass(frozen=True)
class Attempt:
    """The result of carrying out a decision on trial.

    Attributes:
        decision: the decision.
        accuracy: accuracy on the task's validation images, in [0, 1].
        parameters: parameters that it would add to the model.
        seconds: time it took, including what an interrupted run had computed before.
    """

    decision: Decision
    accuracy: float
    parameters: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a rule sees of a task, before and after it is learned.

    Attributes:
        task: its images.
        sample: the features by which it was measured.
        kept: what `keep` returned after the task before; None if that was nothing.
        settings: the settings of PAR.
        context: the run's seed, the device, resumable stages.
        views: the task's images by the frozen extractor and by each expert.
    """

    task: Task
    sample: Sample
    kept: Tree
    settings: PARSettings
    context: Context
    views: Views


@dataclass(frozen=True, kw_only=True)
class Question(Seen):
    """A task about which a rule decides, before the task is learned; at least one other task has been learned.

    Attributes:
        divergences: from each earlier task (Eq. 4), by the measure of the settings.
        groups: the earlier tasks of each group, and the largest number of training images of any of them.
        experts: of each group, frozen; images to features.
        heads: of each earlier task, frozen; features to logits.
        attempt: carries out a decision on trial. If the rule returns that decision, perhaps with another reason, nothing is computed twice.
    """

    divergences: Float64[Tensor, "t"]
    groups: TaskGroups
    experts: Sequence[nn.Module]
    heads: Sequence[nn.Module]
    attempt: Callable[[Decision], Attempt]

    @cached_property
    def distances(self) -> list[float]:
        """The distance to each group, in [0, 1] (Eq. 5-6)."""
        return self.groups.distances(self.divergences, self.settings)

    @property
    def nearest(self) -> int:
        """The nearest group; ties go to the group opened first."""
        return min(range(len(self.distances)), key=self.distances.__getitem__)

    def share(self, group: int, why: str) -> Decision:
        """Return the decision to let the task join a group and share its expert.

        Args:
            group: the group.
            why: the reason, such as ``z 1.30 ≤ 2 to group 0``.

        Raises:
            LifelongError: there is no such group.
        """
        if group not in range(len(self.groups)):
            last = len(self.groups) - 1
            raise LifelongError(f"decision '{self.settings.decision}': cannot share with group {group!r}; the groups are 0 to {last}")
        return self._decided(Choice("reuse-expert", group, f"{why}: shared"))

    def allocate(self, why: str, kind: Kind | None = None) -> Decision:
        """Return the decision to give the task a new expert.

        Args:
            why: the reason.
            kind: "search" for a searched cell or "reuse-cell" for the nearest group's, where the variant has both; None: decided by
                the variant, the allocation and beta.
        """
        choice = allocated(self.distances, self.nearest, why, self.settings, also=f"{why}; ")
        if kind is not None and self.settings.coarse:
            how = "cell searched" if kind == "search" else f"the cell of group {self.nearest} reused"
            choice = Choice(kind, self.nearest, f"{why}: {how}")
        return self._decided(choice)

    def by_thresholds(self) -> Decision:
        """Return the paper's decision."""
        return self.groups.decide(self.divergences, len(self.task.train), self.settings)

    def renewed(self, decision: Decision, why: str) -> Decision:
        """Return a decision, such as that of an attempt, with a new reason."""
        how = decision.reason.rpartition(": ")[2]
        return replace(decision, reason=f"{why}: {how}")

    def _decided(self, choice: Choice) -> Decision:
        return self.groups.concluded(choice, self.divergences, len(self.task.train), self.settings)


@dataclass(frozen=True, kw_only=True)
class Learned(Seen):
    """A task that has just been learned.

    Attributes:
        group: the group that it belongs to now.
        expert: the group's expert, frozen.
        head: the task's head, frozen.
        accuracy: accuracy on its validation images; NaN if it has none.
        attempts: the trials that were made to decide about it.
    """

    group: int
    expert: nn.Module
    head: nn.Module
    accuracy: float
    attempts: Sequence[Attempt]


class DecisionRule(ABC):
    """Decides which tasks share an expert. Its only state is what `keep` returns."""

    @abstractmethod
    def decide(self, question: Question) -> Decision:
        """Decide about a task: return the result of `question.share` or `question.allocate`."""

    def keep(self, learned: Learned) -> Tree:
        """Return what to store about all tasks so far, as tensors and plain values; None (the default) for nothing.

        Args:
            learned: the task that has just been learned (the first one included); its `kept` is what was stored before it.
        """
        return None


class Thresholds(DecisionRule):
    """The paper's rule: share with the nearest group within alpha; beyond it, reuse its cell within beta, else search one."""

    def decide(self, question: Question) -> Decision:
        """Compare the distances with alpha and beta."""
        return question.by_thresholds()


def decided(name: str, question: Question) -> Decision:
    """Return what a registered rule decides.

    Raises:
        LifelongError: the rule returns something else than a decision.
    """
    found: object = DECISIONS[name]().decide(question)
    if not isinstance(found, Decision):
        raise LifelongError(f"decision '{name}': gave {found!r}; it must give what question.share or question.allocate returns")
    return replace(found, reason=" ".join(found.reason.split()))


# `object`, not `type[DecisionRule]`, so that a wrong class gets a clear message.
@checked
def register_decision(name: str, decision: object, *, summary: str = "", source: str = "") -> None:
    """Register your own decision rule for `--decision` and the setting `decision`.

    Args:
        name: letters, digits, dashes and underscores.
        decision: a subclass of `DecisionRule` that is made without arguments.
        summary: what it does, in one line.
        source: its paper.

    Raises:
        LifelongError: the name is taken or invalid, or the class is not a complete rule.
    """
    DECISIONS.register_class(name, decision, DecisionRule, summary=summary, source=source)


@checked
def check_decision(name: str, *, images: Annotated[int, Ge(1)] = 8) -> None:
    """Try a registered decision rule in PAR, on synthetic tasks.

    Checked: everything that `check_method` checks, including that what the rule stores, and its decisions, survive saving and loading.

    Args:
        name: the rule's name.
        images: training images per class.

    Raises:
        ConformanceError: what is broken, and at which task.
        LifelongError: there is no such rule, or it returns something else than a decision.
    """
    from lifelong.methods.par import PAR

    settings = PARSettings(
        decision=DECISIONS.entry(name).name, variant="fixed+regularization", init_channels=4, cells=2, extractor="pixels"
    )
    check_method(lambda: PAR(settings), images=images)
