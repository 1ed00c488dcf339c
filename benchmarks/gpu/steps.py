"""Part 2: training steps per second of an expert, in every variant, compared with plain PyTorch loops.

Ours is `lifelong.training.fit` on a task of made images, validation left out: eager and recorded, in every precision, with maps in either
memory order, compiled. Plain loops train the same network of ordinary modules (`plain_cells.py`) with PyTorch's own SGD in two ways: with
images that are augmented in batches on the device, which is the best simple way; and with a `DataLoader` that augments one image at a time
on the host, which is the usual one. Each form is warmed up (ours by two epochs: in the second the last, smaller batch is recorded),
and then timed over epochs between two synchronizations.
"""

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import Scale
from benchmarks.plain_cells import PlainCellNetwork
from lifelong.data.augment import augment, normalize
from lifelong.data.task import Augmentation, Normalization
from lifelong.networks import depthwise, fused, operations, supernet
from lifelong.networks import layout as chooser
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V2
from lifelong.settings.training import Precision, TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import fit
from lifelong.training.precision import exact_float32
from lifelong.training.stages import Epoch, Stage
from lifelong.training.step_runner import SWITCH

CLASSES = 10
WARM_UP = 2
"""Epochs after which every step of ours is recorded."""

NORMALIZATION = Normalization((0.5, 0.45, 0.4), (0.25, 0.24, 0.26))
POLICY = Augmentation(crop=4, flip=True)

FORMS: list[tuple[str, Precision, bool, str | None]] = [
    ("graph bf16", "bf16", True, None),
    ("graph float32", "float32", True, None),
    ("eager float32", "float32", False, None),
    ("graph bf16, PyTorch's kernels", "bf16", True, "unfused"),
    ("graph tf32", "tf32", True, None),
    ("eager bf16", "bf16", False, None),
    ("graph bf16, contiguous", "bf16", True, "contiguous"),
    ("graph float32, contiguous", "float32", True, "contiguous"),
]
"""Name, precision, whether steps are recorded, and what is not the library's choice: the order of maps (with which kernels are not fused
either), or fused kernels; most important first."""


def measure(report: Report, scale: Scale, device: torch.device, scratch: Path, deadline: float) -> None:
    """Add one row per variant: milliseconds per step, with images per second in the detail."""
    examples = made_examples(scale, device)
    about = f"DARTS_V2, C={scale.channels}, {scale.size}x{scale.size}, batch {scale.batch}"

    def add(name: str, seconds: float) -> None:
        report.add("steps", name, 1000 * seconds, "ms a step", f"{about}; {scale.batch / seconds:.0f} images/s")

    for name, precision, graphs, order in FORMS:
        if precision == "tf32" and device.type != "cuda":
            continue
        with recorded(graphs), ordered(None if order == "unfused" else order), switched(fused.SWITCH, order is None):
            add(name, ours(scale, examples, precision))
    with exact_float32(device):
        add("plain, batches augmented on the device", plain(scale, examples))
    add("plain, a DataLoader that augments image by image", plain_loader(scale, examples, device))
    if scale.compiled and deadline - time.monotonic() > 420:
        with recorded(True):
            add("graph bf16, compiled", ours(scale, examples, "bf16", compile_networks=True))


def made_examples(scale: Scale, device: torch.device) -> Examples:
    """Random images of a task on the device, without validation."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (scale.images, 3, scale.size, scale.size), generator=generator, dtype=torch.uint8).to(device)
    labels = torch.randint(CLASSES, (scale.images,), generator=generator).to(device)
    return Examples(images, labels, images[:0], labels[:0], NORMALIZATION, POLICY)


def expert(kind: type[nn.Module], scale: Scale, device: torch.device) -> nn.Sequential:
    """Make an expert with a head."""
    torch.manual_seed(0)
    return nn.Sequential(kind(DARTS_V2, scale.channels), nn.Linear(4 * scale.channels, CLASSES)).to(device)


def ours(scale: Scale, examples: Examples, precision: Precision, *, compile_networks: bool = False) -> float:
    """Seconds of a training step of the library."""
    device = examples.train.device
    settings = TrainingSettings(
        epochs=WARM_UP + epochs_of(scale), batch_size=scale.batch, patience=0, precision=precision, compile=compile_networks
    )
    clock = Clock(device)

    def listener(epoch: Epoch) -> None:
        if epoch.epoch in (WARM_UP, settings.epochs):
            clock.mark()

    network = expert(CellNetwork, scale, device)
    fit(network, examples, network, settings, Stage("train", 0, listener=listener))
    return clock.seconds() / (epochs_of(scale) * steps_of(scale))


def plain(scale: Scale, examples: Examples) -> float:
    """Seconds of a step of a plain loop whose batches are augmented on the device."""
    device = examples.train.device
    generator = torch.Generator(device).manual_seed(0)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.randperm(scale.images, device=device).split(scale.batch):
            yield normalize(augment(examples.train[indices], POLICY, generator), NORMALIZATION), examples.train_labels[indices]

    return plain_loop(scale, device, batches)


def plain_loader(scale: Scale, examples: Examples, device: torch.device) -> float:
    """Seconds of a step of a plain loop over a `DataLoader` that prepares image by image on the host."""
    from torch.utils.data import DataLoader

    from benchmarks.expert_training import PlainImages

    loader = DataLoader(PlainImages(scale.images, scale.size, augment=True), scale.batch, shuffle=True, pin_memory=device.type == "cuda")
    few = replace(scale, steps=steps_of(scale))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in loader:
            yield inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return plain_loop(few, device, batches)


def plain_loop(scale: Scale, device: torch.device, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> float:
    """Seconds of a step of a loop as a person would write it first."""
    network = expert(PlainCellNetwork, scale, device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.003)
    clock = Clock(device)
    for epoch in range(1 + epochs_of(scale)):
        for inputs, labels in batches():
            loss = F.cross_entropy(network(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10)
            optimizer.step()
        if epoch in (0, epochs_of(scale)):
            clock.mark()
    return clock.seconds() / (epochs_of(scale) * steps_of(scale))


def steps_of(scale: Scale) -> int:
    """Return the steps of an epoch."""
    return -(-scale.images // scale.batch)


def epochs_of(scale: Scale) -> int:
    """Epochs that are timed: as many as hold the wanted steps."""
    return max(1, round(scale.steps / steps_of(scale)))


class Clock:
    """Wall time between the first and the last mark, each after everything on the device has been done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[float] = []

    def mark(self) -> None:
        """Note the time."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._marks.append(time.perf_counter())

    def seconds(self) -> float:
        """Time from the first mark to the last."""
        return self._marks[-1] - self._marks[0]


def recorded(wanted: bool) -> AbstractContextManager[None]:
    """Return a context in which steps are recorded, or not."""
    return switched(SWITCH, wanted)


@contextmanager
def switched(name: str, on: bool) -> Generator[None]:
    """Return a context in which an environment variable is 1 or 0."""
    before = os.environ.get(name)
    os.environ[name] = "1" if on else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def ordered(order: str | None) -> Generator[None]:
    """Return a context that sets the memory order of the cell network's maps; None: the library's choice."""
    users = (chooser, depthwise, operations, supernet)
    chosen = chooser.layout
    wanted = torch.channels_last if order == "channels-last" else torch.contiguous_format
    for user in users:
        setattr(user, "layout", chosen if order is None else lambda x: wanted)  # noqa: B010  # Not the type's business.
    try:
        yield
    finally:
        for user in users:
            setattr(user, "layout", chosen)  # noqa: B010
