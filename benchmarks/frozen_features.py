"""A task that trains only a head on a frozen expert: features computed once against features computed in every epoch.

Both train the same head from the same weights on the same batches for 100 epochs, with a validation pass after each. The plain way
computes the features of each batch when it needs it, without gradients, as one writes it first; it is timed over a few epochs and
multiplied, since every epoch does the same work. What ours computes once, the features of both splits, is inside its time. Both run
on one thread (see distances.py).

    python -m benchmarks.frozen_features [--quick]
"""

import contextlib
import statistics
import sys
import time
from dataclasses import replace

import torch
from torch import nn

from lifelong.data.task import Normalization
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V1
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import fit
from lifelong.training.stages import Stage, seeded

EPOCHS = 100
GOAL = 30.0
CLASSES = 10


def main(quick: bool = False) -> dict[str, object]:
    """Time both, turn by turn.

    Args:
        quick: fewer images, epochs timed and repeats.

    Returns:
        name, ratio of the medians, seconds of either for 100 epochs, the largest difference of the heads' weights, a description.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(*((100, 1, 1) if quick else (400, 3, 3)))
    finally:
        torch.set_num_threads(threads)


def _measure(images: int, timed: int, repeats: int) -> dict[str, object]:
    with seeded(0):
        expert = CellNetwork(DARTS_V1, 16).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    splits = [torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8) for count in (images, images // 2)]
    train, valid = splits
    labels = [torch.arange(len(split)) % CLASSES for split in splits]
    examples = Examples(train, labels[0], valid, labels[1], Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    settings = TrainingSettings(epochs=EPOCHS, patience=0)

    ours, plain = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        _ours(expert, examples, settings)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        _plain(expert, examples, settings, timed)
        plain.append((time.perf_counter() - started) * EPOCHS / timed)
    short = replace(settings, epochs=timed)
    difference = (_ours(expert, examples, short).weight - _plain(expert, examples, short, timed + 1).weight).abs().max().item()
    return {
        "name": "frozen features",
        "ratio": statistics.median(plain) / statistics.median(ours),
        "ours_s": statistics.median(ours),
        "plain_s": statistics.median(plain),
        "parity": difference,
        "threads": 1,
        "detail": f"{EPOCHS} epochs of a head on DARTS_V1, C=16, {images} images of 32x32; plain timed over {timed} epochs; goal {GOAL:g}",
    }


def _head(expert: CellNetwork) -> nn.Linear:
    with seeded(1):
        return nn.Linear(expert.feature_dim, CLASSES)


def _ours(expert: CellNetwork, examples: Examples, settings: TrainingSettings) -> nn.Linear:
    head = _head(expert)
    fit(head, examples.mapped(expert), head, settings, Stage("train", seed=0))
    return head


def _plain(expert: CellNetwork, examples: Examples, settings: TrainingSettings, epochs: int) -> nn.Linear:
    """Train the first epochs of the same fit, recomputing features."""
    head = _head(expert)

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = expert(inputs)
        return head(features)

    # The rate falls over the planned epochs; stopping after some of them leaves the cosine as it is.
    stopped = Stage("train", seed=0, listener=lambda epoch: _stop(epoch.epoch, epochs))
    with contextlib.suppress(_EnoughError):
        fit(head, examples, predict, settings, stopped)
    return head


class _EnoughError(Exception):
    pass


def _stop(epoch: int, epochs: int) -> None:
    if epoch == epochs:
        raise _EnoughError


if __name__ == "__main__":
    print(main(quick="--quick" in sys.argv))
