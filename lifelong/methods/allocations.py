"""Allocations: which expert a task gets that shares none of those there are; PAR's is exchangeable.

An allocation plans the expert: a line of text, such as a cell, from which it is built, now and whenever the model is loaded. PAR then
trains it with a new head by cross-entropy (Eq. 10). One of your own:

    class Mine(Allocation):
        def plan(self, newcomer): ...
        def build(self, plan, settings): ...
        def start(self, expert, newcomer): ...          # if it does not start from random weights

    lifelong.register_allocation("mine", Mine)          # then: --allocation mine
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.errors import LifelongError, require
from lifelong.methods.backbone import feature_dim
from lifelong.methods.conformance import CLASSES, check_method, made_context, made_task
from lifelong.methods.method import Context, LearnRecord
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import Genotype, genotype
from lifelong.relatedness.groups import Decision
from lifelong.search.distribution import Distribution, derive
from lifelong.search.mdl import EDGES_OF_CELLS, search_cell, too_short
from lifelong.settings.arguments import checked
from lifelong.settings.par import PARSettings
from lifelong.settings.sockets import ALLOCATIONS
from lifelong.training.examples import Examples
from lifelong.training.process import alone
from lifelong.training.stages import derive_seed


@dataclass(frozen=True)
class Newcomer:
    """A task that gets an expert, and what there is already.

    Attributes:
        task: its images.
        examples: the same, as a training loop takes them.
        nearest: the nearest group, whose expert is `experts[nearest]`; None for the first task, and where no distance was measured.
        distance: to that group, in [0, 1]; None without one.
        experts: of all groups, frozen; images to features.
        plans: what each of them was built from.
        decision: how it was decided that the task shares no expert.
        settings: PAR's.
        context: the run's seed, the device, resumable stages (`context.stage("search")`), seeded blocks and notes to the user.
        record: of the task, which may say what the allocation cost (`record.seconds`).
    """

    task: Task
    examples: Examples
    experts: Sequence[nn.Module]
    plans: Sequence[str]
    decision: Decision
    settings: PARSettings
    context: Context
    record: LearnRecord

    @property
    def nearest(self) -> int | None:
        """The nearest group; see above."""
        return self.decision.group

    @property
    def distance(self) -> float | None:
        """The distance to the nearest group; see above."""
        return self.decision.distance

    def starting(self, group: int | None) -> "Newcomer":
        """Return the same as if a group were the nearest, or as if there were none."""
        distances = self.decision.group_distances
        distance = self.distance if group == self.nearest else distances[group] if group is not None and distances else None
        return replace(self, decision=replace(self.decision, group=group, distance=distance))


class Allocation(ABC):
    """Plans, builds and starts experts. It has no state besides them; one object serves a model, and may make once what they share."""

    by_distance: ClassVar[bool] = True
    """Whether it looks at the nearest group. Distances are then measured even where the variant never shares an expert."""

    @abstractmethod
    def plan(self, newcomer: Newcomer) -> str:
        """Plan the expert of a task.

        Whatever takes long, such as a search, is a stage of the context, which gives its seed, and lets it be resumed.

        Returns:
            A line of text, from which `build` makes the expert. The printed form of a `Genotype` is drawn in the report.
        """

    def starts(self, newcomer: Newcomer) -> Sequence[int | None]:
        """Return the groups from which an expert may start; by default the nearest one is all that is considered.

        With several, an expert is planned, built, started and trained for each of them, as if that group were the nearest (None: as if
        there were none), and the most accurate on the task's validation images is kept; the first of equals.
        """
        return (newcomer.nearest,)

    @abstractmethod
    def build(self, plan: str, settings: PARSettings) -> nn.Module:
        """Build an expert, for a new task or before its saved weights are loaded.

        Args:
            plan: what `plan` returned.
            settings: PAR's.

        Returns:
            A module from normalized images (n, 3, h, w) to features (n, d), with `feature_dim = d`. Its weights are drawn from torch's
            global generator. Those that do not require gradients are never trained; a part whose running statistics must stay, too,
            overrides `train`.
        """

    def start(self, expert: nn.Module, newcomer: Newcomer) -> None:  # noqa: B027 most experts start as they are built
        """Change the weights that a new expert starts from; by default they are those that `build` has drawn.

        Args:
            expert: on the device, not trained yet. What it takes from `newcomer.experts` it copies.
            newcomer: the task.
        """


class CellAllocation(Allocation):
    """An allocation of cell networks: the plan is the printed form of a genotype."""

    def build(self, plan: str, settings: PARSettings) -> nn.Module:
        """Build the expert of a cell, as wide and deep as the settings say."""
        return CellNetwork(genotype(plan), settings.init_channels, settings.cells, reduce_bn=settings.reduce_bn)


class Searched(CellAllocation):
    """Experts of searched cells."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Search a cell (`lifelong.search.mdl`)."""
        return searched_cell(newcomer)


class Fixed(CellAllocation):
    """Experts of one cell, that of the setting `fixed_cell`."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Return the fixed cell."""
        return str(genotype(newcomer.settings.fixed_cell))


class RandomCell(CellAllocation):
    """Experts of random cells: what a search finds that decides nothing."""

    by_distance = False

    def plan(self, newcomer: Newcomer) -> str:
        """Draw a cell, with the run's seed, for the task."""
        return random_cell(newcomer)


class NearestCell(CellAllocation):
    """Experts of the nearest group's cell, however far it is; the first one's is searched."""

    def plan(self, newcomer: Newcomer) -> str:
        """Return the nearest group's cell, or search one if there is no group."""
        return searched_cell(newcomer) if newcomer.nearest is None else newcomer.plans[newcomer.nearest]


class WarmStart(NearestCell):
    """Experts that start from the nearest group's: its cell and its weights, which are then trained on the new task alone."""

    def start(self, expert: nn.Module, newcomer: Newcomer) -> None:
        """Copy the weights and the running statistics of the nearest expert."""
        if newcomer.nearest is not None:
            expert.load_state_dict(newcomer.experts[newcomer.nearest].state_dict())


class BestStart(WarmStart):
    """The best of several experts: one of the fixed cell from random weights, and copies of the nearest groups' experts.

    All are trained in full on the new task alone, so that no other task is changed, and compared on its validation images. It costs as
    many trainings as there are starts.
    """

    def starts(self, newcomer: Newcomer) -> Sequence[int | None]:
        """Return no group, and the nearest `starts` ones; of equally near ones those that were opened first."""
        distances = newcomer.decision.group_distances
        nearest = sorted(range(len(distances)), key=distances.__getitem__)
        return (None, *nearest[: newcomer.settings.starts])

    def plan(self, newcomer: Newcomer) -> str:
        """Return the cell of the group to start from, or the fixed one."""
        return str(genotype(newcomer.settings.fixed_cell)) if newcomer.nearest is None else newcomer.plans[newcomer.nearest]


class ByVariant(CellAllocation):
    """The paper's allocation and its ablations: a fixed cell, the nearest group's within beta, or else a searched one."""

    def plan(self, newcomer: Newcomer) -> str:
        """Choose the cell as the variant and the decision say."""
        settings, context, nearest = newcomer.settings, newcomer.context, newcomer.nearest
        if settings.fixed:
            if settings.variant == "regularization" and context.began("search"):
                raise LifelongError(
                    f"task '{context.task_name}': this run was started when --variant regularization searched its cell, as "
                    "'regularization-searched' does now; delete the folder to start over"
                )
            return str(genotype(settings.fixed_cell))
        if newcomer.decision.decision == "reuse-cell":
            assert nearest is not None
            return newcomer.plans[nearest]
        return searched_cell(newcomer)


def compared(starts: Sequence[int | None], accuracies: Sequence[float]) -> str:
    """Say how accurate experts from several starts are on validation images, in [0, 1]; NaN without such images."""
    if any(map(math.isnan, accuracies)):
        return f"no validation images to compare {len(starts)} starts by, the first is used"
    names = ("random weights" if start is None else f"from group {start}" for start in starts)
    said = (f"{name} {accuracy:.1%}" for name, accuracy in zip(names, accuracies, strict=True))
    return f"best of {len(starts)} starts on validation images: {', '.join(said)}"


def random_cell(newcomer: Newcomer, number: int | None = None) -> str:
    """Draw a cell evenly, with the run's seed, for a task; return its printed form.

    Args:
        newcomer: the task.
        number: which of several cells of the task; None: its only one.
    """
    which = ("cell",) if number is None else ("cell", number)
    drawn = torch.Generator().manual_seed(derive_seed(newcomer.context.seed, newcomer.context.task_index, *which))
    even = Distribution().probabilities
    return str(Genotype(derive(even, drawn).plan, derive(even, drawn).plan))


def searched_cell(newcomer: Newcomer, start: tuple[Distribution, Distribution] | None = None) -> str:
    """Search a cell for a task, as a stage of its own; return its printed form.

    The task's record says how long it took, and how many edges are left undecided.

    Args:
        newcomer: the task.
        start: distributions from which the search of the two cells begins; None: even ones.

    Raises:
        LifelongError: the task has fewer than two images, or the search's loss is not finite.
    """
    task, settings, context, record = newcomer.task, newcomer.settings, newcomer.context, newcomer.record
    short = too_short(len(task.train), settings, context.training.batch_size)
    if short is not None:
        context.note(short, record)
    found = search_cell(
        task.train,
        len(task.classes),
        settings,
        context.training,
        context.stage("search"),
        normalization=task.normalization,
        augmentation=newcomer.examples.augmentation,
        channels=settings.init_channels,
        cells=settings.cells,
        reduce_bn=settings.reduce_bn,
        start=start,
    )
    record.seconds["search"] = found.seconds
    record.edges, record.undecided_edges = EDGES_OF_CELLS, found.undecided
    if found.undecided:
        record.reason += f"; {found.undecided} of its {EDGES_OF_CELLS} edges undecided, ties"
        record.reason += " broken by the seed" if settings.search_ties == "seed" else ": the first taken"
    return str(found.genotype)


def planned(name: str, allocation: Allocation, newcomer: Newcomer) -> str:
    """Return what an allocation plans for a task.

    Raises:
        LifelongError: it is not a line of text.
    """
    plan: object = allocation.plan(newcomer)
    if not isinstance(plan, str) or not plan.isprintable() or not plan:
        raise LifelongError(f"allocation '{name}': planned {plan!r}; it must plan a line of text, from which the expert is built")
    return plan


def built(name: str, allocation: Allocation, plan: str, settings: PARSettings) -> nn.Module:
    """Return what an allocation builds from a plan.

    Raises:
        LifelongError: it is not a module that says how long its features are.
    """
    expert: object = allocation.build(plan, settings)
    if not isinstance(expert, nn.Module):
        raise LifelongError(f"allocation '{name}': built a {type(expert).__name__}; it must build a torch.nn.Module")
    feature_dim(expert)
    return expert


def cell_of(plan: str) -> str | None:
    """Return the cell that a plan is, in its printed form; None: it is something else."""
    try:
        return str(Genotype.parse(plan))
    except LifelongError:
        return None


# `object`, not `type[Allocation]`: a wrong class gets a message of its own.
@checked
def register_allocation(name: str, allocation: object, *, summary: str = "", source: str = "") -> None:
    """Register your own allocation for `--allocation` and the setting `allocation`.

    Args:
        name: letters, digits, dashes and underscores.
        allocation: a subclass of `Allocation` that is made without arguments.
        summary: one line of what it does.
        source: its paper.

    Raises:
        LifelongError: the name is taken or invalid, or the class is not a complete allocation.
    """
    ALLOCATIONS.register_class(name, allocation, Allocation, summary=summary, source=source)


@checked
def check_allocation(name: str, *, images: Annotated[int, Ge(1)] = 8) -> None:
    """Try a registered allocation in PAR, on synthetic tasks: an expert for each of them, and one that all share.

    Checked: all that `check_method` checks of a method, and that a new expert leaves the earlier ones as they are, to the bit.

    Args:
        name: of the allocation.
        images: training images per class.

    Raises:
        ConformanceError: what is broken, and at which task.
        LifelongError: there is no such allocation, or it plans or builds something else than an expert.
    """
    from lifelong.methods.par import PAR

    settings = PARSettings(allocation=ALLOCATIONS.entry(name).name, init_channels=4, cells=2, search_epochs=2, extractor="pixels")
    each, shared = replace(settings, variant="coarse+fine"), replace(settings, variant="regularization-searched")
    with alone("check_allocation"):
        method = PAR(each)
        before: list[dict[str, Tensor]] = []
        for index in range(len(CLASSES)):
            method.learn(made_task(index, images), made_context(index))
            experts = [expert.state_dict() for expert in method.experts]
            for group, (was, now) in enumerate(zip(before, experts, strict=False)):
                kept = all(torch.equal(tensor, now[key]) for key, tensor in was.items())
                require(kept, f"allocation '{name}': the expert of task {index} changes that of task {group}")
            before = [{key: tensor.clone() for key, tensor in expert.items()} for expert in experts]
        for tried in (each, shared):
            check_method(lambda tried=tried: PAR(tried), images=images)
