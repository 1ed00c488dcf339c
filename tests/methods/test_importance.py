"""What EWC and MAS share: gradients of single samples side by side, and a penalty that stays one quadratic however many tasks there are."""

import pytest
import torch
from torch import Tensor, nn

from lifelong.methods.backbone import make_shared_backbone
from lifelong.methods.importance import Quadratic, flat, logits_of, mean_over_samples, shared_parameters
from lifelong.networks.tasknorm import add_task, use_task
from lifelong.settings.baselines import SharedBackboneSettings
from lifelong.training.examples import Examples, image_examples
from lifelong.training.persample import numbers_per_sample
from tests.made import made_task


def made_network(batch_norm: str = "shared", backbone: str = "light-resnet18") -> tuple[nn.Module, nn.Module]:
    """A backbone that has seen images of two tasks, with other affine weights for each where they have their own; a head of 3 classes."""
    torch.manual_seed(0)
    network = make_shared_backbone(SharedBackboneSettings(init_channels=4, backbone=backbone, batch_norm=batch_norm), 8)
    for task in (0, 1):
        if task:
            add_task(network)
        for _ in range(10):
            network.train()(torch.randn(16, 3, 8, 8) * (1 + task))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn(parameter.shape) * (parameter.dim() == 1)
    use_task(network, 0)
    return network.eval().requires_grad_(False), nn.Linear(network.feature_dim, 3).eval().requires_grad_(False)


def made_examples() -> Examples:
    return image_examples(made_task(train=3))


def test_the_samples_differ() -> None:
    """Else their gradients would, and nothing could be told apart."""
    (network, head), examples = made_network(), made_examples()
    rows = torch.stack(gradients_one_by_one(network, head, examples, lambda logits, index: logits[0]))
    assert ((rows != 0).float().mean() > 0.5).item()
    assert (rows.std(dim=0) > 0.1 * rows.abs().mean(dim=0)).float().mean() > 0.5


def gradients_one_by_one(network: nn.Module, head: nn.Module, examples: Examples, function) -> list[Tensor]:
    """The plain version: a batch of one image after the other, and autograd of a function of its logits and position."""
    parameters = list(shared_parameters(network).values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    rows = []
    for index in range(len(examples.train)):
        value = function(head(network(examples.prepare(examples.train[index : index + 1])))[0], index)
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        rows.append(torch.cat([gradient.flatten() for gradient in filled]))
    network.requires_grad_(False)
    return rows


POLICIES = ["shared", "per-task-stats", "per-task", "frozen"]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    ("batch_norm", "backbone"),
    [*((policy, "light-resnet18") for policy in POLICIES), *((policy, "cells") for policy in POLICIES[:2])],
)
def test_side_by_side_is_one_by_one_whatever_the_batch_norm(batch_norm: str, backbone: str) -> None:
    (network, head), examples = made_network(batch_norm, backbone), made_examples()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = {}
    for task in (0, 1):
        use_task(network, task)
        plain = gradients_one_by_one(network, head, examples, lambda logits, index: logits[0] + 2 * logits[1])
        found[task] = mean_over_samples(
            network, head, examples, examples.train_labels, lambda z, y: torch.tensor([[1.0, 2.0, 0.0]]), torch.abs
        )
        torch.testing.assert_close(found[task], torch.stack(plain).abs().mean(dim=0), rtol=1e-8, atol=1e-10)
    apart = batch_norm in ("per-task-stats", "per-task")
    assert torch.allclose(found[0], found[1]) is not apart
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training


def test_a_network_with_layers_of_its_own_takes_one_image_after_the_other() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)).eval()
    head, examples = nn.Linear(5, 3), made_examples()
    parameters = dict(shared_parameters(network))
    assert numbers_per_sample(network, logits_of(network, head), parameters, examples.prepare(examples.train[:2])) is None
    plain = gradients_one_by_one(network, head, examples, lambda logits, index: logits[0] + 2 * logits[1])
    found = mean_over_samples(network, head, examples, examples.train_labels, lambda z, y: torch.tensor([[1.0, 2.0, 0.0]]), torch.abs)
    torch.testing.assert_close(found, torch.stack(plain).abs().mean(dim=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_norm", POLICIES)
@pytest.mark.parametrize("backbone", ["light-resnet18", "cells", "alexnet-hat", "alexnet-gpm"])
def test_no_backbone_takes_one_image_after_the_other(backbone: str, batch_norm: str) -> None:
    network = make_shared_backbone(SharedBackboneSettings(init_channels=2, backbone=backbone, batch_norm=batch_norm), 8).eval()
    add_task(network)
    head, parameters = nn.Linear(network.feature_dim, 3), dict(shared_parameters(network))
    assert numbers_per_sample(network, logits_of(network, head), parameters, torch.randn(2, 3, 24, 24)) is not None


@pytest.mark.usefixtures("in_float64")
def test_steps_of_bounded_memory_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    (network, head), examples = made_network(), made_examples()
    arguments = (network, head, examples, examples.train_labels, lambda z, y: z.unsqueeze(0), torch.square)
    whole = mean_over_samples(*arguments)
    monkeypatch.setattr("lifelong.methods.importance.SAMPLES_AT_ONCE", 4)
    torch.testing.assert_close(mean_over_samples(*arguments), whole)
    monkeypatch.setattr("lifelong.methods.importance.NUMBERS_AT_ONCE", 1)
    torch.testing.assert_close(mean_over_samples(*arguments), whole)


def test_what_tasks_share() -> None:
    def count(batch_norm: str) -> int:
        return len(flat(shared_parameters(made_network(batch_norm)[0]).values()))

    channels, norms = 4, 20
    everything = sum(p.numel() for p in made_network()[0].parameters())
    assert count("shared") == count("per-task-stats") == count("frozen") == everything
    assert count("per-task") == everything - norms * 2 * channels


def quadratics(count: int) -> list[Quadratic]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        importance = torch.rand(50, generator=generator, dtype=torch.float64)
        importance[torch.rand(50, generator=generator) < 0.4] = 0
        made.append(Quadratic(importance, torch.randn(50, generator=generator, dtype=torch.float64)))
    return made


def test_a_quadratic_is_zero_and_flat_at_its_anchor() -> None:
    (quadratic,) = quadratics(1)
    weights = quadratic.anchor.clone().requires_grad_(True)
    value = quadratic(weights)
    value.backward()
    assert value == 0
    assert not weights.grad.any()
    away = (quadratic.anchor + 0.5).requires_grad_(True)
    quadratic(away).backward()
    torch.testing.assert_close(away.grad, 2 * quadratic.importance * 0.5)


def test_the_sum_of_many_tasks_quadratics_is_one_but_for_a_constant() -> None:
    separate = quadratics(4)
    together = separate[0].plus(separate[1]).plus(separate[2]).plus(separate[3])
    points = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    off = [sum(float(q(point)) for q in separate) - float(together(point)) for point in points]
    assert off[0] > 0
    assert off == pytest.approx([off[0]] * 3)
    weights = points[0].clone().requires_grad_(True)
    (plain,) = torch.autograd.grad(sum(q(weights) for q in separate), weights)
    (ours,) = torch.autograd.grad(together(weights), weights)
    torch.testing.assert_close(ours, plain)
    nowhere = sum(q.importance for q in separate) == 0
    assert nowhere.any()
    assert together.anchor.isfinite().all()


def test_a_moved_quadratic_adds_up_at_the_newest_anchor() -> None:
    first, second = quadratics(2)
    moved = first.moved(second, 0.9)
    torch.testing.assert_close(moved.importance, 0.9 * first.importance + second.importance)
    assert torch.equal(moved.anchor, second.anchor)
