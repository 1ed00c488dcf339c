"""The task of an image, and whether the image is unlike everything learned, from PAR's prototypes and three numbers per task.

With d_t(x) the distance from the features of x to the nearest prototype of task t, prepared as the images of t were,

    probability of t   ~   exp(-k/2 (d_t^2 / m_t + log m_t))       isotropic Gaussians of k dimensions around the prototypes
    strangeness        =   min over t of d_t / l_t                  above 1: unlike anything learned

m_t is the mean and v_t the variance of d_t^2 over the images that the prototypes were made from, and l_t the 95 % quantile of d_t, each
image measured without its own share in its prototype. k = 2 m^2 / v is the number of dimensions in which a Gaussian's squared distance
varies as much: features have hundreds, but vary in few, and with all of them every probability would be 0 or 1. It is one number, the
median over tasks, since densities of different dimensions cannot be compared.

The paper requires the task to be given at test time; this is our addition.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median_low

import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor, nn

from lifelong.data.task import Normalization
from lifelong.devices import exact
from lifelong.relatedness.bank import PrototypeBank, Prototypes
from lifelong.relatedness.extractor import Extractor
from lifelong.storage import Tree
from lifelong.trees import Fixed

KNOWN = 0.95
"""The share of a task's own images that count as known: at most 5 % of them count as unknown."""


@dataclass(frozen=True)
class Spread:
    """How far a task's images lie from its prototypes.

    Attributes:
        mean, variance: of the squared distance to the nearest prototype.
        limit: the squared distance that `KNOWN` of the images stay below.
        normalization: with which the images were prepared.
    """

    mean: float
    variance: float
    limit: float
    normalization: Normalization

    @property
    def dimensions(self) -> float:
        """k: the dimensions in which a Gaussian's squared distance has this mean and variance; at least 1."""
        return max(1.0, 2 * self.mean**2 / self.variance) if self.variance > 0 else torch.inf

    @cached_property
    def saved(self) -> Fixed:
        """The saved form."""
        return Fixed(asdict(self))


def measure_spread(features: Float[Tensor, "n d"], labels: Int64[Tensor, "n"], own: Prototypes, normalization: Normalization) -> Spread:
    """Measure the spread of a task around its prototypes, from the images that these were computed from.

    Without its share in its prototype an image of a class of n lies n / (n - 1) times as far from it; the only image of a class is
    measured by the other classes' prototypes.

    Args:
        features: of the task's images.
        labels: their classes, in 0..C-1.
        own: the means of these features by class.
        normalization: with which the images were prepared.
    """
    squares = torch.cdist(features.double(), own.means).square()
    squares[:, ~own.present] = torch.inf
    counts = own.counts.double()
    alone = torch.where(counts > 1, (counts / (counts - 1)).square(), torch.inf)
    rows = torch.arange(len(labels), device=labels.device)
    mine = squares[rows, labels]
    squares[rows, labels] = torch.where(torch.isfinite(alone[labels]), mine * alone[labels], torch.inf)
    nearest = squares.amin(dim=1)
    nearest = nearest[nearest.isfinite()]
    if not len(nearest):
        # A single image: the spread is unknown; the length of its features is the only scale.
        nearest = own.known.square().sum(dim=1)
    mean, variance = nearest.mean().item(), nearest.var(correction=0).item()
    return Spread(max(mean, torch.finfo(torch.float64).tiny), variance, nearest.quantile(KNOWN).item(), normalization)


class Recognition:
    """Infers tasks, and detects images unlike everything learned.

    Attributes:
        spreads: of each task learned so far.
    """

    def __init__(self, spreads: Sequence[Spread] = ()) -> None:
        self.spreads = list(spreads)

    @property
    def bytes(self) -> int:
        """Memory of the three numbers per task."""
        return 24 * len(self.spreads)

    def squared_distances(self, images: UInt8[Tensor, "n 3 h w"], bank: PrototypeBank, extractor: Extractor) -> Float64[Tensor, "n t"]:
        """Compute d_t^2 of images for every task.

        Args:
            images: uint8 RGB, of any task.
            bank: the prototypes of the tasks.
            extractor: the one whose features were averaged.
        """
        wanted = list(dict.fromkeys(spread.normalization for spread in self.spreads))
        features = {how: exact(found) for how, found in zip(wanted, extractor.features_of_each(images, wanted), strict=True)}
        columns = []
        for index, spread in enumerate(self.spreads):
            task = bank[index]
            columns.append(_nearest_squares(features[spread.normalization], task))
        return torch.stack(columns, dim=1)

    def recognize(
        self, images: UInt8[Tensor, "n 3 h w"], bank: PrototypeBank, extractor: Extractor
    ) -> tuple[Float32[Tensor, "n t"], Float32[Tensor, "n"]]:
        """Compute task probabilities and strangeness from the same distances, on the images' device.

        Args:
            images, bank, extractor: see `squared_distances`.
        """
        squares = self.squared_distances(images, bank, extractor)
        return self.probabilities(squares).to(images.device), self.strangeness(squares).to(images.device)

    def probabilities(self, squares: Float64[Tensor, "n t"]) -> Float32[Tensor, "n t"]:
        """Compute the probability of each task under a uniform prior.

        Args:
            squares: as from `squared_distances`.
        """
        mean = squares.new_tensor([spread.mean for spread in self.spreads])
        return _probabilities(squares, mean, _common_dimensions(self.spreads))

    def strangeness(self, squares: Float64[Tensor, "n t"]) -> Float32[Tensor, "n"]:
        """Compute how unlike everything learned images are: above 1, farther out than 95 % of the nearest task's images.

        Args:
            squares: as from `squared_distances`.
        """
        limit = squares.new_tensor([spread.limit for spread in self.spreads]).clamp_min(torch.finfo(torch.float64).tiny)
        return (squares / limit).amin(dim=1).sqrt().float()

    def limits(self) -> list[float]:
        """Return for each task the distance to its nearest prototype that `KNOWN` of its images stay below."""
        return [math.sqrt(spread.limit) for spread in self.spreads]

    def state(self) -> Tree:
        """Return the spreads as plain values."""
        return [spread.saved for spread in self.spreads]

    @classmethod
    def from_state(cls, state: Tree) -> "Recognition":
        """Restore what `state` returned."""
        return cls([Spread(**(saved | {"normalization": Normalization(**saved["normalization"])})) for saved in state])


class Router(nn.Module):
    """Task probabilities of features, as `Recognition` gives them for images of tasks that are all prepared alike; it can be traced.

    Args:
        bank: the prototypes of the tasks.
        recognition: their spreads.
    """

    def __init__(self, bank: PrototypeBank, recognition: Recognition) -> None:
        super().__init__()
        spreads = recognition.spreads
        self._means = [bank[index].means for index in range(len(spreads))]
        # Selecting the classes that are present would give a number of rows that no exporter before PyTorch 2.10 can trace.
        self._absent = [~bank[index].present for index in range(len(spreads))]
        self._mean = torch.tensor([spread.mean for spread in spreads], dtype=torch.float64)
        self._dimensions = _common_dimensions(spreads)

    def forward(self, features: Float[Tensor, "n d"]) -> Float32[Tensor, "n t"]:
        """Compare features with all prototypes."""
        found = features.double()[:, None]  # (n, 1, d)
        nearest = [
            (found - means.to(found)).square().sum(dim=2).masked_fill(absent.to(found.device), math.inf).amin(dim=1)
            for means, absent in zip(self._means, self._absent, strict=True)
        ]
        squares = torch.stack(nearest, dim=1)
        return _probabilities(squares, self._mean.to(found), self._dimensions)


def _nearest_squares(features: Float64[Tensor, "n d"], task: Prototypes) -> Float64[Tensor, "n"]:
    """Compute the squared distance of features to the nearest prototype of a task."""
    if not torch.compiler.is_compiling():
        return torch.cdist(features, task.known).amin(dim=1).square()
    # While a program is traced for export: ONNX has no such distance, and no rows whose number depends on their content.
    means = task.means.to(features)
    squares = features.square().sum(dim=1, keepdim=True) + means.square().sum(dim=1) - 2 * features @ means.T
    return squares.clamp_min(0).masked_fill(~task.present, torch.inf).amin(dim=1)


def _common_dimensions(spreads: Sequence[Spread]) -> float:
    """Return k for all tasks: a number, since ONNX has no median."""
    return min(median_low(spread.dimensions for spread in spreads), 1e6)


def _probabilities(squares: Float64[Tensor, "n t"], mean: Float64[Tensor, "t"], dimensions: float) -> Float32[Tensor, "n t"]:
    return (-dimensions / 2 * (squares / mean + mean.log())).softmax(dim=1).float()
