"""transfer.json: what tasks really gain from one another, and how well distances and the rules that read them predict it."""

from typing import Annotated

from pydantic import Field, JsonValue

from lifelong.records.base import Count, Number, Record, Share

Correlation = Annotated[float, Field(ge=-1, le=1)] | None


class LearnedAlone(Record):
    """A task learned by a new expert that nothing is known to.

    Attributes:
        accuracy, valid_accuracy: on its test and its validation images.
        parameters: of its expert and its head.
        seconds: to learn it, a search included.
    """

    accuracy: Share
    valid_accuracy: Share = None
    parameters: Count
    seconds: Number = None


class PairRecord(Record):
    """A target task, learned with the help of the expert of one source task.

    Attributes:
        source, target: their positions in the stream.
        strategy: how; see `lifelong.experiment.transfer`.
        accuracy, valid_accuracy: on the target's test and validation images.
        gain: its accuracy, minus that of the target learned alone.
        change: of the source's accuracy, because its expert learned the target too; 0 if that expert is left as it is.
        valid_change: the same on the source's validation images; None: not known.
        parameters: that the target added.
        seconds: to learn the target.
    """

    source: Count
    target: Count
    strategy: str
    accuracy: Share
    valid_accuracy: Share = None
    gain: Number
    change: Number = 0.0
    valid_change: Number = None
    parameters: Count
    seconds: Number = None


class MeasuredRecord(Record):
    """What a measure says of all pairs.

    Attributes:
        measure: its name.
        divergences: row j, column i: of task j from task i; None on the diagonal.
        distances: the same, mapped to [0, 1] as the thresholds are held against them.
        seconds: to measure all tasks, without the extraction of features.
    """

    measure: str
    divergences: list[list[Number]]
    distances: list[list[Number]]
    seconds: Number = None


class TransferSeed(Record):
    """What was measured with one seed.

    Attributes:
        seed: of the stream's draws and of the training.
        train: training images of each task.
        alone: of each task.
        pairs: of all ordered pairs, by each strategy.
        measured: by each measure.
        decisions: by measure, what its thresholds decide for each task if each of the others had an expert of its own.
    """

    seed: Count
    train: list[Count]
    alone: list[LearnedAlone]
    pairs: list[PairRecord]
    measured: list[MeasuredRecord]
    decisions: dict[str, list["ThresholdDecision"]]


class ThresholdDecision(Record):
    """What PAR's rule decides for a task.

    Attributes:
        source: the task whose expert is joined, or whose cell is taken, or the nearest one.
        strategy: "share", "head", "cell", or "alone".
    """

    source: Count
    strategy: str


class AgreementRecord(Record):
    """How well the distances of a measure rank what the pairs gain, by Kendall's tau-b; 1: the nearer, the more.

    Attributes:
        measure: its name.
        strategy: by which the gains were made.
        both: the change of the source's accuracy is counted, too.
        tau: over all pairs; the mean over seeds.
        by_seed: the same, for each seed.
        tau_of_means: over all pairs, of distances and gains that are each the mean over seeds.
        tau_of_targets: the mean over targets of tau over their sources.
        by_target: the same, for each target, the mean over seeds.
    """

    measure: str
    strategy: str
    both: bool = False
    tau: Correlation = None
    by_seed: list[Correlation]
    tau_of_means: Correlation = None
    tau_of_targets: Correlation = None
    by_target: list[Correlation]


class RuleRecord(Record):
    """What a rule makes of the pairs: for each task it chooses alone, or a source and a strategy. Means over tasks and seeds.

    Attributes:
        rule: "thresholds", "nearest", "two nearest", "best threshold", "alone", "validation", "validation of both" or "oracle"; see
            docs/transfer.md.
        measure: whose distances it reads; None: none.
        strategy: by which "nearest", "two nearest" and "best threshold" use a source; None: the first.
        threshold: on the distance; None: it has none.
        value: gain of the target plus change of the source.
        regret: the oracle's value minus this one.
        regret_on_validation: the value of "validation of both" minus this one; None: not known.
        parameters: that a task adds.
        more_parameters: than by the oracle.
        seconds: to learn a task, and whatever was tried.
        more_seconds: than by the oracle, which is told for nothing what to choose.
        shared: the share of tasks for which something of a source is used.
    """

    rule: str
    measure: str | None = None
    strategy: str | None = None
    threshold: Number = None
    value: Number
    regret: Number
    regret_on_validation: Number = None
    parameters: Number
    more_parameters: Number
    seconds: Number
    more_seconds: Number
    shared: Share


class TransferRecord(Record):
    """What `lifelong.transfer` returns.

    Attributes:
        stream: its name.
        tasks: their names.
        strategies: that were tried.
        measures: that were computed.
        left_out: measures that cannot be computed on this stream, and why.
        extractor: of the features that are measured.
        seeds: what was measured with each.
        agreement: of each measure with the gains of each strategy.
        repeatability: of each strategy's gains with those of the other seeds; empty with one seed, None in old files.
        rules: of what can be decided by distances, against the oracle.
        notes: remarks and warnings.
        settings: what decided the numbers.
        version, device, machine, threads, torch: what computed it.
        seconds: of all trainings.
    """

    stream: str
    tasks: list[str]
    strategies: list[str]
    measures: list[str]
    left_out: dict[str, str]
    extractor: str | None = None
    seeds: list[TransferSeed]
    agreement: list[AgreementRecord]
    repeatability: list[AgreementRecord] | None = None
    rules: list[RuleRecord]
    notes: list[str] | None = None
    settings: dict[str, JsonValue] | None = None
    version: str | None = None
    device: str | None = None
    machine: str | None = None
    threads: Count | None = None
    torch: str | None = None
    seconds: Number = None
