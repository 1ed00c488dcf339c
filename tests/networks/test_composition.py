"""Layers of local modules: losses, weights and gradients against slow plain versions, and known sizes."""

import pytest
import torch
from torch import Tensor, nn

from lifelong.networks.blocks import make_chain
from lifelong.networks.composition import LocalModule, Routing, StructuralHead, compose, make_module

PRIOR = Routing(0.5, 0.2)
ALONE = Routing(0.5)


def layers(*counts: int, name: str = "conv4") -> list[list[LocalModule]]:
    """So many modules in each of the lowest layers of a small chain, in evaluation mode."""
    torch.manual_seed(0)
    chain = make_chain(name, 4)
    return [[make_module(chain, position).eval() for _ in range(count)] for position, count in enumerate(counts)]


def size(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def plain_weights(losses: list[list[float]], temperature: float, prior: float | None) -> list[list[float]]:
    """w_m of each image as the paper has it: a softmax, times a softmax over the batch, divided by their sum."""
    modules, images = range(len(losses)), range(len(losses[0]))
    weights = [[0.0 for _ in images] for _ in modules]
    for i in images:
        own = [losses[m][i] ** (-1 / temperature) for m in modules]
        own = [value / sum(own) for value in own]
        pi = [1.0 for _ in modules]
        if prior is not None:
            pi = [(sum(losses[m]) / len(images)) ** (-1 / prior) for m in modules]
            pi = [value / sum(pi) for value in pi]
        for m in modules:
            weights[m][i] = own[m] * pi[m] / sum(a * b for a, b in zip(own, pi, strict=True))
    return weights


@pytest.mark.parametrize("prior", [None, 0.2, 1.0])
def test_weights_are_the_products_of_two_softmaxes(prior: float | None) -> None:
    losses = [[0.5, 1.5, 0.9], [0.7, 0.3, 1.1], [1.0, 1.0, 0.8]]
    weights = Routing(0.5, prior).weights(torch.tensor(losses))
    torch.testing.assert_close(weights, torch.tensor(plain_weights(losses, 0.5, prior)))
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(3))


def test_perfect_modules_share_the_weight() -> None:
    weights = Routing(0.1, 0.01).weights(torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.4, 0.4]]))
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.0, 0.0]]))


def test_only_the_prior_looks_at_the_batch() -> None:
    network, images = layers(2, 2, 2, 2), torch.randn(6, 3, 16, 16)
    together, alone = (compose(network, part, ALONE)[0] for part in (images, images[:1]))
    torch.testing.assert_close(together[:1], alone)
    together, alone = (compose(network, part, PRIOR)[0] for part in (images, images[:1]))
    assert (together[:1] - alone).abs().max() > 1e-4


def test_a_composition_by_hand() -> None:
    network, images = layers(2, 3), torch.randn(3, 3, 16, 16)
    features, steps = compose(network, images, PRIOR)
    x = images
    for modules, step in zip(network, steps, strict=True):
        outputs = [module.functional(x) for module in modules]
        losses = torch.empty(len(modules), len(x))
        for m, module in enumerate(modules):
            for i in range(len(x)):
                decoded = module.structural(outputs[m][i : i + 1], x.shape[2:])[0]
                losses[m, i] = ((decoded - x[i]) ** 2).mean()
        torch.testing.assert_close(step.losses, losses)
        weights = torch.tensor(plain_weights(losses.tolist(), 0.5, 0.2))
        torch.testing.assert_close(step.weights, weights)
        x = torch.stack([sum(weights[m, i] * outputs[m][i] for m in range(len(modules))) for i in range(len(x))])
    torch.testing.assert_close(features, x)


def gradients(module: nn.Module, loss: Tensor) -> list[bool]:
    """For each parameter, whether the loss depends on it."""
    found = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return [gradient is not None and bool(gradient.any()) for gradient in found]


def test_losses_are_local_but_above_a_projected_module() -> None:
    network, images = layers(1, 2, 1), torch.randn(4, 3, 16, 16)
    for projected, reached in ((None, False), (1, False), (0, True)):
        _, steps = compose(network, images, PRIOR, projected=projected)
        low, above = network[0][0], steps[1].losses[1].mean()
        assert any(gradients(low.functional, above)) == reached
        assert not any(gradients(low.structural, above))
        assert not any(gradients(low.functional, steps[0].losses.mean()))
        assert all(gradients(low.structural, steps[0].losses.mean()))
        assert not steps[1].weights.requires_grad


def test_what_a_module_answers_reaches_no_decoder() -> None:
    network, images = layers(2, 2), torch.randn(4, 3, 16, 16)
    features = compose(network, images, PRIOR)[0]
    for modules in network:
        for module in modules:
            assert any(gradients(module.functional, features.sum()))
            assert not any(gradients(module.structural, features.sum()))


def test_sizes_of_the_papers_network() -> None:
    chain = make_chain("conv4")
    modules = [make_module(chain, position) for position in range(4)]
    head = StructuralHead(chain.feature_dim, 10)
    # facts/baselines, row 4: 118,858 with a ten-way head, without what is structural.
    assert sum(size(module.functional) for module in modules) + size(head.classifier) == 118_858
    # Two convolutions 3x3 with biases, 64 to 64 but for the last of the first decoder, which is 64 to 3, and a batch norm.
    conv = 64 * 64 * 9 + 64
    assert [size(module.structural) for module in modules] == [conv + 128 + 64 * 3 * 9 + 3, *[2 * conv + 128] * 3]
    assert size(head) - size(head.classifier) == 576 + 72 * 576


@pytest.mark.parametrize("name", ["light-resnet18", "conv4"])
@pytest.mark.parametrize("side", [8, 33])
def test_every_block_has_a_decoder(name: str, side: int) -> None:
    chain = make_chain(name, 4)
    counts = [1] * len(chain)
    features, steps = compose(layers(*counts, name=name), torch.randn(2, 3, side, side), PRIOR)
    assert features.shape == (2, chain.feature_dim)
    assert all(step.losses.shape == (1, 2) and step.losses.min() > 0 for step in steps)
    assert all(torch.equal(step.weights, torch.ones(1, 2)) for step in steps)


def test_outlyingness_by_hand() -> None:
    module = layers(1)[0][0]
    module.set_statistics(torch.tensor([1.0, 3.0, 2.0, 2.0]))
    # Mean 2, variance 1/2; the mean of 8 images varies by 1/16, a deviation of 1/4.
    assert module.outlyingness(torch.tensor([3.0, 1.5]), 8).tolist() == pytest.approx([4.0, -2.0])


def test_the_auto_encoder_of_a_head_is_the_best_linear_one() -> None:
    """Features with variance along few axes: what is left out is the variance along the smallest, as a share of all."""
    deviations = torch.tensor([3.0, 1.0, *[0.1] * 14])
    axes, _ = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))
    code = torch.cat([torch.eye(16), -torch.eye(16)]) * deviations * 4.0
    features = code @ axes.T + 5.0
    head = StructuralHead(16, 3)  # a code of 2
    head.fit_autoencoder(features)
    losses = head.loss(features)
    torch.testing.assert_close(losses.mean(), torch.tensor(14 * 0.01 / (9 + 1 + 14 * 0.01)), rtol=1e-3, atol=0)
    torch.testing.assert_close(losses[:2], torch.zeros(2), atol=1e-5, rtol=0)
    assert head.loss(features[:1] + axes[:, 9] * 8.0).item() > 50 * losses.mean()


def test_a_decoder_of_conv4_sees_each_pixel_from_its_place() -> None:
    """A bright cell of the output is decoded to the two by two pixels that it was pooled from, and their neighbours."""
    decoder = make_module(make_chain("conv4", 4), 1).structural.eval()
    for convolution in (decoder.hidden, decoder.outer):
        nn.init.zeros_(convolution.bias)
        nn.init.zeros_(convolution.weight)
        with torch.no_grad():
            convolution.weight[:, :, 1, 1] = 1.0  # passes on the pixel in the middle
    outputs = torch.zeros(1, 4, 5, 5)
    outputs[0, :, 2, 1] = 1.0
    lit = decoder(outputs, torch.Size([8, 8]))[0, 0].nonzero().tolist()
    # Rows 4 and 5 and columns 2 and 3 of the padded 10 x 10 maps: one less each in the image.
    assert lit == [[3, 1], [3, 2], [4, 1], [4, 2]]
