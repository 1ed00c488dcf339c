"""Answer by the models of a bundle, as the `Learner` of its run does."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from lifelong.data.given import Given, decode_given, given_images, unusable_line
from lifelong.errors import LifelongError, near_miss
from lifelong.prediction import Prediction
from lifelong.runtime.description import NORMALIZATION, model_file, read_description
from lifelong.runtime.model_files import first_line, open_model, read_model

BATCH = 256
"""Images in memory at a time, as in a `Learner`."""

BATCH_PIXELS = 2**14
"""Pixels per forward pass, as in a `Learner` on a CPU."""

MOST_THREADS = 1024
"""As of the library: many more threads than there are cores crash the process."""

Inference = Literal["auto", "method", "confidence"]
"""How to infer the task of an image; see `Bundle.predict`."""

Arrays = dict[str, np.ndarray]
"""Arrays whose first axis is that of the images, by the name of the input or output that they are."""

log = logging.getLogger(__name__)


class Bundle:
    """An exported bundle to predict with, from any number of threads.

    Args:
        folder: of the bundle.
        threads: to compute on, at most 1024; 0: one per core.

    Attributes:
        tasks: classes of each task in label order, by task name, in the order of learning.

    Raises:
        LifelongError: an argument is not valid, the folder is not a bundle, or a file of it is damaged.
    """

    def __init__(self, folder: str | PathLike[str], threads: int = 1) -> None:
        _hold("Bundle", "folder", folder, isinstance(folder, (str, PathLike)) and bool(fspath(folder)), "a path")
        whole = isinstance(threads, (int, np.integer)) and not isinstance(threads, bool)
        _hold("Bundle", "threads", threads, whole and 0 <= threads <= MOST_THREADS, f"an integer >= 0 and <= {MOST_THREADS}")
        self._folder, self._threads = Path(folder), int(threads)
        self._about = read_description(self._folder)
        self.tasks: dict[str, tuple[str, ...]] = {task.name: task.classes for task in self._about.tasks}
        self._sessions: dict[int, Any] = {}
        self._opening = threading.Lock()
        for position, model in enumerate(self._about.models):
            read_model(self._folder / model_file(position), model.sha256)

    # `Any`: whatever holds images; what cannot be read is named when it is read.
    def predict(self, images: Any, task: str | None = None, *, infer: Inference = "auto", skip_broken: bool = False) -> list[Prediction]:
        """Classify images.

        Args:
            images: paths of files and folders; encoded bytes, files opened in binary mode; PIL images; arrays and tensors, as
                `lifelong.Learner.predict` takes them. A single image needs no list. Images are resized as in a stream.
            task: task of the images; None: the task of each image is inferred.
            infer: how: by what the method learned to recognize tasks ("method"), by the confidence of the heads, or by the first of the
                two that the bundle has.
            skip_broken: skip unusable images with a warning in the log. Those in a folder are always skipped.

        Returns:
            One prediction per usable image, in order.

        Raises:
            LifelongError: an argument is not valid, an image is not usable, no task has this name, or `infer` is "method" and the bundle
                has no such way.
        """
        given = given_images(images)
        found, left_out = [], []
        for one, answer in self.predict_each(given, task, infer, skip_broken=skip_broken):
            left_out.append((one.name, answer)) if isinstance(answer, str) else found.append(answer)
        if left_out:
            log.warning("%s", unusable_line(left_out, len(given)))
        return found

    def predict_each(
        self, given: Sequence[Given], task: str | None = None, infer: Inference = "auto", *, skip_broken: bool = False
    ) -> Iterator[tuple[Given, Prediction | str]]:
        """Yield each image with its prediction, or the reason why it is unusable; arguments as of `predict`.

        Raises:
            LifelongError: as `predict`; after all images have been read, if none of them is usable.
        """
        _hold("Bundle.predict", "task", task, task is None or isinstance(task, str), "a text")
        _hold("Bundle.predict", "infer", infer, isinstance(infer, str) and infer in get_args(Inference), f"one of {_INFERENCES}")
        _hold("Bundle.predict", "skip_broken", skip_broken, isinstance(skip_broken, (bool, np.bool_)), "true or false")
        known = None if task is None else self._position(task)
        sizes = sorted({one.image_size for one in self._about.tasks} if known is None else {self._about.tasks[known].image_size})
        left_out: list[tuple[str, str]] = []
        for start in range(0, len(given), BATCH):
            part = given[start : start + BATCH]
            decoded = {size: decode_given(part, size) for size in sizes}
            problems = decoded[sizes[0]][1]
            if wrong := [(part[place].name, why) for place, why in problems.items() if not (skip_broken or part[place].found)]:
                raise LifelongError(f"{unusable_line(wrong, len(given))}; leave them out, or give --skip-broken (skip_broken=True)")
            left_out += [(part[place].name, why) for place, why in problems.items()]
            kept = [place for place in range(len(part)) if place not in problems]
            answers = iter(self._predicted({f"images_{size}": views[kept] for size, (views, _) in decoded.items()}, known, infer))
            for place, one in enumerate(part):
                yield one, problems[place] if place in problems else replace(next(answers), image=one.name)
        if left_out and len(left_out) == len(given):
            raise LifelongError(f"{unusable_line(left_out, len(given))}; none is left")

    def _predicted(self, images: Arrays, known: int | None, infer: str) -> list[Prediction]:
        count = len(next(iter(images.values())))
        largest = max(one.image_size for one in self._about.tasks)
        step = max(1, count if self._about.together else BATCH_PIXELS // largest**2)
        parts = (_rows(images, slice(start, start + step)) for start in range(0, count, step))
        return [answer for part in parts for answer in self._answers(part, known, infer)]

    def _answers(self, values: Arrays, known: int | None, infer: str) -> list[Prediction]:
        count = len(next(iter(values.values())))
        tasks, strangeness, heads = (None, None, None) if known is not None else self._recognized(values, infer)
        owners = np.full(count, known) if tasks is None else tasks.argmax(axis=1)
        answers: dict[int, Prediction] = {}
        for owner in np.unique(owners).tolist():
            rows, about = np.flatnonzero(owners == owner), self._about.tasks[owner]
            logits = self._logits(_rows(values, rows), [owner])[0] if heads is None else heads[owner][rows]
            for row, shares in zip(rows.tolist(), softmax(logits), strict=True):
                classes = ranked(about.classes, shares)
                label = next(iter(classes))
                of_tasks = None if tasks is None else ranked(list(self.tasks), tasks[row])
                strange = None if strangeness is None else bool(strangeness[row] > self._about.strange_above)
                answers[row] = Prediction(about.name, label, classes[label], classes, of_tasks, strange)
        return [answers[row] for row in range(count)]

    def _recognized(self, values: Arrays, infer: str) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray] | None]:
        """Return task probabilities, strangeness, and the logits of every task if all heads were asked; adds what the first model gives."""
        names = self._about.recognizes
        if infer == "method" and "tasks" not in names:
            raise LifelongError("this bundle's method cannot infer an image's task; name it, or use infer='confidence'")
        found = self._run(0, [*names, *self._about.models[0].gives], values) if names else {}
        self._check(0, found, "tasks", (len(self.tasks),))
        self._check(0, found, "strangeness", ())
        values |= {name: found[name] for name in found if name not in names}
        own, strangeness = found.get("tasks") if infer != "confidence" else None, found.get("strangeness")
        if own is not None:
            return own, strangeness, None
        heads = self._logits(values, range(len(self.tasks)))
        # An answer that depends on the other images is asked for again, beside those of its own task alone.
        return self._confidence(heads), strangeness, None if self._about.together else heads

    def _confidence(self, heads: Sequence[np.ndarray]) -> np.ndarray:
        """Return the share of each task in the confidence of all heads (`lifelong.experiment.task_agnostic.confidence`)."""
        largest = np.stack([softmax(logits).max(axis=1) for logits in heads], axis=1)
        chance = np.array([1 / len(classes) for classes in self.tasks.values()], np.float32)
        above = np.maximum(largest - chance, np.float32(1e-6)) / (1 - chance)
        return above / above.sum(axis=1, keepdims=True)

    def _logits(self, values: Arrays, tasks: Sequence[int]) -> list[np.ndarray]:
        """Return the logits of tasks; those that look at images through one model in the same way are computed together."""
        alike: dict[tuple[object, ...], list[int]] = {}
        for task in tasks:
            about = self._about.tasks[task]
            told = NORMALIZATION in self._about.models[about.model].inputs
            alike.setdefault((about.model, *([about.mean, about.std] if told else [])), []).append(task)
        found: dict[int, np.ndarray] = {}
        for some in alike.values():
            first = self._about.tasks[some[0]]
            scale = [1 / (255 * std) for std in first.std]
            shift = [-mean / std for mean, std in zip(first.mean, first.std, strict=True)]
            missing = [name for name in dict.fromkeys(self._about.tasks[task].output for task in some) if name not in values]
            known = values | {NORMALIZATION: np.array([scale, shift], np.float32)}
            outputs = values | (self._run(first.model, missing, known) if missing else {})
            for task in some:
                about = self._about.tasks[task]
                self._check(about.model, outputs, about.output, (len(about.classes),))
                found[task] = outputs[about.output]
        return [found[task] for task in tasks]

    def _run(self, position: int, names: Sequence[str], values: Mapping[str, np.ndarray]) -> Arrays:
        """Compute outputs of a model, and nothing else of it."""
        import onnxruntime

        model, count = self._about.models[position], len(next(iter(values.values())))
        missing = [name for name in model.inputs if name not in values]
        # A task that is named needs its own images alone; what has other sizes is not computed.
        blank = {name: np.zeros((count, 3, *2 * [int(name[7:])]), np.uint8) for name in missing if name.startswith("images_")}
        more = self._run(0, [name for name in missing if name not in blank], values) if len(missing) > len(blank) else {}
        options = onnxruntime.RunOptions()
        options.only_execute_path_to_fetches = True
        known = {**values, **blank, **more}
        session = self._session(position)
        try:
            found = session.run(list(names), {name: known[name] for name in model.inputs}, options)
        except Exception as error:  # ONNX Runtime has exceptions of many kinds
            file = self._folder / model_file(position)
            raise LifelongError(f"{file}: cannot be computed ({first_line(error)}); export the bundle again") from error
        outputs = dict(zip(names, found, strict=True))
        for name, value in outputs.items():
            self._check(position, outputs, name, value.shape[1:], count)
        return outputs

    def _check(self, position: int, outputs: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], count: int | None = None) -> None:
        """Check the shape of an output, if it is there: a model may give something else than its description says."""
        value = outputs.get(name)
        if value is not None and (value.shape[1:] != shape or (count is not None and value.shape[:1] != (count,))):
            file = self._folder / model_file(position)
            raise LifelongError(f"{file}: '{name}' has the shape {value.shape}, which its description denies; export the bundle again")

    def _session(self, position: int) -> Any:
        """Open a model when it is first needed."""
        with self._opening:
            if position not in self._sessions:
                file, sha256 = self._folder / model_file(position), self._about.models[position].sha256
                self._sessions[position] = open_model(file, sha256, self._threads)
            return self._sessions[position]

    def _position(self, task: str) -> int:
        if task not in self.tasks:
            raise LifelongError(f"{self._folder} has learned no task '{task}'{near_miss(task, self.tasks)}")
        return list(self.tasks).index(task)


_INFERENCES = ", ".join(f"'{name}'" for name in get_args(Inference))


def _hold(call: str, name: str, value: object, fits: bool, wanted: str) -> None:
    """Check an argument, as `lifelong.settings.arguments.checked` does, which needs a package that the runtime does without."""
    if not fits:
        raise LifelongError(f"{call}: {name} = {' '.join(repr(value).split())[:60]}: expected {wanted}")


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of classes (n, c)."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def ranked(names: Sequence[str], shares: np.ndarray) -> dict[str, float]:
    """Return names with their shares, the largest first."""
    return {names[place]: float(shares[place]) for place in np.argsort(-shares, kind="stable")}


def _rows(values: Mapping[str, np.ndarray], which: Any) -> Arrays:
    return {name: value[which] for name, value in values.items()}
