"""A learner that grows: it learns one task after the other, predicts, and is saved as a run directory."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lifelong.data.given import Given, given_images
from lifelong.data.naming import shown
from lifelong.data.objects import held_of, task_of_held
from lifelong.data.sources import Sources
from lifelong.data.stream_like import TaskObject
from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.experiment.continuing import learn_more
from lifelong.experiment.hub_runs import fetch_run, hub_run
from lifelong.experiment.observer import Observer
from lifelong.experiment.progress import listening
from lifelong.experiment.run import run as run_experiment
from lifelong.experiment.run_copies import copy_run, put_copy
from lifelong.experiment.saved import open_run
from lifelong.experiment.task_agnostic import Inference
from lifelong.manners import Estimator, configured
from lifelong.prediction import Prediction
from lifelong.predictor import Predictor
from lifelong.records.run import RunRecord
from lifelong.records.task import TaskRecord
from lifelong.settings.arguments import Place, Seed, checked
from lifelong.settings.resolve import flat
from lifelong.settings.run import Environment, EnvironmentOptions, Preset, environment_of
from lifelong.streams.objects import keep_stream
from lifelong.training.process import alone

__all__ = ["Learner", "Prediction"]


class Learner(Estimator):
    """A model that learns one task after the other, and predicts meanwhile, from any number of threads.

    ``Learner("par")`` begins with nothing; `Learner.load` opens a run. What it learns stays in memory and in a temporary folder until it is
    saved. It has the manners of an estimator of scikit-learn: `fit`, `partial_fit`, `score`, `get_params`, `set_params`, ``classes_``.

    Args:
        method: name of a method.
        seed: random seed of the held-out images, the initial weights and everything else.
        preset: "paper" (default), "authors-code", "quick" or "practical".
        environment: where weights and the device are; by default `Environment()`.
        settings: hyper-parameters of the method and of training, such as ``epochs=10``; and fields of the `Environment`, which override
            those of `environment`.

    Raises:
        LifelongError: a setting, a name or a value is not valid.
    """

    @checked
    def __init__(
        self,
        method: str = "par",
        seed: Seed = 0,
        *,
        preset: Preset | None = None,
        environment: Environment | None = None,
        **settings: object,
    ) -> None:
        self._begin({"method": method, "seed": seed, "preset": preset, "environment": environment, **settings})

    def _begin(self, given: dict[str, Any]) -> None:
        """Start with nothing learned."""
        self._config, place = configured(given)
        self._place = place.absolute()
        self._given = given
        self._predictor: Predictor | None = None
        self._folder: Path | None = None
        self._home: Path | None = None
        self._home_of = 0

    @classmethod
    @checked
    def load(cls, run: Place, *, environment: Environment | None = None, **options: Unpack[EnvironmentOptions]) -> "Learner":
        """Open a run directory. It is only read: what the learner learns later is in it when it is saved there.

        On a CPU, glibc then keeps up to 64 MB of freed memory (`keep_small_blocks`); nothing else in the process changes.

        Args:
            run: directory of a run that has learned at least one task; or one on the Hugging Face Hub, ``hub:OWNER/NAME`` or
                ``hub:OWNER/NAME@REVISION``, which is downloaded only with `download`, and checked by its digests.
            environment: where the device is, and the weights of the feature extractor, which PAR and Expert Gate need to infer tasks; by
                default `Environment()`. Its number of threads is that of predictions; 0: automatic (1 for images up to 16×16, else the
                process's number).
            options: fields of the `Environment`; they override those of `environment`.

        Raises:
            LifelongError: the run or the device does not exist, or the run was made by an incompatible version.
        """
        # Absolute: the program may change its working directory meanwhile.
        place = environment_of("Learner.load", environment, options).absolute()
        there = hub_run(run)
        folder = Path(run) if there is None else fetch_run(there, download=place.download)
        predictor = Predictor.load(folder, place)
        learner = cls.__new__(cls)
        learner._config, learner._place = predictor.config, place
        values = {key: value for key, value in flat(predictor.config).items() if key != "stream"}
        learner._given = {**values, "environment": place}
        learner._predictor, learner._folder = predictor, folder.absolute()
        learner._home, learner._home_of = None, 0
        return learner

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Return the classes of each task in label order, by task name, in the order of learning."""
        return {} if self._predictor is None else dict(self._predictor.tasks)

    @property
    def image_sizes(self) -> dict[str, int]:
        """Return the height and width in pixels to which images are resized, by task name."""
        return {} if self._predictor is None else dict(self._predictor.image_sizes)

    @property
    def image_size(self) -> int:
        """Return the height and width in pixels of the images of all tasks.

        Raises:
            LifelongError: tasks have different image sizes.
        """
        return self._known().image_size

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what to know about the files of the run."""
        return () if self._predictor is None else self._predictor.notes

    @property
    def device(self) -> torch.device:
        """Return where the networks are."""
        return self._known().device

    @property
    def summary(self) -> RunRecord:
        """Return the record of everything that was learned, as `lifelong.run` returns it."""
        return self._known().summary

    @checked
    def learn(self, task: str | TaskObject, *, name: str | None = None, progress: bool | Observer = False) -> TaskRecord:
        """Learn one more task.

        Interrupted or failed, the learner is as before; the same call goes on where it was stopped.

        Args:
            task: a task of `lifelong.Task.from_arrays` or `from_dataset`; or, where something has been learned, the address of its images,
                such as ``folder:PATH``.
            name: of the task; None: its own, else its number.
            progress: True prints progress, False is silent; or a `lifelong.Observer`.

        Returns:
            The record of the task: its decision, parameters, accuracy, seconds, ...

        Raises:
            LifelongError: its images cannot be used, or another task has this name.
        """
        with alone("Learner.learn"), listening(progress) as listener:
            if self._predictor is None:
                if isinstance(task, str):
                    raise LifelongError(
                        f"Learner.learn: task = '{shown(task)}': the first task is an object, of lifelong.Task.from_arrays or from_dataset;"
                        " or learn files with lifelong.run, and open the run with Learner.load"
                    )
                return self._first(task if name is None else task_of_held(replace(held_of(task), name=name)), listener)
            before = list(self.tasks)
            summary = learn_more(self._working_copy(), task, self._place, listener, name=name)
        self._predictor = Predictor.load(self._working_copy(), self._place)
        learned = name or (None if isinstance(task, str) else task.name)
        return next((one for one in summary.tasks if one.name == learned and learned in before), summary.tasks[-1])

    def _first(self, task: Task, listener: Observer) -> TaskRecord:
        """Learn the first task, as a run of a stream of one task."""
        address = keep_stream([task], Sources().cache)
        # A folder for each first task: one that failed leaves what it has begun to the same call.
        folder = self._made_home() / address.rpartition("@")[2]
        summary = run_experiment(replace(self._config, stream=address), folder, self._place, listener)
        self._predictor, self._folder = Predictor.load(folder, self._place), folder
        return summary.tasks[-1]

    def _made_home(self) -> Path:
        """Return the temporary folder, which goes when the learner does; a forked process has one of its own."""
        if self._home is None or self._home_of != os.getpid():
            self._home, self._home_of = Path(tempfile.mkdtemp(prefix="lifelong-")), os.getpid()
            weakref.finalize(self, _remove, self._home, self._home_of)
        return self._home

    def _working_copy(self) -> Path:
        """Return the run directory in which the learner learns: of a run that was opened a copy."""
        assert self._folder is not None
        home = self._made_home()
        if home not in self._folder.parents:
            copy = home / "run"
            shutil.rmtree(copy, ignore_errors=True)
            copy_run(self._folder, copy)
            if open_run(copy).names != list(self.tasks):
                raise LifelongError(f"{self._folder} has changed since it was opened; open it again: lifelong.Learner.load(...)")
            self._folder = copy
        return self._folder

    @checked
    def save(self, path: Place) -> Path:
        """Write what was learned as a run directory: for `Learner.load`, and for every command that takes a run, such as `report`.

        Args:
            path: a folder that is new or empty, or holds an earlier state of this learner, which is then replaced in one step.

        Returns:
            The folder.

        Raises:
            LifelongError: nothing has been learned, the folder holds something else, or it cannot be written.
        """
        self._known()
        target = Path(path)
        assert self._folder is not None
        if target.resolve() != self._folder.resolve():
            put_copy(self._folder, target, list(self.tasks))
        return target

    # `Any`: whatever holds images; what cannot be read is named when it is read.
    @checked
    def predict(self, images: Any, task: str | None = None, *, infer: Inference = "auto", skip_broken: bool = False) -> list[Prediction]:
        """Classify images.

        Args:
            images: paths of files and folders; encoded bytes, files opened in binary mode; PIL images; arrays and tensors as
                `lifelong.Task.from_arrays` takes them. A single image needs no list. Images are resized to the image size of each task, as
                in a stream (except that CelebA's are center-cropped here, not squeezed). A uint8 tensor (N, 3, S, S) must have the image
                size of the task, or of all tasks.
            task: task of the images; None: the task of each image is inferred.
            infer: how to infer the task: "method" (the method's own way; PAR: prototypes), "confidence" (of the heads), or "auto" (the
                first available).
            skip_broken: skip unusable images with a warning in the log. Those in a folder are always skipped.

        Returns:
            One prediction per usable image, in order; `Prediction.image` names the image.

        Raises:
            LifelongError: an image is not usable, no task has this name, or `infer` is "method" and the method cannot infer tasks.
        """
        return self._known().predict(images, task, infer=infer, skip_broken=skip_broken)

    # `Any`: as of `predict`.
    @checked
    def predict_each(
        self,
        images: Any,
        task: str | None = None,
        *,
        infer: Inference = "auto",
        skip_broken: bool = False,
        tell: Callable[[float], None] | None = None,
    ) -> Iterator[tuple[str, Prediction | str]]:
        """Yield the name of each image with its prediction, or the reason why it is unusable; a few hundred images are in memory at a time.

        Args:
            images, task, infer, skip_broken: see `predict`.
            tell: called with the number of images that are done, on the way.

        Raises:
            LifelongError: an image that was not found in a folder is not usable, unless `skip_broken`.
        """
        told = isinstance(images, list) and all(isinstance(one, Given) for one in images)
        given = images if told else given_images(images)
        return self._known().predict_each(given, task, infer=infer, skip_broken=skip_broken, tell=tell)

    # `Any`: another type than a tensor of images is refused in words.
    @checked
    def logits(self, images: Any, task: str) -> Float[Tensor, "n c"]:
        """Compute the logits of the classes of a task.

        Args:
            images: uint8 RGB tensor of shape (N, 3, S, S), where S is the image size of the task.
            task: name of the task.

        Raises:
            LifelongError: no task has this name, or the images have another type or shape.
        """
        return self._known().logits(images, task)

    # `Any`: as of `predict`.
    @checked
    def read(self, images: Any, task: str | None = None) -> UInt8[Tensor, "n 3 h w"]:
        """Read images, as `predict` takes them, into one tensor.

        Args:
            images: see `predict`.
            task: task to whose image size they are resized; None: the size of all tasks.

        Raises:
            LifelongError: an image is not usable, or no task is given and image sizes differ.
        """
        return self._known().read(images, task)

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name, value in self._given.items() if value is not None and name != "environment"]
        return f"Learner({', '.join(said)})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._predictor is not None:
            raise LifelongError("a learner is not pickled: write it with learner.save(path), and open it with lifelong.Learner.load(path)")
        return _made, (self._given,)

    def _known(self) -> Predictor:
        """Return what answers.

        Raises:
            LifelongError: nothing has been learned.
        """
        if self._predictor is None:
            raise LifelongError("nothing has been learned yet; call learner.learn(task) first")
        return self._predictor


def _remove(folder: Path, process: int) -> None:
    """Delete a temporary folder, if this is the process that made it, and none that was forked from it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _made(given: dict[str, Any]) -> Learner:
    return Learner(**given)
