"""What both sides of a comparison learn: the same made images, the same first weights, the same settings. Needs nothing but PyTorch.

A side is a process of its own: `python -m benchmarks.peers.SIDE JOB`, where JOB is JSON. It gets ready, says so in one line of JSON on
its standard output, learns a task whenever it reads a line from its standard input, and answers each with its seconds.
"""

import json
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.24, 0.26)
LR, MOMENTUM, WEIGHT_DECAY, PAD = 0.01, 0.9, 0.003, 4


@dataclass(frozen=True)
class Job:
    """One comparison.

    Attributes:
        method: our name of the method.
        channels: of the light ResNet-18.
        stem_pool: whether it pools after the stem.
        batch: images per step.
        epochs: per task.
        tasks, classes: how many tasks, and classes of each.
        train, valid, test: images of a task.
        size: height and width of the images.
        memory_per_class: images kept of a class by methods that keep some.
    """

    method: str
    channels: int
    stem_pool: bool = True
    batch: int = 64
    epochs: int = 3
    tasks: int = 3
    classes: int = 10
    train: int = 640
    valid: int = 128
    test: int = 256
    size: int = 32
    memory_per_class: int = 15

    def text(self) -> str:
        """Encode the job for a side's command line."""
        return json.dumps(asdict(self))

    def split(self, task: int, name: str) -> tuple[Tensor, Tensor]:
        """Images (N, 3, size, size), uint8, and labels (N,) of a split: each class is a coarse pattern under noise."""
        count = getattr(self, name)
        coarse = torch.rand(self.classes, 3, 4, 4, generator=torch.Generator().manual_seed(task)) * 255
        patterns = F.interpolate(coarse, size=(self.size, self.size))
        generator = torch.Generator().manual_seed(1000 * task + {"train": 1, "valid": 2, "test": 3}[name])
        labels = torch.arange(count) % self.classes
        images = patterns[labels] + 40 * torch.randn(count, 3, self.size, self.size, generator=generator)
        return images.clamp(0, 255).to(torch.uint8), labels

    def network(self) -> nn.Module:
        """Make the light ResNet-18 from ordinary modules with its initial weights: the same in every process."""
        torch.manual_seed(0)
        return PlainResNet(self.channels, self.stem_pool)

    def first_features(self, network: nn.Module) -> list[float]:
        """Compute the untrained network's output for a few images, in evaluation mode, to check that both sides start alike."""
        images, _ = self.split(0, "train")
        scale = torch.tensor([MEAN, STD]).view(2, 1, 3, 1, 1)
        with torch.no_grad():
            return network.eval()((images[:8] / 255 - scale[0]) / scale[1]).flatten().tolist()


class PlainBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Compute maps (n, channels, h / stride, w / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class PlainResNet(nn.Module):
    """The light ResNet-18 in its straightforward form, with the parameter names of `lifelong.networks.resnet.LightResNet`."""

    def __init__(self, channels: int, stem_pool: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if stem_pool else nn.Identity()
        pairs = (nn.Sequential(PlainBlock(channels, stride), PlainBlock(channels, 1)) for stride in (1, 2, 2, 2))
        self.layers = nn.Sequential(*pairs)

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, channels)."""
        x = self.layers(self.pool(F.relu(self.bn1(self.conv1(images)))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


class Turns:
    """A side's end of the conversation: its own standard output, which no library then writes to."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        torch.set_num_threads(1)

    def ready(self, versions: dict[str, str], features: list[float]) -> None:
        """Say that this side is ready, and wait for its first turn."""
        # The first optimizer of a process makes PyTorch import its compiler. Avalanche's users make one before they train.
        torch.optim.SGD([torch.zeros(1, requires_grad=True)])
        self._say({"versions": versions, "features": features})
        self._wait()

    def learned(self) -> None:
        """Say that a task has been learned and judged, and wait for the next turn."""
        processor, wall = time.process_time() - self._started[0], time.perf_counter() - self._started[1]
        self._say({"processor_s": processor, "wall_s": wall})
        self._wait()

    @contextmanager
    def uncounted(self) -> Generator[None]:
        """Leave what happens in this context out of the turn's seconds."""
        before = time.process_time(), time.perf_counter()
        yield
        self._started = (
            self._started[0] + time.process_time() - before[0],
            self._started[1] + time.perf_counter() - before[1],
        )

    def done(self, accuracy: float) -> None:
        """Say what came out: the mean accuracy over all tasks in the end, and the seconds of the whole process."""
        self._say({"accuracy": accuracy, "process_s": time.process_time()})

    def _say(self, message: dict[str, object]) -> None:
        print(json.dumps(message), file=self._out, flush=True)

    def _wait(self) -> None:
        sys.stdin.readline()
        self._started = time.process_time(), time.perf_counter()


def read_job() -> Job:
    """Read the job from the command line."""
    return Job(**json.loads(sys.argv[1]))
