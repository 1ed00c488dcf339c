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
from lifelong.experiment.agreement import ALONE, agreement, rules
from lifelong.experiment.judging import right_share
from lifelong.experiment.learning import learn_timed
from lifelong.experiment.machine import choose_device, machine_name, made_with, set_threads
from lifelong.experiment.observer import Observer
from lifelong.experiment.results import RunDirectory
from lifelong.experiment.resuming import resumed
from lifelong.experiment.run import extractor_opener, identity_of, resolve_extractor
from lifelong.methods.allocations import Allocation, Newcomer
from lifelong.methods.decisions import Views
from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.par import PAR
from lifelong.methods.trials import Trials
from lifelong.records.base import plain
from lifelong.records.task import TaskRecord
from lifelong.records.transfer import (
    LearnedAlone,
    MeasuredRecord,
    PairRecord,
    ThresholdDecision,
    TransferRecord,
    TransferSeed,
)
from lifelong.relatedness.assessment import Measured, task_features
from lifelong.relatedness.extractor import Extractor
from lifelong.relatedness.groups import Decision, Kind, TaskGroups, task_distances
from lifelong.relatedness.measures import Sample, measure_divergences
from lifelong.settings.par import PARSettings
from lifelong.settings.resolve import config_toml, default_values, flat
from lifelong.settings.run import Environment, RunConfig
from lifelong.settings.sockets import MEASURES
from lifelong.settings.transfer import Strategy
from lifelong.storage import Seal, Tree
from lifelong.streams.check import as_notes, data_check
from lifelong.streams.named_streams import open_stream
from lifelong.training.denormals import flush_denormals
from lifelong.training.examples import confusion
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import check_training, exact_float32
from lifelong.training.process import alone
from lifelong.training.stages import Epoch, clear, read_sealed, save_sealed


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
        identity = identity_of(config, stream, self.environment) | {"command": "transfer"}
        with directory.locked() as note, exact_float32(self.device), keeping():
            self.notes += [note] if note else []
            self.notes += directory.claim(identity, config_toml(config), default_values(config))
            seal = replace(directory.seal, made_with=made_with(self.device, self.threads), say=self._note)
            tasks = [stream[index].to(self.device) for index in range(len(stream))]
            pairs = _Pairs(config, tasks, self.strategies, directory.checkpoint / "stages", seal, self.device, self._note, self.progress)
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
        self, settings: PARSettings, tasks: Sequence[Task], pairs: "_Pairs"
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


class _Told(PAR):
    """PAR that is told what to do with a task, rather than to measure it."""

    def __init__(self, settings: PARSettings) -> None:
        super().__init__(settings)
        self.told: Decision | None = None

    def _measure(self, task: Task, context: Context, record: LearnRecord) -> None:
        return None

    def _decide(
        self, measured: Measured | None, views: Views | None, task: Task, trials: Trials, context: Context, record: LearnRecord
    ) -> Decision:
        assert self.told is not None
        return self.told


class _LikeSource(Allocation):
    """A new expert built as the source's, from its weights or from random ones.

    Args:
        own: what built the source's expert.
        weights: whether its weights are copied.
    """

    def __init__(self, own: Allocation, *, weights: bool) -> None:
        self.own, self.weights = own, weights

    def plan(self, newcomer: Newcomer) -> str:
        return newcomer.plans[0]

    def build(self, plan: str, settings: PARSettings) -> nn.Module:
        return self.own.build(plan, settings)

    def start(self, expert: nn.Module, newcomer: Newcomer) -> None:
        if self.weights:
            expert.load_state_dict(newcomer.experts[0].state_dict())
        else:
            self.own.start(expert, newcomer)


class _Pairs:
    """All trainings with one seed.

    Args:
        config: of PAR.
        tasks: of the stream, on the device.
        strategies: to try.
        folder: where what was learned is kept, each in a file of its own.
        seal: binds these files to the folder's identity.
        device: where to compute.
        note: is told warnings.
        progress: is told the rest.
    """

    def __init__(
        self,
        config: RunConfig,
        tasks: Sequence[Task],
        strategies: Sequence[Strategy],
        folder: Path,
        seal: Seal,
        device: torch.device,
        note: Callable[[str], None],
        progress: Observer,
    ) -> None:
        self.config, self.tasks, self.strategies, self.folder = config, tasks, strategies, folder
        self.seal, self.device, self.note, self.progress = seal, device, note, progress
        self.save_every = 5.0

    def measured(self) -> tuple[list[LearnedAlone], list[PairRecord]]:
        """Learn what has not been learned before; return all tasks alone, and all pairs."""
        learned, pairs = [], []
        for source in range(len(self.tasks)):
            before = self._done(source)
            if not before:
                self.progress.task_started(source, self.tasks[source].name)
            expert = self._expert(source)
            learned.append(LearnedAlone.model_validate(plain(expert["found"])))
            for target in self._others(source):
                for strategy in self.strategies:
                    found = self._pair(source, target, strategy, expert["state"])
                    pairs.append({"source": source, "target": target, "strategy": strategy} | found)
            if not before:
                task = self.tasks[source]
                entry = TaskRecord.model_validate({"name": task.name, "classes": list(task.classes)})
                self.progress.task_finished(source, entry, [learned[source].accuracy or 0.0])
        return learned, [self._compared(pair, learned) for pair in pairs]

    def modules(self, index: int) -> tuple[nn.Module, ...]:
        """Return the expert and the head of a task that was learned alone."""
        method = _Told(self._settings())
        method.load_state_dict(self._expert(index)["state"], self.device)
        return method.modules(0)

    def sources_done(self) -> int:
        """Count the sources whose trainings have all ended before."""
        return sum(self._done(source) for source in range(len(self.tasks)))

    def _done(self, source: int) -> bool:
        names = [f"{ALONE}-{source:03d}", *(self._name(source, target, how) for target in self._others(source) for how in self.strategies)]
        return all(self._file(name).exists() for name in names)

    def _others(self, source: int) -> list[int]:
        return [target for target in range(len(self.tasks)) if target != source]

    def _name(self, source: int, target: int, strategy: str) -> str:
        return f"{strategy}-{source:03d}-{target:03d}"

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    @staticmethod
    def _compared(pair: Tree, learned: Sequence[LearnedAlone]) -> PairRecord:
        """Compare a pair with its tasks learned alone."""
        gain = pair["accuracy"] - learned[pair["target"]].accuracy
        before, after = learned[pair["source"]].accuracy, pair.pop("source_accuracy")
        return PairRecord.model_validate(plain(pair | {"gain": gain, "change": 0.0 if after is None else after - before}))

    def _expert(self, source: int) -> Tree:
        """Return the state of a model that knows a task alone, and what was found of it."""

        def learn(context: Context) -> Tree:
            method = _Told(self._settings())
            method.told = self._decision("search", None, source)
            found, _ = self._learned(method, source, context)
            return {"state": method.state_dict(), "found": found}

        return self._kept(f"{ALONE}-{source:03d}", ALONE, source, learn)

    def _pair(self, source: int, target: int, strategy: Strategy, state: Tree) -> Tree:
        """Return what was found of a target that was learned with the help of a source."""

        def learn(context: Context) -> Tree:
            method = _Told(self._settings())
            method.load_state_dict(state, self.device)
            if strategy in ("share", "head"):
                method.told = self._decision("reuse-expert", 0, target, frozen=strategy == "head")
            else:
                method.told = self._decision("allocate", 0, target)
                method.allocation = _LikeSource(method.allocation, weights=strategy == "fine-tune")
            found, judged = self._learned(method, target, context)
            return found | {"source_accuracy": judged(0, self.tasks[source]) if strategy == "share" else None}

        return self._kept(self._name(source, target, strategy), f"{strategy} → {self.tasks[target].name}", target, learn)

    def _settings(self) -> PARSettings:
        """Return settings under which a task that is learned alone gets what the given ones would give the first task of a stream."""
        settings: PARSettings = self.config.settings
        return replace(settings, variant="regularization" if settings.fixed else "regularization-searched")

    def _decision(self, decision: Kind, group: int | None, task: int, *, frozen: bool = False) -> Decision:
        return Decision(
            decision=decision,
            group=group,
            distance=None,
            frozen=frozen,
            tiny=False,
            reason="",
            samples=len(self.tasks[task].train),
            alpha=float(self.config.settings.alpha),
            beta=float(self.config.settings.beta),
        )

    def _learned(self, method: PAR, index: int, context: Context) -> tuple[Tree, Callable[[int, Task], float]]:
        """Learn a task; return what was found, and a function that judges a task of the model."""
        task = self.tasks[index]
        record = learn_timed(method, task, context)

        def judged(known: int, task: Task) -> float:
            return right_share(confusion(lambda images: method.logits(images, known), task.test))

        valid = record.hyperparameters.get("valid_accuracy")
        seconds = sum(record.seconds.values())
        found = {"accuracy": judged(len(method.tasks) - 1, task), "valid_accuracy": valid}
        return found | {"parameters": record.parameters_added, "seconds": seconds}, judged

    def _kept(self, name: str, label: str, index: int, learn: Callable[[Context], Tree]) -> Tree:
        """Return what came of a training, which is done unless it was before."""
        file = self._file(name)
        done = read_sealed(file, self.seal)
        if done is None:
            folder = self.folder / name
            context = self._context(index, label, folder)
            done = resumed(lambda: learn(context), folder, lambda reason: clear(folder))
            save_sealed(file, done, self.seal)
            clear(folder)
        return done

    def _context(self, index: int, label: str, folder: Path) -> Context:
        """Return the context of a training; the number of its task seeds it, so that a target's head starts alike in all of them."""
        task = self.tasks[index]

        def epoch(event: Epoch) -> None:
            self.progress.epoch(replace(event, stage=f"{label}, {event.stage}"))

        return Context(
            task_index=index,
            task_name=task.name,
            training=self.config.training,
            seed=self.config.seed,
            device=self.device,
            folder=folder,
            on_phase=lambda phase: self.progress.phase(f"{label}, {phase}"),
            on_epoch=epoch,
            on_note=self.note,
            save_every=self.save_every,
            seal=self.seal,
        )
