"""Training a network whose gates are all but closed, with numbers below the smallest normal float taken for zero or not.

HAT's gates are sigmoid(s e) with s up to 400 and e around 0 +- 1: most are open or closed to rounding, and some so small that
their outputs are denormal floats. The plain way is the same network and data in the same memory layout, with the processor's default. Both
run on one thread, and processor seconds are compared, which other load on the machine disturbs less.

    python -m benchmarks.gated_training [--quick]
"""

import copy
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.networks.gates import with_gates
from lifelong.networks.resnet import LightResNet
from lifelong.training.denormals import flush_denormals

S_MAX = 400.0


def main(quick: bool = False) -> dict[str, object]:
    """Time both, turn by turn.

    Args:
        quick: smaller maps and fewer steps.
    """
    channels, batch, steps = (8, 8, 3) if quick else (32, 32, 12)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = with_gates(LightResNet(channels, stem_pool=True), S_MAX, binary=True)
    model = nn.Sequential(network, nn.Linear(channels, 10))
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))
    models = {"ours": model, "plain": copy.deepcopy(model)}
    optimizers = {name: torch.optim.SGD(m.parameters(), lr=0.02) for name, m in models.items()}
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    losses: dict[str, list[float]] = {"ours": [], "plain": []}
    try:
        for _ in range(steps):
            for name in models:
                flush_denormals() if name == "ours" else torch.set_flush_denormal(False)
                started = time.process_time()
                losses[name].append(_step(models[name], optimizers[name], images, labels))
                seconds[name].append(time.process_time() - started)
    finally:
        torch.set_flush_denormal(False)
    ours, plain = (statistics.median(seconds[name]) for name in ("ours", "plain"))
    parity = max(abs(a - b) / abs(b) for a, b in zip(losses["ours"], losses["plain"], strict=True))
    assert parity < 1e-4, f"losses differ by {parity:.1e}"
    detail = (
        f"a step of {batch} images of 32x32, light ResNet-18 with stem pool, {channels} channels, gates at s = {S_MAX:g}; processor seconds"
    )
    return {
        "name": "gated training",
        "ratio": plain / ours,
        "ours_s": ours,
        "plain_s": plain,
        "parity": parity,
        "detail": detail,
        "threads": 1,
    }


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


if __name__ == "__main__":
    print(main("--quick" in sys.argv))
