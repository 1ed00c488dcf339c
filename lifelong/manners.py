"""The manners of an estimator of scikit-learn, as far as they fit a learner that grows: what does not is refused in words."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from lifelong.data.address import PYTHON
from lifelong.data.given_labels import read_labels
from lifelong.data.task import Task
from lifelong.methods.registry import known_methods
from lifelong.prediction import Prediction
from lifelong.records.task import TaskRecord
from lifelong.settings.arguments import checked
from lifelong.settings.resolve import resolve
from lifelong.settings.run import Environment, RunConfig, split_options

Itself = TypeVar("Itself", bound="Estimator")

ABSENT = {
    "classes_": "nothing has been learned yet",
    "predict_proba": "predict(images) returns the probabilities of each image, by class and by task",
    "predict_log_proba": "predict(images) returns the probabilities of each image, by class and by task",
    "decision_function": "logits(images, task) computes the logits of a task",
    "transform": "it is a classifier; predict(images) returns classes",
    "n_features_in_": "images may have any size",
}
"""What a learner does not have, or not yet, and why, or where it is."""


class Estimator(ABC):
    """What scikit-learn asks of a classifier, by what a learner does."""

    _config: RunConfig
    _place: Environment
    _given: dict[str, Any]

    @property
    @abstractmethod
    def tasks(self) -> Mapping[str, tuple[str, ...]]:
        """Return the classes of each task in label order, by task name, in the order of learning."""

    # `Any`: a task, and whatever holds images.
    @abstractmethod
    def learn(self, task: Any) -> TaskRecord:
        """Learn one more task."""

    @abstractmethod
    def predict(self, images: Any, task: str | None = None) -> list[Prediction]:
        """Classify images."""

    @abstractmethod
    def _begin(self, given: dict[str, Any]) -> None:
        """Start with nothing learned."""

    @property
    def classes_(self) -> np.ndarray:
        """Return the names of the classes of all tasks, each once, in the order of learning.

        Raises:
            AttributeError: nothing has been learned.
        """
        if not self.tasks:
            raise AttributeError  # `__getattr__` says it
        return np.array(list(dict.fromkeys(name for names in self.tasks.values() for name in names)))

    # `Any`: see `Task.from_arrays`.
    @checked
    def fit(self: Itself, images: Any, labels: Any, *, classes: Sequence[str] | None = None, name: str | None = None) -> Itself:
        """Forget everything, and learn one task, with the settings that the learner has now.

        Args:
            images, labels, classes, name: see `lifelong.Task.from_arrays`.

        Returns:
            The learner.
        """
        task = Task.from_arrays(images, labels, classes=classes, name=name)
        self._begin(self._given)
        self.learn(task)
        return self

    # `Any`: see `Task.from_arrays`.
    @checked
    def partial_fit(self: Itself, images: Any, labels: Any, *, classes: Sequence[str] | None = None, name: str | None = None) -> Itself:
        """Learn one more task; unlike most estimators of scikit-learn, nothing of the earlier ones has to be there again.

        Args:
            images, labels, classes, name: see `lifelong.Task.from_arrays`.

        Returns:
            The learner.
        """
        self.learn(Task.from_arrays(images, labels, classes=classes, name=name))
        return self

    # `Any`: see `predict` and `Task.from_arrays`.
    @checked
    def score(self, images: Any, labels: Any, task: str | None = None) -> float:
        """Compute the share of images whose predicted class is the given one.

        Args:
            images: see `predict`.
            labels: the class of each image, by its name or by the number that `Task.from_arrays` was given.
            task: task of the images; None: the only task, or the one that is inferred for each image.
        """
        names = list(self.tasks)
        found = self.predict(images, names[0] if task is None and len(names) == 1 else task)
        wanted = read_labels(labels, len(found), "Learner.score")
        return float(np.mean([answer.label == str(label) for answer, label in zip(found, wanted, strict=True)]))

    @checked
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments with which a learner like this one is made, with nothing learned.

        Args:
            deep: means nothing here: no argument has arguments of its own.
        """
        return dict(self._given)

    def set_params(self: Itself, **params: object) -> Itself:
        """Change arguments of the learner. What is learned stays as it is: only `fit` uses other settings, from the beginning.

        Args:
            params: see `get_params`; any argument of the learner.

        Raises:
            LifelongError: an argument is not valid; then nothing is changed.
        """
        given = {**self._given, **params}
        self._config, self._place = configured(given)
        self._given = given
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return bool(self.tasks)

    # `Any`: a type of scikit-learn, which is not needed otherwise.
    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        takes = InputTags(two_d_array=False, three_d_array=True)
        return Tags(estimator_type="classifier", target_tags=TargetTags(required=True), classifier_tags=ClassifierTags(), input_tags=takes)

    # `Any`: nothing is ever returned.
    def __getattr__(self, name: str) -> Any:
        why = f": {ABSENT[name]}" if name in ABSENT else ""
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'{why}", name=name, obj=self)


def configured(given: dict[str, Any]) -> tuple[RunConfig, Environment]:
    """Resolve the arguments of a learner.

    Raises:
        LifelongError: one of them is not valid.
    """
    rest = dict(given)
    method, seed, preset, environment = (rest.pop(name) for name in ("method", "seed", "preset", "environment"))
    place, settings = split_options("Learner", environment, rest)
    methods = {name: entry.settings for name, entry in known_methods().items()}
    return resolve(f"{PYTHON}:", method, seed, preset, None, settings, methods=methods), place
