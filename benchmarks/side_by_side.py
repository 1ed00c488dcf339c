"""Candidates of one shape trained in turn against side by side, as one batched computation.

Side by side the weights of all candidates are stacked, and one step of all is one call of each operation (`torch.func.vmap`;
convolutions become grouped ones). On a GPU that fills a device that one small network leaves idle. On a processor it does not pay, which is
what this bounds: MNTDP's paths, SG-F's candidates and weight decays are therefore trained in turn. Batch norm takes the batch's statistics
and keeps none, since a batched computation cannot update buffers in place. Processor seconds on one thread; gradients are compared in
float64, since in float32 a rounding moves a unit across a ReLU's edge now and then.

    python -m benchmarks.side_by_side [--quick]
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.networks.resnet import LightResNet

CANDIDATES = 7
CLASSES = 10

Step = Callable[[list[nn.Module], Tensor, Tensor], list[Tensor]]
"""Gradients of networks on one batch."""


def main(quick: bool = False) -> dict[str, object]:
    """Time both, turn by turn.

    Args:
        quick: narrower networks and fewer repeats.

    Returns:
        name, ratio of the medians (above 1: in turn is faster), seconds of either for a step of all candidates, the largest
        difference of their gradients, a description.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(*((8, 2) if quick else (16, 7)))
    finally:
        torch.set_num_threads(threads)


def _measure(channels: int, repeats: int) -> dict[str, object]:
    torch.manual_seed(0)
    networks = [_network(channels) for _ in range(CANDIDATES)]
    images = torch.randn(32, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(32) % CLASSES
    precise = [copy.deepcopy(network).double() for network in networks]
    pairs = zip(_in_turn(precise, images.double(), labels), _stacked(precise, images.double(), labels), strict=True)
    parity = max((a - b).abs().max().item() for a, b in pairs)
    times: dict[Step, list[float]] = {_in_turn: [], _stacked: []}
    for repeat in range(repeats + 1):
        for step, seconds in times.items():
            started = time.process_time()
            step(networks, images, labels)
            if repeat:  # what is slow only once is not timed
                seconds.append(time.process_time() - started)
    ours, plain = (statistics.median(seconds) for seconds in times.values())
    sizes = f"one step of {CANDIDATES} light ResNet-18s, C={channels}, 32 images of 32x32"
    return {
        "name": "side by side",
        "ratio": plain / ours,
        "ours_s": ours,
        "plain_s": plain,
        "parity": parity,
        "threads": 1,
        "detail": f"{sizes}; ours: in turn, plain: stacked; processor seconds",
    }


def _in_turn(networks: list[nn.Module], images: Tensor, labels: Tensor) -> list[Tensor]:
    """Stack the gradients of all."""
    found = [torch.autograd.grad(F.cross_entropy(network(images), labels), list(network.parameters())) for network in networks]
    return [torch.stack(same) for same in zip(*found, strict=True)]


def _stacked(networks: list[nn.Module], images: Tensor, labels: Tensor) -> list[Tensor]:
    weights, buffers = torch.func.stack_module_state(networks)

    def loss(one: dict[str, Tensor], its: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(networks[0], (one, its), (images,)), labels)

    gradients = torch.func.vmap(torch.func.grad(loss))(weights, buffers)
    return [gradients[name] for name, _ in networks[0].named_parameters()]


def _network(channels: int) -> nn.Module:
    network = LightResNet(channels, stem_pool=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return nn.Sequential(network, nn.Linear(network.feature_dim, CLASSES))


if __name__ == "__main__":
    print(main(quick="--quick" in sys.argv))
