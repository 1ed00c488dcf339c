"""Gates: where they are, what they let through, which weights they hold."""

import pytest
import torch
from torch import nn

from lifelong.networks.alexnet import AlexNet
from lifelong.networks.gates import GatedReLU, add_gates, freedom, gates, joined, set_scale, use_gates, used, with_gates
from lifelong.networks.resnet import LightResNet
from lifelong.networks.tasknorm import add_task, with_task_norms


def gated(network: nn.Module) -> nn.Module:
    return with_gates(network, 400.0, binary=True)


@pytest.mark.parametrize(("network", "count", "units"), [(LightResNet(), 17, 1_088), (AlexNet(), 5, 4_544)], ids=["resnet", "alexnet"])
def test_every_relu_and_every_unit_has_a_gate(network, count, units):
    network = gated(network)
    assert len(gates(network)) == count
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())
    assert sum(gate.units for gate in gates(network).values()) == units


def test_a_gate_by_hand():
    gate = GatedReLU(3, 4.0, binary=True)
    with torch.no_grad():
        gate.embeddings[0].copy_(torch.tensor([-1.0, 0.1, 2.0]))
    x = torch.tensor([[-1.0, 2.0, 3.0]])
    gate.scale = 0.5
    soft = 1 / (1 + torch.exp(-torch.tensor([-0.5, 0.05, 1.0])))
    torch.testing.assert_close(gate(x), torch.tensor([[0.0, 2.0, 3.0]]) * soft)
    assert torch.equal(gate.eval()(x), torch.tensor([[0.0, 2.0, 3.0]]))
    gate.binary = False
    torch.testing.assert_close(gate(x), torch.tensor([[0.0, 2.0, 3.0]]) / (1 + torch.exp(-torch.tensor([[-4.0, 0.4, 8.0]]))))


def test_tasks_have_masks_of_their_own():
    torch.manual_seed(0)
    network = gated(LightResNet(16)).eval()
    images = torch.randn(2, 3, 8, 8)
    first = network(images)
    add_gates(network)
    set_scale(network, 2.0)
    assert not torch.equal(network(images), first)
    use_gates(network, 0)
    assert torch.equal(network(images), first)
    both, one = used(network, [0, 1]), used(network, [0])
    assert all((both[name] >= one[name]).all() for name in one)
    assert all(not value.any() for value in used(network, []).values())


def test_joined_entry_by_entry():
    target, source = torch.tensor([0.0, 0.3, 1.0]), torch.tensor([1.0, 0.2])
    weight = joined(target, source, torch.zeros(3, 2, 2, 2)).expand(3, 2, 2, 2)
    flat = joined(target, source, torch.zeros(3, 8)).expand(3, 8)
    for i in range(3):
        for j in range(2):
            smaller = min(target[i], source[j])
            assert (weight[i, j] == smaller).all()
            # A flattened map of 2 x 2: channel j holds four neighbours.
            assert (flat[i, 4 * j : 4 * j + 4] == smaller).all()
    assert torch.equal(joined(target, source, torch.zeros(3)), target)
    assert torch.equal(joined(target, None, torch.zeros(3, 3, 4, 4)).flatten(), target)


@pytest.mark.parametrize("policy", ["shared", "per-task-stats", "per-task", "frozen"])
@pytest.mark.parametrize("make", [lambda: LightResNet(2), lambda: AlexNet(2, batch_norm=True), lambda: AlexNet(2)])
def test_every_shared_parameter_has_its_share(policy, make):
    network = gated(with_task_norms(make(), policy))
    add_task(network)
    add_gates(network)
    nothing = {name: torch.zeros(gate.units) for name, gate in gates(network).items()}
    shares = freedom(network, nothing)
    assert all((share == 1).all() for _, share in shares)
    all_held = {name: torch.ones(gate.units) for name, gate in gates(network).items()}
    assert all((share == 0).all() and (share.expand_as(p) == 0).all() for p, share in freedom(network, all_held))
    covered = {id(parameter) for parameter, _ in shares}
    assert len(covered) == len(shares)
    left = {name for name, parameter in network.named_parameters() if id(parameter) not in covered}
    assert all("embeddings" in name or (policy == "per-task" and ".norms." in name) for name in left)


@pytest.mark.parametrize("make", [lambda: LightResNet(16), lambda: AlexNet(4)])
def test_what_is_free_cannot_be_seen_through_the_masks(make):
    """Whatever happens to weights that are not held, the features through binary masks keep their bits."""
    torch.manual_seed(0)
    network = gated(with_task_norms(make(), "per-task")).eval()
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    assert before.any()
    changed = 0
    with torch.no_grad():
        for parameter, share in freedom(network, used(network, [0])):
            parameter.add_(share.expand_as(parameter) * torch.randn(parameter.shape))
            changed += int(share.expand_as(parameter).sum())
    assert changed > 100
    assert torch.equal(network(images), before)
