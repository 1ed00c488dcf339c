"""Learn every task of a stream alone, and every ordered pair of tasks by each strategy of transfer (see `lifelong.experiment.transfer`)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from annotated_types import Ge, Le
from torch import nn

from lifelong.data.task import Split, Task
from lifelong.experiment.agreement import ALONE
from lifelong.experiment.judging import right_share
from lifelong.experiment.learning import learn_timed
from lifelong.experiment.observer import Observer
from lifelong.experiment.resuming import resumed
from lifelong.methods.allocations import Allocation, Newcomer
from lifelong.methods.decisions import Views
from lifelong.methods.form import MisfitError, hold_tree
from lifelong.methods.method import Context, LearnRecord
from lifelong.methods.par import PAR
from lifelong.methods.restoring import restore
from lifelong.methods.trials import Trials
from lifelong.records.base import plain
from lifelong.records.task import TaskRecord
from lifelong.records.transfer import (
    LearnedAlone,
    PairRecord,
)
from lifelong.relatedness.assessment import Measured
from lifelong.relatedness.groups import Decision, Kind
from lifelong.settings.par import PARSettings
from lifelong.settings.run import RunConfig
from lifelong.settings.transfer import Strategy
from lifelong.storage import Seal, Tree, remove
from lifelong.training.examples import confusion
from lifelong.training.stages import Epoch, clear, read_sealed, save_sealed

_Share = Annotated[float, Ge(0), Le(1)]


class _Found(TypedDict):
    """What is found of a training, and kept."""

    accuracy: _Share
    valid_accuracy: _Share | None
    parameters: int
    seconds: Annotated[float, Ge(0)]


class _FoundOfPair(_Found):
    source_accuracy: _Share | None
    valid_change: NotRequired[Annotated[float, Ge(-1), Le(1)] | None]


class _Alone(TypedDict):
    state: dict[str, Any]
    found: _Found


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


class Pairs:
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
        return self._restored(index, self._expert(index)["state"]).modules(0)

    def _restored(self, source: int, state: Tree) -> "_Told":
        """Return the model of a task that was learned alone."""
        method = _Told(self._settings())
        restore(method, state, self.device, self._file(self._alone(source)))
        return method

    def sources_done(self) -> int:
        """Count the sources whose trainings have all ended before."""
        return sum(self._done(source) for source in range(len(self.tasks)))

    def _done(self, source: int) -> bool:
        names = [self._alone(source), *(self._name(source, target, how) for target in self._others(source) for how in self.strategies)]
        return all(self._file(name).exists() for name in names)

    def _others(self, source: int) -> list[int]:
        return [target for target in range(len(self.tasks)) if target != source]

    def _alone(self, source: int) -> str:
        return f"{ALONE}-{source:03d}"

    def _name(self, source: int, target: int, strategy: str) -> str:
        return f"{strategy}-{source:03d}-{target:03d}"

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    @staticmethod
    def _compared(pair: Tree, learned: Sequence[LearnedAlone]) -> PairRecord:
        """Compare a pair with its tasks learned alone."""
        gain = pair["accuracy"] - learned[pair["target"]].accuracy
        before, after = learned[pair["source"]].accuracy, pair.pop("source_accuracy")
        # Files from before `valid_change` do not have it; without a change of the source it is known all the same.
        valid_change = pair.pop("valid_change", 0.0 if after is None else None)
        changes = {"change": 0.0 if after is None else after - before, "valid_change": valid_change}
        return PairRecord.model_validate(plain(pair | {"gain": gain} | changes))

    def _expert(self, source: int) -> Tree:
        """Return the state of a model that knows a task alone, and what was found of it."""

        def learn(context: Context) -> Tree:
            method = _Told(self._settings())
            method.told = self._decision("search", None, source)
            found = self._learned(method, source, context)
            return {"state": method.state_dict(), "found": found}

        return self._kept(self._alone(source), ALONE, source, _Alone, learn)

    def _pair(self, source: int, target: int, strategy: Strategy, state: Tree) -> Tree:
        """Return what was found of a target that was learned with the help of a source."""

        def learn(context: Context) -> Tree:
            method = self._restored(source, state)
            if strategy in ("share", "head"):
                method.told = self._decision("reuse-expert", 0, target, frozen=strategy == "head")
            else:
                method.told = self._decision("allocate", 0, target)
                method.allocation = _LikeSource(method.allocation, weights=strategy == "fine-tune")
            if strategy != "share":
                return self._learned(method, target, context) | {"source_accuracy": None, "valid_change": 0.0}
            known = self.tasks[source]
            before = self._right(method, 0, known.valid) if known.valid else None
            found = self._learned(method, target, context)
            after = None if before is None else self._right(method, 0, known.valid) - before
            return found | {"source_accuracy": self._right(method, 0, known.test), "valid_change": after}

        return self._kept(self._name(source, target, strategy), f"{strategy} → {self.tasks[target].name}", target, _FoundOfPair, learn)

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

    def _learned(self, method: PAR, index: int, context: Context) -> Tree:
        """Learn a task, and return what was found."""
        task = self.tasks[index]
        record = learn_timed(method, task, context)
        return {
            "accuracy": self._right(method, len(method.tasks) - 1, task.test),
            "valid_accuracy": plain(record.hyperparameters.get("valid_accuracy")),
            "parameters": record.parameters_added,
            "seconds": sum(record.seconds.values()),
        }

    @staticmethod
    def _right(method: PAR, known: int, split: Split) -> float:
        """Return the share of images that the model assigns to their class of one of its tasks."""
        return right_share(confusion(lambda images: method.logits(images, known), split))

    # `Any`: a form is a type, for which Python has none.
    def _kept(self, name: str, label: str, index: int, form: Any, learn: Callable[[Context], Tree]) -> Tree:
        """Return what came of a training, which is done unless it was before, and its file holds what it should."""
        file = self._file(name)
        done = read_sealed(file, self.seal)
        try:
            hold_tree(form | None, done, name)
        except MisfitError as error:
            remove(file)
            self.note(f"{file.name} is not as it was written, and is computed again ({error})")
            done = None
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
