"""summary.json: the whole result of a run."""

from typing import ClassVar, Literal

from pydantic import JsonValue, model_validator

from lifelong.records.base import Count, Number, Record, Share
from lifelong.records.renames import SCHEMA_VERSION, Kind
from lifelong.records.task import TaskRecord


class TaskAgnostic(Record):
    """How well a stream is known without the names of its tasks.

    Attributes:
        by: how tasks were found: "method" or "confidence".
        routing: for each task the share of its test images that are taken for its own.
        accuracy: for each task the share whose class is named rightly.
        strange: for each task the share taken for unlike anything learned; None if the method cannot tell.
        mean_routing, mean_accuracy, mean_strange: their means over tasks.
    """

    by: str | None = None
    routing: list[Share] | None = None
    accuracy: list[Share] | None = None
    strange: list[Share] | None = None
    mean_routing: Share
    mean_accuracy: Share
    mean_strange: Share = None


class Content(Record):
    """What a stream is made of.

    Attributes:
        definition: checksum of its definition.
        sources: checksum of each source's images.
        added: checksum of each task that was added.
    """

    definition: str
    sources: dict[str, str]
    added: list[str] | None = None


class TuningCost(Record):
    """What tuning cost so far, the chosen candidates included."""

    seconds: Number = None
    epochs: Count = 0
    candidates: Count = 0


class RunRecord(Record):
    """The record of a run, as it stands in summary.json.

    Attributes:
        schema_version: of this form; docs/schemas has it as a JSON schema.
        version: of the library.
        stream, method, preset, seed, settings: what was run.
        stream_fingerprint, stream_content, extractor_weights: checksums of its images and weights.
        ap, af, bwt, forgetting, weighted_accuracy: see `lifelong.experiment.metrics`.
        seconds, seconds_by_phase: wall time of all tasks.
        accuracy: row i: on tasks 0..i after task i was learned, in [0, 1]; None where it is not known.
        tasks: a record for each learned task.
        tuning: what tuning cost; None for a run that is not tuned.
        parameters: of the model, without the extractor.
        parameters_frozen: those of them that a pretrained network brought along.
        bytes: of all parameters and of everything kept besides.
        memory: bytes kept besides, by kind.
        extractor, device, precision, machine, threads, torch: what computed it.
        peak_memory_bytes, peak_device_memory_bytes: of the process, and on the device.
        notes: remarks and warnings for the user.
        complete: whether the whole stream has been learned.
        task_agnostic: of a complete run.
    """

    KIND: ClassVar[Kind | None] = "summary"

    schema_version: Literal[2] = SCHEMA_VERSION
    version: str | None = None
    stream: str
    stream_fingerprint: str | None = None
    stream_content: Content | None = None
    extractor_weights: str | None = None
    method: str
    preset: str | None = None
    seed: Count
    settings: dict[str, JsonValue] | None = None
    ap: Number = None
    af: Number = None
    bwt: Number = None
    forgetting: Number = None
    weighted_accuracy: Number = None
    seconds: Number = None
    seconds_by_phase: dict[str, Number] | None = None
    accuracy: list[list[Share]]
    tasks: list[TaskRecord]
    tuning: TuningCost | None = None
    parameters: Count | None = None
    parameters_frozen: Count | None = None
    bytes: Count | None = None
    memory: dict[str, Count] | None = None
    extractor: str | None = None
    device: str | None = None
    precision: str | None = None
    machine: str | None = None
    threads: Count | None = None
    torch: str | None = None
    peak_memory_bytes: Count | None = None
    peak_device_memory_bytes: Count | None = None
    notes: list[str] | None = None
    complete: bool = True
    task_agnostic: TaskAgnostic | None = None
    digest: str | None = None

    @model_validator(mode="after")
    def _one_row_for_each_task(self) -> "RunRecord":
        if [len(row) for row in self.accuracy] != list(range(1, len(self.tasks) + 1)):
            raise ValueError(f"'accuracy' is not of {len(self.tasks)} tasks: row i holds those on tasks 0 to i")
        return self
