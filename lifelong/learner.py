"""What a run has learned, put to use: images in, names of tasks and classes out."""

import io
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lifelong.data.images import decode_images
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
from lifelong.training.memory import keep_small_blocks
from lifelong.training.precision import exact_float32
from lifelong.training.process import as_found, threads_of

SMALL_BATCH_PIXELS = 2**14
"""Pixels per forward pass on a CPU (16 images of 32 x 32): the maps of a whole pass fit into what the C library keeps of freed memory, and
one operation's into the cache. In larger batches an image takes up to twice as long."""

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".mpo")
"""Files of a folder that are taken for images."""

AS_PNG = {"CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "PA": "RGBA", "La": "LA"}
"""What pictures become whose mode a PNG does not have."""


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
    """

    task: str
    label: str
    probability: float
    classes: dict[str, float]
    tasks: dict[str, float] | None
    strange: bool | None

    @property
    def task_probability(self) -> float | None:
        """Of the task that answers; None where it was named."""
        return None if self.tasks is None else self.tasks[self.task]


class Learner:
    """A run whose learned tasks can be asked, by any number of threads at once. `Learner.load` opens one.

    Attributes:
        tasks: the classes of each task in label order, by the task's name, in the order of learning.
        image_sizes: height and width in pixels that images are brought to, by the task's name.
    """

    def __init__(self, saved: SavedRun, place: Environment, device: torch.device) -> None:
        sizes = [entry["image_size"] for entry in saved.entries]
        self.tasks: dict[str, tuple[str, ...]] = dict(zip(saved.names, map(saved.classes, range(len(sizes))), strict=True))
        self.image_sizes: dict[str, int] = dict(zip(saved.names, sizes, strict=True))
        self.device = device
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
    def predict(self, images: Any, task: str | None = None, *, infer: Inference = "auto") -> list[Prediction]:
        """What images are taken for.

        Args:
            images: paths of files and folders; or PIL images, or uint8 arrays of shape (H, W, 3) or (H, W); or a uint8 tensor of shape
                (N, 3, H, W). One alone may stand without a list. Each task is shown them in the size of its images, to which they are
                brought as a stream's are (but for those of CelebA, which are squeezed: here the middle square is taken). A tensor must
                have the size of the task, or that of all.
            task: the name of the task they belong to; None: it is inferred, image by image.
            infer: how: "method" by the method's own way (PAR: its prototypes), "confidence" by that of the heads, "auto" by the first if
                there is one.

        Raises:
            LifelongError: an image cannot be used, no task has this name, or the method has no way of its own and is told to use it.
        """
        known = None if task is None else self._saved.task_index(task)
        sizes = tuple(self.image_sizes.values()) if known is None else (list(self.image_sizes.values())[known],) * len(self.tasks)
        pixels = Shown(self._views(images, sizes), sizes)
        with torch.inference_mode(), exact_float32(self.device), self._threads():
            parts = [self._answer(self._moved(part), known, infer) for part in pixels.split(EVALUATION_BATCH) if len(part.of(0))]
        return [prediction for part in parts for prediction in part]

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
        many = images if isinstance(images, (list, tuple)) else [images]
        named = [pair for one in many for pair in _encoded(one)]
        return {size: _decoded(named, size) for size in dict.fromkeys(sizes)}

    def _moved(self, images: Shown) -> Shown:
        """Images on the device."""
        return replace(images, views={size: view.to(self.device) for size, view in images.views.items()})

    def _answer(self, images: Shown, known: int | None, infer: Inference) -> list[Prediction]:
        method, names, count = self._saved.method, list(self.tasks), len(images.of(0))
        told = Recognized(None, None) if known is not None else self._recognize(images, infer)
        owners = torch.full((count,), known or 0) if told.probabilities is None else told.probabilities.argmax(dim=1).cpu()
        tasks = [None] * count if told.probabilities is None else _ranked(names, told.probabilities)
        strange = [None] * count if told.strangeness is None else (told.strangeness > 1).tolist()
        found: dict[int, Prediction] = {}
        for owner in owners.unique().tolist():
            rows, name = (owners == owner).nonzero().flatten(), names[owner]
            logits = torch.cat([method.logits(part.of(owner), owner) for part in self._batches(images.rows(rows))])
            for row, classes in zip(rows.tolist(), _ranked(self.tasks[name], logits.softmax(dim=1)), strict=True):
                label, probability = next(iter(classes.items()))
                found[row] = Prediction(name, label, probability, classes, tasks[row], strange[row])
        return [found[row] for row in range(count)]

    def _recognize(self, images: Shown, infer: Inference) -> Recognized:
        self._attach()
        parts = [recognize(self._saved.method, part, infer) for part in self._batches(images)]
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


def _decoded(named: Sequence[tuple[str, bytes]], size: int) -> UInt8[Tensor, "n 3 h w"]:
    """Images from their bytes, each with what to call it."""
    pixels, problems = decode_images([content for _, content in named], size)
    if problems:
        position, reason = next(iter(problems.items()))
        raise LifelongError(f"{named[position][0]}: cannot be used as an image ({reason}); leave it out")
    return pixels


def _encoded(image: Any) -> list[tuple[str, bytes]]:
    """The bytes of one image, or of all in a folder, each with what to call it in a message."""
    if isinstance(image, (str, Path)):
        return [(str(path), _bytes(path)) for path in image_files(Path(image))]
    from PIL import Image, ImageOps

    content = io.BytesIO()
    try:
        # Turned as its EXIF mark says, which a PNG would lose.
        picture = ImageOps.exif_transpose(image) if isinstance(image, Image.Image) else Image.fromarray(image)
        picture.convert(AS_PNG.get(picture.mode, picture.mode)).save(content, "PNG", compress_level=0)
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise LifelongError(f"a {type(image).__name__} is no image: give paths, PIL images, or uint8 arrays (H, W, 3) or (H, W)") from error
    return [("an image", content.getvalue())]


def image_files(path: Path) -> list[Path]:
    """A file itself, or the images in a folder and the folders in it, by name.

    Raises:
        LifelongError: there is no such file, or the folder holds none.
    """
    if not path.is_dir():
        return [path]
    found = sorted(inner for inner in path.rglob("*") if inner.suffix.lower() in IMAGE_ENDINGS and inner.is_file())
    if not found:
        raise LifelongError(f"{path}: no image in this folder (files that end in {', '.join(IMAGE_ENDINGS)})")
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LifelongError(f"{path}: {error.strerror}; give the path of an image") from error
