"""What is known of a run before it starts: what it learns, and about how long that takes."""

from lifelong.records.base import Count, Number, Record


class PhaseEstimate(Record):
    """How long a part of learning a task would take.

    Attributes:
        phase: its name, such as "search", "train" or "distill"; "other" for what is no loop of epochs.
        epochs: planned.
        seconds: as expected.
        lowest, highest: if it stops as early as it may, and if it runs all its epochs.
    """

    phase: str
    epochs: Count = 0
    seconds: float
    lowest: float
    highest: float


class TaskEstimate(Record):
    """What is known of a task.

    Attributes:
        name: of the task.
        classes: number of classes.
        train, valid, test: images of each split.
        image_size: height and width in pixels.
        measured: whether its first steps were run; otherwise its time follows from those of other tasks, by the number of images.
        decision: what the method decided; None where it decides nothing, or was not asked.
        seconds, lowest, highest: of learning and judging it.
        phases: the parts of `seconds`; empty unless measured.
    """

    name: str
    classes: Count
    train: Count
    valid: Count
    test: Count
    image_size: Count
    measured: bool
    decision: str | None = None
    seconds: float
    lowest: float
    highest: float
    phases: list[PhaseEstimate]


class EstimateRecord(Record):
    """What `lifelong.estimate` returns.

    Attributes:
        stream, method, preset, seed: what would be run.
        tasks: of each task.
        seconds, lowest, highest: of learning and judging all tasks, as `seconds` of a run's summary counts them. What is read and what
            comes at the end is on top.
        reading_seconds: of reading the images that were read.
        ending_seconds: of storing the tasks, judging all of them without their names, and writing the report.
        parameters: of the model at the end, about: the networks depend on what is learned.
        bytes: of the parameters and of everything kept besides.
        peak_memory_bytes, peak_device_memory_bytes: the most memory taken so far, by this process and on the device: a run takes at least
            this much.
        device, machine, threads: what would compute it.
        checks: sentences about the images, the weights, the folder and the disk.
        stops: the reasons why the run would stop before it starts.
        rehearsal_seconds: what the estimate itself took.
    """

    stream: str
    method: str
    preset: str | None = None
    seed: Count
    tasks: list[TaskEstimate]
    seconds: float
    lowest: float
    highest: float
    reading_seconds: float
    ending_seconds: Number = None
    parameters: Count
    bytes: Count
    peak_memory_bytes: Count | None = None
    peak_device_memory_bytes: Count | None = None
    device: str
    machine: str
    threads: Count
    checks: list[str]
    stops: list[str]
    rehearsal_seconds: Number = None
