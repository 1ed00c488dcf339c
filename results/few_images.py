"""How tasks of few images are measured best: distances of small draws held against those of hundreds of images a class.

    python results/few_images.py results/few-images.csv [--data DIR] [--weights FILE]

Pairs of tasks of ten classes: the same classes drawn twice, a task and other images of its classes mirrored, and other classes. Each is
drawn four times with 5 to 50 images of a class, a fifth of them for validation, and measured in each of the ways compared; what is right
is the distance by all images that the source has (225 of a class at most; 40 of DTD). One row for each number of images and way.
"""

import argparse
import csv
import datetime
import sys
import time
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lifelong.data.sources import Sources
from lifelong.data.task import Normalization, Split, Task
from lifelong.experiment.machine import machine_name
from lifelong.relatedness.assessment import task_features
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.relatedness.extractor import Extractor, open_extractor
from lifelong.relatedness.groups import task_distances
from lifelong.reproduction.commit import commit
from lifelong.settings.par import PARSettings
from lifelong.settings.run import Environment

ALPHA, BETA = PARSettings().alpha, PARSettings().beta
SIZES = (5, 10, 20, 30, 40, 50)
DRAWS = 4
MOST = 225

CIFAR10 = ("cifar10", range(10))
MNIST = ("mnist", range(10))
FASHION = ("fashion_mnist", range(10))
TEXTURES = ("parquet:dtd10", range(10))
FIRST, SECOND, SPREAD = ("cifar100", range(10)), ("cifar100", range(10, 20)), ("cifar100", range(0, 100, 10))
ALIKE = (CIFAR10, MNIST, FASHION, TEXTURES, FIRST)
OTHERS = ((CIFAR10, FIRST), (FIRST, SECOND), (SECOND, SPREAD), (MNIST, FASHION), (CIFAR10, TEXTURES), (FASHION, CIFAR10))
PAIRS = [*(("same", one, one) for one in ALIKE), *(("mirrored", one, one) for one in ALIKE), *(("other", *pair) for pair in OTHERS)]

WAYS = {
    "valid, as in the paper": PARSettings(),
    "train, as in the paper": PARSettings(feature_split="train"),
    "both, as in the paper": PARSettings(feature_split="both"),
    "valid, leave-one-out": PARSettings(leave_one_out=True),
    "both, leave-one-out": PARSettings(feature_split="both", leave_one_out=True),
    "both, few_images": PARSettings(few_images=10**6),
}
SHARES = (0.0, 0.25, 1 / 3, 0.5, 1.0)
"""What part of log(1 + 1/m) / 2 is taken off; the library takes half."""


class Pool(NamedTuple):
    """Images of a task's classes, (classes, images, 3, h, w)."""

    images: Tensor

    def task(self, chosen: Tensor, *, mirrored: bool = False) -> Task:
        """Return a task of chosen images of every class; the first fifth is for validation."""
        images = self.images[:, chosen].flip(-1) if mirrored else self.images[:, chosen]
        valid = max(1, round(len(chosen) / 5))

        def split(part: Tensor) -> Split:
            return Split(part.flatten(0, 1).contiguous(), torch.arange(len(part)).repeat_interleave(part.shape[1]))

        parts = {"train": split(images[:, valid:]), "valid": split(images[:, :valid]), "test": split(images[:, :0])}
        return Task("task", [str(label) for label in range(len(images))], parts.__getitem__)


class Once:
    """An extractor that computes the features of the same images once."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self.known: dict[int, Tensor] = {}

    def features(self, images: Tensor, normalization: Normalization) -> Tensor:
        """As the extractor's; images are known by identity, and have one normalization."""
        if id(images) not in self.known:
            self.known[id(images)] = self.extractor.features(images, normalization)
        return self.known[id(images)]


def main() -> int:
    """Read the command line and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    began = time.monotonic()
    place = Environment(data=options.data, weights=options.weights)
    extractor = open_extractor("resnet18", weights=place.weights)
    sources = Sources(place.data)
    pools = {key: pool(sources, *key) for key in {one for _, *pair in PAIRS for one in pair}}
    right = {pair: ways(extractor, *halves(pools, pair))["both, as in the paper"] for pair in PAIRS}
    rows = []
    for size in SIZES:
        found = [(pair, ways(extractor, *draw(pools, pair, size, number))) for pair in PAIRS for number in range(DRAWS)]
        rows += [summary(size, way, [(pair, values[way], right[pair]) for pair, values in found]) for way in found[0][1]]
        print(f"{size} images of a class: {len(found)} pairs", flush=True)
    about = {
        "command": "python results/few_images.py results/few-images.csv",
        "commit": commit(),
        "machine": machine_name(torch.device("cpu")),
        "weights": "ResNet-18 to layer3",
        "minutes": f"{(time.monotonic() - began) / 60:.1f}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    with options.table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *about])
        writer.writeheader()
        writer.writerows(row | about for row in rows)
    return 0


def pool(sources: Sources, name: str, classes: range) -> Pool:
    """As many images of each class as all of them have, and two tasks need."""
    source = sources.open(name)
    labels = torch.as_tensor(source.labels("train"))
    rows = [(labels == label).nonzero().flatten() for label in classes]
    count = min(2 * MOST, *map(len, rows))
    return Pool(torch.stack([source.images("train", row[:count], 32) for row in rows]))


def halves(pools: dict[Any, Pool], pair: tuple[Any, ...]) -> tuple[Task, Task]:
    """Return an earlier and a new task of all images there are."""
    kind, earlier, new = pair
    old, now = pools[earlier].images.shape[1] // 2, pools[new].images.shape[1] // 2
    return pools[earlier].task(torch.arange(old)), pools[new].task(torch.arange(now, 2 * now), mirrored=kind == "mirrored")


def draw(pools: dict[Any, Pool], pair: tuple[Any, ...], size: int, number: int) -> tuple[Task, Task]:
    """Return an earlier and a new task of so many images of a class; none is in both."""
    kind, earlier, new = pair
    chance = torch.Generator().manual_seed(number)
    order = torch.randperm(min(pools[earlier].images.shape[1], pools[new].images.shape[1]), generator=chance)
    size = min(size, len(order) // 2)
    return pools[earlier].task(order[:size]), pools[new].task(order[size : 2 * size], mirrored=kind == "mirrored")


def ways(extractor: Extractor, earlier: Task, new: Task) -> dict[str, float]:
    """Eq. 4 from the new task to the earlier one, measured in every way."""
    found = {}
    once: Any = Once(extractor)
    for way, settings in WAYS.items():
        bank = PrototypeBank()
        old, now = task_features(earlier, once, settings), task_features(new, once, settings)
        bank.add(prototypes(old.features, old.labels, len(earlier.classes)))
        own = prototypes(now.features, now.labels, len(new.classes))
        if settings.leave_one_out and not (own.counts > 1).any():
            continue
        kept = PARSettings(clamp="none", leave_one_out=settings.leave_one_out, few_images=settings.few_images)
        (found[way],) = divergences(now.features, now.labels, own, bank, kept, few=now.few).tolist()
    whole = np.log1p(1 / len(old.labels) * len(earlier.classes)) / 2 * len(new.classes)
    ours = found["both, few_images"]
    return found | {f"both, rho corrected and {share:.2f} of nu": ours + (0.5 - share) * whole for share in SHARES}


def summary(size: int, way: str, found: list[tuple[tuple[Any, ...], float, float]]) -> dict[str, Any]:
    """One row: errors after Eq. 6, decisions that come out as by many images, and the medians by kind of pair."""
    pairs = [(mapped(value), mapped(right)) for _, value, right in found]
    kinds = {kind: [value for (of, *_), value, _ in found if of == kind] for kind in ("same", "mirrored", "other")}
    return {
        "images_of_a_class": size,
        "way": way,
        "pairs": len(pairs),
        "mean_error": f"{mean(abs(value - right) for value, right in pairs):.3f}",
        "decisions_agree": sum(decision(value) == decision(right) for value, right in pairs),
        "sharing_agrees": sum((value <= ALPHA) == (right <= ALPHA) for value, right in pairs),
        **{f"median_{kind}": f"{median(values):.2f}" for kind, values in kinds.items()},
    }


def mapped(value: float) -> float:
    """Eq. 6 of Eq. 4."""
    return task_distances(torch.tensor([max(value, 0.0)], dtype=torch.float64), PARSettings()).item()


def decision(distance: float) -> int:
    """0: share, 1: reuse the cell, 2: search."""
    return (distance > ALPHA) + (distance > BETA)


if __name__ == "__main__":
    sys.exit(main())
