"""What the JSON files of a run may hold: what is of another kind is one line, with the place in the file.

Keys that are not named here pass, and none but the first few must be there: earlier versions wrote fewer, and methods write their own.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from lifelong.errors import DamagedError
from lifelong.storage import read_record

T = TypeVar("T")

Number = float | None
"""A number, or null for one that is not known."""

Share = Annotated[float, Field(ge=0, le=1)] | None
Count = Annotated[int, Field(ge=0, lt=2**53)]


class Kept(BaseModel):
    """A JSON object: strictly of the kinds that are named, whatever else it holds."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Candidate(Kept):
    """A candidate of a tuned task."""

    values: dict[str, JsonValue]
    valid_accuracy: Share
    seconds: Number = None
    epochs: Count = 0


class Tuning(Kept):
    """What tuning a task came to."""

    candidates: Annotated[list[Candidate], Field(min_length=1)]
    chosen: Count
    seconds: Number = None
    epochs: Count = 0

    @model_validator(mode="after")
    def _one_is_chosen(self) -> "Tuning":
        if self.chosen >= len(self.candidates):
            raise ValueError(f"candidate {self.chosen} of {len(self.candidates)} is chosen")
        return self


class Judged(Kept):
    """How the test images of a task were answered."""

    recall: list[Share] | None = None
    confusion: list[list[Count]] | None = None
    majority: Share = None


class LearnedTask(Kept):
    """A task's record."""

    name: str
    classes: list[str]
    train: Count = 0
    valid: Count = 0
    test: Count = 0
    image_size: Annotated[int, Field(ge=1, le=2**20)] | None = None
    seconds: Number = None
    seconds_by_phase: dict[str, Number] | None = None
    decision: str | None = None
    expert: Count | None = None
    distances: list[Number] | None = None
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
    judged: Judged | None = None
    tuning: Tuning | None = None

    @model_validator(mode="after")
    def _judged_by_its_classes(self) -> "LearnedTask":
        found = self.judged or Judged()
        for rows in ([found.recall], [found.confusion], found.confusion or ()):
            if any(row is not None and len(row) != len(self.classes) for row in rows):
                raise ValueError(f"'judged' is not of its {len(self.classes)} classes")
        return self


class TaskFree(Kept):
    """How well a stream is known without the names of its tasks."""

    by: str | None = None
    mean_accuracy: Share
    mean_routing: Share


class Content(Kept):
    """What a stream is made of."""

    definition: str
    sources: dict[str, str]
    added: list[str] | None = None


class Summary(Kept):
    """summary.json."""

    stream: str
    method: str
    seed: Count
    tasks: list[LearnedTask]
    accuracy: list[list[Share]]
    complete: bool = True
    version: str | None = None
    preset: str | None = None
    stream_fingerprint: str | None = None
    stream_content: Content | None = None
    extractor: str | None = None
    extractor_weights: str | None = None
    settings: dict[str, JsonValue] | None = None
    ap: Number = None
    af: Number = None
    bwt: Number = None
    forgetting: Number = None
    weighted_accuracy: Number = None
    parameters: Count | None = None
    parameters_frozen: Count | None = None
    bytes: Count | None = None
    memory: dict[str, Count] | None = None
    seconds: Number = None
    seconds_by_phase: dict[str, Number] | None = None
    device: str | None = None
    precision: str | None = None
    machine: str | None = None
    threads: Count | None = None
    torch: str | None = None
    peak_memory_bytes: Count | None = None
    peak_device_memory_bytes: Count | None = None
    notes: list[str] | None = None
    task_free: TaskFree | None = None
    tuning: dict[str, Number] | None = None

    @model_validator(mode="after")
    def _one_row_for_each_task(self) -> "Summary":
        if [len(row) for row in self.accuracy] != list(range(1, len(self.tasks) + 1)):
            raise ValueError(f"'accuracy' is not of {len(self.tasks)} tasks: row i holds those on tasks 0 to i")
        return self


class Identity(Kept):
    """identity.json."""

    version: int | None = None
    stream: str | None = None
    method: str | None = None
    seed: Count | None = None
    library: str | None = None
    stream_images: Annotated[str | None, Field(alias="stream images")] = None
    extractor_weights: Annotated[str | None, Field(alias="extractor weights")] = None

    @model_validator(mode="after")
    def _knows_its_images(self) -> "Identity":
        if self.version is not None and None in (self.stream, self.method, self.seed, self.stream_images):
            raise ValueError("one of 'stream', 'method', 'seed' and 'stream images' is missing")
        return self


class Epoch(Kept):
    """A line of curves.jsonl."""

    task: Count
    candidate: Count | None = None
    stage: str
    epoch: Count
    loss: Number = None
    accuracy: Number = None


class Added(BaseModel):
    """An entry of added.json."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    source: str
    fingerprint: str
    content: str = ""


Kind = Literal["summary", "identity", "curves", "added"]
_KINDS: dict[Kind, Any] = {"summary": Summary, "identity": Identity, "curves": Epoch, "added": list[Added]}


@cache
def _adapter(kind: Kind) -> TypeAdapter:
    return TypeAdapter(_KINDS[kind])


def hold(kind: Kind, value: T) -> T:
    """Hold what was read against what may be there.

    Returns:
        The value, as it was read.

    Raises:
        ValueError: it is of another kind; the message is one line and names the place.
    """
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(_said(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _said(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"'{where}': {what[:1].lower()}{what[1:]}" if where else what[:1].lower() + what[1:]


def read_held(file: Path, kind: Kind) -> tuple[dict[str, Any], bool]:
    """Read a JSON file of a run, and hold it against what may be there.

    Args:
        file: the file.
        kind: of which it is.

    Returns:
        What stands there without its digest, and whether it carried one.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not as it was written, or something in it is of another kind.
        LifelongError: it cannot be read.
    """
    record, checked = read_record(file)
    try:
        return hold(kind, record), checked
    except ValueError as error:
        raise DamagedError(f"cannot read {file}: {' '.join(str(error).split())}") from error


def epochs_of(lines: Iterable[Any]) -> tuple[list[dict[str, Any]], bool]:
    """Take the lines of curves.jsonl that are what they may be.

    Returns:
        Those, and whether that is all.
    """
    kept, whole = [], True
    for line in lines:
        try:
            kept.append(hold("curves", line))
        except ValueError:
            whole = False
    return kept, whole
