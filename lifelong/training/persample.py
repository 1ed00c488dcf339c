"""Gradients of single samples, found for a whole batch at once.

Of what each sample passes alone, a layer's gradient for one sample follows from what went into the layer and from the gradient of what
came out, both of which one pass over the batch leaves behind (Goodfellow, arXiv 1510.01799; for convolutions Rochette et al., arXiv
1912.06015). No gradient of a whole network is ever held for every sample, and no layer's forward or backward pass needs to be known to
`torch.func`.

Layers with a rule are `nn.Linear`, `nn.Conv2d`, the depthwise convolution of the cell network and batch norm with running statistics.
"""

import math
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from lifelong.networks.depthwise import Depthwise

Parameters = dict[str, Tensor]

Size = Callable[[Tensor], Tensor]
"""Elementwise, and of a product the product of the sizes, such as the square or the absolute value."""

Sizes = Callable[[Tensor], dict[str, Tensor]]
"""From the gradient of a layer's output (b, ...) to the sum over the samples of the size of their gradients, by parameter."""


def _positions(x: Tensor) -> Float[Tensor, "b s c"]:
    """Maps (b, c, h, w) with their positions in a row, channels last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _patches(x: Tensor, layer: nn.Conv2d) -> Float[Tensor, "b s q"]:
    """What a convolution multiplies with its kernel at each position: rows, columns and channels of a patch side by side."""
    (rows, columns), (down, right), (below, beside) = layer.kernel_size, layer.stride, layer.dilation
    top, left = layer.padding
    x = F.pad(x, (left, left, top, top)).permute(0, 2, 3, 1).contiguous()  # (b, h, w, c)
    samples, height, width, channels = x.shape
    high, wide = (height - below * (rows - 1) - 1) // down + 1, (width - beside * (columns - 1) - 1) // right + 1
    sample, row, column, _ = x.stride()
    strides = (sample, down * row, right * column, below * row, beside * column, 1)
    return x.as_strided((samples, high, wide, rows, columns, channels), strides).reshape(samples, high * wide, -1)


def _products(x: Float[Tensor, "b s q"], size: Size) -> Callable[[Tensor], Tensor]:
    """From gradients (b, s, o) to the sum over samples of the size of each one's o x q products, added up over its positions."""
    if x.shape[1] == 1:
        # Of one position, the size of a product is the product of sizes.
        sizes = size(x[:, 0])
        return lambda gradient: size(gradient[:, 0]).mT @ sizes
    return lambda gradient: size(gradient.mT @ x).sum(dim=0)


def _linear(layer: nn.Linear, x: Tensor, size: Size) -> Sizes:
    weight = _products(x.reshape(len(x), -1, x.shape[-1]), size)

    def sizes(gradient: Tensor) -> dict[str, Tensor]:
        gradient = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        return {"weight": weight(gradient), "bias": size(gradient.sum(dim=1)).sum(dim=0)}

    return sizes


def _convolution(layer: nn.Conv2d, x: Tensor, size: Size) -> Sizes:
    if layer.groups > 1:
        return _grouped(layer, x, size)
    weight = _products(_patches(x, layer), size)

    def sizes(gradient: Tensor) -> dict[str, Tensor]:
        gradient = _positions(gradient)
        kernel = weight(gradient).unflatten(1, (*layer.kernel_size, -1)).permute(0, 3, 1, 2)
        return {"weight": kernel, "bias": size(gradient.sum(dim=1)).sum(dim=0)}

    return sizes


def _grouped(layer: nn.Conv2d, x: Tensor, size: Size) -> Sizes:
    """Every sample is a group of its own: one convolution of one sample that has the channels of all."""
    samples, shape = len(x), layer.weight.shape
    x = x.reshape(1, -1, *x.shape[2:])

    def sizes(gradient: Tensor) -> dict[str, Tensor]:
        flat = gradient.reshape(1, -1, *gradient.shape[2:])
        kernels = nn.grad.conv2d_weight(
            x, (samples * shape[0], *shape[1:]), flat, layer.stride, layer.padding, layer.dilation, samples * layer.groups
        )
        return {"weight": size(kernels.unflatten(0, (samples, -1))).sum(dim=0), "bias": size(gradient.sum(dim=(2, 3))).sum(dim=0)}

    return sizes


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, size: Size) -> Sizes:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, var = (statistic.reshape(1, -1, 1) for statistic in (layer.running_mean, layer.running_var))
    normalized = (_maps(x) - mean) * (var + layer.eps).rsqrt()

    def sizes(gradient: Tensor) -> dict[str, Tensor]:
        gradient = _maps(gradient)
        return {
            "weight": size((gradient * normalized).sum(dim=2)).sum(dim=0),
            "bias": size(gradient.sum(dim=2)).sum(dim=0),
        }

    return sizes


def _maps(x: Tensor) -> Float[Tensor, "b c s"]:
    return x.reshape(*x.shape[:2], -1)


RULES: dict[type[nn.Module], Callable[..., Sizes]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    Depthwise: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
"""By the very type: a subclass may compute something else."""


def _has_rule(module: nn.Module) -> bool:
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and (module.training or module.running_mean is None):
        return False
    if isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
        return False
    return type(module) in RULES


@dataclass(frozen=True)
class Call:
    """What a pass leaves behind of a layer.

    Attributes:
        layer: with a rule.
        names: of its parameters among those that are asked for, by what the layer calls them.
        x: what went in, (b, ...).
        edge: where the gradient of what came out passes.
        numbers: that are held for the call, for all samples.
        version: of what went in: another at the end says that it was overwritten.
    """

    layer: nn.Module
    names: dict[str, str]
    x: Tensor
    edge: GradientEdge
    numbers: int
    version: int


@contextmanager
def _calls(network: nn.Module, parameters: Parameters) -> Generator[list[Call]]:
    """The calls, in the block, of a network's layers that have a rule and some of these parameters."""
    found: list[Call] = []
    names = {id(parameter): name for name, parameter in parameters.items()}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        own = {key: names[id(parameter)] for key, parameter in layer.named_parameters(recurse=False) if id(parameter) in names}
        if own and len(inputs) == 1 and output.requires_grad:
            x = inputs[0].detach()
            patch = math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else 1
            found.append(Call(layer, own, x, get_gradient_edge(output), output.numel() + (1 + patch) * x.numel(), x._version))

    hooks = [layer.register_forward_hook(note, prepend=True) for layer in network.modules() if _has_rule(layer)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


Logits = Callable[[Parameters, Tensor], Tensor]
"""From a network's parameters and prepared inputs (b, ...) to logits (b, c)."""


def numbers_per_sample(network: nn.Module, logits: Logits, parameters: Parameters, inputs: Float[Tensor, "b ..."]) -> int | None:
    """How many numbers `summed_sizes` holds for each sample; None where it does not know the network's layers.

    It knows them if each use of a parameter is the one call of a layer with a rule, if no layer's input is overwritten, and if the
    logits of a sample depend on no other sample. The first is read off the graph of a pass.

    Args:
        network: in evaluation mode, run by `logits`.
        logits: of the network.
        parameters: those whose gradients are asked for.
        inputs: two samples, or the only one.
    """
    variables = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad(), _calls(network, variables) as calls:
        outputs = logits(variables, inputs)
    called = Counter(name for call in calls for name in call.names.values())
    used = _uses(outputs)
    apart = all(used[id(variable)] == called[name] <= 1 for name, variable in variables.items())
    if not apart or any(call.x._version != call.version for call in calls):
        return None
    (gradient,) = torch.autograd.grad(outputs[0].sum(), inputs)
    if gradient[1:].any():
        return None
    return sum(call.numbers for call in calls) // len(inputs) + max((p.numel() for p in parameters.values()), default=0)


def _uses(outputs: Tensor) -> Counter[int]:
    """How often each leaf of a graph is used in it, by its id."""
    found: Counter[int] = Counter()
    seen, waiting = set(), [outputs.grad_fn]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if hasattr(node, "variable"):
                found[id(node.variable)] += 1
            elif node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    return found


def summed_sizes(
    network: nn.Module,
    logits: Logits,
    parameters: Parameters,
    inputs: Float[Tensor, "b ..."],
    cotangents: Callable[[Tensor], Tensor],
    size: Size,
) -> dict[str, Tensor]:
    """The sum over samples and over rows v of the size of v . dz/dtheta, by parameter, where z are a sample's logits.

    Args:
        network: one of which `numbers_per_sample` knows the layers.
        logits: of the network.
        parameters: theta.
        inputs: the samples.
        cotangents: from logits (b, c) to the rows (b, k, c).
        size: of each number of a gradient.
    """
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    # The graph begins at the inputs: no backward pass computes a weight's gradient.
    with torch.enable_grad(), _calls(network, parameters) as calls:
        outputs = logits(parameters, inputs.detach().requires_grad_())
    edges = [call.edge for call in calls]
    sizes = [RULES[type(call.layer)](call.layer, call.x, size) for call in calls]
    for row in cotangents(outputs.detach()).unbind(dim=1):
        gradients = torch.autograd.grad(outputs, edges, row, retain_graph=True, allow_unused=True)
        for call, of_layer, gradient in zip(calls, sizes, gradients, strict=True):
            if gradient is not None:
                found = of_layer(gradient)
                for key, name in call.names.items():
                    total[name] += found[key]
    return total
