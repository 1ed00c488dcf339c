"""Part 5: do candidates of one shape, such as the weight decays of a grid, train faster side by side than in turn?

Three ways to take one step of each of K experts, all with recorded steps:

* in turn: K graphs one after the other, as the library does;
* on K streams: the same graphs, each launched on a stream of its own, so that the card runs what fits in parallel;
* stacked: one network of K times the channels, whose pointwise convolutions have K groups. It does the arithmetic of K experts (it mixes
  channels between them where cells concatenate, so that it stands for the time only).

If one of the last two pays, candidates are worth training that way.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.steps import CLASSES, Clock, recorded
from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V2
from lifelong.networks.operations import Pointwise
from lifelong.training.optimizer import SGD
from lifelong.training.precision import use_precision
from lifelong.training.step_runner import StepRunner

CANDIDATES = 4
WARM_UP = 4


def measure(report: Report, scale: Scale, device: torch.device, scratch: Path, deadline: float) -> None:
    """Add a row for each way: seconds of a step of all candidates."""
    for channels in dict.fromkeys((scale.channels, min(scale.channels, 16))):
        about = f"{CANDIDATES} experts of C={channels}, batch {scale.batch}, bf16"
        with recorded(True):
            experts = [Candidate(scale, device, channels, 1) for _ in range(CANDIDATES)]
            report.add("candidates", "in turn", 1000 * timed(scale, device, partial(in_turn, experts)), "ms", about)
            if device.type == "cuda":
                streams = [torch.cuda.Stream(device) for _ in experts]
                seconds = timed(scale, device, partial(on_streams, experts, streams))
                report.add("candidates", "on streams of their own", 1000 * seconds, "ms", about)
            del experts
            stacked = [Candidate(scale, device, channels, CANDIDATES)]
            report.add("candidates", "stacked", 1000 * timed(scale, device, partial(in_turn, stacked)), "ms", about)


class Candidate:
    """An expert (or several, stacked) whose step is recorded by a runner of its own."""

    def __init__(self, scale: Scale, device: torch.device, channels: int, stacked: int) -> None:
        torch.manual_seed(0)
        network = CellNetwork(DARTS_V2, stacked * channels)
        if stacked > 1:
            group(network, stacked)
        self.network = nn.Sequential(network, nn.Linear(network.feature_dim, CLASSES)).to(device)
        self.optimizer = SGD(self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.003)
        self.runner = StepRunner(device)
        self.inputs = torch.zeros(scale.batch, 3, scale.size, scale.size, device=device)
        self.labels = torch.zeros(scale.batch, dtype=torch.int64, device=device)

    def step(self) -> None:
        """Take a step, replayed once it is recorded."""
        self.runner.run("step", self._step, self.inputs, self.labels)

    def _step(self, inputs: Tensor, labels: Tensor) -> None:
        with use_precision("bf16", inputs.device):
            loss = F.cross_entropy(self.network(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def group(network: nn.Module, groups: int) -> None:
    """Replace every pointwise convolution by one of `groups` groups; the stem, which reads three channels, stays."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Pointwise):
                setattr(module, name, nn.Conv2d(child.in_channels, child.out_channels, 1, groups=groups, bias=False))


def in_turn(candidates: list[Candidate]) -> None:
    """Take a step of each, one after the other."""
    for candidate in candidates:
        candidate.step()


def on_streams(candidates: list[Candidate], streams: list["torch.cuda.Stream"]) -> None:
    """Take a step of each, launched on its own stream."""
    current = torch.cuda.current_stream()
    for candidate, stream in zip(candidates, streams, strict=True):
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            candidate.step()
    for stream in streams:
        current.wait_stream(stream)


def timed(scale: Scale, device: torch.device, step: Callable[[], None]) -> float:
    """Seconds of a step of all candidates, after those in which they are recorded."""
    for _ in range(WARM_UP):
        step()
    clock = Clock(device)
    clock.mark()
    for _ in range(scale.steps):
        step()
    clock.mark()
    return clock.seconds() / scale.steps
