"""What holds a shared expert besides distillation: each against a plain way to compute it, or against what it must equal."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lifelong
from lifelong.data.task import Task
from lifelong.methods.conformance import TRAINING, made_context
from lifelong.methods.more_regularizers import EWC, L2SP, MAS, FeatureDistillation
from lifelong.methods.par import PAR
from lifelong.methods.regularizers import Shared
from lifelong.settings.baselines import EWCSettings, MASSettings
from lifelong.settings.par import PARSettings
from lifelong.training.examples import image_examples
from lifelong.training.stages import initial
from tests.made import made_batch, made_split, made_task

ONE = PARSettings(variant="regularization", init_channels=4, cells=2)


def learned(settings: PARSettings, tasks: int = 2) -> PAR:
    method = PAR(settings)
    for index in range(tasks):
        method.learn(made_task(kind=index, seed=index), made_context(index, replace(TRAINING, epochs=2)))
    return method


def flat(module: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in module.state_dict().values()])


@pytest.fixture
def shared() -> Shared:
    """A linear expert of two layers, whose first is not trained, and a head, before a task."""
    with initial(0):
        task: Task = made_task(train=4)
        expert = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 5))
        return Shared(expert, nn.Linear(5, 3), [], image_examples(task), None, ONE, made_context(1), {"2.weight", "2.bias"})


def test_one_that_keeps_something_keeps_its_contract() -> None:
    lifelong.check_regularizer("ewc", images=2)


def test_a_frozen_expert_forgets_nothing() -> None:
    probe = made_split(3, 4, seed=9).images
    method = learned(replace(ONE, regularizer="frozen"), tasks=1)
    answer = method.logits(probe, 0)
    record = method.learn(made_task(kind=1, seed=1), made_context(1))
    assert torch.equal(method.logits(probe, 0), answer)
    assert record.frozen
    assert record.reason.endswith("head only (regularizer 'frozen')")


@pytest.mark.parametrize("name", ["distillation", "feature-distillation", "ewc", "mas", "l2-sp"])
def test_without_weight_all_of_them_are_plain_fine_tuning(name: str) -> None:
    plain = flat(learned(replace(ONE, regularizer="none")).experts[0])
    free = flat(learned(replace(ONE, regularizer=name, kd_weight=0.0)).experts[0])
    assert torch.equal(plain, free)


@pytest.mark.parametrize("name", ["ewc", "mas", "l2-sp", "feature-distillation"])
def test_each_holds_at_its_default_weight(name: str) -> None:
    """Weights move less than in fine-tuning; features, for what holds those."""
    start = learned(ONE, tasks=1)
    ends = [learned(replace(ONE, regularizer=other)) for other in (name, "none")]
    task = made_task(kind=1, seed=1)
    images = image_examples(task).prepare(task.train.images)
    with torch.no_grad():
        seen = (lambda m: m.experts[0](images)) if name == "feature-distillation" else lambda m: m.experts[0].stem[0].weight
        moved = [(seen(end) - seen(start)).norm() for end in ends]
    assert moved[0] < moved[1]


def test_l2_sp_pulls_to_the_weights_before(shared: Shared) -> None:
    layer = shared.expert[2]
    loss, before = L2SP().loss(shared), layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(0.25)
        shared.expert[1].weight.add_(1.0)  # it is not trained, and not held
    batch = made_batch(shared.examples.prepare(shared.examples.train), shared.examples.train_labels, torch.arange(12))
    plain = F.cross_entropy(shared.head(shared.expert(batch.inputs)), batch.labels)
    (got,) = torch.autograd.grad(loss(batch), [layer.weight])
    (free,) = torch.autograd.grad(plain, [layer.weight])
    torch.testing.assert_close(got - free, 2 * L2SP.scale * (layer.weight.detach() - before), rtol=1e-4, atol=1e-6)
    assert loss(batch).item() == pytest.approx(plain.item() + L2SP.scale * 0.25**2 * before.numel(), rel=1e-5)


def test_mas_by_single_images(shared: Shared) -> None:
    """Eq. 2 and 3 of its paper, image by image, of the trained weights alone; a second task is added to it."""
    images = shared.examples.prepare(shared.examples.train)
    expected = torch.zeros_like(shared.expert[2].weight)
    for image in images.split(1):
        (gradient,) = torch.autograd.grad(shared.head(shared.expert(image)).square().sum(), [shared.expert[2].weight])
        expected += gradient.abs() / len(images)
    kept = MAS().keep(shared)
    assert len(kept["importance"]) == len(kept["anchor"]) == 6 * 5 + 5
    torch.testing.assert_close(kept["importance"][:30].view(5, 6), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(kept["anchor"][:30].view(5, 6), shared.expert[2].weight.detach())
    twice = MAS().keep(replace(shared, kept=kept))
    torch.testing.assert_close(twice["importance"], 2 * kept["importance"])


def test_ewc_by_the_definition(shared: Shared) -> None:
    """The mean over images and labels, by their probability, of squared gradients."""
    images = shared.examples.prepare(shared.examples.train)
    expected = torch.zeros_like(shared.expert[2].weight)
    for image in images.split(1):
        probabilities = shared.head(shared.expert(image)).log_softmax(dim=1)[0]
        for label in range(3):
            (gradient,) = torch.autograd.grad(probabilities[label], [shared.expert[2].weight], retain_graph=True)
            expected += probabilities[label].exp().detach() * gradient.square() / len(images)
    kept = EWC().keep(shared)
    torch.testing.assert_close(kept["importance"][:30].view(5, 6), expected, rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        shared.expert[2].weight.add_(0.1)
    batch = made_batch(images, shared.examples.train_labels, torch.arange(12))
    held, free = EWC().loss(replace(shared, kept=kept))(batch), EWC().loss(shared)(batch)
    assert (held - free).item() == pytest.approx(EWC.scale * 0.1**2 * expected.sum().item(), rel=1e-3)


def test_scales_are_a_tenth_of_the_methods_weights() -> None:
    assert EWC.scale == pytest.approx(EWCSettings().penalty_weight / 2 / 10)
    assert MAS.scale == pytest.approx(MASSettings().penalty_weight / 10)


def test_feature_distillation_by_hand(shared: Shared) -> None:
    loss = FeatureDistillation().loss(replace(shared, settings=replace(ONE, kd_weight=2.0)))
    with torch.no_grad():
        shared.expert[2].bias.add_(torch.tensor([0.0, 0.0, 0.0, 0.0, 3.0]))
    indices = torch.tensor([3, 1, 7])
    batch = made_batch(shared.examples.prepare(shared.examples.train[indices]), shared.examples.train_labels[indices], indices)
    plain = F.cross_entropy(shared.head(shared.expert(batch.inputs)), batch.labels)
    assert loss(batch).item() == pytest.approx(plain.item() + 2 * FeatureDistillation.scale * 9 / 5, rel=1e-5)


def test_what_is_kept_counts_a_task_that_trains_its_head_alone() -> None:
    settings = replace(ONE, regularizer="mas", freeze_ratio=100.0)
    method = learned(settings, tasks=1)
    before = method.kept[0]["importance"].clone()
    record = method.learn(made_task(kind=1, seed=1), made_context(1))
    assert record.frozen
    assert (method.kept[0]["importance"] >= before).all()
    assert not torch.equal(method.kept[0]["importance"], before)
    assert method.memory()["regularizer"] == 2 * 4 * sum(p.numel() for p in method.experts[0].parameters())
