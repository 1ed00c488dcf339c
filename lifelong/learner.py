"""What a run has learned, put to use: images in, names of tasks and classes out."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lifelong.data.given import Given, decode_given, given_images, unusable_line
from lifelong.errors import LifelongError
from lifelong.experiment.machine import SMALL_IMAGES, choose_device, threads_of_environment
from lifelong.experiment.run import extractor_opener
from lifelong.experiment.saved import SavedRun, open_run
from lifelong.experiment.taskfree import Inference, Shown, recognize
from lifelong.methods.method import Recognized
from lifelong.places import Device, Place, environment
from lifelong.settings.arguments import Threads, checked
from lifelong.settings.run import Environment
from lifelong.training.examples import EVALUATION_BATCH
from lifelong.training.malloc import keep_small_blocks
from lifelong.training.precision import exact_float32
from lifelong.training.process import as_found, threads_of

SMALL_BATCH_PIXELS = 2**14
"""Pixels per forward pass on a CPU (16 images of 32 x 32): the maps of a whole pass fit into what the C library keeps of freed memory, and
one operation's into the cache. In larger batches an image takes up to twice as long."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What one image is taken for.

    Attributes:
        task: the task that answers: the one that was named, or else the most likely one.
        label: the most likely class of this task.
        probability: of the class, by the task's head.
        classes: the probability of every class of the task, from the most likely down.
        tasks: the probability of every task, from the most likely down; None where the task was named.
        strange: whether the image is unlike anything learned: farther out than 95 % of the validation images of every task; None if the
            method cannot tell.
        image: what the image is called: its path, or its place among those that were given.
    """

    task: str
    label: str
    probability: float
    classes: dict[str, float]
    tasks: dict[str, float] | None
    strange: bool | None
    image: str = field(default="", compare=False)

    @property
    def task_probability(self) -> float | None:
        """Of the task that answers; None where it was named."""
        return None if self.tasks is None else self.tasks[self.task]


class Learner:
    """A run whose learned tasks can be asked, by any number of threads at once. `Learner.load` opens one.

    Attributes:
        tasks: the classes of each task in label order, by the task's name, in the order of learning.
        image_sizes: height and width in pixels that images are brought to, by the task's name.
        notes: what a person should know of the run's files.
    """

    def __init__(self, saved: SavedRun, place: Environment, device: torch.device) -> None:
        sizes = [entry["image_size"] for entry in saved.entries]
        self.tasks: dict[str, tuple[str, ...]] = dict(zip(saved.names, map(saved.classes, range(len(sizes))), strict=True))
        self.image_sizes: dict[str, int] = dict(zip(saved.names, sizes, strict=True))
        self.device = device
        self.notes: tuple[str, ...] = saved.notes
        self._saved, self._place = saved, place
        self._attached, self._attaching = False, threading.Lock()

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images of all tasks.

        Raises:
            LifelongError: tasks have images of several sizes.
        """
        sizes = sorted(set(self.image_sizes.values()))
        if len(sizes) > 1:
            raise LifelongError(f"the tasks have images of {' and '.join(map(str, sizes))} pixels a side; see image_sizes")
        return sizes[0]

    @classmethod
    @checked
    def load(
        cls, run: Place, *, weights: Place | None = None, device: Device = "auto", download: bool = False, threads: Threads = 0
    ) -> "Learner":
        """Open a run directory; nothing is written to it.

        On a CPU glibc keeps up to 64 MB of freed memory from then on (`keep_small_blocks`); all else in the process stays as it was.

        Args:
            run: the directory of a run that has learned a task at least.
            weights: file of the feature extractor, for PAR and Expert Gate, where tasks are to be inferred; by default LIFELONG_WEIGHTS.
            device: where to compute: "auto", "cpu", "cuda", "cuda:1", ... or "mps".
            download: fetch missing weights from the hub.
            threads: of the processor, while it answers; 0: one for images of up to 16 pixels a side, else as many as the program has.

        Raises:
            LifelongError: there is no such run, another version made it, or there is no such device.
        """
        chosen = choose_device(device)
        with as_found():
            saved = open_run(Path(run), chosen)
        learner = cls(saved, environment(None, weights, device, download, threads), chosen)
        if chosen.type == "cpu":
            keep_small_blocks()
            for task in range(len(learner.tasks)):
                for module in saved.method.modules(task):
                    # As images come: convolutions need not bring their weights into order at every call. No number changes.
                    module.to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
        return learner

    @checked
    def predict(self, images: Any, task: str | None = None, *, infer: Inference = "auto", skip_broken: bool = False) -> list[Prediction]:
        """What images are taken for.

        Args:
            images: paths of files and folders; encoded bytes, files opened in binary mode; PIL images; uint8 arrays of shape (H, W),
                (H, W, 3) or (H, W, 4), or batches of them (N, H, W, 3); or a uint8 tensor of shape (N, 3, H, W). One alone may stand
                without a list. Each task is shown them in the size of its images, to which they are brought as a stream's are (but for
                those of CelebA, which are squeezed: here the middle square is taken). A tensor must have the size of the task, or that
                of all.
            task: the name of the task they belong to; None: it is inferred, image by image.
            infer: how: "method" by the method's own way (PAR: its prototypes), "confidence" by that of the heads, "auto" by the first if
                there is one.
            skip_broken: leave out images that cannot be used, with a warning in the log. Of those that a folder holds they always are.

        Returns:
            One for each image that can be used, in order; `Prediction.image` says which.

        Raises:
            LifelongError: an image cannot be used, no task has this name, or the method has no way of its own and is told to use it.
        """
        if isinstance(images, Tensor):
            known = None if task is None else self._saved.task_index(task)
            sizes = self._sizes(known)
            return self._answers(Shown(self._views(images, sizes), sizes), known, infer)
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
        """What each image is called and what it is taken for, or why it cannot be used; some hundred images are held at a time.

        Args:
            images: see `lifelong.data.given.given_images`.
            task, infer, skip_broken: see `predict`.
            tell: is told now and then how many images are done: read, and then answered, which counts one half each.

        Raises:
            LifelongError: as `predict` does; after all images have been looked at, if some cannot be used, or if none can.
        """
        known = None if task is None else self._saved.task_index(task)
        sizes = self._sizes(known)
        wrong: list[tuple[str, str]] = []
        left_out: list[tuple[str, str]] = []
        work = _Work(tell)
        for start in range(0, len(images), EVALUATION_BATCH):
            part = images[start : start + EVALUATION_BATCH]
            share = 0.5 / len(set(sizes))
            decoded = {size: decode_given(part, size, lambda more, share=share: work.add(more * share)) for size in dict.fromkeys(sizes)}
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

    @checked
    def logits(self, images: Any, task: str) -> Float[Tensor, "n c"]:
        """Logits of the classes of a task.

        Args:
            images: a uint8 tensor, RGB, of shape (N, 3, S, S), S being the size of the task's images.
            task: its name.

        Raises:
            LifelongError: no task has this name, or the images are of another type or shape.
        """
        index = self._saved.task_index(task)
        checked = _checked(images, self.image_sizes[self._saved.names[index]])
        with exact_float32(self.device), self._threads():
            return self._saved.method.logits(checked.to(self.device), index)

    def _threads(self) -> AbstractContextManager[None]:
        """A block with the learner's number of threads."""
        small = max(self.image_sizes.values()) <= SMALL_IMAGES and threads_of_environment() is None
        return threads_of(self._place.threads or (1 if small else torch.get_num_threads()))

    @checked
    def read(self, images: Any, task: str | None = None) -> UInt8[Tensor, "n 3 h w"]:
        """Images as `predict` takes them, as one tensor.

        Args:
            images: see `predict`.
            task: the name of the task to whose size they are brought; None: that of all.

        Raises:
            LifelongError: one cannot be used, or no task is named and they have several sizes.
        """
        size = self.image_size if task is None else self.image_sizes[self._saved.names[self._saved.task_index(task)]]
        return self._views(images, (size,))[size]

    def _views(self, images: Any, sizes: Sequence[int]) -> dict[int, UInt8[Tensor, "n 3 h w"]]:
        """Images in every size that is wanted."""
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
            views[size], problems = decode_given(given, size)
            if problems:
                wrong = [(given[place].name, reason) for place, reason in problems.items()]
                raise LifelongError(f"{unusable_line(wrong, len(given))}; leave them out")
        return views

    def _sizes(self, known: int | None) -> tuple[int, ...]:
        """The size in which each task is shown images; where the task is known, that of this one for all."""
        sizes = tuple(self.image_sizes.values())
        return sizes if known is None else (sizes[known],) * len(sizes)

    def _answers(self, images: Shown, known: int | None, infer: Inference, work: "_Work | None" = None) -> list[Prediction]:
        told = work or _Work()
        with torch.inference_mode(), exact_float32(self.device), self._threads():
            parts = [self._answer(self._moved(part), known, infer, told) for part in images.split(EVALUATION_BATCH) if len(part.of(0))]
        return [prediction for part in parts for prediction in part]

    def _moved(self, images: Shown) -> Shown:
        """Images on the device."""
        return replace(images, views={size: view.to(self.device) for size, view in images.views.items()})

    def _answer(self, images: Shown, known: int | None, infer: Inference, work: "_Work") -> list[Prediction]:
        method, names, count = self._saved.method, list(self.tasks), len(images.of(0))
        share = 0.5 if known is not None else 0.25  # of an image's work, for each pass
        told = Recognized(None, None) if known is not None else self._recognize(images, infer, lambda more: work.add(more * share))
        owners = torch.full((count,), known or 0) if told.probabilities is None else told.probabilities.argmax(dim=1).cpu()
        tasks = [None] * count if told.probabilities is None else _ranked(names, told.probabilities)
        strange = [None] * count if told.strangeness is None else (told.strangeness > 1).tolist()
        found: dict[int, Prediction] = {}
        for owner in owners.unique().tolist():
            rows, name = (owners == owner).nonzero().flatten(), names[owner]
            answers: list[Tensor] = []
            for part in self._batches(images.rows(rows)):
                answers.append(method.logits(part.of(owner), owner))
                work.add(len(answers[-1]) * share)
            logits = torch.cat(answers)
            for row, classes in zip(rows.tolist(), _ranked(self.tasks[name], logits.softmax(dim=1)), strict=True):
                label, probability = next(iter(classes.items()))
                found[row] = Prediction(name, label, probability, classes, tasks[row], strange[row])
        return [found[row] for row in range(count)]

    def _recognize(self, images: Shown, infer: Inference, tell: Callable[[int], None]) -> Recognized:
        self._attach()
        parts: list[Recognized] = []
        for part in self._batches(images):
            parts.append(recognize(self._saved.method, part, infer))
            tell(len(part.of(0)))
        probabilities, strangeness = (torch.cat(found) if found[0] is not None else None for found in zip(*parts, strict=True))
        if probabilities is None:
            raise LifelongError(
                f"the method '{self._saved.method.name}' has no way of its own to find an image's task;"
                " name it with --task, or use --infer confidence"
            )
        return Recognized(probabilities, strangeness)

    def _batches(self, images: Shown) -> Sequence[Shown]:
        """The images in parts for one forward pass each."""
        if self.device.type != "cpu" or self._saved.method.batch_dependent:
            return [images]
        return images.split(max(1, SMALL_BATCH_PIXELS // max(images.views) ** 2))

    def _attach(self) -> None:
        """Open the feature extractor when the first answer needs it."""
        with self._attaching:
            if self._attached:
                return
            if self._saved.method.extractor() is not None:
                self._saved.check_weights(self._place.weights)
            self._saved.method.attach_extractor(extractor_opener(self._place, self.device))
            self._attached = True


class _Work:
    """How many images are done.

    Args:
        tell: is told so.
    """

    def __init__(self, tell: Callable[[float], None] | None = None) -> None:
        self._tell, self._done = tell, 0.0

    def add(self, images: float) -> None:
        """So many more, also parts of one."""
        self.reach(self._done + images)

    def reach(self, images: float) -> None:
        """So many in all."""
        self._done = images
        if self._tell is not None:
            self._tell(images)


def _ranked(names: Sequence[str], shares: Float[Tensor, "n k"]) -> list[dict[str, float]]:
    """For each row the names with their shares, from the largest down."""
    ranked = shares.sort(dim=1, descending=True, stable=True)
    rows = zip(ranked.indices.tolist(), ranked.values.tolist(), strict=True)
    return [{names[position]: share for position, share in zip(*row, strict=True)} for row in rows]


def _checked(images: Any, size: int) -> UInt8[Tensor, "n 3 h w"]:
    """A tensor of images as it is, if it is one of `size`.

    Raises:
        LifelongError: its type or its shape is another.
    """
    wanted = (3, size, size)
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != wanted:
        given = f"of shape {tuple(images.shape)} and type {images.dtype}" if isinstance(images, Tensor) else f"as a {type(images).__name__}"
        raise LifelongError(
            f"images {given}: this run takes uint8 of shape"
            f" (N, {', '.join(map(str, wanted))}); give files, PIL images or arrays to have them resized"
        )
    return images
