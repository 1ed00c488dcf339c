"""Zero-cost scores: by hand, against plain loops, and what they leave as they found it."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lifelong.networks.cells import CellNetwork
from lifelong.networks.genotype import DARTS_V1, DARTS_V2, Genotype
from lifelong.search.proxies import (
    NAMES,
    CellScores,
    best,
    cell_scores,
    log_ranks,
    most_parameters,
    naswot,
    score,
    spectral_entropy,
    synflow,
    zico,
)

POOLS = ((("max_pool_3x3", 0), ("avg_pool_3x3", 1)),) * 4
MAKERS: list[Callable[[], nn.Module]] = [lambda cell=cell: CellNetwork(cell, 4, 3) for cell in (DARTS_V1, DARTS_V2, Genotype(POOLS, POOLS))]


def batch(seed: int = 0, images: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(images, 3, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(images) % 3


def test_synflow_by_hand() -> None:
    """R = 1 v1 |w1 . 1| + ...: of y = |V| |W| 1 every layer's flow is R itself, so that two layers without biases have 2 R."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, -2, 3], [-4, 5, 6]]))
        network[3].weight.copy_(torch.tensor([[7.0, -8], [9, 10]]))
    hidden = [1 + 2 + 3, 4 + 5 + 6]
    flow = (7 + 9) * hidden[0] + (8 + 10) * hidden[1]
    assert synflow(network, (3, 1, 1)) == 2 * flow


def test_synflow_passes_over_batch_norm() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2, bias=False))
    normed = nn.Sequential(plain[0], nn.BatchNorm2d(4), *plain[1:])
    normed[1].weight.data.fill_(7.0)
    normed[1].running_var.fill_(9.0)
    assert synflow(normed, (3, 4, 4)) == synflow(plain, (3, 4, 4)) > 0


def test_naswot_against_a_plain_loop() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten())
    images, _ = batch()
    first = network[1](network[0](images))
    codes = [first.flatten(1) > 0, network[3](first.relu()).flatten(1) > 0]
    kernel = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(6):
        for j in range(6):
            kernel[i, j] = sum(int(on == other) for code in codes for on, other in zip(code[i], code[j], strict=True))
    assert naswot(network, images) == pytest.approx(float(kernel.logdet()), abs=1e-9)


def test_naswot_of_equal_images_is_the_worst() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU())
    images, _ = batch()
    assert naswot(network, images[:1].expand(6, 3, 8, 8).contiguous()) == -math.inf
    assert best([-math.inf, math.nan, -5.0, math.inf, -4.0, -4.0]) == 4
    assert best([math.nan, -math.inf]) == 0


def test_zico_against_a_plain_loop() -> None:
    """Layer by layer, over weights whose gradient differs between the batches."""
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    batches = [batch(1), batch(2)]
    taken = []
    for images, labels in batches:
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        taken.append([network[place].weight.grad.double().clone() for place in (0, 3)])
    wanted = 0.0
    for one, other in zip(*taken, strict=True):
        total = 0.0
        for a, b in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True):
            deviation = abs(a - b) / 2  # of two numbers
            total += (abs(a) + abs(b)) / 2 / deviation if deviation else 0.0
        wanted += math.log(total)
    network.zero_grad()
    assert zico(network, batches) == pytest.approx(wanted, rel=1e-6)


def test_spectral_entropy_by_hand() -> None:
    """Two channels of equal variance that do not vary together: ln 2. One that does not vary at all: 0."""
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])[:, :, None, None]
    assert spectral_entropy(signs) == pytest.approx(math.log(2), abs=1e-6)
    assert spectral_entropy(signs * torch.tensor([1.0, 0])[:, None, None]) == pytest.approx(0, abs=1e-6)


def test_ranks_by_hand() -> None:
    """Of three: by the first score 3, 2, 1; by the second a tie for the best; by the third one that cannot be computed."""
    scores = [CellScores(9, 1, math.nan, 5), CellScores(8, 1, 0, 6), CellScores(7, 0, -1, 7)]
    # Who is tied for the best has the best rank. Not a number is the worst, as is the last of those that are.
    third = math.log(1 / 3)
    wanted = [0 + 0 + third + third, math.log(2 / 3) + 0 + 0 + math.log(2 / 3), third + third + math.log(2 / 3) + 0]
    assert log_ranks(scores) == pytest.approx(wanted)


def test_the_scores_of_cells() -> None:
    """Products of a forward pass, counted by hand for a stem and one cell of pools; a cell that hands its input on is trainable."""
    keep = ((("skip_connect", 0), ("skip_connect", 1)),) * 4
    one = cell_scores(CellNetwork(Genotype(POOLS, POOLS), 4, 1), (3, 8, 8), 5, 0)
    stem, preprocess = 8 * 8 * 12 * 27, 2 * 8 * 8 * 4 * 12
    # With one cell, which reduces: its two inputs are preprocessed at full size.
    assert one.complexity == stem + preprocess
    assert one.progressivity == 0
    assert one == cell_scores(CellNetwork(Genotype(POOLS, POOLS), 4, 1), (3, 8, 8), 5, 0)
    two = cell_scores(CellNetwork(Genotype(keep, keep), 4, 4), (3, 8, 8), 5, 0)
    assert two.trainability <= 0
    assert 0 < two.expressivity <= 4 * math.log(16)


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_scored_under_the_same_conditions(name: str) -> None:
    """One that is given twice has the same score twice, wherever it stands, and nothing outside has changed."""
    batches, before = [batch(1), batch(2)], torch.get_rng_state()
    found = score(name, [MAKERS[0], MAKERS[2], MAKERS[0]], batches, [3, 4])
    assert found[0] == found[2] != found[1]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(math.isfinite, found))
    assert best(score(name, [MAKERS[2], MAKERS[1]], batches, [3])) == 1, "a cell of pools alone is the worst by every score"


def test_networks_are_left_as_they_are_found() -> None:
    network = nn.Sequential(CellNetwork(DARTS_V1, 4, 2), nn.Linear(16, 3)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batches = [batch(1), batch(2)]
    for _ in (synflow(network, (3, 8, 8)), naswot(network, batches[0][0]), zico(network, batches), most_parameters(network)):
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
        assert not network.training
        assert all(parameter.grad is None for parameter in network.parameters())
    cell_scores(network[0], (3, 8, 8), 4, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
