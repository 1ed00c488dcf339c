"""What is recorded of a task: what was decided, what it cost, and how its images are answered."""

from typing import Annotated, ClassVar

from pydantic import Field, JsonValue, model_validator

from lifelong.records.base import Count, Number, Record, Share
from lifelong.records.renames import Kind


class Candidate(Record):
    """A candidate of a tuned task."""

    # A mapping has a method of the name that the key has.
    chosen_values: Annotated[dict[str, JsonValue], Field(alias="values")]
    valid_accuracy: Share
    seconds: Number = None
    epochs: Count = 0
    failure: str = ""


class TaskTuning(Record):
    """What tuning a task came to; seconds and epochs are those of all candidates together."""

    candidates: Annotated[list[Candidate], Field(min_length=1)]
    chosen: Count
    seconds: Number = None
    epochs: Count = 0

    @model_validator(mode="after")
    def _one_is_chosen(self) -> "TaskTuning":
        if self.chosen >= len(self.candidates):
            raise ValueError(f"candidate {self.chosen} of {len(self.candidates)} is chosen")
        return self

    @property
    def choice(self) -> Candidate:
        """The candidate that was chosen."""
        return self.candidates[self.chosen]


class Judged(Record):
    """How the test images of a task were answered.

    Attributes:
        recall: of each class the share that is answered rightly; None where it has no test image.
        confusion: test images by what they are (rows) and what they are taken for; None for more classes than are kept.
        majority: the share of the largest class, which an answer without looking would reach; None without images.
    """

    recall: list[Share] | None = None
    confusion: list[list[Count]] | None = None
    majority: Share = None


DECISION_KINDS = ("search", "reuse-cell", "allocate", "reuse-expert", "head", "adapter", "side")
"""The decisions: a new expert with a searched cell, with a known cell, or from another allocation; an earlier expert; and on a frozen
network a head, adapters or a side network."""


class TaskRecord(Record):
    """The record of a learned task: an entry of "tasks" in summary.json, and a line of results.jsonl.

    Attributes:
        classes: in label order.
        train, valid, test: images of each split.
        image_size: height and width in pixels.
        decision: one of `DECISION_KINDS`; None for methods that decide nothing.
        expert: index of the expert that serves the task, if the method has several.
        divergences: from each earlier task, by the run's measure (Eq. 4).
        task_distances: the measure's map (Eq. 6) of each of them; earlier versions did not record it, and had Eq. 6 only.
        group_distances: the distance to each group (Eq. 5-6).
        alpha, beta: the thresholds that the group distances were compared with.
        reason: why, in one line.
        frozen: only a head was trained.
        genotype: the cell of the expert, as text that can be pasted back.
        edges, undecided_edges: of the cell searched for the task; those that the search left undecided.
        epochs: epochs of training.
        hyperparameters: values chosen on validation data, and the validation accuracy reached.
        parameters_added: parameters that the task added to the model.
        seconds, seconds_by_phase: wall time.
        made_with: what computed it.
        notes: warnings about how it was learned.
    """

    KIND: ClassVar[Kind | None] = "task"

    name: str
    classes: list[str]
    train: Count = 0
    valid: Count = 0
    test: Count = 0
    image_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    seconds_by_phase: dict[str, Number] | None = None
    made_with: dict[str, str] | None = None
    decision: str | None = None
    expert: Count | None = None
    divergences: list[Number] | None = None
    task_distances: list[Number] | None = None
    group_distances: list[Number] | None = None
    alpha: Number = None
    beta: Number = None
    reason: str | None = None
    frozen: bool | None = None
    genotype: str | None = None
    edges: Count = 0
    undecided_edges: Count = 0
    epochs: Count | None = None
    hyperparameters: dict[str, JsonValue] | None = None
    parameters_added: Count | None = None
    notes: list[str] | None = None
    tuning: TaskTuning | None = None
    judged: Judged | None = None
    seconds: Number = None

    @property
    def side(self) -> int:
        """Height and width of its images in pixels, which every run of this form records."""
        if self.image_size is None:
            raise ValueError(f"the size of the images of task '{self.name}' is not recorded")
        return self.image_size

    @model_validator(mode="after")
    def _judged_by_its_classes(self) -> "TaskRecord":
        found = self.judged or Judged()
        for rows in ([found.recall], [found.confusion], found.confusion or ()):
            if any(row is not None and len(row) != len(self.classes) for row in rows):
                raise ValueError(f"'judged' is not of its {len(self.classes)} classes")
        return self
