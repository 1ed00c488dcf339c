"""Check a bundle against its run: both answer for the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lifelong.data.sources import Sources
from lifelong.errors import LifelongError
from lifelong.experiment.grown_stream import images_of
from lifelong.experiment.saved import SavedRun
from lifelong.prediction import Prediction
from lifelong.predictor import Predictor
from lifelong.runtime.bundle import Bundle
from lifelong.settings.run import Environment

TOLERANCE = 1e-4
"""Largest difference of a probability from the run's: both compute in float32, and order its sums differently."""

HALF_TOLERANCE = 1e-3
"""The same where features are rounded to half precision: the last bit of a sum can decide to which side one of 11 bits is rounded."""

IMAGES = 256
"""Images that are compared, about."""


@dataclass(frozen=True)
class Checked:
    """What a check has found.

    Attributes:
        images: how many images were compared.
        of_tests: how many of them are test images of the run's stream; the others are random.
        largest_difference: of a probability, of a class or of a task.
    """

    images: int
    of_tests: int
    largest_difference: float


def check_bundle(bundle: Bundle, learner: Predictor, saved: SavedRun, environment: Environment) -> Checked:
    """Compare the answers of a bundle with those of its run, without and with the names of tasks.

    Args:
        bundle: just written.
        learner: of the run.
        saved: the run.
        environment: where its test images are. Tasks whose images are not there are checked on random images.

    Raises:
        LifelongError: they differ.
    """
    per_task = max(2, IMAGES // len(saved.entries))
    half = getattr(saved.config.settings, "feature_precision", "float32") == "half"
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    largest, count, of_tests = 0.0, 0, 0
    sources = Sources(environment.data, download=environment.download, skip_broken=environment.skip_broken)
    for index, (name, found) in enumerate(zip(saved.names, images_of(saved, sources), strict=True)):
        images: Sequence[np.ndarray] | None = None
        if found is not None:
            try:
                images = [image.permute(1, 2, 0).numpy() for image in found[0][found[1]].test.images[:per_task].cpu()]
            except LifelongError:
                images = None
            of_tests += len(images or ())
        shown = images or _random_images(saved.entries[index].side, index)
        count += len(shown)
        for task in (None, name):
            for ours, theirs in zip(bundle.predict(shown, task), learner.predict(shown, task), strict=True):
                largest = max(largest, compared(ours, theirs, saved.directory.path, tolerance))
    return Checked(count, of_tests, largest)


def compared(ours: Prediction, theirs: Prediction, run: Path, tolerance: float = TOLERANCE) -> float:
    """Return the largest difference of the probabilities of two answers.

    Args:
        ours: of the bundle.
        theirs: of the run.
        run: its directory, for messages.
        tolerance: largest difference; tasks and classes a tenth of it apart are tied.

    Raises:
        LifelongError: they name another task or class, or their probabilities differ by more than rounding.
    """
    tie = tolerance / 10
    if not (ours.task == theirs.task or _tied(ours.tasks or {}, ours.task, theirs.task, tie)):
        raise LifelongError(f"{run}: the bundle's task for image {ours.image} is '{ours.task}', the run's '{theirs.task}'; not kept")
    if ours.task != theirs.task:
        return 0.0
    pairs = [(ours.classes[name], theirs.classes[name]) for name in theirs.classes]
    pairs += [(share, (theirs.tasks or {})[name]) for name, share in (ours.tasks or {}).items()]
    difference = max(abs(own - other) for own, other in pairs)
    same_class = ours.label == theirs.label or _tied(ours.classes, ours.label, theirs.label, tie)
    if not difference <= tolerance or not same_class or ours.strange != theirs.strange:
        raise LifelongError(f"{run}: the bundle's answer for image {ours.image} differs from the run's ({difference:.2g}); not kept")
    return difference


def _tied(shares: dict[str, float], one: str, other: str, apart: float) -> bool:
    return abs(shares.get(one, 0.0) - shares.get(other, 1.0)) <= apart


def _random_images(size: int, seed: int) -> Sequence[np.ndarray]:
    draw = np.random.default_rng(seed)
    return list(draw.integers(0, 256, (4, size, size, 3), np.uint8))
