"""MAS: its importance against autograd by hand and against algebra, and how it adds up."""

import pytest
import torch
from torch import nn

from lifelong.methods.importance import flat, shared_parameters
from lifelong.methods.mas import MAS, output_sensitivity
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
