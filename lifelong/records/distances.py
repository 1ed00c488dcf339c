"""distances.json: the divergences between a stream's tasks, and what PAR would decide; nothing was trained."""

from typing import ClassVar

from pydantic import JsonValue

from lifelong.records.base import Count, Number, Record
from lifelong.records.renames import Kind
from lifelong.records.task import TaskRecord


class DecisionRecord(Record):
    """A decision without a run.

    Attributes:
        decision: "search", "reuse-cell", "allocate" or "reuse-expert".
        group: the group that is joined or whose cell is reused, else the nearest one; None for the first task.
        distance: to that group (Eq. 5-6).
        tiny: joined by the rule for tiny tasks, whatever alpha.
        frozen: only a head would be trained.
        reason: why, in one line.
        samples: training images of the task.
        alpha, beta: the thresholds that the group distances were compared with.
        divergences: from each earlier task, by the measure (Eq. 4).
        distances: the measure's map (Eq. 6) of each of the divergences, as if each task were a group alone.
        group_distances: the distance to each group (Eq. 5-6).
        largest: the most training images of one of each group's tasks, before this one.
        warning: why the divergences may be wrong, and what to do; empty if no reason is known.
    """

    KIND: ClassVar[Kind | None] = "decision"

    decision: str | None = None
    group: Count | None = None
    distance: Number = None
    frozen: bool | None = None
    tiny: bool | None = None
    reason: str | None = None
    samples: Count | None = None
    alpha: Number = None
    beta: Number = None
    divergences: list[Number] | None = None
    distances: list[Number] | None = None
    group_distances: list[Number] | None = None
    largest: list[Count] | None = None
    warning: str = ""


Decided = TaskRecord | DecisionRecord
"""What holds a decision, and what it is based on."""


class DistancesRecord(Record):
    """What `lifelong.distances` returns.

    Attributes:
        measure: which gave the divergences; earlier versions did not record it.
        tasks: their names.
        divergences: row i, column j: of task i from the earlier task j, by the measure (Eq. 4).
        decisions: of each task.
        groups: the tasks of each group.
        settings: what decided the numbers; recorded by `lifelong reproduce`.
    """

    KIND: ClassVar[Kind | None] = "distances"

    stream: str
    seed: Count
    extractor: str | None = None
    measure: str | None = None
    alpha: Number = None
    beta: Number = None
    tasks: list[str]
    divergences: list[list[Number]]
    decisions: list[DecisionRecord]
    groups: list[list[Count]] | None = None
    notes: list[str] | None = None
    settings: dict[str, JsonValue] | None = None
    digest: str | None = None
