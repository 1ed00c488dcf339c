"""Zero-cost scores: how promising an untrained network is, from one or two batches. The larger the better.

    most-parameters   the number of parameters, which any other score has to beat
    synflow           sum over weights of |w dR/dw|, R the sum of outputs for an input of ones, with all weights positive
    naswot            log |det K|, K_ij the number of ReLUs that are on for both images i and j, or off for both
    zico              sum over layers of log sum over weights of mean |g| / std g, over the gradients g of two batches
    az-nas            the logarithmic ranks of four scores of the network's cells, added up

A score that is not a finite number is the worst of all. Networks are left as they are found, and so are PyTorch's generators.

Sources: synflow: Tanaka et al., NeurIPS 2020, as a score Abdelfattah et al., ICLR 2021. naswot: Mellor et al., ICML 2021. zico: Li et al.,
ICLR 2023. az-nas: Lee & Ham, CVPR 2024.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lifelong.devices import exact_device
from lifelong.networks.cells import CellNetwork
from lifelong.networks.operations import Maps
from lifelong.training.stages import initial

Batch = tuple[Float[Tensor, "n 3 h w"], Int64[Tensor, "n"]]
"""Prepared images and their labels."""

NAMES = ("most-parameters", "synflow", "naswot", "zico", "az-nas")

RELUS = frozenset([F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_])

TINY = 1e-8
"""Added to shares of variance before their logarithm is taken (AZ-NAS's code)."""


def most_parameters(network: nn.Module) -> float:
    """Count the parameters."""
    return float(sum(parameter.numel() for parameter in network.parameters()))


def synflow(network: nn.Module, shape: Sequence[int]) -> float:
    """Compute the synaptic flow of the weights of convolutions and linear layers, in float64 and without batch norm.

    Args:
        network: from images to anything.
        shape: (c, h, w) of an image.
    """
    positive = _without_norm(deepcopy(network)).to(exact_device(next(network.parameters()).device)).double().eval()
    with torch.no_grad():
        for tensor in (*positive.parameters(), *(buffer for buffer in positive.buffers() if buffer.is_floating_point())):
            tensor.abs_()
    weights = _weights(positive)
    ones = torch.ones(1, *shape, dtype=torch.float64, device=weights[0].device)
    gradients = torch.autograd.grad(positive(ones).sum(), weights, allow_unused=True)
    pairs = zip(weights, gradients, strict=True)
    return sum(float((weight.detach() * gradient).abs().sum()) for weight, gradient in pairs if gradient is not None)


def naswot(network: nn.Module, inputs: Float[Tensor, "n c h w"]) -> float:
    """Compute the log-determinant of how often the ReLUs agree on two images; minus infinity if two images always agree.

    Args:
        network: whose batch norm takes the statistics of the batch.
        inputs: different images.
    """
    kernel = torch.zeros(len(inputs), len(inputs), dtype=torch.float64, device=exact_device(inputs.device))
    with torch.no_grad(), _Codes() as codes:
        deepcopy(network).train()(inputs)
    for code in codes.found:
        on = code.flatten(1).to(kernel)
        kernel += on @ on.T + (1 - on) @ (1 - on).T
    sign, logarithm = torch.linalg.slogdet(kernel)
    return float(logarithm) if float(sign) else -math.inf


class _Codes(TorchFunctionMode):
    """Keeps, for each ReLU that is applied, where its input is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    # `Any`: whatever PyTorch's functions take and give.
    def __torch_function__(self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func in RELUS:
            self.found.append(args[0] > 0)
        return func(*args, **(kwargs or {}))


def zico(network: nn.Module, batches: Sequence[Batch]) -> float:
    """Compute the mean magnitude of gradients against their deviation over batches.

    Args:
        network: from images to logits.
        batches: two or more, of equal size.
    """
    trained = deepcopy(network).train()
    weights = _weights(trained)
    taken = [torch.autograd.grad(F.cross_entropy(trained(inputs), labels), weights, allow_unused=True) for inputs, labels in batches]
    score = 0.0
    for of_weight in zip(*taken, strict=True):
        if of_weight[0] is None:
            continue
        gradients = torch.stack(of_weight).double().cpu()
        deviation = gradients.std(dim=0, correction=0)
        moved = deviation > 0
        total = float((gradients.abs().mean(dim=0)[moved] / deviation[moved]).sum())
        if total:
            score += math.log(total)
    return score


class CellScores(NamedTuple):
    """The four scores of AZ-NAS.

    Attributes:
        expressivity: how evenly the features of the cells spread over their dimensions: the sum over cells of the entropy of the spectrum.
        progressivity: the smallest increase of this entropy from a cell to the next.
        trainability: how near to 1 the cells' largest singular value is, backwards; at most 0.
        complexity: products of a forward pass.
    """

    expressivity: float
    progressivity: float
    trainability: float
    complexity: float


def cell_scores(network: CellNetwork, shape: Sequence[int], images: int, seed: int) -> CellScores:
    """Compute AZ-NAS's scores of a cell network, whose weights are drawn anew (Kaiming, fan-in), for images of noise.

    The gradient at a cell's input is that at the previous layer's output, which the cell reads along with the layer before it.

    Args:
        network: whose widths and cells are judged, not its weights.
        shape: (c, h, w) of an image.
        images: how many.
        seed: of weights, images and gradients.
    """
    drawn, place = deepcopy(network).cpu().float().train(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in _weights(drawn):
            nn.init.kaiming_normal_(weight, mode="fan_in", generator=place)
    noise = torch.randn(images, *shape, generator=place)
    with torch.no_grad(), _products(drawn) as products:
        before = previous = drawn.stem(noise)
    entropies, deviations = [], []
    for cell in drawn.cells:
        entered = previous.detach().requires_grad_()
        with _products(drawn) as more:
            left: Tensor = cell(Maps(before), Maps(entered)).raw
        products.append(sum(more))
        signs = 2.0 * torch.randint(0, 2, left.shape, generator=place) - 1
        gradient = torch.autograd.grad(left, entered, signs)[0]
        entropies.append(spectral_entropy(left.detach()))
        deviations.append(_deviation(gradient, signs))
        before, previous = entered.detach(), left.detach()
    rises = [after - earlier for earlier, after in pairwise(entropies)]
    trainability = sum(deviations) / len(deviations)
    return CellScores(sum(entropies), min(rises, default=0.0), trainability, float(sum(products)) / images)


def spectral_entropy(maps: Float[Tensor, "n c h w"]) -> float:
    """Compute the entropy of the shares of variance along the principal directions of the channels."""
    features = maps.double().permute(0, 2, 3, 1).flatten(0, 2)
    centred = features - features.mean(dim=0)
    spectrum = torch.linalg.eigvalsh(centred.T @ centred / len(centred)).clamp_min(0)
    shares = spectrum / spectrum.sum()
    return float(-(shares * (shares + TINY).log()).sum())


def _deviation(entered: Float[Tensor, "n c h w"], left: Float[Tensor, "n d _h _w"]) -> float:
    """Return -s - 1/s + 2 of the largest singular value s of the map of gradients through a cell; 0 where s is 1.

    Args:
        entered: gradients at the cell's input.
        left: gradients at its output.
    """
    factor = entered.shape[2] // left.shape[2]
    if factor > 1:
        entered = F.pixel_unshuffle(entered[:, :, : factor * left.shape[2], : factor * left.shape[3]], factor)
    rows = [gradient.double().permute(0, 2, 3, 1).flatten(0, 2) for gradient in (entered, left)]
    largest = float(torch.linalg.matrix_norm(rows[0].T @ rows[1] / len(rows[0]), ord=2))
    return -largest - 1 / (largest + 1e-6) + 2


def log_ranks(scores: Sequence[CellScores]) -> list[float]:
    """Add up the logarithms of the candidates' ranks by each score, divided by their number: 0 for who is the best by all."""
    totals = [0.0] * len(scores)
    for column in zip(*scores, strict=True):
        for index, value in enumerate(column):
            rank = len(column) if math.isfinite(value) else 1
            if math.isfinite(value):
                rank -= sum(other > value for other in column if math.isfinite(other))
            totals[index] += math.log(rank / len(column))
    return totals


def best(scores: Sequence[float]) -> int:
    """Return the position of the highest score, of equals the first; one that is not finite comes after all that are."""
    return max(range(len(scores)), key=lambda index: (math.isfinite(scores[index]), scores[index] if math.isfinite(scores[index]) else 0.0))


def score(name: str, candidates: Sequence[Callable[[], nn.Module]], batches: Sequence[Batch], seeds: Sequence[int]) -> list[float]:
    """Score networks under the same conditions: equal seeds of the weights, and the same images.

    Args:
        name: of the score.
        candidates: each makes an expert, from images to features, with `feature_dim`.
        batches: two, on the device to compute on.
        seeds: of the initial weights; scores are means over them.
    """
    found: list[list[float]] = []
    inputs = batches[0][0]
    shape, classes = inputs.shape[1:], int(torch.cat([labels for _, labels in batches]).max()) + 1
    scores: Mapping[str, Callable[[nn.Module], float]] = {
        "most-parameters": most_parameters,
        "synflow": lambda network: synflow(network, shape),
        "naswot": lambda network: naswot(network, inputs),
        "zico": lambda network: zico(network, batches),
    }
    by_cells: list[list[CellScores]] = []
    # A size does not depend on the weights.
    seeds = seeds[:1] if name == "most-parameters" else seeds
    for make in candidates:
        found.append([])
        by_cells.append([])
        for seed in seeds:
            with initial(seed):
                expert = make()
                network = nn.Sequential(expert, nn.Linear(expert.feature_dim, classes)).to(inputs.device)  # ty: ignore[invalid-argument-type]
            if name == "az-nas":
                assert isinstance(expert, CellNetwork)
                by_cells[-1].append(cell_scores(expert, shape, len(inputs), seed))
            else:
                found[-1].append(scores[name](network))
    if name == "az-nas":
        return log_ranks([CellScores(*(sum(column) / len(seeds) for column in zip(*each, strict=True))) for each in by_cells])
    return [sum(each) / len(seeds) for each in found]


def _weights(network: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions and linear layers."""
    return [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def _without_norm(network: nn.Module) -> nn.Module:
    """Replace batch norm by nothing, in place."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, nn.Identity())
    return network


@contextmanager
def _products(network: nn.Module) -> Generator[list[int]]:
    """Count the products of each convolution that runs within the block."""
    found: list[int] = []

    def count(layer: nn.Module, inputs: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        found.append(output.numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
