"""What tasks really gain from one another: every ordered pair of a stream's tasks is learned, and compared with the distances.

Each task is learned alone, by a new expert. Then, for each pair of a source and a target, the target is learned with the help of the
source's expert, which knows nothing else, by each strategy:

    share        the source's expert learns the target too, with the regularizer (PAR Eq. 9)
    fine-tune    a copy of the source's expert is trained on the target
    head         a head alone is trained on the source's expert, which is frozen
    cell         a new expert of the source's cell is trained from random weights

The gain is the target's accuracy minus that of the target learned alone, with the same initial head. What was trained is saved as it
ends, so that the same call continues wherever it was stopped.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from lifelong import __version__
from lifelong.data.feature_cache import keeping
from lifelong.data.sources import Sources
from lifelong.data.task import Stream, Task
from lifelong.errors import LifelongError
from lifelong.experiment.agreement import ALONE, agreement, repeatability, rules
from lifelong.experiment.identity import COMMAND
from lifelong.experiment.machine import choose_device, machine_name, made_with, set_threads
from lifelong.experiment.observer import Observer
from lifelong.experiment.pairs import Pairs
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.run import begun_with, check_objects, extractor_opener, hold_config, identity_of, resolve_extractor
from lifelong.records.transfer import (
    MeasuredRecord,
    ThresholdDecision,
    TransferRecord,
    TransferSeed,
)
from lifelong.relatedness.assessment import task_features
from lifelong.relatedness.extractor import Extractor
from lifelong.relatedness.groups import TaskGroups, task_distances
from lifelong.relatedness.measures import Sample, measure_divergences
from lifelong.settings.par import PARSettings
from lifelong.settings.resolve import config_toml, default_values, flat
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.sockets import MEASURES
from lifelong.settings.transfer import Strategy
from lifelong.storage import Tree
from lifelong.streams.check import as_notes, data_check
from lifelong.streams.named_streams import open_stream
from lifelong.training.denormals import flush_denormals
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import check_training, exact_float32
from lifelong.training.process import alone


def transfer(
    configs: Sequence[RunConfig],
    strategies: Sequence[Strategy],
    measures: Sequence[str] | None,
    out: Path,
    environment: Environment,
    progress: Observer | None = None,
) -> TransferRecord:
    """Measure transfer between all ordered pairs of a stream's tasks, and what distances and rules make of it.

    Args:
        configs: of PAR, which differ in their seed alone; at least one.
        strategies: by which targets are learned, at least one, none twice; rules share by the first.
        measures: names of measures; None: all that can be computed.
        out: the folder; each seed has its own in it, and is continued there.
        environment: where data, weights and the device are.
        progress: is told what happens; a source with all its targets is a task. None: nobody.

    Raises:
        LifelongError: bad input, missing data or weights, a folder of something else, a loss that is not finite.
    """
    for name in measures or ():
        MEASURES.entry(name)
    if configs[0].settings.expert != "cells":
        raise LifelongError(f"--expert {configs[0].settings.expert}: transfer is measured between experts of their own; use --expert cells")
    if RunDirectory(out).begun():
        raise LifelongError(f"{out} holds a run; choose another folder with --out")
    with alone("transfer"):
        keep_small_blocks()
        flush_denormals()
        return _Transfer(configs, strategies, measures, out, environment, progress or Observer()).record()


class _Transfer:
    """The measurement with all seeds."""

    def __init__(
        self,
        configs: Sequence[RunConfig],
        strategies: Sequence[Strategy],
        measures: Sequence[str] | None,
        out: Path,
        environment: Environment,
        progress: Observer,
    ) -> None:
        self.configs, self.strategies, self.out = configs, strategies, out
        self.environment, self.progress = environment, progress
        self.named = measures is not None
        self.measures = list(MEASURES if measures is None else measures)
        self.left_out: dict[str, str] = {}
        self.notes: list[str] = []
        self.device = choose_device(environment.device)
        self.extractors = extractor_opener(environment, self.device)
        self.threads = 1

    def record(self) -> TransferRecord:
        """Measure, and return everything."""
        seeds, last, names = [], self.configs[0], []
        for config in self.configs:
            last, stream = self._opened(config)
            names = [task.name for task in stream.describe()]
            seeds.append(self._seed(last, stream))
        measures = [name for name in self.measures if name not in self.left_out]
        for one in seeds:
            # One that fails with a later seed has been measured with the earlier ones.
            one.measured = [found for found in one.measured if found.measure in measures]
        return TransferRecord(
            stream=last.stream,
            tasks=names,
            strategies=list(self.strategies),
            measures=measures,
            left_out=self.left_out,
            extractor=last.settings.extractor if self.measures else None,
            seeds=seeds,
            agreement=agreement(seeds, measures, self.strategies),
            repeatability=repeatability(seeds, self.strategies),
            rules=rules(seeds, measures, self.strategies, last.settings.alpha),
            notes=list(dict.fromkeys(self.notes)),
            settings=flat(last),
            version=__version__,
            device=self.device.type,
            machine=machine_name(self.device),
            threads=self.threads,
            torch=torch.__version__,
            seconds=sum(one.seconds or 0.0 for seed in seeds for one in (*seed.alone, *seed.pairs)),
        )

    def _opened(self, config: RunConfig) -> tuple[RunConfig, Stream]:
        """Open the stream of a seed, and settle what depends on it; missing weights are found here."""
        place = self.environment
        sources = Sources(place.data, download=place.download, skip_broken=place.skip_broken)
        stream = open_stream(config.stream, config.seed, sources)
        described = stream.describe()
        if len(described) < 2:
            raise LifelongError(f"the stream '{stream.name}' has a single task: transfer is measured between two or more")
        for task in described:
            if not task.test:
                raise LifelongError(f"task '{task.name}' has no test images, by which transfer is measured; give it some")
        settings, notes = resolve_extractor(config.settings, stream.name)
        self.notes += notes + check_training(config.training, self.device, min(task.image_size for task in described))
        if self.measures:
            self.extractors(settings.extractor, settings.feature_input)
        self.threads = set_threads(place.threads, max(task.image_size for task in described))
        stream.prepare()
        self.notes += as_notes(data_check(stream))
        return replace(config, settings=settings), stream

    def _seed(self, config: RunConfig, stream: Stream) -> TransferSeed:
        """Measure with one seed."""
        directory = RunDirectory(self.out / f"seed{config.seed}")
        begun = begun_with(directory)
        if begun is not None:
            check_objects(directory.path, begun, config, Sources())
        identity = identity_of(config, stream, self.environment) | {COMMAND: "transfer"}
        with directory.locked() as note, exact_float32(self.device), keeping():
            self.notes += [note] if note else []
            self.notes += directory.claim(identity, config_toml(config), default_values(config))
            self.notes += hold_config(directory, config)
            seal = replace(directory.seal, made_with=made_with(self.device, self.threads), say=self._note)
            tasks = [stream[index].to(self.device) for index in range(len(stream))]
            pairs = Pairs(config, tasks, self.strategies, directory.checkpoint / "stages", seal, self.device, self._note, self.progress)
            pairs.save_every = self.environment.save_every
            self.progress.run_started(stream.name, f"transfer, seed {config.seed}", len(tasks), pairs.sources_done())
            learned, found = pairs.measured()
            measured, decisions = self._measured(config.settings, tasks, pairs)
        return TransferSeed(
            seed=config.seed,
            train=[len(task.train) for task in tasks],
            alone=learned,
            pairs=found,
            measured=measured,
            decisions=decisions,
        )

    def _measured(
        self, settings: PARSettings, tasks: Sequence[Task], pairs: Pairs
    ) -> tuple[list[MeasuredRecord], dict[str, list[ThresholdDecision]]]:
        """Measure all pairs by each measure, and decide by its thresholds."""
        if not self.measures:
            return [], {}
        extractor: Extractor = self.extractors(settings.extractor, settings.feature_input)
        experts = [pairs.modules(index) for index in range(len(tasks))]

        def others(index: int) -> Callable[[int], tuple[nn.Module, ...]]:
            return lambda number: experts[number + (number >= index)]

        samples = [task_features(task, extractor, settings, others(index)) for index, task in enumerate(tasks)]
        found, decisions = [], {}
        for name in [name for name in self.measures if name not in self.left_out]:
            try:
                found.append(distances_of(name, samples, replace(settings, measure=name)))
            except LifelongError as error:
                if self.named:
                    raise
                self.left_out[name] = str(error)
                continue
            rows = found[-1].divergences
            decisions[name] = [self._decided(index, row, tasks, replace(settings, measure=name)) for index, row in enumerate(rows)]
        return found, decisions

    def _decided(self, target: int, row: Sequence[float | None], tasks: Sequence[Task], settings: PARSettings) -> ThresholdDecision:
        """Decide by the thresholds where a task belongs if each of the others has an expert of its own."""
        others, groups = [index for index in range(len(tasks)) if index != target], TaskGroups()
        for other in others:
            groups.open(len(tasks[other].train))
        divergences = torch.tensor([row[other] for other in others], dtype=torch.float64)
        decision = groups.decide(divergences, len(tasks[target].train), replace(settings, variant="par", allocation="variant"))
        assert decision.group is not None
        sharing = "share" if "share" in self.strategies else self.strategies[0]
        by_decision: Mapping[str, str] = {"reuse-expert": sharing, "reuse-cell": "cell"}
        strategy = by_decision.get(decision.decision, ALONE)
        if decision.frozen and "head" in self.strategies:
            strategy = "head"
        return ThresholdDecision(source=others[decision.group], strategy=strategy)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.progress.note(text)


def distances_of(name: str, samples: Sequence[Sample], settings: PARSettings) -> MeasuredRecord:
    """Measure each task from each of the others, as if they had been learned before it.

    Args:
        name: of a registered measure.
        samples: of all tasks, in the order of the stream; each sees the experts of the others, in their order.
        settings: how distances are computed.

    Raises:
        LifelongError: the measure cannot measure these tasks.
    """
    started, measure = time.perf_counter(), MEASURES[name]()
    if refusal := measure.refusal(settings):
        raise LifelongError(refusal)
    kept: list[Tree] = []
    for sample in samples:
        kept.append(measure.keep(replace(sample, first=kept[0] if kept else None), settings))
    divergences: list[list[float | None]] = []
    distances: list[list[float | None]] = []
    for index, sample in enumerate(samples):
        seen = replace(sample, first=kept[0] if index else None, own=kept[index])
        row = measure_divergences(name, seen, [*kept[:index], *kept[index + 1 :]], settings)
        for rows, values in ((divergences, row), (distances, task_distances(row, settings))):
            rows.append([*values[:index].tolist(), None, *values[index:].tolist()])
    return MeasuredRecord(measure=name, divergences=divergences, distances=distances, seconds=time.perf_counter() - started)
