"""Class prototypes of tasks, and the distances of samples to the prototypes of every earlier task in one pass."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from lifelong.devices import exact_device
from lifelong.errors import LifelongError

BLOCK = 2**22
"""Numbers per temporary matrix: bounds the memory of a pass (32 MB in float64)."""

DOUBT = 0.25
"""A distance from the product is recomputed directly if its square is below this share of what was added up in float32 to get it."""

DOUBT_DOUBLE = 1e-8
"""The same for what was added up in float64."""

SMALLEST_SQUARE = 1e-28
"""Below this a squared distance is recomputed directly: float32 runs out of exponents soon after."""


@dataclass(frozen=True)
class Prototypes:
    """The mean feature of each class of one task: all that is kept of the task for later distances.

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


def prototypes(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], classes: int) -> Prototypes:
    """Class means in float64: exact for a class of one float32 sample, or of copies of one.

    Args:
        features: features of a task's samples.
        labels: their classes, in 0..classes-1.
        classes: number of classes of the task; those without a sample get no prototype.

    Raises:
        LifelongError: there is no sample at all, or a feature is not a finite number.

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


class SquaredDistances(NamedTuple):
    """Squared distances of samples.

    Attributes:
        own: to the prototype of the sample's own class, rho^2 of Eq. 2.
        nearest: to the nearest prototype of each earlier task, nu^2 of Eq. 3.
    """

    own: Float64[Tensor, "n"]
    nearest: Float64[Tensor, "n t"]


class PrototypeBank:
    """The prototypes of all earlier tasks as one matrix."""

    def __init__(self) -> None:
        self._tasks: list[Prototypes] = []
        self._layout: _Layout | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, task: int) -> Prototypes:
        return self._tasks[task]

    def add(self, task: Prototypes) -> None:
        """Append the prototypes of a task that has been learned.

        Raises:
            LifelongError: its features have another length than those of the tasks before.
        """
        self.check(task)
        self._tasks.append(task)
        self._layout = None

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
        return sum(task.means.nbytes + task.counts.nbytes for task in self._tasks)

    def state(self) -> list[dict[str, Tensor]]:
        """Everything needed to restore the bank, as tensors in plain containers."""
        return [{"means": task.means, "counts": task.counts} for task in self._tasks]

    @classmethod
    def from_state(cls, state: Any, device: torch.device | str = "cpu") -> "PrototypeBank":
        """The bank that `state` was taken from, on `device`, or on the CPU where that has no float64."""
        bank, place = cls(), exact_device(device)
        for task in state:
            bank.add(Prototypes(task["means"].to(place), task["counts"].to(place)))
        return bank

    def squared_distances(self, features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], own: Prototypes) -> SquaredDistances:
        """Distances of every sample to its own prototype and to the nearest one of every earlier task.

        With a = x - u the deviation of a sample from its own prototype u, and m the mean of all earlier prototypes p,

            |x - p|^2  =  |u - p|^2 - 2 a.(p - m)  +  |a|^2 + 2 a.(u - m).

        Only a.(p - m) is a matrix product over samples and prototypes; it runs in float32 on a CPU (3 times faster there). The rest
        is float64. No large square cancels, as it does in x^2 - 2xp + p^2, unless a sample lies much nearer to an earlier prototype
        than to its own, or the earlier prototypes far apart; those samples are found and measured directly, in float64.

        Returns:
            Squared distances; relative error below about 1e-6 for a single one, and far less in a mean over samples.
        """
        self.check(own)
        if self._layout is None:
            self._layout = _Layout.of(self._tasks)
        layout = self._layout
        lean = own.means - layout.centre  # (C, d)
        between = _product(lean, layout.exact).to(layout.offsets.dtype)  # (C, K)
        squares = SquaredDistances(
            features.new_empty(len(features), dtype=torch.float64), features.new_empty(len(features), len(self), dtype=torch.float64)
        )
        step = max(1, BLOCK // max(layout.offsets.shape))
        for start in range(0, len(features), step):
            rows = slice(start, start + step)
            owner = labels[rows]
            deviation = features[rows].double() - own.means[owner]  # (n, d)
            length = torch.linalg.vector_norm(deviation, dim=1)
            rest = length.square() + 2 * (deviation @ lean.T).gather(1, owner[:, None]).squeeze(1)
            product = between[owner].addmm_(deviation.to(between.dtype), layout.offsets.T, alpha=-2)  # (n, K)
            nearest = layout.nearest(product).double().add_(rest[:, None])  # (n, t)
            self._mend(nearest, features[rows], length, layout.reach)
            squares.own[rows], squares.nearest[rows] = length.square(), nearest
        return squares

    def _mend(
        self, nearest: Float64[Tensor, "n t"], features: Float[Tensor, "n d"], own: Float64[Tensor, "n"], reach: Float64[Tensor, "t"]
    ) -> None:
        """Measure directly where the products may have lost digits: there, their terms are large against what is left of them."""
        terms = torch.maximum(DOUBT * own[:, None] * torch.maximum(own[:, None], reach), DOUBT_DOUBLE * reach.square())
        sure = (nearest >= terms.clamp_min_(SMALLEST_SQUARE)) & nearest.isfinite()
        if sure.all():
            return
        for task in (~sure).any(0).nonzero().flatten().tolist():
            rows = (~sure[:, task]).nonzero().flatten()
            one = self._tasks[task]
            nearest[rows, task] = _direct(features[rows].double(), one.means[one.present]).amin(1)


class _Layout(NamedTuple):
    """The prototypes of all tasks, arranged so that the minimum over a task's classes is one reduction.

    Tasks with equally many prototypes stand together, and within such a block all first classes come first, then all second ones.

    Attributes:
        centre: the mean of all of them, (d).
        exact: prototypes less their mean, (K, d), float64.
        offsets: the same in the type of the large product.
        reach: the largest offset's length in each task, (t).
        blocks: number of prototypes and indices of the tasks, per block.
    """

    centre: Float64[Tensor, "d"]
    exact: Float64[Tensor, "k d"]
    offsets: Float[Tensor, "k d"]
    reach: Float64[Tensor, "t"]
    blocks: list[tuple[int, Int64[Tensor, "m"]]]

    @classmethod
    def of(cls, tasks: list[Prototypes]) -> "_Layout":
        kept = [task.means[task.present] for task in tasks]
        device = kept[0].device
        sizes = sorted({len(means) for means in kept})
        members = [[index for index, means in enumerate(kept) if len(means) == size] for size in sizes]
        stacked = [torch.stack([kept[index] for index in block], dim=1).flatten(0, 1) for block in members]
        every = torch.cat(stacked)
        centre = every.mean(0)
        offsets = every - centre
        reach = torch.stack([(means - centre).square().sum(1).amax().sqrt() for means in kept])
        # A GPU may round float32 products to TF32, if told to elsewhere; in float64 it is fast enough.
        kind = torch.float32 if device.type == "cpu" else torch.float64
        blocks = [(size, torch.tensor(block, device=device)) for size, block in zip(sizes, members, strict=True)]
        return cls(centre, offsets, offsets.to(kind), reach, blocks)

    def nearest(self, distances: Float[Tensor, "n k"]) -> Float[Tensor, "n t"]:
        """The minimum over the prototypes of each task."""
        least = distances.new_empty(len(distances), len(self.reach))
        start = 0
        for size, tasks in self.blocks:
            columns = distances[:, start : start + size * len(tasks)]
            least[:, tasks] = columns.unflatten(1, (size, len(tasks))).amin(1)
            start += size * len(tasks)
        return least


def _product(left: Float64[Tensor, "a d"], right: Float64[Tensor, "b d"]) -> Float64[Tensor, "a b"]:
    """Squared distances by a matrix product."""
    squares = left.square().sum(1)[:, None] + right.square().sum(1)
    return squares.addmm_(left, right.T, alpha=-2)


def _direct(left: Float64[Tensor, "a d"], right: Float64[Tensor, "b d"]) -> Float64[Tensor, "a b"]:
    """Squared distances by differences: slower than a product, exact to float64's last digits."""
    return torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").square()
