"""Measures of the divergence of a task from each earlier one, on which PAR's decision is based; the measure is exchangeable.

A measure sees one task at a time. It says what to keep of each task, as tensors and plain values; from a new task and what it kept of the
earlier ones it computes a divergence to each of them: 0 for the same task, without upper bound. Eq. 5 and 6 and the thresholds then apply
as for the paper's measure. One of your own:

    class Mine(Measure):
        def keep(self, sample, settings): ...
        def divergences(self, sample, kept, settings): ...

    lifelong.register_measure("mine", Mine)        # then: --measure mine
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from lifelong.errors import LifelongError, require
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.settings.arguments import checked
from lifelong.settings.par import RelatednessSettings
from lifelong.settings.sockets import MEASURES
from lifelong.storage import Tree, load_tree, save_tree


@dataclass(frozen=True)
class Sample:
    """The sample by which a task is measured.

    Attributes:
        features: of its images, in float64, where distances are computed.
        labels: their classes, in 0..classes-1.
        classes: number of classes.
        least: images of its smallest class in the split that the settings name.
        few: so few that all its images were taken; a measure may correct for their number.
    """

    features: Float[Tensor, "n d"]
    labels: Int64[Tensor, "n"]
    classes: int
    least: int
    few: bool = False


class Measure(ABC):
    """Measures tasks by samples of their frozen features. It has no state besides what `keep` returns."""

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


class PrototypeKL(Measure):
    """The paper's measure: KL(new || earlier), estimated from distances to the nearest prototypes (Eq. 2-4)."""

    def keep(self, sample: Sample, settings: RelatednessSettings) -> Tree:
        """Return the prototypes of the task's classes."""
        own = prototypes(sample.features, sample.labels, sample.classes)
        return {"means": own.means, "counts": own.counts}

    def divergences(self, sample: Sample, kept: Sequence[Tree], settings: RelatednessSettings) -> Float64[Tensor, "t"]:
        """Compute Eq. 4 (`lifelong.relatedness.divergence`)."""
        own = prototypes(sample.features, sample.labels, sample.classes)
        bank = PrototypeBank.from_state(kept, sample.features.device)
        return divergences(sample.features, sample.labels, own, bank, settings, few=sample.few)


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


@checked
def check_measure(name: str) -> None:
    """Try a registered measure on synthetic tasks.

    Checked: it gives a finite number for each earlier task, none for the first; what it keeps survives a file and gives the same numbers;
    it does not change its input; a task drawn again is nearer than another one; the numbers do not depend on later tasks.

    Raises:
        ConformanceError: what is broken.
        LifelongError: there is no such measure.
    """
    settings, measure = RelatednessSettings(), MEASURES[name]()
    tasks = [_made(seed, family) for seed, family in ((0, 0), (1, 1), (2, 0), (3, 1))]
    kept: list[Tree] = []
    found = []
    for task in tasks:
        before = task.features.clone()
        found.append(measure_divergences(name, task, kept, settings))
        kept.append(measure.keep(task, settings))
        require(bool(torch.equal(task.features, before)), f"measure '{name}' changes the features that it is given")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kept.safetensors"
        save_tree(file, kept)
        again = load_tree(file)
    for index, task in enumerate(tasks):
        same = torch.equal(measure_divergences(name, task, again[:index], settings), found[index])
        require(bool(same), f"measure '{name}': what it keeps does not survive a file: task {index} is measured otherwise by it")
    require(bool(found[2][0] < found[2][1]), f"measure '{name}': a task drawn again is not nearer than another one: {found[2].tolist()}")
    require(bool(found[3][1] < found[3][0]), f"measure '{name}': a task drawn again is not nearer than another one: {found[3].tolist()}")


def _made(seed: int, family: int, classes: int = 3, each: int = 30, length: int = 16) -> Sample:
    """Make a sample of Gaussian classes, which tasks of a family share."""
    centres = 3 * torch.randn(classes, length, generator=torch.Generator().manual_seed(family))
    labels = torch.arange(classes).repeat_interleave(each)
    noise = torch.randn(len(labels), length, generator=torch.Generator().manual_seed(100 + seed))
    return Sample((centres[labels] + noise).double(), labels, classes, each)
