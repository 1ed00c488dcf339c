"""A-GEM: the projection, what it is applied to, and what the reference pass must not touch."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.methods import agem
from lifelong.methods.agem import AGEM, project, statistics_untouched
from lifelong.settings.baselines import AGEMSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import image_examples
from tests.made import made_batch, made_task
from tests.methods.test_par import context

SMALL = AGEMSettings(init_channels=4, memory_per_class=5, memory_batch=8)
TRAINING = TrainingSettings(epochs=3, batch_size=8, lr=0.05)


def inner(left: list, right: list) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(left, right, strict=True) if a is not None and b is not None)


def learned(tasks: int) -> AGEM:
    method = AGEM(SMALL)
    for index in range(tasks):
        method.learn(made_task(kind=index, seed=index), context(index, TRAINING))
    return method


def test_a_case_by_hand() -> None:
    """g = (1, 0, 2), r = (-1, 1, 0): g.r = -1, r.r = 2, so half of r is added."""
    projected = project([torch.tensor([1.0, 0.0]), torch.tensor([2.0])], [torch.tensor([-1.0, 1.0]), torch.tensor([0.0])])
    assert [tensor.tolist() for tensor in projected if tensor is not None] == [[0.5, 0.5], [2.0]]


def test_parameters_of_one_loss_only_count_as_zero_in_the_other() -> None:
    """g = (3, -, 1), r = (-1, 2, -): g.r = -3, r.r = 5."""
    projected = project([torch.tensor([3.0]), None, torch.tensor([1.0])], [torch.tensor([-1.0]), torch.tensor([2.0]), None])
    expected = [torch.tensor([3 - 0.6]), torch.tensor([1.2]), torch.tensor([1.0])]
    for ours, theirs in zip(projected, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_does_not_point_against_the_memory_is_left_as_it_is() -> None:
    gradient = [torch.randn(20, generator=torch.Generator().manual_seed(0))]
    for reference in (gradient, [torch.zeros(20)], [None], [torch.full((20,), 1e-14) * -gradient[0].sign()]):
        (followed,) = project(gradient, reference)
        assert followed is not None
        assert torch.equal(followed, gradient[0])
    assert project([None], [torch.ones(3)]) == [None]


def test_the_projected_gradient_never_points_against_the_memory() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes, turned = [(64, 3, 3, 3), (64,), (10, 64)], 0
    for _ in range(200):
        gradient, reference = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
        projected = project(gradient, reference)
        scale = inner(gradient, gradient) ** 0.5 * inner(reference, reference) ** 0.5
        assert inner(projected, reference) / scale >= -1e-6
        if inner(gradient, reference) < 0:
            turned += 1
            assert abs(inner(projected, reference)) / scale <= 1e-6
            # The nearest such gradient: what was taken away is a multiple of the reference.
            removed = [a - b for a, b in zip(gradient, projected, strict=True) if b is not None]
            cosine = inner(removed, reference) / (inner(removed, removed) * inner(reference, reference)) ** 0.5
            assert abs(cosine + 1) < 1e-6
    assert 50 < turned < 150


def test_the_gradient_that_is_followed_is_projected_on_the_memory_batch() -> None:
    """Entering `update` against autograd on copies, in the same mode; and the reference pass leaves no trace in the network."""
    method = learned(2)
    task = made_task(kind=2, seed=2)
    examples, head = image_examples(task), nn.Linear(4, 3)
    network = method.backbone
    assert network is not None
    network.train().requires_grad_(True)
    plain = copy.deepcopy(network)
    method.heads.requires_grad_(False)
    inputs, labels = examples.prepare(examples.train[:8]), examples.train_labels[:8]
    batch = made_batch(inputs, labels, torch.arange(8), generator=torch.Generator().manual_seed(5))
    # A loss that grows: its gradient points against the memory's.
    random = torch.Generator().manual_seed(5)
    parts = method.buffer.parts(torch.randperm(30, generator=random)[:8], random)
    with statistics_untouched(network):
        (-method.mean_loss(parts, list(method.heads)) + F.cross_entropy(head(network(inputs)), labels)).backward()
    gradient = [p.grad.clone() for p in network.parameters()]  # ty: ignore
    head_gradient = head.weight.grad.clone()  # ty: ignore
    before = copy.deepcopy(network.state_dict())

    answers = plain(torch.cat([part.inputs for part in parts])).split([len(part.labels) for part in parts])
    losses = [F.cross_entropy(method.heads[p.task](f), p.labels, reduction="sum") for f, p in zip(answers, parts, strict=True)]
    reference = torch.autograd.grad(sum(losses) / 8, list(plain.parameters()))  # ty: ignore
    product = inner(gradient, reference)
    assert product < 0
    expected = [g - product / inner(reference, reference) * r for g, r in zip(gradient, reference, strict=True)]

    update = method.update(head, examples)
    assert update is not None
    with update(batch):
        for parameter, wanted in zip(network.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)
        assert torch.equal(head.weight.grad, head_gradient)  # ty: ignore
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_in_training_no_gradient_points_against_the_memory(monkeypatch) -> None:
    products: list[tuple[float, float]] = []

    def recording(gradient, reference) -> list[Tensor | None]:
        result = project(gradient, reference)
        products.append((inner(gradient, reference), inner(result, reference)))
        return result

    monkeypatch.setattr(agem, "project", recording)
    learned(3)
    # Steps of a task: 3 epochs of 36 images in batches of 8; none in the first, which has no memory.
    assert len(products) == 2 * 3 * 5
    assert all(after >= -1e-6 for _, after in products)
    assert any(before < -1e-4 for before, _ in products)
    assert all(after == before for before, after in products if before >= 0)


def test_statistics_are_those_of_the_batch_and_stay() -> None:
    norm = nn.BatchNorm2d(3).train()
    images = torch.randn(4, 3, 5, 5)
    expected = copy.deepcopy(norm)(images)
    before = copy.deepcopy(norm.state_dict())
    with statistics_untouched(nn.Sequential(norm)):
        assert torch.equal(norm(images), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    norm(images)
    assert norm.num_batches_tracked == 1


def test_old_heads_stay() -> None:
    method = learned(1)
    before = copy.deepcopy(method.heads[0].state_dict())
    method.learn(made_task(kind=1, seed=1), context(1, TRAINING))
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.heads[0].state_dict().items())
    assert method.memory() == {"exemplars": 30 * 192, "exemplar labels": 30 * 8}
