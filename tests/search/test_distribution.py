import math
import statistics
from collections import Counter

import pytest
import torch

from lifelong.networks.genotype import EDGES, OPERATIONS, Genotype
from lifelong.search.distribution import ENOUGH_ROUNDS, FEWEST_ROUNDS, Distribution, derive, project, votes


def table(*row: float) -> torch.Tensor:
    return torch.tensor([row], dtype=torch.float64)


def test_votes_by_hand():
    """Trained 1, 2, 1, 0, 0, 3 times; accuracies .5, .4, .6, 0, 0, .7.

    The first (1, .5) beats the second (2, .4); the third (1, .6) beats the second; nothing beats the sixth, which has the best
    accuracy, and it beats nothing, as it was trained most.
    """
    assert votes(table(1, 2, 1, 0, 0, 3), table(0.5, 0.4, 0.6, 0, 0, 0.7)).tolist() == [[1, -2, 1, 0, 0, 0]]


def test_a_search_of_two_epochs_by_hand():
    """One epoch with max_pool at 0.5, one with skip at 0.4: equally often trained, so nobody wins. A third with skip at 0.3: now
    max_pool (1 epoch, 0.5) beats skip (2 epochs, 0.3), and a step of 0.01 moves each by 0.01."""
    cell = Distribution()
    for operation, accuracy in ((1, 0.5), (3, 0.4)):
        cell.learn((operation,) * 14, accuracy, 0.01, "simplex")
        torch.testing.assert_close(cell.probabilities, Distribution().probabilities, rtol=0, atol=1e-15)
    cell.learn((3,) * 14, 0.3, 0.01, "simplex")
    expected = table(1 / 6, 1 / 6 + 0.01, 1 / 6, 1 / 6 - 0.01, 1 / 6, 1 / 6).expand(14, 6)
    torch.testing.assert_close(cell.probabilities, expected, rtol=0, atol=1e-15)


def test_the_authors_softmax_flattens():
    moved = table(1 / 6 + 0.05, 1 / 6 - 0.05, *[1 / 6] * 4)
    after = project(moved, "softmax")
    powers = [math.exp(value) for value in moved[0].tolist()]
    torch.testing.assert_close(after, table(*(power / sum(powers) for power in powers)))
    assert after.max() - after.min() < 0.1 / 5


def test_simplex_clamps_and_renormalizes():
    assert project(table(-0.1, 0.3, 0.4, 0.4, 0, 0), "simplex").tolist()[0] == pytest.approx([0, 0.3 / 1.1, 0.4 / 1.1, 0.4 / 1.1, 0, 0])


def plain_update(p, trained, accuracy, step, projection):
    """The update of one edge, as plain loops over Python numbers (facts 2.5)."""
    moved = []
    for c in range(len(p)):
        plus = sum(trained[c] - trained[r] < 0 and accuracy[c] - accuracy[r] > 0 for r in range(len(p)))
        minus = sum(trained[c] - trained[r] > 0 and accuracy[c] - accuracy[r] < 0 for r in range(len(p)))
        moved.append(p[c] + step * (plus - minus))
    assert sum(moved) == pytest.approx(sum(p), abs=1e-12)
    if projection == "softmax":
        powers = [math.exp(value) for value in moved]
        return [power / sum(powers) for power in powers]
    clamped = [max(value, 0.0) for value in moved]
    return [value / sum(clamped) for value in clamped]


@pytest.mark.parametrize("projection", ["simplex", "softmax"])
@pytest.mark.parametrize("step", [0.01, 0.2])
def test_against_plain_loops(projection, step):
    generator = torch.Generator().manual_seed(5)
    cell = Distribution()
    p = [[1 / 6] * 6 for _ in EDGES]
    trained = [[0] * 6 for _ in EDGES]
    accuracy = [[0.0] * 6 for _ in EDGES]
    for _ in range(60):
        plan = cell.sample(generator)
        score = round(torch.rand((), generator=generator).item(), 1)
        cell.learn(plan, score, step, projection)
        for edge, choice in enumerate(plan):
            trained[edge][choice] += 1
            accuracy[edge][choice] = score
            p[edge] = plain_update(p[edge], trained[edge], accuracy[edge], step, projection)
        # The same probabilities to sample from: else rounding could part the two.
        torch.testing.assert_close(cell.probabilities, torch.tensor(p, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (cell.probabilities >= 0).all()
    assert bool((cell.probabilities == 0).any()) == (projection == "simplex")


def test_votes_sum_to_zero_and_are_whole():
    generator = torch.Generator().manual_seed(0)
    trained = torch.randint(5, (14, 6), generator=generator).double()
    accuracy = torch.randint(4, (14, 6), generator=generator).double()
    assert votes(trained, accuracy).dtype == torch.int64
    assert not votes(trained, accuracy).sum(dim=1).any()
    assert votes(trained, accuracy).any()


def test_sampling_follows_the_probabilities():
    cell = Distribution(probabilities=table(0, 0.5, 0, 0.5, 0, 0).repeat(14, 1))
    generator = torch.Generator().manual_seed(0)
    draws = [choice for _ in range(100) for choice in cell.sample(generator)]
    assert set(draws) == {1, 3}
    assert 600 < draws.count(1) < 800


def test_a_search_that_knows_nothing_takes_the_first_or_draws():
    """Facts 5.2: in the authors' code ties fall to max_pool_3x3, and to the first two edges."""
    nothing = Distribution().probabilities
    first = derive(nothing, None)
    assert first.plan == ((("max_pool_3x3", 0), ("max_pool_3x3", 1)),) * 4
    assert first.undecided == 8
    plans = [derive(nothing, torch.Generator().manual_seed(seed)) for seed in range(300)]
    assert derive(nothing, torch.Generator().manual_seed(7)) == plans[7]
    assert {found.undecided for found in plans} == {8}
    drawn = Counter(name for found in plans for node in found.plan for name, _ in node)
    # 2,400 edges, 480 for each of five operations: 4 standard deviations (19.6) either way.
    assert set(drawn) == set(OPERATIONS[1:])
    assert all(400 < count < 560 for count in drawn.values())
    # The last node has 5 edges, of which two are drawn 300 times: 120 for each, 4 standard deviations of 8.5.
    sources = Counter(source for found in plans for _, source in found.plan[3])
    assert set(sources) == set(range(5))
    assert all(86 < count < 154 for count in sources.values())


def test_only_equals_are_drawn():
    """The last node's edge from 2 is the most probable; max_pool and skip are equal there. Of its other edges, those from 0 and 4 are
    equal, and what is on them is certain."""
    p = torch.tensor([0.4, *[0.12] * 5], dtype=torch.float64).repeat(14, 1)
    rows = {edge: row for row, edge in enumerate(EDGES)}
    for node in range(3):  # sure of the first two edges of each
        for source in (0, 1):
            p[rows[node, source]] = torch.tensor([0, 0, 0, 0, 0.9, 0.1])
    p[rows[3, 2]] = torch.tensor([0.1, 0.35, 0.1, 0.35, 0.05, 0.05])
    p[rows[3, 0], 5] = p[rows[3, 4], 4] = 0.2
    found = [derive(p, torch.Generator().manual_seed(seed)) for seed in range(40)]
    assert {one.plan[:3] for one in found} == {((("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),) * 3}
    place = {("dil_conv_3x3", 0), ("sep_conv_3x3", 4)}
    assert {one.plan[3] for one in found} == {
        tuple(sorted((other, (name, 2)), key=lambda operation: operation[1]))
        for other in place
        for name in ("max_pool_3x3", "skip_connect")
    }
    assert {one.undecided for one in found} == {2}
    assert derive(p, None).plan[3] == (("dil_conv_3x3", 0), ("max_pool_3x3", 2))


def test_rounding_decides_nothing():
    p = Distribution().probabilities
    p[:, 4] += 1e-15
    assert derive(p, None).undecided == 8
    p[:, 4] += 1e-9
    assert derive(p, None).plan[0] == (("sep_conv_3x3", 0), ("sep_conv_3x3", 1))


@pytest.mark.parametrize("projection", ["simplex", "softmax"])
def test_how_many_rounds_decide_how_many_edges(projection):
    """None of 16 edges is decided with fewer than `FEWEST_ROUNDS` networks, some are with as many, and nearly all with `ENOUGH_ROUNDS`."""

    def undecided(rounds):
        left = []
        for seed in range(20):
            generator = torch.Generator().manual_seed(seed)
            cell = Distribution()
            for _ in range(rounds):
                plan = cell.sample(generator)
                cell.learn(plan, torch.rand((), generator=generator).item(), 0.01, projection)
            left.append(derive(cell.probabilities, None).undecided)
        return left

    assert set(undecided(FEWEST_ROUNDS - 1)) == {8}
    assert 4 < statistics.fmean(undecided(FEWEST_ROUNDS)) < 8
    assert statistics.fmean(undecided(ENOUGH_ROUNDS)) < 0.3


def test_derivation_by_hand():
    """`none` never wins; the third node's edges from 1 and 3 are the most probable."""
    p = Distribution().probabilities
    p[:, 0] = 0.9
    rows = {edge: row for row, edge in enumerate(EDGES)}
    p[rows[2, 3], OPERATIONS.index("sep_conv_3x3")] = 0.5
    p[rows[2, 1], OPERATIONS.index("dil_conv_3x3")] = 0.4
    p[rows[3, 0], OPERATIONS.index("skip_connect")] = 0.3
    found = derive(p, None)
    assert found.plan[2] == (("dil_conv_3x3", 1), ("sep_conv_3x3", 3))
    assert found.plan[3] == (("skip_connect", 0), ("max_pool_3x3", 1))
    assert found.undecided == 2 + 2 + 1
    assert Genotype(found.plan, found.plan).normal == found.plan
