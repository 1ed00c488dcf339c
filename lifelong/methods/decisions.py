"""Decision rules: which tasks share an expert; PAR's thresholds are exchangeable.

A rule sees a new task, its distances to the earlier ones, their experts and what it has kept of them. It says which group's expert the task
shares, or that it shares none, with the reason in words; the allocation then says which expert the task gets. One of your own:

    class Mine(DecisionRule):
        def decide(self, question):
            near = question.distances[question.nearest] < 0.3
            return question.share(question.nearest, "close enough") if near else question.allocate("too far")
        def keep(self, learned): ...                    # if something is to be kept

    lifelong.register_decision("mine", Mine)            # then: --decision mine

A rule is asked about every task but the first, where tasks share experts by their relatedness: not by the variants that always share one
expert, or never.
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
        """Those by which tasks are compared: of validation images, which no expert was trained on, if there are any."""
        return self.valid if len(self.valid) else self.train


class Views:
    """A task's images as the frozen extractor and as experts see them; each view is computed when it is first asked for.

    Args:
        task: whose images they are.
        extractor: the frozen features that all tasks have in common.
    """

    def __init__(self, task: Task, extractor: Extractor) -> None:
        self._task, self._extractor = task, extractor
        self._seen: dict[int, tuple[nn.Module, View]] = {}

    @cached_property
    def common(self) -> View:
        """The features of the frozen extractor."""
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
    """What came of carrying out a decision on trial.

    Attributes:
        decision: that was carried out.
        accuracy: of the task on its validation images, in [0, 1].
        parameters: that it would add to the model.
        seconds: that it took; what an interrupted run had computed before counts as it did then.
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
        settings: PAR's.
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
    """A task, asked about before it is learned; at least one task has been learned.

    Attributes:
        divergences: from each earlier task (Eq. 4), by the measure of the settings.
        groups: the earlier tasks of each group, and the most training images of one of them.
        experts: of each group, frozen; images to features.
        heads: of each earlier task, frozen; features to logits.
        attempt: carries out a decision on trial. If the rule then returns it, perhaps with another reason, nothing is computed twice.
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
        """The nearest group; of equals the one opened first."""
        return min(range(len(self.distances)), key=self.distances.__getitem__)

    def share(self, group: int, why: str) -> Decision:
        """Return the decision that the task joins a group, and learns with its expert.

        Args:
            group: the group.
            why: the reason, such as ``z 1.30 ≤ 2 to group 0``.

        Raises:
            LifelongError: there is no such group.
        """
        if group not in range(len(self.groups)):
            raise LifelongError(f"decision '{self.settings.decision}': shares with group {group!r} of {len(self.groups)}, counted from 0")
        return self._decided(Choice("reuse-expert", group, f"{why}: shared"))

    def allocate(self, why: str, kind: Kind | None = None) -> Decision:
        """Return the decision that the task gets an expert of its own.

        Args:
            why: the reason.
            kind: "search" or "reuse-cell" for a searched cell or that of the nearest group, where the variant has both; None: as the
                variant, the allocation and beta say.
        """
        choice = allocated(self.distances, self.nearest, why, self.settings, also=f"{why}; ")
        if kind is not None and self.settings.coarse:
            how = "cell searched" if kind == "search" else f"the cell of group {self.nearest} reused"
            choice = Choice(kind, self.nearest, f"{why}: {how}")
        return self._decided(choice)

    def by_thresholds(self) -> Decision:
        """Return what the paper decides."""
        return self.groups.decide(self.divergences, len(self.task.train), self.settings)

    def renewed(self, decision: Decision, why: str) -> Decision:
        """Return a decision, such as that of an attempt, with another reason."""
        how = decision.reason.rpartition(": ")[2]
        return replace(decision, reason=f"{why}: {how}")

    def _decided(self, choice: Choice) -> Decision:
        return self.groups.concluded(choice, self.divergences, len(self.task.train), self.settings)


@dataclass(frozen=True, kw_only=True)
class Learned(Seen):
    """A task that has just been learned.

    Attributes:
        group: that it belongs to now.
        expert: of the group, frozen.
        head: of the task, frozen.
        accuracy: on its validation images; NaN without any.
        attempts: that were made to decide about it.
    """

    group: int
    expert: nn.Module
    head: nn.Module
    accuracy: float
    attempts: Sequence[Attempt]


class DecisionRule(ABC):
    """Decides which tasks share an expert. It has no state besides what `keep` returns."""

    @abstractmethod
    def decide(self, question: Question) -> Decision:
        """Decide about a task: return what `question.share` or `question.allocate` gives."""

    def keep(self, learned: Learned) -> Tree:
        """Return what to keep of all tasks so far, as tensors and plain values; None, as here, for nothing.

        Args:
            learned: the task that has just been learned, also the first one; `kept` is from before.
        """
        return None


class Thresholds(DecisionRule):
    """The paper's rule: share with the nearest group within alpha; beyond, reuse its cell within beta, or search one."""

    def decide(self, question: Question) -> Decision:
        """Compare the distances with alpha and beta."""
        return question.by_thresholds()


def decided(name: str, question: Question) -> Decision:
    """Return what a registered rule decides.

    Raises:
        LifelongError: it is no decision about the task.
    """
    found: object = DECISIONS[name]().decide(question)
    if not isinstance(found, Decision):
        raise LifelongError(f"decision '{name}': gave {found!r}; it must give what question.share or question.allocate returns")
    return replace(found, reason=" ".join(found.reason.split()))


# `object`, not `type[DecisionRule]`: a wrong class gets a message of its own.
@checked
def register_decision(name: str, decision: object, *, summary: str = "", source: str = "") -> None:
    """Register your own decision rule for `--decision` and the setting `decision`.

    Args:
        name: letters, digits, dashes and underscores.
        decision: a subclass of `DecisionRule` that is made without arguments.
        summary: one line of what it does.
        source: its paper.

    Raises:
        LifelongError: the name is taken or invalid, or the class is not a complete rule.
    """
    DECISIONS.register_class(name, decision, DecisionRule, summary=summary, source=source)


@checked
def check_decision(name: str, *, images: Annotated[int, Ge(1)] = 8) -> None:
    """Try a registered decision rule in PAR, on synthetic tasks.

    Checked: all that `check_method` checks of a method, among it that what the rule keeps survives a file, and that its decisions do, too.

    Args:
        name: of the rule.
        images: training images per class.

    Raises:
        ConformanceError: what is broken, and at which task.
        LifelongError: there is no such rule, or it gives something else than a decision.
    """
    from lifelong.methods.par import PAR

    settings = PARSettings(
        decision=DECISIONS.entry(name).name, variant="fixed+regularization", init_channels=4, cells=2, extractor="pixels"
    )
    check_method(lambda: PAR(settings), images=images)
