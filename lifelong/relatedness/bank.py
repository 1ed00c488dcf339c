"""Class prototypes of tasks, and the distances of samples to the nearest one of every earlier task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from lifelong.devices import exact_device
from lifelong.errors import LifelongError
from lifelong.storage import Tree
from lifelong.trees import Fixed

BLOCK = 2**22
"""Numbers per temporary matrix: bounds the memory of a pass (32 MB in float64)."""


@dataclass(frozen=True)
class Prototypes:
    """The mean feature of each class of one task, kept for later distances.

    Attributes:
        means: class means; a row of zeros for a class without samples.
        counts: samples per class.
    """

    means: Float64[Tensor, "c d"]
    counts: Int64[Tensor, "c"]

    @property
    def present(self) -> Bool[Tensor, "c"]:
        """Which classes have a prototype."""
        return self.counts > 0

    @cached_property
    def known(self) -> Float64[Tensor, "k d"]:
        """The means of the classes that have a prototype."""
        return self.means if bool(self.present.all()) else self.means[self.present]

    @cached_property
    def fewest(self) -> int:
        """The smallest number of samples of a class that has a prototype."""
        return int(self.counts[self.present].min())

    @cached_property
    def few_images_bias(self) -> float:
        """A quarter of log(1 + the mean of 1/m), for m samples in a class; see `lifelong.relatedness.divergence`."""
        return (0.25 * (1 / self.counts[self.present].double()).mean().log1p()).item()

    @cached_property
    def saved(self) -> Fixed:
        """The saved form."""
        return Fixed(means=self.means, counts=self.counts)


def prototypes(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int) -> Prototypes:
    """Compute class means in float64: exact for a class of one float32 sample or copies of one.

    Args:
        features: features of a task's samples.
        labels: their classes, in 0..classes-1.
        classes: number of classes of the task; classes without a sample get no prototype.

    Raises:
        LifelongError: there are no samples, or a feature is not finite.

    Source: PAR section 3.1, U_c.
    """
    if not len(features):
        raise LifelongError("a task has no image to compute its prototypes from; give it validation images, or use feature_split = 'train'")
    if not torch.isfinite(features).all():
        raise LifelongError(
            "the features of a task contain NaN or infinity; check the weights of the extractor and the normalization of the task"
        )
    sums = features.new_zeros(classes, features.shape[1], dtype=torch.float64)
    step = max(1, BLOCK // features.shape[1])
    for part, owner in zip(features.split(step), labels.split(step), strict=True):
        # A product with one-hot rows, since adding by index is not deterministic on a GPU.
        sums += torch.nn.functional.one_hot(owner, classes).T.double() @ part.double()
    counts = torch.bincount(labels, minlength=classes)
    return Prototypes(sums / counts.clamp_min(1)[:, None], counts)


def _bytes_of(task: Prototypes) -> int:
    return task.means.nbytes + task.counts.nbytes


class SquaredDistances(NamedTuple):
    """Squared distances of samples.

    Attributes:
        own: to the prototype of the sample's own class, rho^2 of Eq. 2.
        nearest: to the nearest prototype of each earlier task, nu^2 of Eq. 3.
    """

    own: Float64[Tensor, "n"]
    nearest: Float64[Tensor, "n t"]


class PrototypeBank:
    """The prototypes of all earlier tasks."""

    def __init__(self) -> None:
        self._tasks: list[Prototypes] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, task: int) -> Prototypes:
        return self._tasks[task]

    def __iter__(self) -> Iterator[Prototypes]:
        return iter(self._tasks)

    def add(self, task: Prototypes) -> None:
        """Append the prototypes of a task that has been learned.

        Raises:
            LifelongError: its features have another length than those of the tasks before.
        """
        self.check(task)
        self._tasks.append(task)
        self._bytes += _bytes_of(task)

    def forget(self, task: int) -> None:
        """Delete the prototypes of a task; later tasks move up by one."""
        self._bytes -= _bytes_of(self._tasks.pop(task))

    def check(self, task: Prototypes) -> None:
        """Raise a LifelongError if the task's features have another length than those of the earlier tasks."""
        if self._tasks and (length := self._tasks[0].means.shape[1]) != task.means.shape[1]:
            raise LifelongError(
                f"a task has features of length {task.means.shape[1]}, the tasks before it {length}: they cannot be compared; "
                "give all tasks of the stream one image size, or use the extractor 'resnet18'"
            )

    @property
    def bytes(self) -> int:
        """Memory of the prototypes."""
        return self._bytes

    def state(self) -> list[Fixed]:
        """Return everything needed to restore the bank, as tensors in plain containers."""
        return [task.saved for task in self._tasks]

    @classmethod
    def from_state(cls, state: Sequence[Tree], device: torch.device | str = "cpu") -> "PrototypeBank":
        """Restore the bank that `state` returned, on `device`, or on the CPU if it lacks float64."""
        bank, place = cls(), exact_device(device)
        for task in state:
            bank.add(Prototypes(task["means"].to(place), task["counts"].to(place)))
        return bank

    def squared_distances(self, features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], own: Prototypes) -> SquaredDistances:
        """Compute the distances of every sample to its own prototype and to the nearest one of every earlier task.

        Uses differences in float64: a matrix product is faster, but loses the digits that separate a sample from a nearby prototype.
        """
        self.check(own)
        known = [task.known for task in self._tasks]
        every, sizes = torch.cat(known), torch.tensor([len(means) for means in known])
        owners = torch.arange(len(known)).repeat_interleave(sizes).to(every.device)
        squares = SquaredDistances(
            features.new_empty(len(features), dtype=torch.float64), features.new_empty(len(features), len(self), dtype=torch.float64)
        )
        step = max(1, BLOCK // max(every.shape))
        for start in range(0, len(features), step):
            rows = slice(start, start + step)
            samples = features[rows].double()
            squares.own[rows] = (samples - own.means[labels[rows]]).square().sum(dim=1)
            distances = torch.cdist(samples, every, compute_mode="donot_use_mm_for_euclid_dist")  # (n, all prototypes)
            nearest = distances.new_full((len(samples), len(known)), torch.inf)
            squares.nearest[rows] = nearest.scatter_reduce(1, owners.expand_as(distances), distances, "amin").square()
        return squares
