"""The contract of a method: what it receives, what it must answer and what it must save."""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.task import Normalization, Task
from lifelong.inventory import Inventory, Size, size_of
from lifelong.methods.two_steps import TwoSteps, answers_of
from lifelong.relatedness.extractor import Extractor
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Seal, Tree
from lifelong.training.fit import FitOutcome
from lifelong.training.rehearsal import Rehearsal
from lifelong.training.stages import SAVE_EVERY, Epoch, Stage, derive_seed, initial
from lifelong.trees import Fixed


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a method receives to learn one task, besides the task itself.

    Attributes:
        task_index: the task's position in the stream, from 0.
        task_name: for messages.
        training: how networks are trained.
        seed: of the run.
        device: where networks and images are.
        open_extractor: what `extractor` calls; None for methods that need no features.
        folder: where stages keep their states; None keeps nothing.
        on_phase: called when a phase begins, with its name.
        on_epoch: called at every epoch's end.
        on_note: called with warnings for the user while the task is learned.
        save_every: seconds between two saves of a stage's running state.
        seal: binds what stages save to the run and to their place.
        rehearsal: lets every stage begin only, to estimate how long it takes; None: all run to their ends.
    """

    task_index: int
    task_name: str
    training: TrainingSettings
    seed: int
    device: torch.device
    open_extractor: Callable[[str, str], Extractor] | None = None
    folder: Path | None = None
    on_phase: Callable[[str], None] = lambda name: None
    on_epoch: Callable[[Epoch], None] | None = None
    on_note: Callable[[str], None] = lambda text: None
    save_every: float = SAVE_EVERY
    seal: Seal = field(default_factory=Seal)
    rehearsal: Rehearsal | None = None

    def note(self, text: str, record: "LearnRecord") -> None:
        """Report a warning to the user, now and in the task's record."""
        record.notes.append(text)
        self.on_note(text)

    def stage(self, name: str) -> Stage:
        """Create a named, seeded, resumable stage of learning this task."""
        self.on_phase(name)
        seed = derive_seed(self.seed, self.task_index, name)
        where = f"task '{self.task_name}', {name}"
        return Stage(name, seed, where, self.folder, self.on_epoch, self.save_every, self.seal, self.rehearsal)

    def within(self, *names: str) -> "Context":
        """Return the same context with a folder of its own for stages; their seeds are the same."""
        return replace(self, folder=None if self.folder is None else self.folder.joinpath(*names))

    def began(self, name: str) -> bool:
        """Tell whether an earlier start of the run has started a stage of this name for the task."""
        return self.folder is not None and any(self.folder.glob(f"{name}.*.safetensors"))

    def extractor(self, name: str, feature_input: str) -> Extractor:
        """Open the frozen feature extractor of a name, for an input policy (`RelatednessSettings.feature_input`)."""
        if self.open_extractor is None:
            raise ValueError("this context has no open_extractor, and the method needs features")
        return self.open_extractor(name, feature_input)

    @contextmanager
    def timed(self, name: str, record: "LearnRecord") -> Generator[None]:
        """Time a phase that is not a stage: too short to save, or recomputed from saved results."""
        self.on_phase(name)
        started = time.perf_counter()
        yield
        record.seconds[name] = record.seconds.get(name, 0.0) + time.perf_counter() - started

    def seeded(self, name: str) -> AbstractContextManager[None]:
        """Seed the random numbers (initial weights) of the block by this task and this name."""
        return initial(self.seed_of(name))

    def seed_of(self, name: str) -> int:
        """Return the seed of this task's random numbers of a name."""
        return derive_seed(self.seed, self.task_index, name)


@dataclass
class LearnRecord:
    """What was decided for a task, and what it cost.

    Attributes:
        decision: one of `lifelong.records.task.DECISION_KINDS`; None for methods that decide nothing.
        expert: index of the expert that serves the task, if the method has several.
        divergences: from each earlier task, by the measure (Eq. 4); empty if none was measured.
        task_distances: the measure's map (Eq. 6) of each of them.
        group_distances: the distance to each group (Eq. 5-6).
        alpha, beta: the thresholds that the group distances were compared with.
        reason: why, in one line.
        frozen: only a head was trained.
        genotype: the cell of the expert, as text that can be pasted back; None if it has none.
        edges: edges of the cell searched for the task; 0 without a search.
        undecided_edges: those that the search left undecided, so that ties were broken.
        epochs: epochs of training (not of search).
        seconds: wall time by phase.
        hyperparameters: values chosen on validation data, and the validation accuracy reached.
        parameters_added: parameters that the task added to the model.
        notes: warnings about how the task was learned; the same text for the same problem.
    """

    decision: str | None = None
    expert: int | None = None
    divergences: list[float] = field(default_factory=list)
    task_distances: list[float] = field(default_factory=list)
    group_distances: list[float] = field(default_factory=list)
    alpha: float | None = None
    beta: float | None = None
    reason: str = ""
    frozen: bool = False
    genotype: str | None = None
    edges: int = 0
    undecided_edges: int = 0
    epochs: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    hyperparameters: dict[str, object] = field(default_factory=dict)
    parameters_added: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def distances(self) -> list[float]:
        """The former name of `divergences`."""
        warnings.warn("LearnRecord.distances is now divergences (Eq. 4)", DeprecationWarning, stacklevel=2)
        return self.divergences

    @distances.setter
    def distances(self, values: list[float]) -> None:
        warnings.warn("LearnRecord.distances is now divergences (Eq. 4)", DeprecationWarning, stacklevel=2)
        self.divergences = values

    def trained(self, outcome: FitOutcome, phase: str = "train") -> None:
        """Record the outcome of a fit, and its time under the name of its phase."""
        self.epochs += outcome.epochs
        self.seconds[phase] = self.seconds.get(phase, 0.0) + outcome.seconds
        self.hyperparameters |= {
            "weight_decay": outcome.weight_decay,
            "best_epoch": outcome.best_epoch,
            "valid_accuracy": outcome.accuracy,
        } | ({"diverged_weight_decays": outcome.diverged} if outcome.diverged else {})


@dataclass(frozen=True)
class LearnedTask:
    """What a method keeps of a task to answer for it later.

    Attributes:
        name: the task's name.
        classes: number of classes.
        normalization: of its images.
    """

    name: str
    classes: int
    normalization: Normalization

    @cached_property
    def saved(self) -> Fixed:
        """The saved form."""
        return Fixed(asdict(self))


class Recognized(NamedTuple):
    """What a method infers about images of an unknown task.

    Attributes:
        probabilities: see `Method.task_probabilities`.
        strangeness: see `Method.strangeness`.
    """

    probabilities: Float[Tensor, "n t"] | None
    strangeness: Float[Tensor, "n"] | None


@dataclass(frozen=True)
class Entangled:
    """Why a task cannot be forgotten.

    Attributes:
        reason: in words that go on after "task 'a': ".
        again: the other tasks that would have to be learned again without it, by their positions.
    """

    reason: str
    again: tuple[int, ...]


SettingsT = TypeVar("SettingsT")


class Method(ABC, Generic[SettingsT]):
    """A lifelong learner: sees one task at a time, and answers for every task it has seen.

    A subclass says which modules answer for a task (`modules`), how (`predict`), how it learns, and
    how its networks are rebuilt from a saved description. Construction only stores hyper-parameters. `Method[MySettings]` lets a type
    checker catch a misspelled `self.settings`; the parameter may be left out.
    """

    name: ClassVar[str]
    """The name under which the method is registered."""

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings
        self.tasks: list[LearnedTask] = []
        self._extractor: Extractor | None = None
        self._inventory = Inventory()

    @abstractmethod
    def learn(self, task: Task, context: Context) -> LearnRecord:
        """Learn the next task from its training and validation images alone.

        Must be a deterministic function of the state before, the task and the context's seed, on one processor with one number of
        threads; long computations are stages of the context, so that they can be resumed.
        """

    @abstractmethod
    def modules(self, task_index: int) -> tuple[nn.Module, ...]:
        """Return exactly the modules that answer for a task: what is counted, hashed and expected not to change."""

    def form_of(self, task_index: int) -> Hashable | None:
        """Return what the modules of a task are like; those of equal forms answer alike, but for their weights. None, as here: not known.

        A loaded method is tried once for each form; where it is not known, for each task.
        """
        return None

    @abstractmethod
    def predict(self, inputs: Float[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Compute logits of prepared (normalized) images by the modules of a task."""

    @abstractmethod
    def state_dict(self) -> Tree:
        """Return everything to be saved, as tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: Tree, device: torch.device | str = "cpu") -> None:
        """Restore what `state_dict` returned, on a device. Methods that need features also need `attach_extractor`."""

    def extractor(self) -> tuple[str, str] | None:
        """Return name and input policy of the feature extractor that `learn` requests from its context; None for no extractor."""
        return None

    def attach_extractor(self, open_extractor: Callable[[str, str], Extractor]) -> None:
        """Open and keep the extractor that `extractor` names, for answers that need features (`task_probabilities`).

        The extractor is not part of the state: the caller attaches it after `load_state_dict`. A method that needs it for answers also
        attaches it in `learn`, with `context.extractor`.

        Args:
            open_extractor: takes a name and an input policy.
        """
        wanted = self.extractor()
        self._extractor = None if wanted is None else open_extractor(*wanted)

    def _attached(self) -> Extractor:
        """Return the attached extractor, which an answer needs."""
        if self._extractor is None:
            raise ValueError(f"'{self.name}' looks at features: after load_state_dict, give an extractor with attach_extractor")
        return self._extractor

    def memory(self) -> dict[str, int]:
        """Count the bytes kept besides the parameters, by kind (exemplars, prototypes, Fisher information, ...)."""
        return {}

    def logits(self, images: UInt8[Tensor, "n 3 h w"], task_index: int) -> Float[Tensor, "n c"]:
        """Compute the logits of a task's classes.

        Args:
            images: uint8 RGB of shape (N, 3, H, W).
            task_index: the task they belong to, from 0; it must have been learned.

        Returns:
            Of shape (N, C).
        """
        with torch.no_grad():
            return self.predict(normalize(images, self.tasks[task_index].normalization), task_index)

    def logits_of(self, images: UInt8[Tensor, "n 3 h w"], tasks: Sequence[int]) -> list[Float[Tensor, "n _c"]]:
        """Compute `logits` for several tasks; what they share is computed once (`two_steps`).

        Args:
            images: uint8 RGB of shape (N, 3, H, W).
            tasks: the tasks, from 0; they must have been learned.
        """
        steps = [(self.two_steps(task), self.tasks[task].normalization) for task in tasks]
        return answers_of(images, steps, lambda place: self.logits(images, tasks[place]))

    def two_steps(self, task_index: int) -> TwoSteps | None:
        """Return `predict` in two steps of which several tasks share the first; None, as here, if it is not made of two such steps.

        A method that returns them says that `logits` is `predict` of normalized images. Check that no subclass answers otherwise.
        """
        return None

    def answers(
        self, images: UInt8[Tensor, "n 3 h w"], tasks: Sequence[int] | None = None
    ) -> tuple[list[Float[Tensor, "n _c"]], Float[Tensor, "n t"] | None]:
        """Compute the logits of tasks, and task probabilities if the modules of the tasks are enough for them, else None, as here.

        This is what an export of several tasks computes, so it can be traced. Override it where tasks share part of the computation.

        Args:
            images: uint8 RGB of shape (N, 3, H, W).
            tasks: whose logits, from 0; None: every task's.
        """
        wanted = range(len(self.tasks)) if tasks is None else tasks
        known = {self.tasks[index].normalization for index in wanted}
        prepared = {normalization: normalize(images, normalization) for normalization in known}
        return [self.predict(prepared[self.tasks[index].normalization], index) for index in wanted], None

    def limits(self) -> list[float] | None:
        """Return for each task how far from it an image may lie before it counts as unlike it; None, as here, if nothing is measured."""
        return None

    def task_probabilities(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n t"] | None:
        """Estimate, for each task learned so far, the probability that an image belongs to it; None, as here, if the method cannot.

        Args:
            images: uint8 RGB of shape (N, 3, H, W), of any task.

        Returns:
            Of shape (N, tasks); rows sum to 1.
        """
        return None

    def strangeness(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n"] | None:
        """Estimate how unlike everything learned each image is; None, as here, if the method cannot.

        Args:
            images: uint8 RGB of shape (N, 3, H, W).

        Returns:
            Of shape (N,), >= 0; above 1 an image lies farther out than 95 % of the validation images of every task.
        """
        return None

    def recognize(self, images: UInt8[Tensor, "n 3 h w"]) -> Recognized:
        """Compute `task_probabilities` and `strangeness` at once; override it where both come from the same computation.

        Args:
            images: uint8 RGB of shape (N, 3, H, W), of any task.
        """
        return Recognized(self.task_probabilities(images), self.strangeness(images))

    @property
    def batch_dependent(self) -> bool:
        """Whether the answer for an image depends on the other images of the batch; False unless a method overrides it."""
        return False

    def num_parameters(self) -> int:
        """Count the paper's M: distinct parameters needed to answer for all tasks seen, without buffers."""
        return self._size().parameters

    def frozen_parameters(self) -> int:
        """Count the parameters in M that a pretrained network brought along and no task trains; 0 unless a method overrides it."""
        return 0

    def bytes_in_all(self) -> int:
        """Count the bytes of the parameters in M, the frozen network among them, and of all that is kept besides."""
        return self._size().bytes + sum(self.memory().values())

    def _size(self) -> Size:
        return size_of((module for task in range(len(self.tasks)) for module in self.modules(task)), self._inventory)

    def forgettable(self, task_index: int) -> Entangled | None:
        """Tell why `forget` cannot take a task out; None if all that is kept of it is its own.

        As here, it cannot: override it, together with `_let_go`, where a task's weights and statistics are its own, and no other task was
        learned from them. A subclass of a method that can forget, and that keeps more, overrides both again.
        """
        return Entangled(f"'{self.name}' keeps what it learned of all tasks together", self._others(task_index))

    def forget(self, task_index: int) -> None:
        """Let go of everything that is kept of a task; later tasks move up by one, and answer as before, to the bit.

        Raises:
            ValueError: it cannot be forgotten.
        """
        entangled = self.forgettable(task_index)
        if entangled is not None:
            raise ValueError(f"task '{self.tasks[task_index].name}': {entangled.reason}")
        self._let_go(task_index)
        del self.tasks[task_index]

    def _let_go(self, task_index: int) -> None:
        """Delete what is kept of a task that is `forgettable`, but for its entry in `tasks`."""
        raise NotImplementedError(f"'{self.name}' says that a task is forgettable, and has no _let_go")

    def _others(self, task_index: int) -> tuple[int, ...]:
        """Return the positions of all other tasks."""
        return tuple(index for index in range(len(self.tasks)) if index != task_index)

    def _later(self, task_index: int) -> tuple[int, ...]:
        """Return the positions of the tasks that were learned after one."""
        return tuple(range(task_index + 1, len(self.tasks)))

    def _remember(self, task: Task) -> None:
        """Record the task as learned."""
        self.tasks.append(LearnedTask(task.name, len(task.classes), task.normalization))

    def _tasks_state(self) -> Tree:
        return [task.saved for task in self.tasks]

    def _load_tasks(self, state: Tree) -> None:
        self.tasks = [LearnedTask(task["name"], task["classes"], Normalization(**task["normalization"])) for task in state]


def count_parameters(modules: Iterable[nn.Module]) -> int:
    """Count the distinct parameters of some modules, each once however often it is shared."""
    return size_of(modules).parameters
