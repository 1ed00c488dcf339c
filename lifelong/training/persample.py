"""Compute the gradients of single samples for a whole batch at once.

Of what each sample passes alone, a layer's gradient for one sample follows from what went into the layer and from the gradient of what
came out, and one pass over a batch leaves both behind (Goodfellow, arXiv 1510.01799; for convolutions Rochette et al., arXiv 1912.06015).
So no layer needs to be known to `torch.func`, and only one layer's gradients are ever held for every sample.

Layers with a rule are `nn.Linear`, `nn.Conv2d`, the depthwise convolution of the cell network, and batch norm with running statistics.
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
from torch.nn.grad import conv2d_weight

from lifelong.networks.depthwise import Depthwise
from lifelong.networks.operations import Pointwise
from lifelong.networks.strided import Pixelwise

Parameters = dict[str, Tensor]

Logits = Callable[[Parameters, Tensor], Tensor]
"""From a network's parameters and prepared inputs (b, ...) to logits (b, c)."""

Cotangents = Callable[[Tensor], Tensor]
"""From logits (b, c) to k rows for each sample, (b, k, c)."""

Size = Callable[[Tensor], Tensor]
"""Elementwise, and of a product the product of the sizes, such as the square or the absolute value."""

Sizes = Callable[[Tensor], dict[str, Tensor]]
"""From the gradient of a layer's output (b, ...) to the sum over the samples of the size of their gradients, by parameter."""


def summed_sizes(
    network: nn.Module, logits: Logits, parameters: Parameters, inputs: Float[Tensor, "b ..."], cotangents: Cotangents, size: Size
) -> Parameters:
    """Compute the sum over samples and over their rows v of the size of v . dz/dtheta, where z are a sample's logits.

    Args:
        network: one whose layers `numbers_per_sample` knows.
        logits: of the network.
        parameters: theta.
        inputs: the samples.
        cotangents: the rows.
        size: of each number of a gradient.
    """
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    # The graph begins at the inputs: its backward passes compute no weight's gradient.
    with torch.enable_grad(), _calls(network, parameters) as calls:
        outputs = logits(parameters, inputs.detach().requires_grad_())
    edges = [call.edge for call in calls]
    rules = [RULES[type(call.layer)](call.layer, call.x, size) for call in calls]
    for row in cotangents(outputs.detach()).unbind(dim=1):
        gradients = torch.autograd.grad(outputs, edges, row, retain_graph=True, allow_unused=True)
        for call, sizes, gradient in zip(calls, rules, gradients, strict=True):
            found = {} if gradient is None else sizes(gradient)
            for key, product in found.items():
                if key in call.names:
                    total[call.names[key]] += product
    return total


def sizes_of_one(logits: Logits, parameters: Parameters, image: Float[Tensor, "1 ..."], cotangents: Cotangents, size: Size) -> Parameters:
    """Compute `summed_sizes` of a single sample, for any network."""
    variables = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    with torch.enable_grad():
        outputs = logits(variables, image)
    for row in cotangents(outputs.detach()).unbind(dim=1):
        gradients = torch.autograd.grad(outputs, list(variables.values()), row, retain_graph=True, materialize_grads=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            total[name] += size(gradient)
    return total


def numbers_per_sample(network: nn.Module, logits: Logits, parameters: Parameters, inputs: Float[Tensor, "b ..."]) -> int | None:
    """Return how many numbers `summed_sizes` holds for each sample; None if it does not know the network's layers.

    It knows them if every parameter is used only in the one call of a layer with a rule, which the graph of a pass shows, and if no
    sample's logits depend on another sample.

    Args:
        network: in evaluation mode.
        logits: of the network.
        parameters: whose gradients are needed.
        inputs: two samples, or the only one.
    """
    variables = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad(), _calls(network, variables) as calls:
        outputs = logits(variables, inputs)
    called = Counter(name for call in calls for name in call.names.values())
    used = _uses(outputs)
    if any(used[id(variable)] != called[name] or called[name] > 1 for name, variable in variables.items()):
        return None
    (gradient,) = torch.autograd.grad(outputs[0].sum(), inputs, materialize_grads=True)
    if gradient[1:].any():
        return None
    return sum(call.numbers for call in calls) // len(inputs) + max(parameter.numel() for parameter in parameters.values())


def _uses(outputs: Tensor) -> Counter[int]:
    """Count how often each leaf of a graph is used in it, by its id."""
    found: Counter[int] = Counter()
    assert outputs.grad_fn is not None
    seen, waiting = set(), [outputs.grad_fn]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if hasattr(node, "variable"):
                found[id(node.variable)] += 1
            elif node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    return found


@dataclass(frozen=True)
class _Call:
    """What a pass leaves behind of a layer.

    Attributes:
        layer: one with a rule.
        names: of its parameters among those that are asked for, by what the layer calls them.
        x: what went in, (b, ...).
        edge: where the gradient of what came out will pass, also if that is overwritten.
        numbers: that are held for it, for all samples.
    """

    layer: nn.Module
    names: dict[str, str]
    x: Tensor
    edge: GradientEdge
    numbers: int


@contextmanager
def _calls(network: nn.Module, parameters: Parameters) -> Generator[list[_Call]]:
    """Collect, during a block, the calls of layers that have a rule and some of these parameters."""
    calls: list[_Call] = []
    names = {id(parameter): name for name, parameter in parameters.items()}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        own = {key: names[id(parameter)] for key, parameter in layer.named_parameters(recurse=False) if id(parameter) in names}
        if own and len(inputs) == 1 and output.requires_grad:
            x = inputs[0].detach()
            patch = math.prod(layer.kernel_size) if isinstance(layer, nn.Conv2d) else 1
            calls.append(_Call(layer, own, x, get_gradient_edge(output), output.numel() + (1 + patch) * x.numel()))

    hooks = [layer.register_forward_hook(note, prepend=True) for layer in network.modules() if _has_rule(layer)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _has_rule(layer: nn.Module) -> bool:
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and (layer.training or layer.running_mean is None):
        return False
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return False
    return type(layer) in RULES


def _linear(layer: nn.Linear, x: Tensor, size: Size) -> Sizes:
    weight = _products(x.reshape(len(x), -1, x.shape[-1]), size)

    def sizes(gradient: Tensor) -> dict[str, Tensor]:
        gradient = gradient.reshape(len(gradient), -1, gradient.shape[-1])
        return {"weight": weight(gradient)} | _bias(layer, gradient, 1, size)

    return sizes


def _convolution(layer: nn.Conv2d, x: Tensor, size: Size) -> Sizes:
    if layer.groups > 1:
        return _grouped(layer, x, size)
    weight = _products(_patches(layer, x), size)

    def sizes(gradient: Tensor) -> dict[str, Tensor]:
        gradient = gradient.permute(0, 2, 3, 1).flatten(1, 2)  # (b, s, o)
        kernel = weight(gradient).unflatten(1, (*layer.kernel_size, -1)).permute(0, 3, 1, 2)
        return {"weight": kernel} | _bias(layer, gradient, 1, size)

    return sizes


def _products(x: Float[Tensor, "b s q"], size: Size) -> Callable[[Tensor], Tensor]:
    """Map gradients (b, s, o) to the sum over samples of the size of each one's products (o, q), added over its s positions."""
    if x.shape[1] == 1:
        # There is nothing to add up, and the size of a product is the product of the sizes.
        sizes = size(x[:, 0])
        return lambda gradient: size(gradient[:, 0]).mT @ sizes
    return lambda gradient: size(gradient.mT @ x).sum(dim=0)


def _patches(layer: nn.Conv2d, x: Tensor) -> Float[Tensor, "b s q"]:
    """Return the patch that a kernel is multiplied with at each position: its rows, columns and channels, channels innermost."""
    (rows, columns), (down, right), (below, beside) = layer.kernel_size, layer.stride, layer.dilation
    assert not isinstance(layer.padding, str)
    top, left = layer.padding
    x = F.pad(x, (left, left, top, top)).permute(0, 2, 3, 1).contiguous()  # (b, h, w, c)
    count, height, width, channels = x.shape
    high, wide = (height - below * (rows - 1) - 1) // down + 1, (width - beside * (columns - 1) - 1) // right + 1
    sample, row, column, channel = x.stride()
    strides = (sample, down * row, right * column, below * row, beside * column, channel)
    return x.as_strided((count, high, wide, rows, columns, channels), strides).reshape(count, high * wide, -1)


def _grouped(layer: nn.Conv2d, x: Tensor, size: Size) -> Sizes:
    """Handle a grouped convolution, such as a depthwise one: the samples become groups of a single one."""
    count, (outputs, *kernel) = len(x), layer.weight.shape
    x = x.reshape(1, -1, *x.shape[2:])

    def sizes(gradient: Tensor) -> dict[str, Tensor]:
        side_by_side = gradient.reshape(1, -1, *gradient.shape[2:])
        settings = layer.stride, layer.padding, layer.dilation, count * layer.groups
        kernels = conv2d_weight(x, (count * outputs, *kernel), side_by_side, *settings)
        return {"weight": size(kernels.unflatten(0, (count, outputs))).sum(dim=0)} | _bias(layer, gradient, (2, 3), size)

    return sizes


def _bias(layer: nn.Linear | nn.Conv2d, gradient: Tensor, positions: int | tuple[int, ...], size: Size) -> dict[str, Tensor]:
    return {} if layer.bias is None else {"bias": size(gradient.sum(dim=positions)).sum(dim=0)}


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor, size: Size) -> Sizes:
    mean, var = layer.running_mean, layer.running_var
    assert mean is not None
    assert var is not None
    normalized = (x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)).sub(mean.unsqueeze(1)).mul((var + layer.eps).rsqrt().unsqueeze(1))

    def sizes(gradient: Tensor) -> dict[str, Tensor]:
        gradient = gradient.reshape(normalized.shape)
        products = (gradient * normalized).sum(dim=2), gradient.sum(dim=2)  # (b, c) each
        return {key: size(product).sum(dim=0) for key, product in zip(("weight", "bias"), products, strict=True)}

    return sizes


RULES: dict[type[nn.Module], Callable[..., Sizes]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    Depthwise: _convolution,
    Pointwise: _convolution,
    Pixelwise: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
"""From a layer and what went into it to the sizes; by the very type, since a subclass may compute something else."""
