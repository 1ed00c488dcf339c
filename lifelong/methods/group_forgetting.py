"""Whether a task can be taken out of PAR's groups: only where it is alone in its group, and later ones took nothing over from it."""

from collections.abc import Sequence

from lifelong.methods.allocations import Allocation, ByVariant, Fixed, NearestCell, RandomCell, Searched, WarmStart
from lifelong.methods.method import Entangled
from lifelong.relatedness.assessment import Relatedness
from lifelong.settings.par import PARSettings


def entangled_in_group(relatedness: Relatedness, task: int, what: str) -> Entangled | None:
    """Tell why a task cannot be taken out of its group; None: it is alone there, and nothing is measured against it.

    Args:
        relatedness: which has the groups.
        task: the task's position.
        what: that its group has in common, in words.
    """
    groups = relatedness.groups
    others = tuple(member for member in groups.members[groups.group_of(task)] if member != task)
    if others:
        return Entangled(f"{what} with other tasks of its group", others)
    if relatedness.entangled(task):
        return Entangled("what is kept of later tasks is measured against the first one", tuple(range(1, groups.tasks)))
    return None


def heirs_of_expert(
    allocation: Allocation, settings: PARSettings, plans: list[str], relatedness: Relatedness, task: int
) -> Entangled | None:
    """Tell which later experts took over weights or a cell from that of a task which is alone in its group; None: none.

    Args:
        allocation: that planned the experts.
        settings: PAR's.
        plans: of all experts.
        relatedness: which has the groups.
        task: the task's position.
    """
    groups = relatedness.groups
    group = groups.group_of(task)
    later = range(group + 1, len(groups))
    if type(allocation) in (Searched, Fixed, RandomCell) or (type(allocation) is ByVariant and settings.fixed):
        return None
    if type(allocation) is WarmStart or type(allocation) not in (ByVariant, NearestCell):
        return _heirs("later experts may have started from its own", relatedness, later)
    # A cell that an earlier group has, too, was not found on this task's images.
    same = [other for other in later if plans[other] == plans[group]] if plans[group] not in plans[:group] else []
    return _heirs("other experts have the cell that was found on its images", relatedness, same)


def _heirs(reason: str, relatedness: Relatedness, groups: Sequence[int]) -> Entangled | None:
    tasks = tuple(sorted(member for group in groups for member in relatedness.groups.members[group]))
    return Entangled(reason, tasks) if tasks else None
