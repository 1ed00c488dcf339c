"""What the listing functions return: plain dicts for JSON, whose keys a type checker knows."""

from typing import TypedDict


class Named(TypedDict):
    """A known stream."""

    name: str
    text: str


class Checksums(TypedDict):
    """Checksums of what a stream drew and from which labels, and whether they are recorded for these data."""

    labels: str
    draws: str
    verdict: str


class TaskDescribed(TypedDict):
    """A task of a stream, as `lifelong.data.task.TaskDescription` has it."""

    name: str
    source: str
    classes: list[str]
    train: int
    valid: int
    test: int
    image_size: int
    transform: str
    notes: list[str]
    licence: str


class StreamDescription(TypedDict):
    """What `lifelong.describe_stream` returns."""

    name: str
    seed: int
    fingerprint: str
    checksum: Checksums
    check: list[str]
    tasks: list[TaskDescribed]


class MethodListed(TypedDict):
    """A registered method."""

    name: str
    summary: str
    source: str


class SettingDescribed(TypedDict):
    """A setting of a method or of training; its default is of the setting's own type."""

    name: str
    flag: str
    accepts: str
    default: object
    help: str


class MethodDescription(MethodListed):
    """What `lifelong.describe_method` returns."""

    settings: list[SettingDescribed]
    training: list[SettingDescribed]


class ReportWritten(TypedDict):
    """What `lifelong.write_report` returns."""

    report: str
    tasks: list[str]
    mistakes: list[int | None]


class ExportedTask(TypedDict):
    """What an output of logits is of, in a file with all tasks."""

    task: str
    classes: list[str]


class ExportedAll(TypedDict):
    """What `lifelong.export_all` returns."""

    file: str
    outputs: dict[str, ExportedTask]
    tells_tasks: bool
    image_size: int
    largest_difference: float
    notes: list[str]


class Exported(TypedDict):
    """What `lifelong.export` returns."""

    file: str
    task: str
    classes: list[str]
    image_size: int
    largest_difference: float
    notes: list[str]


class Pushed(TypedDict):
    """What `lifelong.push` returns."""

    id: str
    url: str
    public: bool
    files: list[str]
    bytes: int


class ExportedBundle(TypedDict):
    """What `lifelong.export` returns for a bundle."""

    folder: str
    tasks: dict[str, list[str]]
    models: int
    bytes: int
    recognizes: list[str]
    images: int
    test_images: int
    largest_difference: float
    notes: list[str]
