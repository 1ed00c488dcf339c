"""EWC: its Fisher estimators against plain autograd and against algebra, and what its penalty does."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.methods.ewc import DRAWS, EWC, IMAGES_PER_DRAW, batched_fisher, exact_fisher, labelled_fisher, sampled_labels, signed_fisher
from lifelong.methods.finetune import Finetune
from lifelong.methods.importance import Quadratic, QuadraticPenaltyMethod, flat, shared_parameters
from lifelong.methods.mas import MAS
from lifelong.settings.baselines import EWCSettings, FinetuneSettings, MASSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import Examples, image_examples
from tests.made import made_batch, made_task
from tests.methods.test_importance import gradients_one_by_one, made_examples, made_network
from tests.methods.test_par import context

BRIEF = TrainingSettings(epochs=1, batch_size=8, lr=0.02)
LONGER = TrainingSettings(epochs=4, batch_size=8, lr=0.02)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def learned(method: Finetune | QuadraticPenaltyMethod, tasks: int = 2, training: TrainingSettings = BRIEF):
    """The method after some tasks of different patterns, and its logits on the first task's test images after each."""
    images = made_task(kind=0, seed=1).test.images
    logits = []
    for index in range(tasks):
        method.learn(made_task(f"task {index}", kind=5 * index, seed=index + 1), context(index, training))
        logits.append(method.logits(images, 0))
    return method, logits


@pytest.mark.usefixtures("in_float64")
def test_exact_fisher_is_the_plain_expectation() -> None:
    (network, head), examples = made_network(), made_examples()
    with torch.no_grad():
        p = head(network(examples.prepare(examples.train))).softmax(dim=1)
    expected = torch.zeros(())
    for y in range(3):
        rows = gradients_one_by_one(network, head, examples, lambda logits, index, y=y: logits.log_softmax(dim=0)[y])
        expected = expected + sum(p[index, y] * row.square() for index, row in enumerate(rows)) / len(rows)
    torch.testing.assert_close(exact_fisher(network, head, examples), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("estimator", ["sampled", "empirical"])
def test_fisher_of_one_label_is_the_plain_loop(estimator: str) -> None:
    (network, head), examples = made_network(), made_examples()
    labels = examples.train_labels if estimator == "empirical" else sampled_labels(network, head, examples, generator())
    assert torch.equal(labels, examples.train_labels) is (estimator == "empirical")
    rows = gradients_one_by_one(network, head, examples, lambda logits, index: F.cross_entropy(logits, labels[index]))
    expected = torch.stack(rows).square().mean(dim=0)
    torch.testing.assert_close(labelled_fisher(network, head, examples, labels), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("in_float64")
def test_batched_fisher_is_batch_size_times_the_squared_mean_gradient() -> None:
    (network, head), examples = made_network(), made_examples()
    rows = torch.stack(
        gradients_one_by_one(network, head, examples, lambda logits, index: F.cross_entropy(logits, examples.train_labels[index]))
    )
    order = torch.randperm(9, generator=generator())
    whole = [3 * rows[part].mean(dim=0).square() for part in order.split(3)]
    expected = torch.stack(whole).mean(dim=0)
    torch.testing.assert_close(batched_fisher(network, head, examples, 3, generator()), expected, rtol=1e-8, atol=1e-12)
    # A batch of one image is the empirical Fisher, which a mean over batches without the factor B could not be told from.
    single = batched_fisher(network, head, examples, 1, generator())
    torch.testing.assert_close(single, rows.square().mean(dim=0), rtol=1e-8, atol=1e-12)
    # 9 = 4 + 4 + 1: weights by the number of images.
    parts = [len(part) ** 2 * rows[part].mean(dim=0).square() for part in order.split(4)]
    uneven = torch.stack(parts).sum(dim=0) / 9
    torch.testing.assert_close(batched_fisher(network, head, examples, 4, generator()), uneven, rtol=1e-8, atol=1e-12)


class Regression(nn.Module):
    """Softmax regression: logits W x of 4 classes from 3 numbers; its head is to do nothing."""

    feature_dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4, bias=False)
        self.weight = self.linear.weight
        nn.init.normal_(self.weight, generator=generator())

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def regression() -> tuple[Regression, Examples, Tensor]:
    """With its analytic Fisher: for W_cd it is the mean of p_c (1 - p_c) x_d^2."""
    x = torch.randn(20, 3, generator=generator())
    labels = torch.arange(20) % 4
    network = Regression()
    p = (x @ network.weight.detach().T).softmax(dim=1)
    fisher = (p * (1 - p)).T @ x.square() / len(x)
    return network, Examples(x, labels, x, labels), fisher.flatten()


def test_exact_fisher_of_softmax_regression_is_the_analytic_one() -> None:
    network, examples, fisher = regression()
    torch.testing.assert_close(exact_fisher(network, nn.Identity(), examples), fisher)


def test_sampled_fisher_is_the_exact_one_on_average() -> None:
    network, examples, fisher = regression()
    many = Examples(examples.train.repeat(300, 1), examples.train_labels.repeat(300), examples.valid, examples.valid_labels)
    labels = sampled_labels(network, nn.Identity(), many, generator())
    # 6,000 draws: a standard error of about 2 %.
    torch.testing.assert_close(labelled_fisher(network, nn.Identity(), many, labels), fisher, rtol=0.1, atol=0.002)
    empirical = labelled_fisher(network, nn.Identity(), examples, examples.train_labels)
    assert not torch.allclose(empirical, fisher, rtol=0.1, atol=0.002)


def test_fisher_by_random_signs_is_the_exact_one_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    network, examples, fisher = regression()
    many = Examples(examples.train.repeat(300, 1), examples.train_labels.repeat(300), examples.valid, examples.valid_labels)
    # 2,000 squares of three images each: a standard error of 3 %.
    monkeypatch.setattr("lifelong.methods.ewc.DRAWS", 2000)
    torch.testing.assert_close(signed_fisher(network, nn.Identity(), many, generator()), fisher, rtol=0.12, atol=0.001)


def test_fisher_by_random_signs_looks_at_so_many_images_however_many_there_are() -> None:
    network, examples, _ = regression()
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    many = Examples(
        torch.arange(6000.0).unsqueeze(1) + torch.zeros(3), torch.zeros(6000, dtype=torch.int64), examples.valid, examples.valid_labels
    )
    signed_fisher(network, nn.Identity(), many, generator())
    assert [len(images) for images in seen] == [IMAGES_PER_DRAW] * DRAWS
    assert len(torch.cat(seen).unique(dim=0)) == DRAWS * IMAGES_PER_DRAW


def test_fisher_by_random_signs_is_near_the_exact_one_and_of_few_images_the_same() -> None:
    (network, head), few = made_network(), made_examples()
    examples = image_examples(made_task(train=50))
    exact = exact_fisher(network, head, examples)
    found = signed_fisher(network, head, examples, generator())
    # The images of a draw are few, and add to the variance of its signs, 2.
    assert 0 < (found - exact).norm() / exact.norm() < 2 * (4 / DRAWS) ** 0.5
    assert torch.equal(signed_fisher(network, head, few, generator()), exact_fisher(network, head, few))


@pytest.mark.parametrize("fisher", ["exact", "signs", "sampled", "empirical", "batched"])
def test_the_estimator_is_the_one_that_was_named(fisher: str) -> None:
    method, _ = learned(EWC(EWCSettings(init_channels=4, fisher=fisher)), tasks=1)
    network, head, examples = method.backbone, method.heads[0], image_examples(made_task(kind=0, seed=1))
    # The task has few images, of which `signs` is exact.
    expected = {
        "exact": exact_fisher(network, head, examples),
        "empirical": labelled_fisher(network, head, examples, examples.train_labels),
    }
    same = {name for name, value in expected.items() if torch.allclose(method.quadratic.importance, value, rtol=1e-4)}
    assert same == ({"exact"} if fisher == "signs" else {fisher} & set(expected))
    assert torch.equal(method.quadratic.anchor, flat(shared_parameters(network).values()))
    assert method.quadratic.importance.min() >= 0
    assert method.quadratic.importance.max() > 0


@pytest.mark.usefixtures("in_float64")
def test_the_fisher_of_some_images_is_that_of_images_of_the_task() -> None:
    one, _ = learned(EWC(EWCSettings(init_channels=4, fisher="empirical", fisher_samples=1)), tasks=1)
    examples = image_examples(made_task(kind=0, seed=1))
    images = [replace(examples, train=examples.train[i : i + 1], train_labels=examples.train_labels[i : i + 1]) for i in range(36)]
    each = [labelled_fisher(one.backbone, one.heads[0], image, image.train_labels) for image in images]
    assert sum(torch.allclose(one.quadratic.importance, value) for value in each) == 1
    everything, _ = learned(EWC(EWCSettings(init_channels=4, fisher="empirical", fisher_samples=36)), tasks=1)
    torch.testing.assert_close(everything.quadratic.importance, torch.stack(each).mean(dim=0), rtol=1e-8, atol=1e-12)


def test_online_with_gamma_1_has_the_summed_fishers_of_separate_at_another_anchor() -> None:
    first, _ = learned(EWC(EWCSettings(init_channels=4)), tasks=1)
    separate, _ = learned(EWC(EWCSettings(init_channels=4)))
    online, _ = learned(EWC(EWCSettings(init_channels=4, penalty="online")))
    fading, _ = learned(EWC(EWCSettings(init_channels=4, penalty="online", gamma=0.5)))
    newest = flat(shared_parameters(online.backbone).values())
    assert torch.equal(flat(shared_parameters(separate.backbone).values()), newest)
    assert torch.equal(online.quadratic.importance, separate.quadratic.importance)
    second = online.quadratic.importance - first.quadratic.importance
    torch.testing.assert_close(fading.quadratic.importance, 0.5 * first.quadratic.importance + second, rtol=1e-4, atol=1e-7)
    assert torch.equal(online.quadratic.anchor, newest)
    # The published penalties: one for each task, around that task's weights.
    weights = newest.clone().requires_grad_(True)
    (ours,) = torch.autograd.grad(separate.quadratic(weights), weights)
    expected = 2 * first.quadratic.importance * (newest - first.quadratic.anchor)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("made", "scale"),
    [(EWC(EWCSettings(init_channels=4, penalty_weight=6.0)), 3.0), (MAS(MASSettings(init_channels=4, penalty_weight=3.0)), 3.0)],
)
def test_the_loss_is_cross_entropy_and_the_weighted_penalty(made: QuadraticPenaltyMethod, scale: float) -> None:
    method, _ = learned(made, tasks=1)
    examples = image_examples(made_task(kind=5, seed=2))
    head = nn.Linear(4, 3)
    inputs, labels = examples.prepare(examples.train), examples.train_labels
    batch = made_batch(inputs, labels, torch.arange(len(labels)), generator=generator())
    network = method.backbone.requires_grad_(True)
    loss = method.loss(head, examples)

    def both() -> tuple[Tensor, Tensor]:
        cross_entropy = F.cross_entropy(head(network(inputs)), labels)
        return loss(batch), cross_entropy

    total, plain = both()
    assert total == plain
    parameters = list(shared_parameters(network).values())
    at_anchor = [torch.autograd.grad(value, parameters) for value in (total, plain)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*at_anchor, strict=True))
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.01
    total, plain = both()
    extra = (method.quadratic.importance * 0.01**2).sum() * scale
    torch.testing.assert_close(total - plain, extra, rtol=1e-2, atol=1e-5)
    ours, theirs = (flat(torch.autograd.grad(value, parameters)) for value in (total, plain))
    torch.testing.assert_close(ours - theirs, 2 * scale * method.quadratic.importance * 0.01, rtol=1e-2, atol=1e-4)


def test_old_answers_drift_less_than_finetunes() -> None:
    # Frozen statistics: no penalty holds the running ones.
    network = {"init_channels": 4, "batch_norm": "frozen"}
    _, (before, after) = learned(Finetune(FinetuneSettings(**network)), training=LONGER)
    drift = (after - before).norm()
    for method in (EWC(EWCSettings(penalty_weight=1000.0, **network)), MAS(MASSettings(penalty_weight=1000.0, **network))):
        _, (begun, ended) = learned(method, training=LONGER)
        assert torch.equal(begun, before)
        assert (ended - begun).norm() < 0.3 * drift
    _, (_, unheld) = learned(EWC(EWCSettings(penalty_weight=0.0, **network)), training=LONGER)
    assert torch.equal(unheld, after)


@pytest.mark.parametrize("penalty", ["separate", "online"])
def test_what_is_kept_is_counted_and_does_not_grow(penalty: str) -> None:
    method = EWC(EWCSettings(init_channels=4, penalty=penalty))
    assert method.memory() == {}
    learned(method, tasks=2)
    weights = sum(parameter.numel() for parameter in method.backbone.parameters())
    assert method.memory() == {"importance": 4 * weights, "anchor": 4 * weights}
    assert method.num_parameters() == weights + 2 * (3 * 4 + 3)


def test_the_mean_of_all_tasks_fishers_at_the_newest_weights() -> None:
    """After three tasks each Fisher counts a third: (F1 + F2) / 2 counts two, F3 one."""
    first, second = (
        Quadratic(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0])),
        Quadratic(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])),
    )
    third = Quadratic(torch.tensor([4.0, 4.0]), torch.tensor([5.0, 5.0]))
    merged = first.averaged(second, 1).averaged(third, 2)
    torch.testing.assert_close(merged.importance, torch.tensor([8 / 3, 2.0]))
    assert torch.equal(merged.anchor, third.anchor)
    settings = EWCSettings(init_channels=4, fisher="batched", penalty="average")
    alone, _ = learned(EWC(replace(settings, penalty_weight=0.0)), tasks=2)
    summed, _ = learned(EWC(replace(settings, penalty="online", penalty_weight=0.0)), tasks=2)
    torch.testing.assert_close(2 * alone.quadratic.importance, summed.quadratic.importance)
