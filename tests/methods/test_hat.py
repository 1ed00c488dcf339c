"""HAT: annealing, compensation and sparsity by hand; what is protected keeps its bits, and so do old answers."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lifelong.methods.hat import HAT, annealed, compensation, sparsity
from lifelong.networks.gates import freedom, gates, used
from lifelong.settings.baselines import HATSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import image_examples
from tests.made import made_batch, made_split, made_task
from tests.methods.test_par import context

TRAINING = TrainingSettings(epochs=4, batch_size=9, lr=0.01, patience=0)


def learn(method: HAT, tasks: int, training: TrainingSettings = TRAINING) -> HAT:
    for index in range(len(method.tasks), tasks):
        method.learn(made_task(kind=index, seed=index, train=12), context(index, training))
    return method


def hat(tasks: int, training: TrainingSettings = TRAINING, **changes) -> HAT:
    return learn(HAT(HATSettings(init_channels=6, **changes)), tasks, training)


def scale_at(step: int, steps: int) -> float:
    return annealed(torch.tensor(float(step), dtype=torch.float64), steps, 400.0).item()


def test_annealing():
    assert [scale_at(step, 5) for step in (0, 4)] == [1 / 400, 400.0]
    assert scale_at(2, 5) == pytest.approx((400 + 1 / 400) / 2)
    assert scale_at(0, 1) == 400.0


@pytest.mark.parametrize(("scale", "s_max"), [(1.0, 1.0), (3.0, 3.0), (0.25, 4.0), (2.0, 8.0)])
def test_compensation_undoes_the_scale(scale, s_max):
    """Autograd through sigmoid(s e), compensated, is s_max times autograd through sigmoid(e); at s = s_max = 1 nothing changes."""
    e = torch.linspace(-3, 3, 13, dtype=torch.float64, requires_grad=True)
    scaled, plain = (torch.autograd.grad(torch.sigmoid(s * e).sum(), e)[0] for s in (scale, 1.0))
    factor = compensation(e.detach(), scale, s_max)
    torch.testing.assert_close(scaled * factor, s_max * plain)
    if s_max == 1:
        torch.testing.assert_close(factor, torch.ones_like(factor))


def test_compensation_stays_finite():
    factor = compensation(torch.tensor([-6.0, 0.0, 6.0]), 400.0, 400.0)
    assert factor[1] == 1.0
    torch.testing.assert_close(factor[2].item(), (math.cosh(50) + 1) / (math.cosh(6) + 1), rtol=1e-5, atol=0)


def test_sparsity_by_hand():
    gate = {"a": torch.tensor([0.5, 1.0]), "b": torch.tensor([0.25])}
    assert sparsity(gate, {"a": torch.zeros(2), "b": torch.zeros(1)}) == pytest.approx(1.75 / 3)
    assert sparsity(gate, {"a": torch.tensor([1.0, 0.5]), "b": torch.tensor([0.0])}) == pytest.approx((0.5 + 0.25) / 1.5)
    assert sparsity(gate, {"a": torch.ones(2), "b": torch.ones(1)}) == 0.0


@pytest.mark.parametrize("plain_sgd", [True, False])
@pytest.mark.parametrize("batch_norm", ["per-task", "shared"])
def test_protected_weights_keep_their_bits(plain_sgd, batch_norm):
    """Over a whole task, with momentum and weight decay where they are asked for; free weights do move."""
    training = TrainingSettings(epochs=4, batch_size=9, lr=0.02, momentum=0.9, weight_decay=0.1, patience=0)
    method = hat(1, training, plain_sgd=plain_sgd, batch_norm=batch_norm)
    shares = freedom(method.backbone, used(method.backbone, [0]))
    before = [parameter.clone() for parameter, _ in shares]
    learn(method, 2, training)
    held = moved = 0
    for old, (parameter, share) in zip(before, shares, strict=True):
        fixed = share.expand_as(old) == 0
        assert torch.equal(parameter[fixed], old[fixed])
        held += int(fixed.sum())
        moved += int((parameter != old)[~fixed].sum())
    assert held > 50
    assert moved > 50


def answers(method: HAT, task: int) -> Tensor:
    return method.logits(made_split(3, 8, seed=77, kind=task).images, task)


def test_old_answers_keep_their_bits():
    # With fewer channels all units of a task may be dead, which depends on the processor's rounding.
    method = learn(HAT(HATSettings(init_channels=24)), 1)
    first = answers(method, 0)
    learn(method, 2)
    second = answers(method, 1)
    learn(method, 3)
    assert torch.equal(answers(method, 0), first)
    assert torch.equal(answers(method, 1), second)
    assert all(found.std(dim=0).max() > 1e-3 for found in (first, second, answers(method, 2)))


def test_without_binary_masks_answers_leak_a_little():
    method = hat(1, binary_masks=False)
    with torch.no_grad():
        for gate in gates(method.backbone).values():
            gate.embeddings[0][0] = 0.002  # neither 0 nor 1 at s_max
    before = answers(method, 0)
    learn(method, 2)
    change = (answers(method, 0) - before).abs().max()
    assert change > 0


def test_embeddings_stay_in_bounds_and_are_magnified():
    method = hat(1)
    assert all(gate.embeddings[0].abs().max() <= 6 for gate in gates(method.backbone).values())
    network = method.backbone.requires_grad_(True)
    method.add_task(network)
    examples = image_examples(made_task())
    update = method.update(torch.nn.Identity(), examples)
    batch = made_batch(examples.train, examples.train_labels, examples.train_labels, 1, 3)
    scale = annealed(batch.step, batch.steps, 400.0)
    for gate in gates(network).values():
        gate.embeddings[1].grad = torch.ones(gate.units)
    for gate in gates(network).values():
        gate.embeddings[1].data[0] = 7.0
    expected = {name: compensation(gate.embeddings[1].detach().clone(), scale, 400.0) for name, gate in gates(network).items()}
    with update(batch):
        for name, gate in gates(network).items():
            assert torch.equal(gate.embeddings[1].grad, expected[name])
    assert all(gate.embeddings[1].max() == 6 for gate in gates(network).values() if gate.units)
    assert all(gate.embeddings[0].grad is None for gate in gates(network).values())


def test_sparsity_leaves_room():
    training = replace(TRAINING, batch_size=3)
    few, many = (hat(1, training, sparsity_weight=weight) for weight in (4.0, 0.0))

    def share(method: HAT) -> float:
        return torch.cat(list(used(method.backbone, [0]).values())).mean().item()

    assert share(few) < share(many) - 0.1


def test_parameters_of_the_light_resnet():
    """606,400 with the first task's batch norm; 2,560 for each further one; 1,088 gates and 65 C a task."""
    method = HAT(HATSettings())
    assert method.settings.batch_norm == "per-task"
    method.backbone = method.make_network()
    for tasks in (1, 2, 3):
        counted = sum(parameter.numel() for parameter in method.backbone.parameters())
        assert counted == 606_400 + tasks * 1_088 + (tasks - 1) * 2_560
        method.add_task(method.backbone)


def test_parameters_of_the_alexnet():
    method = HAT(HATSettings(backbone="alexnet-hat"))
    method.backbone = method.make_network()
    for _ in range(9):
        method.add_task(method.backbone)
    assert sum(parameter.numel() for parameter in method.backbone.parameters()) + 10 * 20_490 == 6_754_212


def test_state_round_trip():
    method = hat(2)
    again = HAT(method.settings)
    again.load_state_dict(method.state_dict())
    assert again.num_parameters() == method.num_parameters()
    assert all(torch.equal(answers(again, task), answers(method, task)) for task in (0, 1))
    learn(method, 3)
    learn(again, 3)
    assert torch.equal(answers(again, 2), answers(method, 2))
