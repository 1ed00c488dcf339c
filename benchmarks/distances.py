"""Distances of a new task to 100 earlier ones: all of `divergences` against one `torch.cdist` for each earlier task.

The plain version is Eq. 2-4 as a person would write them who knows PyTorch: for each earlier task the distances to its prototypes by
`torch.cdist` in float64, their minimum, and the mean log-ratio of each class. Both run on one thread: on two shared cores the threads of
a product wait for each other, and times say more about the machine's other load than about the code.

    python -m benchmarks.distances [--quick]
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lifelong.relatedness.bank import PrototypeBank, Prototypes, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.settings.par import RelatednessSettings

CLASSES, LENGTH, SAMPLES = 10, 512, 500
LIMIT_S = 0.1


def plain_distances(features: Tensor, labels: Tensor, own: Tensor, earlier: list[Tensor]) -> list[float]:
    """Eq. 4 with each pair's sum clamped at zero, to every earlier task."""
    samples, classes = features.double(), len(own)
    rho = (samples - own[labels]).norm(dim=1)
    share = torch.nn.functional.one_hot(labels, classes).double()
    share /= share.sum(dim=0)
    nearest = [torch.cdist(samples, means).amin(dim=1) for means in earlier]
    return [max(((nu / rho).log() @ share).sum().item(), 0.0) for nu in nearest]


def made_task(generator: torch.Generator, samples: int) -> tuple[Tensor, Tensor]:
    """Features like a network's: not negative, classes apart."""
    labels = torch.arange(samples) % CLASSES
    centres = torch.randn(CLASSES, LENGTH, generator=generator)
    return (centres[labels] + torch.randn(samples, LENGTH, generator=generator)).relu(), labels


def main(quick: bool = False) -> dict[str, object]:
    """Time both, turn by turn, on the same features.

    Args:
        quick: fewer earlier tasks and repeats.

    Returns:
        name, ratio of the medians, seconds of either, the largest absolute difference of their results, and a description.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(*((20, 3) if quick else (100, 15)))
    finally:
        torch.set_num_threads(threads)


def _measure(tasks: int, repeats: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    bank = PrototypeBank()
    for _ in range(tasks):
        bank.add(prototypes(*made_task(generator, 200), CLASSES))
    features, labels = made_task(generator, SAMPLES)
    own: Prototypes = prototypes(features, labels, CLASSES)
    earlier = [bank[task].means for task in range(tasks)]
    settings = RelatednessSettings()

    def ours() -> list[float]:
        return divergences(features, labels, own, bank, settings).tolist()

    def plain() -> list[float]:
        return plain_distances(features, labels, own.means, earlier)

    parity = max(abs(a - b) for a, b in zip(ours(), plain(), strict=True))  # also the warm-up
    if parity > 1e-6:
        raise AssertionError(f"the two versions differ by {parity:.1e}")
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(repeats):
        seconds["ours"].append(_timed(ours))
        seconds["plain"].append(_timed(plain))
    ours_s, plain_s = statistics.median(seconds["ours"]), statistics.median(seconds["plain"])
    return {
        "name": "distances",
        "ratio": plain_s / ours_s,
        "ours_s": ours_s,
        "plain_s": plain_s,
        "parity": parity,
        "threads": 1,
        "detail": f"{tasks} earlier tasks of {CLASSES} classes, {SAMPLES} samples, {LENGTH} features, one thread; goal {LIMIT_S:g} s",
    }


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(main(quick="--quick" in sys.argv[1:]))
