"""MAS: its importance against autograd by hand and against algebra, and how it adds up."""

import pytest
import torch
from torch import nn

from lifelong.methods.importance import flat, shared_parameters
from lifelong.methods.mas import MAS, output_sensitivity, squared_batch_sensitivity
from lifelong.settings.baselines import MASSettings
from lifelong.training.examples import image_examples
from tests.made import made_task
from tests.methods.test_ewc import learned, regression
from tests.methods.test_importance import gradients_one_by_one, made_examples, made_network


@pytest.mark.usefixtures("in_float64")
def test_importance_is_the_mean_size_of_each_images_gradient() -> None:
    (network, head), examples = made_network(), made_examples()
    rows = torch.stack(gradients_one_by_one(network, head, examples, lambda logits, index: logits.square().sum()))
    found = output_sensitivity(network, head, examples)
    torch.testing.assert_close(found, rows.abs().mean(dim=0), rtol=1e-8, atol=1e-10)
    # The size of a batch's gradient is another: signs cancel.
    assert (found >= rows.mean(dim=0).abs() - 1e-10).all()
    assert not torch.allclose(found, rows.mean(dim=0).abs(), rtol=1e-2)


def test_importance_in_a_linear_network_by_hand() -> None:
    network, examples, _ = regression()
    z = examples.train @ network.weight.detach().T
    expected = torch.stack([(2 * z[i].unsqueeze(1) * examples.train[i]).abs() for i in range(20)]).mean(dim=0)
    torch.testing.assert_close(output_sensitivity(network, nn.Identity(), examples), expected.flatten())


def test_importance_adds_up_and_the_anchor_is_the_newest() -> None:
    first, _ = learned(MAS(MASSettings(init_channels=4)), tasks=1)
    second, _ = learned(MAS(MASSettings(init_channels=4)), tasks=2)
    own = output_sensitivity(second.backbone, second.heads[1], image_examples(made_task(kind=5, seed=2)))
    torch.testing.assert_close(second.quadratic.importance, first.quadratic.importance + own, rtol=1e-4, atol=1e-6)
    assert torch.equal(second.quadratic.anchor, flat(shared_parameters(second.backbone).values()))
    assert second.memory() == {"importance": 4 * len(own), "anchor": 4 * len(own)}


@pytest.mark.usefixtures("in_float64")
def test_what_pars_code_calls_mas_is_a_squared_gradient_of_a_batch() -> None:
    """B (d mean(z^2))^2 over batches of 4, 4 and 1 image, weighted by their images: plain autograd of the mean over images and classes."""
    (network, head), examples = made_network(), made_examples()
    batches = torch.randperm(9, generator=torch.Generator().manual_seed(3)).split(4)
    parameters = list(shared_parameters(network).values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    expected = torch.zeros(sum(parameter.numel() for parameter in parameters))
    for batch in batches:
        loss = head(network(examples.prepare(examples.train[batch]))).square().mean()
        gradient = flat(torch.autograd.grad(loss, parameters, materialize_grads=True))
        expected = expected + len(batch) * gradient.square() * len(batch) / 9
    found = squared_batch_sensitivity(network, head, examples, batches)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-14)


def test_pars_code_averages_over_tasks_and_halves() -> None:
    settings = MASSettings(init_channels=4, importance="par-code")
    one, two = (learned(MAS(settings), tasks=tasks)[0] for tasks in (1, 2))
    own = 2 * two.quadratic.importance - one.quadratic.importance
    assert (own > -1e-6).all()
    assert own.max() > 0
    assert torch.equal(two.quadratic.anchor, flat(shared_parameters(two.backbone).values()))
    assert (MAS(settings).scale, MAS(MASSettings()).scale) == (0.5, 1.0)
