"""The gate's formulas by hand; whose normalization an auto-encoder sees images with."""

import math

import pytest
import torch

from lifelong.data.task import Normalization
from lifelong.networks.autoencoder import AutoEncoder
from lifelong.relatedness.extractor import open_extractor
from lifelong.relatedness.gate import Gate, TaskAutoEncoder, probabilities, relatedness
from tests.made import made_split


def test_relatedness_by_hand() -> None:
    """Errors 4, 2 and 3 of the two earlier tasks' auto-encoders and of the new task's own: 1 - 1/3 and 1 + 1/3."""
    errors = torch.tensor([[5.0, 1.0, 2.0], [3.0, 3.0, 4.0]])
    assert relatedness(errors).tolist() == pytest.approx([2 / 3, 4 / 3])


def test_probabilities_by_hand() -> None:
    weights = [math.exp(-1 / 2), math.exp(-3 / 2)]
    assert probabilities(torch.tensor([[1.0, 3.0]]), 2.0)[0].tolist() == pytest.approx([w / sum(weights) for w in weights])


def test_each_auto_encoder_sees_images_as_its_own_were_prepared() -> None:
    torch.manual_seed(0)
    normalizations = [Normalization((m, m, m), (s, s, s)) for m, s in ((0.5, 0.25), (0.1, 1.0), (0.5, 0.25))]
    entries = [TaskAutoEncoder(AutoEncoder(192, 8), normalization) for normalization in normalizations]
    images = made_split(3, 2, seed=0).images
    errors = Gate(entries).errors(images, open_extractor("pixels"))
    for column, (entry, (mean, std)) in enumerate(zip(entries, [(0.5, 0.25), (0.1, 1.0), (0.5, 0.25)], strict=True)):
        pixels = (images.double() / 255 - mean).div(std).float().flatten(1)
        torch.testing.assert_close(errors[:, column], entry.autoencoder.errors(pixels), rtol=1e-4, atol=1e-4)


def test_state_and_bytes() -> None:
    torch.manual_seed(0)
    gate = Gate([TaskAutoEncoder(AutoEncoder(192, 8), Normalization((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))) for _ in range(2)])
    again = Gate.from_state(gate.state())
    images, pixels = made_split(3, 2, seed=0).images, open_extractor("pixels")
    assert torch.equal(again.errors(images, pixels), gate.errors(images, pixels))
    assert again.bytes == gate.bytes == 2 * 4 * (192 * 8 + 8 + 8 * 192 + 192 + 2 * 192)
    assert not any(parameter.requires_grad for entry in again.entries for parameter in entry.autoencoder.parameters())
