"""The auto-encoder: by hand, and that it learns what it is trained on."""

import math

import pytest
import torch

from lifelong.networks.autoencoder import AutoEncoder


def test_errors_by_hand() -> None:
    """Features 5 (mean 3, deviation 2) and 7 (constant: deviation 1); a code of one unit."""
    autoencoder = AutoEncoder(2, 1)
    autoencoder.standardize(torch.tensor([[1.0, 7.0], [5.0, 7.0]]))
    with torch.no_grad():
        autoencoder.encoder.weight.copy_(torch.tensor([[2.0, -1.0]]))
        autoencoder.encoder.bias.fill_(0.25)
        autoencoder.decoder.weight.copy_(torch.tensor([[3.0], [-1.0]]))
        autoencoder.decoder.bias.copy_(torch.tensor([0.0, 0.5]))

        def sigmoid(z: float) -> float:
            return 1 / (1 + math.exp(-z))

        code = 2 * (sigmoid(1) - 0.5) - 1 * (sigmoid(0) - 0.5) + 0.25
        expected = (sigmoid(3 * code) - sigmoid(1)) ** 2 + (sigmoid(-code + 0.5) - sigmoid(0)) ** 2
        assert autoencoder.errors(torch.tensor([[5.0, 7.0]])).item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_improves_on_what_it_is_trained_on() -> None:
    """Features on a plane of three dimensions among twenty: their errors fall far below their variance, others' do not."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    basis, elsewhere = torch.randn(2, 3, 20, generator=generator)
    codes = torch.randn(64, 3, generator=generator)
    autoencoder = AutoEncoder(20, 6)
    autoencoder.standardize(codes @ basis)
    optimizer = torch.optim.SGD(autoencoder.parameters(), lr=0.1, momentum=0.9)
    for _ in range(150):
        optimizer.zero_grad()
        autoencoder.errors(codes @ basis).mean().backward()
        optimizer.step()
    variance = autoencoder.inputs(codes @ basis).var(dim=0).sum()
    assert autoencoder.errors(codes @ basis).mean() < 0.3 * variance
    assert autoencoder.errors(codes @ elsewhere).mean() > 0.7 * variance
