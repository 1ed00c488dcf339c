import pytest
import torch

from benchmarks import fisher
from lifelong.methods.ewc import exact_fisher


@pytest.mark.slow
def test_rows_of_either_network_and_of_both_estimates(monkeypatch):
    threads = torch.get_num_threads()
    try:
        rows = fisher.main(quick=True)
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    assert [row["name"] for row in rows] == [
        f"fisher{way}, {backbone}" for backbone in ("cells", "light-resnet18") for way in ("", " by signs")
    ]
    exact, estimated = rows[::2], rows[1::2]
    assert all(0 < row["parity"] < 1e-4 for row in exact)
    assert all(0.01 < row["parity"] < 0.5 for row in estimated)
    assert all(row["ours_s"] > 0 and row["ratio"] == row["plain_s"] / row["ours_s"] for row in rows)


def test_the_plain_way_is_the_definition():
    network, head, examples = fisher._task("light-resnet18", 2, 3, 8)
    probabilities = head(network(examples.prepare(examples.train))).softmax(dim=1)
    weight = network.conv1.weight.requires_grad_()
    expected = torch.zeros_like(weight)
    for index, probability in enumerate(probabilities):
        for label in range(fisher.CLASSES):
            score = head(network(examples.prepare(examples.train[index : index + 1])))[0].log_softmax(dim=0)[label]
            (gradient,) = torch.autograd.grad(score, weight)
            expected += probability[label] * gradient.square() / 3
    network.requires_grad_(False)
    found = fisher.one_by_one(network, head, examples)
    torch.testing.assert_close(found[: weight.numel()].view(weight.shape), expected)
    torch.testing.assert_close(found, exact_fisher(network, head, examples), rtol=1e-3, atol=1e-7)
