"""The distances and decisions of PAR over a stream, without training anything."""

from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from lifelong.experiment.machine import choose_device
from lifelong.experiment.observer import Observer
from lifelong.experiment.run import extractor_opener, resolve_extractor
from lifelong.records.distances import DecisionRecord, DistancesRecord
from lifelong.relatedness.assessment import Relatedness
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Environment
from lifelong.settings.sockets import MEASURES
from lifelong.streams.check import as_notes, data_check
from lifelong.streams.named_streams import open_stream
from lifelong.training.precision import exact_float32
from lifelong.training.process import as_found


def distances(
    stream_name: str, seed: int, settings: PARSettings, environment: Environment, progress: Observer | None = None
) -> DistancesRecord:
    """Measure every task of a stream against the tasks before it, and group them as PAR would.

    Distances only need frozen features, so this equals what a run of PAR with the same settings measures and decides.

    Args:
        stream_name: a stream's name, or the path of a TOML file.
        seed: seed of the stream's draws.
        settings: how distances are computed, and how they decide.
        environment: where data, weights and the device are.
        progress: observer; None: no one.

    Returns:
        `stream`, `seed`, `extractor`, `measure`, `alpha`, `beta`, `tasks` (names), `divergences` (row i: of task i from each earlier one),
        `decisions` (one per task, with everything compared with the thresholds), `groups` (task indices), `notes`.

    Raises:
        LifelongError: bad input, missing data or weights.
    """
    with as_found():
        return _distances(stream_name, seed, settings, environment, progress or Observer())


def _distances(stream_name: str, seed: int, settings: PARSettings, environment: Environment, progress: Observer) -> DistancesRecord:
    if settings.decision != "thresholds":
        raise LifelongError(
            f"distances are grouped by the thresholds, without training; --decision {settings.decision} needs `lifelong run`"
        )
    if MEASURES[settings.measure].needs_experts:
        raise LifelongError(
            f"the measure '{settings.measure}' looks at images through the experts of earlier tasks, and `lifelong distances` trains none: "
            "use `lifelong run`, whose summary has the divergences, or another measure"
        )
    device = choose_device(environment.device)
    stream = open_stream(stream_name, seed, Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken))
    settings, notes = resolve_extractor(settings, stream.name)
    extractor = extractor_opener(environment, device)(settings.extractor, settings.feature_input)
    relatedness = Relatedness(settings)
    names: list[str] = []
    decisions: list[DecisionRecord] = []
    warnings: list[str] = []
    progress.run_started(stream.name, "distances", len(stream), 0)
    for index in range(len(stream)):
        task = stream[index].to(device)
        progress.task_started(index, task.name)
        progress.phase("distances")
        with exact_float32(device):
            decision = relatedness.assess(task, extractor)
        if decision.decision == "reuse-expert":
            assert decision.group is not None
            relatedness.groups.join(decision.group, len(task.train))
        else:
            relatedness.groups.open(len(task.train))
        names.append(task.name)
        decisions.append(DecisionRecord.model_validate(decision.as_dict()))
        if decision.warning and decision.warning not in warnings:
            warnings.append(decision.warning)
    return DistancesRecord(
        stream=stream.name,
        seed=seed,
        extractor=settings.extractor,
        measure=settings.measure,
        alpha=settings.alpha,
        beta=settings.beta,
        tasks=names,
        divergences=[list(decision.divergences or ()) for decision in decisions],
        decisions=decisions,
        groups=relatedness.groups.members,
        notes=[*notes, *warnings, *as_notes(data_check(stream))],
    )
