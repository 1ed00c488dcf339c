"""The Fisher information of a task, all images of a batch at once against one image after the other.

The expectation over classes is exact on both sides. The plain way is the definition: for each image a forward pass, and for each class a
backward pass of its log-probability, whose gradient is squared and weighted. Both run on one thread, and processor seconds are compared,
which other load on the machine disturbs less.

    python -m benchmarks.fisher [--quick]
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from lifelong.data.task import Normalization
from lifelong.methods.backbone import feature_dim, make_shared_backbone
from lifelong.methods.ewc import exact_fisher, signed_fisher
from lifelong.methods.importance import flat, shared_parameters
from lifelong.settings.baselines import SharedBackboneSettings
from lifelong.training.denormals import flush_denormals
from lifelong.training.examples import Examples
from lifelong.training.malloc import keep_freed_memory

CLASSES = 10


def main(quick: bool = False) -> list[dict[str, object]]:
    """Time both on two networks, turn by turn, and the exact way against that by random signs.

    Args:
        quick: narrow networks, small images, one repeat.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    flush_denormals()
    few, many, size, repeats = (20, 70, 8, 1) if quick else (100, 640, 32, 3)
    widths: dict[str, int] = {"cells": 4 if quick else 16, "light-resnet18": 4 if quick else 32}
    rows: list[dict[str, object]] = []
    for backbone, channels in widths.items():
        what = f"images of {size}x{size}, {CLASSES} classes, {backbone}, C={channels}; processor seconds; parity: relative"
        parity, row = _race({"ours": exact_fisher, "plain": one_by_one}, *_task(backbone, channels, few, size), repeats=repeats)
        assert parity < 1e-3, f"the two differ by {parity:.1e}"
        rows.append({"name": f"fisher, {backbone}", "detail": f"{few} {what}", **row})
        _, row = _race({"ours": by_signs, "plain": exact_fisher}, *_task(backbone, channels, many, size), repeats=1)
        rows.append({"name": f"fisher by signs, {backbone}", "detail": f"{many} {what}; ours: an estimate; plain: as ours above", **row})
    return rows


def one_by_one(network: nn.Module, head: nn.Module, examples: Examples) -> Tensor:
    """Compute the definition, for the shared weights of a backbone, (P,)."""
    weights = [parameter.requires_grad_() for parameter in shared_parameters(network).values()]
    total = torch.zeros_like(flat(weights), requires_grad=False)
    for index in range(len(examples.train)):
        scores = head(network(examples.prepare(examples.train[index : index + 1])))[0].log_softmax(dim=0)
        for score in scores:
            gradients = torch.autograd.grad(score, weights, retain_graph=True, materialize_grads=True)
            total += score.detach().exp() * flat(gradients).square()
    network.requires_grad_(False)
    return total / len(examples.train)


def by_signs(network: nn.Module, head: nn.Module, examples: Examples) -> Tensor:
    """Compute the estimate, with its own generator."""
    return signed_fisher(network, head, examples, torch.Generator().manual_seed(0))


def _race(
    ways: Mapping[str, Callable[[nn.Module, nn.Module, Examples], Tensor]],
    network: nn.Module,
    head: nn.Module,
    examples: Examples,
    *,
    repeats: int,
) -> tuple[float, dict[str, object]]:
    """Compute the relative difference of both, and the numbers of a row."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.process_time()
            found[name] = way(network, head, examples)
            seconds[name].append(time.process_time() - started)
    ours, plain = (statistics.median(seconds[name]) for name in ("ours", "plain"))
    parity = ((found["ours"] - found["plain"]).norm() / found["plain"].norm()).item()
    return parity, {"ratio": plain / ours, "ours_s": ours, "plain_s": plain, "parity": parity, "threads": 1}


def _task(backbone: str, channels: int, images: int, size: int) -> tuple[nn.Module, nn.Module, Examples]:
    """Make a backbone with running statistics, a head and random images."""
    torch.manual_seed(0)
    network = make_shared_backbone(SharedBackboneSettings(backbone=backbone, init_channels=channels), size)
    for _ in range(5):
        network(torch.randn(16, 3, size, size))
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(images) % CLASSES
    examples = Examples(pixels, labels, pixels[:0], labels[:0], Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    head = nn.Linear(feature_dim(network), CLASSES)
    return network.eval().requires_grad_(False), head.requires_grad_(False), examples


if __name__ == "__main__":
    for row in main("--quick" in sys.argv):
        print(row)
