"""Measures of how far a task is from each earlier one, on which PAR's decision is based; the measure is exchangeable.

A measure sees one task at a time. It says what to keep of each task, as tensors and plain values; from a new task and what it kept of the
earlier ones it computes a divergence to each of them: 0 for the same task, larger the less two have in common. Eq. 5 then combines the
divergences of a group's tasks, and the measure's own map takes them to distances in [0, 1], which the thresholds are for: Eq. 6 of the
paper, unless the measure has another. One of your own:

    class Mine(Measure):
        def keep(self, sample, settings): ...
        def divergences(self, sample, kept, settings): ...

    lifelong.register_measure("mine", Mine)        # then: --measure mine

There are two kinds. Most compare statistics of features that one frozen network gives for all tasks. Others look at the new task through
the experts of the earlier ones (`needs_experts`), which are there in a run only: `Sample.seen_by`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float, Float64, Int64
from torch import Tensor

from lifelong.errors import LifelongError
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.relatedness.experts import EarlierExperts, Seen
from lifelong.relatedness.groups import to_distance
from lifelong.settings.arguments import checked
from lifelong.settings.par import RelatednessSettings
from lifelong.settings.sockets import MEASURES
from lifelong.storage import Tree


@dataclass(frozen=True)
class Sample:
    """The sample by which a task is measured.

    Attributes:
        features: of its images, as the frozen network gives them; distances are computed in float64.
        labels: their classes, in 0..classes-1.
        classes: number of classes.
        least: images of its smallest class in the split that the settings name.
        few: so few that all its images were taken; a measure may correct for their number.
        first: what the measure keeps of the stream's first task; None for that task itself. A scale that all tasks must share is in it.
        own: what the measure keeps of this task; None while that is being found out.
        experts: the experts of the earlier tasks; None where nothing is trained.
    """

    features: Float[Tensor, "n d"]
    labels: Int64[Tensor, "n"]
    classes: int
    least: int
    few: bool = False
    first: Tree = None
    own: Tree = None
    experts: EarlierExperts | None = None

    def seen_by(self, task: int) -> Seen:
        """Return the sample as the expert of an earlier task sees it: features and log-probabilities. Each expert computes once.

        Args:
            task: the number of the earlier task, from 0.

        Raises:
            LifelongError: there are no experts.
        """
        if self.experts is None:
            raise LifelongError("the measure looks at images through experts, and there are none without a run of PAR; use `lifelong run`")
        return self.experts.seen_by(task)


class Measure(ABC):
    """Measures how far tasks are from each other. It has no state besides what `keep` returns."""

    needs_experts: ClassVar[bool] = False
    """Whether it asks for `Sample.seen_by`: it then works in a run of PAR only, not in `lifelong distances`."""

    @abstractmethod
    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return what to keep of a task to measure later ones against: tensors and plain values in dicts and lists."""

    @abstractmethod
    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute the divergence of a task from each earlier one: 0 if they are the same, larger the less they have in common.

        Args:
            sample: of the new task.
            kept: what `keep` returned for each earlier task; possibly empty.
            settings: how distances are computed.
        """

    def to_distance(self, divergence: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Map divergences to distances in [0, 1], which the thresholds are for: monotone, 0 for 0. By default Eq. 6."""
        return to_distance(divergence)

    def refusal(self, settings: RelatednessSettings) -> str:
        """Say in one line why the measure cannot work with these settings, and what to do; empty if it can, as by default."""
        return ""


class Bounded(Measure):
    """A measure whose divergences are distances in [0, 1] already."""

    def to_distance(self, divergence: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the divergence itself."""
        return divergence.clamp(0, 1)


def kept_of(measure: Measure, sample: Sample, settings: RelatednessSettings) -> Tree:
    """Return what a measure keeps of the task being measured, computed once."""
    return measure.keep(sample, settings) if sample.own is None else sample.own


class OfPrototypes(Measure):
    """A measure that keeps the means of each class's features, which PAR keeps anyway: it costs no memory of its own."""

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return the prototypes of the task's classes."""
        own = prototypes(sample.features, sample.labels, sample.classes)
        return {"means": own.means, "counts": own.counts}


class PrototypeKL(OfPrototypes):
    """The paper's measure: KL(new || earlier), estimated from distances to the nearest prototypes (Eq. 2-4)."""

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute Eq. 4 (`lifelong.relatedness.divergence`)."""
        own = prototypes(sample.features, sample.labels, sample.classes)
        bank = PrototypeBank.from_state(kept, sample.features.device)
        return divergences(sample.features, sample.labels, own, bank, settings, few=sample.few)


class LeaveOneOutKL(PrototypeKL):
    """The paper's measure without the bias of Eq. 2: each image is left out of the prototype of its own class."""

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute Eq. 4 with the setting `leave_one_out`."""
        return super().divergences(sample, kept, replace(settings, leave_one_out=True))


def keeps_prototypes(name: str) -> bool:
    """Tell whether a registered measure keeps the prototypes and nothing else."""
    return MEASURES[name].keep is OfPrototypes.keep


def measure_divergences(name: str, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
    """Compute the divergences of a task by a registered measure, and check them.

    Raises:
        LifelongError: the measure does not give one finite number for each earlier task.
    """
    found = MEASURES[name]().divergences(sample, kept, settings)
    if not isinstance(found, Tensor) or found.shape != (len(kept),) or not found.isfinite().all():
        said = f"{tuple(found.shape)}, {found.tolist()}" if isinstance(found, Tensor) else type(found).__name__
        raise LifelongError(f"measure '{name}': gave {said} for {len(kept)} earlier tasks; it must give one finite number for each")
    return found.double()


# `object`, not `type[Measure]`: a wrong class gets a message of its own.
@checked
def register_measure(name: str, measure: object, *, summary: str = "", source: str = "") -> None:
    """Register your own measure for `--measure` and the setting `measure`.

    Args:
        name: letters, digits, dashes and underscores.
        measure: a subclass of `Measure` that is constructed without arguments.
        summary: one line of what it is.
        source: its paper.

    Raises:
        LifelongError: the name is taken or invalid, or the class is not a complete measure.
    """
    MEASURES.register_class(name, measure, Measure, summary=summary, source=source)
