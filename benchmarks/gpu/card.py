"""Part 4: how near a training step is to what the card allows.

A step of the cell network at 32x32 does little arithmetic for each byte that it moves, so the measure is the bandwidth of memory. Every
operation of an eager step is asked what it reads and writes (tensors in and out, views left out); their bytes, divided by the bandwidth of
a large copy on this very card, are the time that the step's operations would take if each ran at that bandwidth and nothing stood between
them. Operations that are fused, or that find their input in the card's cache, can beat it.

Rows named `kernel` are the profile: which kernels a step's time goes to.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.report import Report
from benchmarks.gpu.scale import Scale
from benchmarks.gpu.steps import NORMALIZATION, POLICY, WARM_UP, Clock, epochs_of, expert, made_examples, ours, recorded, steps_of
from lifelong.data.augment import augment, normalize
from lifelong.networks.cells import CellNetwork
from lifelong.settings.training import Precision
from lifelong.training.examples import Examples
from lifelong.training.optimizer import SGD
from lifelong.training.precision import use_precision

COPIES = 10

KERNELS = 16
"""Rows of the profile: the kernels that take longest."""


class Traffic(TorchDispatchMode):
    """Counts what operations read and write.

    Attributes:
        bytes: so far.
        operations: that moved any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        if not (returns and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)):
            moved = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in moved)
            self.operations += 1
        return result


def measure(report: Report, scale: Scale, device: torch.device, scratch: Path, deadline: float) -> None:
    """Add rows: the card's bandwidth, a step's bytes, and the share of the bandwidth that recorded steps reach."""
    bandwidth = copy_bandwidth(scale, device)
    report.add("card", "copy bandwidth", bandwidth / 1e9, "GB/s", f"read and written, {scale.copied / 2**20:.0f} MiB")
    examples = made_examples(scale, device)
    precisions: list[Precision] = ["float32", "bf16"]
    for precision in precisions:
        traffic = step_traffic(scale, device, precision)
        bound = traffic.bytes / bandwidth
        with recorded(True):
            seconds = ours(scale, examples, precision)
        detail = (
            f"{traffic.operations} operations move {traffic.bytes / 1e6:.0f} MB: {1000 * bound:.3f} ms;"
            f" a step takes {1000 * seconds:.3f} ms"
        )
        report.add("card", f"share of the copy bandwidth, graph {precision}", bound / seconds, "", detail)
        for name, spent, calls in profile(scale, examples, precision):
            report.add("card", f"kernel, {precision}", 1000 * spent, "ms a step", f"{calls:.1f} a step: {name}")
    if device.type == "cuda":
        report.add("card", "peak memory", torch.cuda.max_memory_allocated(device) / 1e9, "GB", "of this process so far, graphs included")


def profile(scale: Scale, examples: Examples, precision: Precision) -> list[tuple[str, float, float]]:
    """List the kernels (on a CPU: operations) that take longest: name, seconds per step, calls per step."""
    cuda = examples.train.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    steps = (WARM_UP + epochs_of(scale)) * steps_of(scale)
    with recorded(True), torch.profiler.profile(activities=[activity]) as profiled:
        ours(scale, examples, precision)
    spent = [(row.key, row.self_device_time_total if cuda else row.self_cpu_time_total, row.count) for row in profiled.key_averages()]
    longest = sorted(spent, key=lambda row: -row[1])[:KERNELS]
    return [(name[:160], microseconds / 1e6 / steps, calls / steps) for name, microseconds, calls in longest]


def copy_bandwidth(scale: Scale, device: torch.device) -> float:
    """Bytes read and written in a second by a copy."""
    source = torch.zeros(scale.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    clock = Clock(device)
    clock.mark()
    for _ in range(COPIES):
        target.copy_(source)
    clock.mark()
    return 2 * scale.copied * COPIES / clock.seconds()


def step_traffic(scale: Scale, device: torch.device, precision: Precision) -> Traffic:
    """Measure what an eager training step moves."""
    examples = made_examples(scale, device)
    network = expert(CellNetwork, scale, device)
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=0.003)
    generator = torch.Generator(device).manual_seed(0)
    indices = torch.arange(scale.batch, device=device)

    def step() -> None:
        inputs = normalize(augment(examples.train[indices], POLICY, generator), NORMALIZATION)
        with use_precision(precision, device):
            loss = F.cross_entropy(network(inputs), examples.train_labels[indices])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizer.parameters, 10)
        optimizer.step()

    step()
    with Traffic() as traffic:
        step()
    return traffic
