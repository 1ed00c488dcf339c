"""The light ResNet-18 on images that lie channels-last in memory, as `normalize` makes them on a CPU, against PyTorch's usual order.

Same weights, same images; a training step and a pass without gradients of each. Both run on one thread, and processor seconds are
compared, which other load on the machine disturbs less.

    python -m benchmarks.memory_order [--quick]
"""

import copy
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.data.augment import normalize
from lifelong.data.task import Normalization
from lifelong.networks.resnet import LightResNet
from lifelong.training.malloc import keep_freed_memory


def main(quick: bool = False) -> dict[str, object]:
    """Time both, turn by turn.

    Args:
        quick: a narrower network and fewer steps.
    """
    channels, batch, steps = (8, 16, 3) if quick else (64, 64, 9)
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    model = nn.Sequential(LightResNet(channels, stem_pool=True), nn.Linear(channels, 10))
    pixels = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
    ours = normalize(pixels, Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    labels = torch.randint(0, 10, (batch,))
    sides: dict[str, tuple[nn.Module, Tensor]] = {"ours": (model, ours), "plain": (copy.deepcopy(model), ours.contiguous())}
    optimizers = {name: torch.optim.SGD(m.parameters(), lr=0.02, fused=True) for name, (m, _) in sides.items()}
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    parity = _difference(sides)
    for _ in range(steps):
        for name, (side, images) in sides.items():
            started = time.process_time()
            _step(side, optimizers[name], images, labels)
            seconds[name].append(time.process_time() - started)
    ours_s, plain_s = (statistics.median(seconds[name]) for name in ("ours", "plain"))
    assert parity < 1e-4, f"logits differ by {parity:.1e}"
    detail = (
        f"a step of {batch} images of 32x32 and a pass without gradients, light ResNet-18 with stem pool, {channels} channels; processor s"
    )
    return {
        "name": "memory order",
        "ratio": plain_s / ours_s,
        "ours_s": ours_s,
        "plain_s": plain_s,
        "parity": parity,
        "detail": detail,
        "threads": 1,
    }


def _difference(sides: dict[str, tuple[nn.Module, Tensor]]) -> float:
    """Return the largest difference of the first logits. (Later ones diverge: training magnifies the last bit.)"""
    with torch.no_grad():
        ours, plain = (model.eval()(images) for model, images in sides.values())
    return float((ours - plain).abs().max() / plain.abs().max())


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    model.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    model.eval()
    with torch.no_grad():
        model(images)


if __name__ == "__main__":
    print(main("--quick" in sys.argv))
