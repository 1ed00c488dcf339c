"""Training an expert: the library's loop and network against a plain PyTorch version of the same.

Ours is `lifelong.training.fit` as a run uses it: batched augmentation, channels-last maps, shared ReLUs, the backward pass of
depthwise convolutions, fused SGD, memory of freed tensors kept. Plain: `plain_cells.py` in contiguous layout, a `DataLoader`
(without worker processes: on two cores they would take time from the training) whose data set crops, flips and normalizes one image
at a time, SGD and cosine as PyTorch has them. Both validate after every epoch and keep the best weights.

Each side is a process of its own, since how memory is kept is a property of the process. They run by turns, an epoch each, with one
thread, and what counts is processor time (the kernel's share included): on an idle machine that is the wall time, and on a busy one
it is still comparable, which the wall time of two threads that wait for each other is not. The ratio of wall times is in `detail`.
Parity is the largest difference of the two losses over five steps from the same weights on the same batches, relative to the first.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.plain_cells import PlainCellNetwork
from lifelong.data.task import Augmentation, Normalization
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V2
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples
from lifelong.training.fit import fit
from lifelong.training.malloc import keep_freed_memory
from lifelong.training.stages import Epoch, Stage

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.24, 0.26)
CLASSES, VALID, PAD = 10, 64, 4


def images(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Random images and labels, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8),
        torch.randint(CLASSES, (count,), generator=generator),
    )


def network(kind: type[nn.Module], channels: int) -> nn.Sequential:
    """Make an expert and a head; both kinds get the same weights."""
    torch.manual_seed(0)
    weights = nn.Sequential(CellNetwork(DARTS_V2, channels), nn.Linear(4 * channels, CLASSES)).state_dict()
    made = nn.Sequential(kind(DARTS_V2, channels), nn.Linear(4 * channels, CLASSES))
    made.load_state_dict(dict(zip(made.state_dict(), weights.values(), strict=True)))
    return made


def train_ours(epochs: int, channels: int, count: int, size: int, batch: int, turn: Callable[[], None]) -> None:
    """`epochs` epochs with the library; `turn` after each."""
    keep_freed_memory()
    (train, labels), (valid, valid_labels) = images(count, size), images(VALID, size)
    examples = Examples(train, labels, valid, valid_labels, Normalization(MEAN, STD), Augmentation(crop=PAD, flip=True))
    expert = network(CellNetwork, channels)

    def listener(_: Epoch) -> None:
        turn()

    fit(expert, examples, expert, TrainingSettings(epochs=epochs, batch_size=batch, patience=0), Stage("train", 0, listener=listener))


class PlainImages(Dataset):
    """Images that are prepared one at a time."""

    def __init__(self, count: int, size: int, augment: bool) -> None:
        self.images, self.labels = images(count, size)
        self.augment = augment
        self.mean, self.std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.augment:
            size = image.shape[-1]
            top, left = torch.randint(2 * PAD + 1, (2,)).tolist()
            image = F.pad(image, (PAD, PAD, PAD, PAD))[:, top : top + size, left : left + size]
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
        return (image.float() / 255 - self.mean) / self.std, self.labels[index]


def train_plain(epochs: int, channels: int, count: int, size: int, batch: int, turn: Callable[[], None]) -> None:
    """`epochs` epochs in plain PyTorch; `turn` after each."""
    train = DataLoader(PlainImages(count, size, augment=True), batch_size=batch, shuffle=True)
    valid = DataLoader(PlainImages(VALID, size, augment=False), batch_size=batch)
    expert = network(PlainCellNetwork, channels)
    optimizer = torch.optim.SGD(expert.parameters(), lr=0.01, momentum=0.9, weight_decay=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, best_weights = -1, {}
    for _ in range(epochs):
        expert.train()
        for inputs, labels in train:
            loss = F.cross_entropy(expert(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(expert.parameters(), 10)
            optimizer.step()
        schedule.step()
        expert.eval()
        with torch.no_grad():
            correct = sum(int((expert(inputs).argmax(1) == labels).sum()) for inputs, labels in valid)
        if correct > best:
            best, best_weights = correct, deepcopy(expert.state_dict())
        turn()
    expert.load_state_dict(best_weights)


def clocks() -> tuple[float, float]:
    """Seconds of this process's processor time and of wall time."""
    return time.process_time(), time.perf_counter()


def side(connection: Connection, train: Callable[..., None], arguments: dict[str, int]) -> None:
    """One process: waits for its turn, trains an epoch, reports its seconds of processor and of wall time."""
    torch.set_num_threads(1)
    connection.send("ready")
    connection.recv()
    started = clocks()

    def turn() -> None:
        nonlocal started
        connection.send([now - then for now, then in zip(clocks(), started, strict=True)])
        connection.recv()
        started = clocks()

    train(turn=turn, **arguments)


def parity(channels: int, size: int, batch: int) -> float:
    """Largest relative difference of the losses of five steps."""
    inputs, labels = images(5 * batch, size)
    prepared = (inputs.float() / 255 - 0.45) / 0.25
    losses = []
    for kind in (CellNetwork, PlainCellNetwork):
        expert = network(kind, channels)
        optimizer = torch.optim.SGD(expert.parameters(), lr=0.01, momentum=0.9, weight_decay=0.003, fused=kind is CellNetwork)
        losses.append([])
        for some, of in zip(prepared.split(batch), labels.split(batch), strict=True):
            loss = F.cross_entropy(expert(some), of)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    return max(abs(one - other) for one, other in zip(*losses, strict=True)) / losses[1][0]


def main(quick: bool = False, *, channels: int = 64, size: int = 32, batch: int = 64, count: int = 256, repeats: int = 5) -> dict[str, Any]:
    """Time both sides.

    Args:
        quick: a small network, small images and three repeats.
        channels: channels C of the expert.
        size: height and width of the images.
        batch: images per step.
        count: training images per epoch.
        repeats: timed epochs of each side; one more comes before them, untimed.
    """
    if quick:
        channels, size, repeats = 16, 16, 3
    arguments = {"epochs": repeats + 1, "channels": channels, "count": count, "size": size, "batch": batch}
    context = multiprocessing.get_context("spawn")
    sides, times = [], ([], [])
    for train in (train_ours, train_plain):
        here, there = context.Pipe()
        process = context.Process(target=side, args=(there, train, arguments))
        process.start()
        there.close()
        here.recv()
        sides.append((here, process))
    for _ in range(repeats + 1):
        for (connection, _), found in zip(sides, times, strict=True):
            connection.send(None)
            found.append(connection.recv())
    for connection, process in sides:
        connection.send(None)
        process.join()
    difference = parity(channels, size, min(batch, 16))
    if difference > 1e-3:
        raise AssertionError(f"the losses of the two networks differ by {difference:.2g}")
    ours, plain = (statistics.median(processor for processor, _ in found[1:]) for found in times)
    walls = [statistics.median(wall for _, wall in found[1:]) for found in times]
    return {
        "name": "expert_training",
        "ratio": plain / ours,
        "ours_s": ours,
        "plain_s": plain,
        "parity": difference,
        "threads": 1,
        "detail": f"epoch of {count} images {size}x{size} and {VALID} for validation, DARTS_V2, C={channels}, batch {batch}; "
        f"processor seconds, medians of {repeats} epochs by turns (wall time: {walls[1] / walls[0]:.2f}); parity: relative, of 5 losses",
    }


if __name__ == "__main__":
    print(main())
