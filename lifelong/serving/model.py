"""The model that answers: the run as it was last learned, replaced in one step when it has learned more."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import cpu_count
from pathlib import Path

import numpy as np

from lifelong.data.given import Given
from lifelong.errors import LifelongError
from lifelong.predictor import Prediction, Predictor
from lifelong.records.run import RunRecord
from lifelong.serving.limits import Limits
from lifelong.serving.pictures import look_at_all
from lifelong.settings.run import Environment
from lifelong.training.denormals import flush_denormals

MOST_AT_ONCE = 4
"""Threads that predict; more wait for the processor, and hold memory while they do."""


@dataclass(frozen=True)
class Opened:
    """A run as it was at some time.

    Attributes:
        predictor: predicts.
        summary: its record.
        version: counts up whenever the model is replaced, from 1; answers say by which they were given.
    """

    predictor: Predictor
    summary: RunRecord
    version: int


class ServedModel:
    """Predicts with a run, from any number of threads.

    Args:
        run: the run directory.
        place: the device, and the weights of the feature extractor.
        limits: how many pixels images may have.

    Raises:
        LifelongError: the run cannot be opened, or tasks cannot be inferred with it because weights are missing.
    """

    def __init__(self, run: Path, place: Environment, limits: Limits) -> None:
        self.run, self._place, self._limits = run, place, limits
        self._opening = threading.Lock()
        # Tasks are learned in a process of its own: this one only predicts, so that its threads may do as a run does.
        self.threads = ThreadPoolExecutor(min(cpu_count() or 1, MOST_AT_ONCE), "predict", flush_denormals)
        self._current = self.threads.submit(self._opened, 1).result()

    @property
    def current(self) -> Opened:
        """The run as it is answered by now."""
        return self._current

    def reopen(self) -> None:
        """Open the run again; until that is done, answers come from the one that is open."""
        with self._opening:
            self._current = self.threads.submit(self._opened, self._current.version + 1).result()

    def predict(self, images: Sequence[bytes], task: str | None = None) -> tuple[Opened, list[Prediction | str]]:
        """Classify encoded images, all by the same model.

        Args:
            images: contents of image files.
            task: their task; None: it is inferred.

        Returns:
            The model that answered, and for each image the prediction, or the reason why it is unusable.

        Raises:
            LifelongError: no task has this name.
        """
        opened = self._current
        found: list[Prediction | str] = [look.problem for look in look_at_all(images, self._limits)]
        usable = [place for place, problem in enumerate(found) if not problem]
        given = [Given(str(place), images[place]) for place in usable]
        answers = iter(opened.predictor.predict_each(given, task, skip_broken=True))
        for place in usable:
            answer = next(answers)[1]
            found[place] = answer if isinstance(answer, str) else replace(answer, image=str(place))
        return opened, found

    def close(self) -> None:
        """Wait for what is being predicted."""
        self.threads.shutdown(cancel_futures=True)

    def _opened(self, version: int) -> Opened:
        predictor = Predictor.load(self.run, self._place)
        try:
            # What is opened with the first prediction is opened now, so that no one waits for it, and what is missing is told at once.
            predictor.predict(np.zeros((8, 8, 3), np.uint8))
        except LifelongError as error:
            raise LifelongError(f"{self.run} cannot infer the task of an image: {error}") from error
        return Opened(predictor, predictor.summary, version)
