"""Groups of related tasks, and where a new task belongs: Eq. 5-6 of PAR and its decision.

Choices where the paper is silent:

- A negative divergence counts as 0 wherever Eq. 6 maps it: Eq. 6 would carry it further below zero, and the paper has KL in [0, inf).
  With `clamp` "none" negative divergences still lower a group's mean of Eq. 5.
- Equally near groups: the one opened first.
- The frozen rule compares with Q, the most training images of one task of the group, as it was before the new task joins. The
  comparison is exact in the decimal digits of the ratio: 3 images are not fewer than 0.1 x 30.
- A variant with a fixed cell never searches: a new expert's decision is then "reuse-cell", also the first task's, which has no group yet.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, TypedDict

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from lifelong.settings.par import PARSettings, RelatednessSettings
from lifelong.settings.sockets import ALLOCATIONS, MEASURES

Kind = Literal["search", "reuse-cell", "allocate", "reuse-expert"]

Plain = bool | int | float | str | list[int] | list[float] | None
"""A value of a decision in JSON."""


ROUNDING = 1e-9
"""Distances below this are zero but for rounding, such as that of a task from one with the same images."""


class GroupsState(TypedDict):
    """The saved form of `TaskGroups`."""

    members: list[list[int]]
    largest: list[int]


def to_distance(divergence: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map a divergence from [0, inf) to [0, 1] by Eq. 6: min(s', 1 - exp(-2 s')), the identity up to s' = 0.7968; a negative one to 0."""
    positive = divergence.clamp_min(0)
    return torch.minimum(positive, -torch.expm1(-2 * positive))


def task_distances(divergences: Float64[Tensor, "t"], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
    """Compute the measure's map (Eq. 6) for each task, as if it were alone in its group; a zero becomes 1 with `zero_is_far`."""
    distances = MEASURES[settings.measure]().to_distance(divergences)
    return torch.where(distances < ROUNDING, 1.0, distances) if settings.zero_is_far else distances


def group_divergences(
    divergences: Float64[Tensor, "t"], members: Sequence[Sequence[int]], settings: RelatednessSettings
) -> Float64[Tensor, "g"]:
    """Reduce the divergences of each group's tasks to one (Eq. 5).

    Args:
        divergences: Eq. 4 from each earlier task.
        members: the earlier tasks in each group, none empty; at least one group.
        settings: `group_reduce`.
    """
    reduce = {"mean": torch.mean, "max": torch.amax, "min": torch.amin}[settings.group_reduce]
    return torch.stack([reduce(divergences[list(group)]) for group in members])


def group_distances(
    divergences: Float64[Tensor, "t"], members: Sequence[Sequence[int]], settings: RelatednessSettings
) -> Float64[Tensor, "g"]:
    """Compute the distance to each group, in [0, 1] (Eq. 5-6).

    Args:
        divergences: Eq. 4 from each earlier task.
        members: the earlier tasks in each group, none empty.
        settings: `group_reduce`, `map_before_mean` (Eq. 6 before Eq. 5, as in the authors' code) and `zero_is_far`.
    """
    if not members:
        return divergences.new_zeros(0)
    if settings.map_before_mean:
        return group_divergences(task_distances(divergences, settings), members, settings)
    return task_distances(group_divergences(divergences, members, settings), settings)


@dataclass(frozen=True)
class Decision:
    """The decision about a task and everything it is based on. Plain values only.

    Attributes:
        decision: "reuse-expert" (join the group), "reuse-cell" (new expert with a known cell), "search" (new expert, new cell) or
            "allocate" (new expert, by another allocation than the variant's).
        group: the group that is joined or whose cell is reused, else the nearest one; None for the first task, and for a new expert
            if no distance was computed.
        distance: the distance to that group; None without a group or without distances.
        frozen: a joining task is so small that only its head is trained.
        tiny: joined by the rule for tiny tasks, whatever alpha.
        reason: a line of the decision log, such as ``0.314 ≤ α 0.5 from group 0: shared``.
        samples: training images of the task.
        alpha, beta: the thresholds.
        divergences: from each earlier task, by the measure (Eq. 4).
        distances: the measure's map (Eq. 6) of each of them.
        group_distances: the distance to each group (Eq. 5-6).
        largest: Q of each group before the task.
        warning: why the distances may be wrong, and what to do; empty if no reason is known.
    """

    decision: Kind
    group: int | None
    distance: float | None
    frozen: bool
    tiny: bool
    reason: str
    samples: int
    alpha: float
    beta: float
    divergences: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()
    group_distances: tuple[float, ...] = ()
    largest: tuple[int, ...] = ()
    warning: str = ""

    def as_dict(self) -> dict[str, Plain]:
        """Return the decision for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class TaskGroups:
    """The groups of learned tasks; group g has expert g. Tasks are numbered in the order of the stream, from 0.

    Args:
        members, largest: of groups that are known.

    Attributes:
        members: the tasks of each group.
        largest: Q of each group: the most training images of one of its tasks.
    """

    def __init__(self, members: Sequence[Sequence[int]] = (), largest: Sequence[int] = ()) -> None:
        self.members: list[list[int]] = [list(group) for group in members]
        self.largest: list[int] = list(largest)
        self._groups = _groups_of(self.members)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def tasks(self) -> int:
        """Number of tasks in all groups, which is the index of the next task."""
        return len(self._groups)

    def group_of(self, task: int) -> int:
        """Return the group of a learned task."""
        return self._groups[task]

    def open(self, samples: int) -> int:
        """Put the next task, with `samples` training images, into a new group; return the group."""
        self.members.append([])
        self.largest.append(0)
        self.join(len(self.members) - 1, samples)
        return len(self.members) - 1

    def join(self, group: int, samples: int) -> None:
        """Put the next task, with `samples` training images, into a group."""
        task = self.tasks
        self.members[group].append(task)
        self._groups[task] = group
        self.largest[group] = max(self.largest[group], samples)

    def forget(self, task: int) -> None:
        """Delete a task that is alone in its group, and the group; later tasks and groups move up by one."""
        group = self.group_of(task)
        del self.members[group], self.largest[group]
        self.members = [[member - (member > task) for member in members] for members in self.members]
        self._groups = _groups_of(self.members)

    def state(self) -> GroupsState:
        """Return the groups as plain values."""
        return {"members": [list(group) for group in self.members], "largest": list(self.largest)}

    @classmethod
    def from_state(cls, state: GroupsState) -> "TaskGroups":
        """Restore the groups that `state` returned."""
        return cls(state["members"], state["largest"])

    def decide(self, divergences: Float64[Tensor, "t"] | None, samples: int, settings: PARSettings) -> Decision:
        """Decide where a new task belongs, without changing anything.

        Args:
            divergences: Eq. 4 of the new task from each learned one, in the order of their numbers; None if the variant needs none
                (`needs_distances`).
            samples: training images of the new task.
            settings: thresholds, variant and options.

        Raises:
            ValueError: not one finite divergence per learned task.

        Source: PAR section 3.1-3.3, Table 5; the rule for tiny tasks: the authors' code.
        """
        if divergences is None and needs_distances(settings):
            raise ValueError(f"the variant '{settings.variant}' decides by distances, and there are none")
        distances = [] if divergences is None else self.distances(divergences, settings)
        return self.concluded(self._choose(distances, samples, settings), divergences, samples, settings)

    def distances(self, divergences: Float64[Tensor, "t"], settings: RelatednessSettings) -> list[float]:
        """Compute the distance to each group (Eq. 5-6).

        Args:
            divergences, settings: as for `decide`.

        Raises:
            ValueError: not one finite divergence per learned task.
        """
        return group_distances(self._checked(divergences), self.members, settings).tolist()

    def concluded(self, choice: "Choice", divergences: Float64[Tensor, "t"] | None, samples: int, settings: PARSettings) -> Decision:
        """Return the decision that follows from a choice: with the frozen rule, and all that it is based on.

        Args:
            choice: where the task belongs.
            divergences, samples, settings: as for `decide`.
        """
        divergences = None if divergences is None else self._checked(divergences)
        distances = [] if divergences is None else self.distances(divergences, settings)
        largest = self.largest[choice.group] if choice.decision == "reuse-expert" and choice.group is not None else 0
        frozen = samples < _as_fraction(settings.freeze_ratio) * largest
        small = f", head only ({samples} images < {settings.freeze_ratio:g} × {largest})" if frozen else ""
        return Decision(
            decision=choice.decision,
            group=choice.group,
            distance=distances[choice.group] if distances and choice.group is not None else None,
            frozen=frozen,
            tiny=choice.tiny,
            reason=choice.reason + small,
            samples=samples,
            alpha=float(settings.alpha),
            beta=float(settings.beta),
            divergences=() if divergences is None else tuple(divergences.tolist()),
            distances=() if divergences is None else tuple(task_distances(divergences, settings).tolist()),
            group_distances=tuple(distances),
            largest=tuple(self.largest),
        )

    def _checked(self, divergences: Float64[Tensor, "t"]) -> Float64[Tensor, "t"]:
        if len(divergences) != self.tasks:
            raise ValueError(f"{len(divergences)} divergences for {self.tasks} learned tasks")
        if not divergences.isfinite().all():
            raise ValueError(f"the divergence from task {int((~divergences.isfinite()).nonzero()[0])} is not a finite number")
        return divergences.cpu()

    def _choose(self, distances: list[float], samples: int, settings: PARSettings) -> "Choice":
        if not len(self):
            if settings.allocation != "variant":
                return Choice("allocate", None, f"first task: new expert by the allocation '{settings.allocation}'")
            if settings.fixed:
                return Choice("reuse-cell", None, f"first task: new expert with the fixed cell {settings.fixed_cell}")
            return Choice("search", None, "first task, nothing to share yet: cell searched")
        order = sorted(range(len(distances)), key=distances.__getitem__)  # stable: of equals, the first
        if settings.shares == "always":
            return Choice("reuse-expert", order[0] if order else 0, "every task shares the one expert: shared")
        if settings.shares == "related":
            tiny_group = self._nearest_for_tiny(order, samples, settings)
            if tiny_group is not None:
                knows = f"the nearest that has learned {settings.tiny_task_ratio:g} × {samples} images or more"
                return Choice("reuse-expert", tiny_group, f"tiny task, {_comparison(distances, tiny_group)}, {knows}: shared", tiny=True)
            if distances[order[0]] <= settings.alpha:
                return Choice("reuse-expert", order[0], f"{_comparison(distances, order[0], f'≤ α {settings.alpha:g}')}: shared")
        return _apart(distances, order[0] if order else None, settings)

    def _nearest_for_tiny(self, order: list[int], samples: int, settings: PARSettings) -> int | None:
        """Find the nearest group that a tiny task joins regardless of alpha, or None."""
        if samples > settings.tiny_task:
            return None
        return next((group for group in order if self.largest[group] >= _as_fraction(settings.tiny_task_ratio) * samples), None)


def _groups_of(members: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return the group of each task."""
    return {task: group for group, its in enumerate(members) for task in its}


class Choice(NamedTuple):
    """Where a task belongs; see `Decision` for the attributes."""

    decision: Kind
    group: int | None
    reason: str
    tiny: bool = False


def needs_distances(settings: PARSettings) -> bool:
    """Tell whether the variant or the allocation goes by distances: it shares with related tasks, or looks at the nearest group."""
    looks = settings.allocation != "variant" and ALLOCATIONS[settings.allocation].by_distance
    return settings.shares == "related" or settings.coarse or looks


def _apart(distances: list[float], nearest: int | None, settings: PARSettings) -> Choice:
    """Choose the cell of a new expert, because no group is within alpha or experts are never shared."""
    if settings.shares == "related":
        far = _comparison(distances, nearest, f"> α {settings.alpha:g}")
    else:
        far = f"{_comparison(distances, nearest)}, experts are never shared" if nearest is not None else "experts are never shared"
    return allocated(distances, nearest, far, settings)


def allocated(distances: list[float], nearest: int | None, why: str, settings: PARSettings, also: str = "") -> Choice:
    """Choose the cell of a new expert when there are others.

    Args:
        distances: to each group; empty if none was measured.
        nearest: the nearest group; None without distances.
        why: the task shares none of their experts.
        settings: the variant, the allocation and beta.
        also: said before a comparison with beta, too.
    """
    if settings.allocation != "variant":
        return Choice("allocate", nearest, f"{why}: new expert by the allocation '{settings.allocation}'")
    if settings.fixed:
        return Choice("reuse-cell", nearest, f"{why}: new expert with the fixed cell {settings.fixed_cell}")
    if not settings.coarse or nearest is None:
        return Choice("search", nearest, f"{why}: cell searched, as always")
    if distances[nearest] <= settings.beta:
        return Choice("reuse-cell", nearest, f"{also}{_comparison(distances, nearest, f'≤ β {settings.beta:g}')}: its cell reused")
    return Choice("search", nearest, f"{also}{_comparison(distances, nearest, f'> β {settings.beta:g}')}: cell searched")


def _comparison(distances: list[float], group: int | None, against: str = "") -> str:
    """Format the distance of a group and its comparison: ``0.314 ≤ α 0.5 from group 0``."""
    return "" if group is None else f"{distances[group]:.3f} {against}".rstrip() + f" from group {group}"


def _as_fraction(ratio: float) -> Fraction:
    """Convert a ratio to the fraction it was written as: 0.1 is 1/10."""
    return Fraction(str(ratio))
