"""Answer by what a run has learned: images in, names of tasks and classes out."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lifelong.data.given import Given, as_pictures, check_dense, decode_given, given_images, unusable_line
from lifelong.errors import LifelongError
from lifelong.experiment.machine import SMALL_IMAGES, choose_device, threads_of_environment
from lifelong.experiment.run import extractor_opener
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.experiment.task_agnostic import Inference, Shown, Told, recognize
from lifelong.prediction import Prediction
from lifelong.records.run import RunRecord
from lifelong.settings.run import Environment, RunConfig
from lifelong.training.examples import EVALUATION_BATCH
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import exact_float32
from lifelong.training.process import as_found, threads_of

SMALL_BATCH_PIXELS = 2**14
"""Pixels per forward pass on a CPU (16 images of 32 x 32): the maps of a whole pass fit into the freed memory that the C library keeps, and
those of one operation fit into the cache. In larger batches an image takes up to twice as long."""

log = logging.getLogger(__name__)


class Predictor:
    """What a run had learned when it was opened, to predict with from any number of threads.

    Args:
        saved: the run.
        place: where the device is, and the weights of the feature extractor.
        device: where the run's networks are.

    Attributes:
        tasks: classes of each task in label order, by task name, in the order of learning.
        image_sizes: height and width in pixels to which images are resized, by task name.
        notes: what to know about the files of the run.
    """

    def __init__(self, saved: SavedRun, place: Environment, device: torch.device) -> None:
        sizes = [entry.side for entry in saved.entries]
        self.tasks: dict[str, tuple[str, ...]] = dict(zip(saved.names, map(saved.classes, range(len(sizes))), strict=True))
        self.image_sizes: dict[str, int] = dict(zip(saved.names, sizes, strict=True))
        self.device = device
        self.notes: tuple[str, ...] = saved.notes
        self._saved, self._place = saved, place
        self._attached, self._attaching = False, threading.Lock()

    @property
    def config(self) -> RunConfig:
        """The settings with which the run was learned."""
        return self._saved.config

    @property
    def summary(self) -> RunRecord:
        """The record of the run that was opened."""
        return self._saved.summary()

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images of all tasks.

        Raises:
            LifelongError: tasks have different image sizes.
        """
        sizes = sorted(set(self.image_sizes.values()))
        if len(sizes) > 1:
            raise LifelongError(f"the tasks have images of {' and '.join(map(str, sizes))} pixels a side; see image_sizes")
        return sizes[0]

    @classmethod
    def load(cls, run: Path, place: Environment) -> "Predictor":
        """Open a run directory; see `lifelong.learner.Learner.load`."""
        chosen = choose_device(place.device)
        with as_found():
            saved = open_run(run, chosen)
        found = cls(saved, place, chosen)
        if chosen.type == "cpu":
            keep_small_blocks()
            for module in {module: None for task in range(len(found.tasks)) for module in saved.method.modules(task)}:
                # In the layout of the images, so that convolutions need not reorder weights at every call. No result changes.
                for tensor in (*module.parameters(), *module.buffers()):
                    if tensor.ndim == 4:
                        tensor.data = tensor.data.to(memory_format=torch.channels_last)
        return found

    # `Any`: whatever holds images; what cannot be read is named when it is read.
    def predict(self, images: Any, task: str | None = None, *, infer: Inference = "auto", skip_broken: bool = False) -> list[Prediction]:
        """Classify images; see `lifelong.learner.Learner.predict`."""
        images = as_pictures(images)
        if isinstance(images, Tensor):
            known = None if task is None else self._saved.task_index(task)
            sizes = self._sizes(known)
            answers = self._answers(Shown(self._views(images, sizes), sizes), known, infer)
            names = [f"image {number}" for number in range(len(answers))] if images.ndim == 4 else ["the image"]
            return [replace(answer, image=name) for name, answer in zip(names, answers, strict=True)]
        found: list[Prediction] = []
        left_out: list[tuple[str, str]] = []
        for name, answer in self.predict_each(given_images(images), task, infer=infer, skip_broken=skip_broken):
            if isinstance(answer, str):
                left_out.append((name, answer))
            else:
                found.append(answer)
        if left_out:
            log.warning("%s", unusable_line(left_out, len(left_out) + len(found)))
        return found

    def predict_each(
        self,
        images: Sequence[Given],
        task: str | None = None,
        *,
        infer: Inference = "auto",
        skip_broken: bool = False,
        tell: Callable[[float], None] | None = None,
    ) -> Iterator[tuple[str, Prediction | str]]:
        """Yield the name of each image with its prediction, or the reason why it is unusable; a few hundred images are in memory at a time.

        Args:
            images: see `lifelong.data.given.given_images`.
            task, infer, skip_broken: see `predict`.
            tell: called now and then with the number of images done; reading and predicting count one half each.

        Raises:
            LifelongError: as `predict`; after all images have been read, if some are unusable, or all are.
        """
        known = None if task is None else self._saved.task_index(task)
        sizes = self._sizes(known)
        wrong: list[tuple[str, str]] = []
        left_out: list[tuple[str, str]] = []
        work = _Work(tell)
        for start in range(0, len(images), EVALUATION_BATCH):
            part = images[start : start + EVALUATION_BATCH]
            share = 0.5 / len(set(sizes))
            decoded = {size: _decoded(part, size, lambda more, share=share: work.add(more * share)) for size in dict.fromkeys(sizes)}
            problems = decoded[sizes[0]][1]
            wrong += [(part[place].name, reason) for place, reason in problems.items() if not (skip_broken or part[place].found)]
            kept = [place for place in range(len(part)) if place not in problems]
            shown = Shown({size: pixels[kept] for size, (pixels, _) in decoded.items()}, sizes)
            answers = iter([] if wrong else self._answers(shown, known, infer, work))
            for place, one in enumerate(part):
                if place in problems:
                    left_out.append((one.name, problems[place]))
                    yield left_out[-1]
                elif not wrong:
                    yield one.name, replace(next(answers), image=one.name)
            work.reach(float(start + len(part)))
        if wrong:
            raise LifelongError(f"{unusable_line(wrong, len(images))}; leave them out, or give --skip-broken (skip_broken=True)")
        if images and len(left_out) == len(images):
            raise LifelongError(f"{unusable_line(left_out, len(images))}; none is left")

    # `Any`: another type than a tensor of images is refused in words.
    def logits(self, images: Any, task: str) -> Float[Tensor, "n c"]:
        """Compute the logits of the classes of a task; see `lifelong.learner.Learner.logits`."""
        index = self._saved.task_index(task)
        checked = _checked(images, self.image_sizes[self._saved.names[index]])
        with exact_float32(self.device), self._threads():
            return self._saved.method.logits(checked.to(self.device), index)

    def _threads(self) -> AbstractContextManager[None]:
        """Return a context with the learner's number of threads."""
        small = max(self.image_sizes.values()) <= SMALL_IMAGES and threads_of_environment() is None
        return threads_of(self._place.threads or (1 if small else torch.get_num_threads()))

    # `Any`: as of `predict`.
    def read(self, images: Any, task: str | None = None) -> UInt8[Tensor, "n 3 h w"]:
        """Read images, as `predict` takes them, into one tensor; see `lifelong.learner.Learner.read`."""
        images = as_pictures(images)
        size = self.image_size if task is None else self.image_sizes[self._saved.names[self._saved.task_index(task)]]
        return self._views(images, (size,))[size]

    def _views(self, images: Any, sizes: Sequence[int]) -> dict[int, UInt8[Tensor, "n 3 h w"]]:
        """Read images in every requested size."""
        if isinstance(images, Tensor):
            if len(set(sizes)) > 1:
                raise LifelongError(
                    f"a tensor of one size for tasks of {' and '.join(map(str, sorted(set(sizes))))} pixels a side: name the task,"
                    " or give files, PIL images or arrays to have them resized for each"
                )
            return {sizes[0]: _checked(images if images.ndim == 4 else images[None], sizes[0])}
        given = given_images(images)
        views = {}
        for size in dict.fromkeys(sizes):
            views[size], problems = _decoded(given, size)
            if problems:
                wrong = [(given[place].name, reason) for place, reason in problems.items()]
                raise LifelongError(f"{unusable_line(wrong, len(given))}; leave them out")
        return views

    def _sizes(self, known: int | None) -> tuple[int, ...]:
        """Return the image size for each task; if the task is known, its size for all."""
        sizes = tuple(self.image_sizes.values())
        return sizes if known is None else (sizes[known],) * len(sizes)

    def _answers(self, images: Shown, known: int | None, infer: Inference, work: "_Work | None" = None) -> list[Prediction]:
        told = work or _Work()
        with torch.inference_mode(), exact_float32(self.device), self._threads():
            parts = [self._answer(self._moved(part), known, infer, told) for part in images.split(EVALUATION_BATCH) if len(part.of(0))]
        return [prediction for part in parts for prediction in part]

    def _moved(self, images: Shown) -> Shown:
        """Move images to the device."""
        return replace(images, views={size: view.to(self.device) for size, view in images.views.items()})

    def _answer(self, images: Shown, known: int | None, infer: Inference, work: "_Work") -> list[Prediction]:
        names, count = list(self.tasks), len(images.of(0))
        share = 0.5 if known is not None else 0.25  # of an image's work, for each pass
        told = Told(None, None) if known is not None else self._recognize(images, infer, lambda more: work.add(more * share))
        owners = torch.full((count,), known or 0) if told.probabilities is None else told.probabilities.argmax(dim=1).cpu()
        tasks = [None] * count if told.probabilities is None else _ranked(names, told.probabilities)
        strange = [None] * count if told.strangeness is None else (told.strangeness > 1).tolist()
        found: dict[int, Prediction] = {}
        for owner in owners.unique().tolist():
            rows, name = (owners == owner).nonzero().flatten(), names[owner]
            if told.logits is None:
                logits = self._logits(images.rows(rows), owner, lambda more: work.add(more * share))
            else:
                logits = told.logits[owner][rows.to(self.device)]
            for row, classes in zip(rows.tolist(), _ranked(self.tasks[name], logits.softmax(dim=1)), strict=True):
                label, probability = next(iter(classes.items()))
                found[row] = Prediction(name, label, probability, classes, tasks[row], strange[row])
        return [found[row] for row in range(count)]

    def _logits(self, images: Shown, task: int, tell: Callable[[int], None]) -> Float[Tensor, "n c"]:
        found: list[Tensor] = []
        for part in self._batches(images):
            found.append(self._saved.method.logits(part.of(task), task))
            tell(len(found[-1]))
        return torch.cat(found)

    def _recognize(self, images: Shown, infer: Inference, tell: Callable[[int], None]) -> Told:
        self._attach()
        parts: list[Told] = []
        for part in self._batches(images):
            parts.append(recognize(self._saved.method, part, infer))
            tell(len(part.of(0)))
        probabilities, strangeness = _joined([part.probabilities for part in parts]), _joined([part.strangeness for part in parts])
        if probabilities is None:
            raise LifelongError(
                f"the method '{self._saved.method.name}' cannot infer an image's task; name it with --task, or use --infer confidence"
            )
        logits = [part.logits for part in parts if part.logits is not None]
        return Told(probabilities, strangeness, [torch.cat(task) for task in zip(*logits, strict=True)] or None)

    def _batches(self, images: Shown) -> Sequence[Shown]:
        """Split the images into parts for one forward pass each."""
        if self.device.type != "cpu" or self._saved.method.batch_dependent:
            return [images]
        return images.split(max(1, SMALL_BATCH_PIXELS // max(images.views) ** 2))

    def _attach(self) -> None:
        """Open the feature extractor when the first prediction needs it."""
        with self._attaching:
            if self._attached:
                return
            if self._saved.method.extractor() is not None:
                self._saved.check_weights(self._place.weights)
            self._saved.method.attach_extractor(extractor_opener(self._place, self.device))
            self._attached = True


class _Work:
    """A counter of the images that are done.

    Args:
        tell: called with the count.
    """

    def __init__(self, tell: Callable[[float], None] | None = None) -> None:
        self._tell, self._done = tell, 0.0

    def add(self, images: float) -> None:
        """Add to the count; may be a fraction."""
        self.reach(self._done + images)

    def reach(self, images: float) -> None:
        """Set the count."""
        self._done = images
        if self._tell is not None:
            self._tell(images)


def _decoded(
    given: Sequence[Given], size: int, tell: Callable[[int], None] | None = None
) -> tuple[UInt8[Tensor, "n 3 s s"], dict[int, str]]:
    """Decode images to a tensor; see `decode_given`."""
    squares, problems = decode_given(given, size, tell)
    return torch.from_numpy(squares), problems


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate what was said of parts of the images; None where nothing was."""
    said = [part for part in parts if part is not None]
    return torch.cat(said) if said else None


def _ranked(names: Sequence[str], shares: Float[Tensor, "n k"]) -> list[dict[str, float]]:
    """Return the names with their shares for each row, largest first."""
    ranked = shares.sort(dim=1, descending=True, stable=True)
    rows = zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
    return [{names[position]: share for position, share in zip(*row, strict=True)} for row in rows]


def _checked(images: Any, size: int) -> UInt8[Tensor, "n 3 h w"]:
    """Check that a tensor of images has the right type and size.

    Raises:
        LifelongError: it does not.
    """
    wanted = (3, size, size)
    if isinstance(images, Tensor):
        check_dense(images, "images")
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != wanted:
        given = f"of shape {tuple(images.shape)} and type {images.dtype}" if isinstance(images, Tensor) else f"as a {type(images).__name__}"
        raise LifelongError(
            f"images {given}: this run takes uint8 of shape"
            f" (N, {', '.join(map(str, wanted))}); give files, PIL images or arrays to have them resized"
        )
    return images
