"""The seven paths of MNTDP-D along one source: frozen beginnings computed once a path against run in every step.

Both train the same seven columns of new modules in turn, from the same weights on the same batches, with a validation pass after each
epoch, on images that are not augmented. The plain way runs what a path reuses in every step, without gradients. The gain is bounded:
what is new costs the same in both. Both run on one thread (see distances.py), and processor seconds are compared, which other load on
the machine disturbs less.

    python -m benchmarks.candidate_paths [--quick]
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from lifelong.data.task import Normalization
from lifelong.networks.blocks import make_chain
from lifelong.networks.frozen import freeze
from lifelong.search.paths import candidate_paths
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import FitOutcome, fit
from lifelong.training.frozen_prefix import fit_behind
from lifelong.training.stages import Stage, seeded

CHANNELS = 16
CLASSES = 10

Train = Callable[[nn.Sequential, nn.Sequential, Examples, TrainingSettings, Stage], FitOutcome]
"""Of a column of new modules behind a frozen beginning."""


def main(quick: bool = False) -> dict[str, object]:
    """Time both, turn by turn.

    Args:
        quick: fewer images, epochs and repeats.

    Returns:
        name, ratio of the medians, seconds of either for all paths, the largest difference of the columns' weights, a description.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(*((40, 2, 1) if quick else (80, 8, 3)))
    finally:
        torch.set_num_threads(threads)


def _measure(images: int, epochs: int, repeats: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    labels = [torch.arange(count) % CLASSES for count in (images, images // 2)]
    patterns = torch.randint(0, 200, (CLASSES, 3, 32, 32), generator=generator)
    train, valid = ((patterns[y] + torch.randint(0, 56, (len(y), 3, 32, 32), generator=generator)).to(torch.uint8) for y in labels)
    examples = Examples(train, labels[0], valid, labels[1], Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    settings = TrainingSettings(epochs=epochs, patience=0, batch_size=32)

    for train_one in (fit_behind, _plain):  # what is slow only once is not timed
        for prefix, column in _paths():
            train_one(prefix, column, examples, replace(settings, epochs=1), Stage("train", seed=0))
    times: dict[Train, list[float]] = {fit_behind: [], _plain: []}
    results = {}
    for _ in range(repeats):
        for train_one in times:
            paths = _paths()
            started = time.process_time()
            outcomes = [train_one(prefix, column, examples, settings, Stage("train", seed=k)) for k, (prefix, column) in enumerate(paths)]
            times[train_one].append(time.process_time() - started)
            results[train_one] = ([outcome.accuracy for outcome in outcomes], [column for _, column in paths])
    ours, plain = (statistics.median(seconds) for seconds in times.values())
    (scores, columns), (plain_scores, plain_columns) = results.values()
    if scores != plain_scores:
        raise AssertionError(f"validation accuracies differ: {scores}, plain {plain_scores}")
    pairs = zip(nn.ModuleList(columns).parameters(), nn.ModuleList(plain_columns).parameters(), strict=True)
    return {
        "name": "candidate paths",
        "ratio": plain / ours,
        "ours_s": ours,
        "plain_s": plain,
        "parity": max((a - b).abs().max().item() for a, b in pairs),
        "threads": 1,
        "detail": f"7 paths of the light ResNet-18, C={CHANNELS}, {images} images of 32x32, {epochs} epochs; processor seconds",
    }


def _paths() -> list[tuple[nn.Sequential, nn.Sequential]]:
    """Return what each path reuses, and its new modules."""
    chain = make_chain("light-resnet18", CHANNELS)

    def module(position: int) -> nn.Module:
        return chain.make(position) if position < len(chain) else nn.Linear(chain.feature_dim, CLASSES)

    with seeded(0):
        source = [module(position) for position in range(len(chain) + 1)]
        freeze(*source)
        candidates = candidate_paths(len(source), (0,) * len(source))
        columns = [nn.Sequential(*map(module, candidate.fresh)) for candidate in candidates]
    return [(nn.Sequential(*source[: len(candidate.reused)]), column) for candidate, column in zip(candidates, columns, strict=True)]


def _plain(prefix: nn.Sequential, column: nn.Sequential, examples: Examples, settings: TrainingSettings, stage: Stage) -> FitOutcome:
    """Run the whole path in every step."""

    def predict(inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            maps = prefix(inputs)
        return column(maps)

    # Of a path that is all reused there is nothing to train, in both.
    return fit(column, examples, predict, settings, stage) if len(column) else fit_behind(prefix, column, examples, settings, stage)


if __name__ == "__main__":
    print(main(quick="--quick" in sys.argv))
