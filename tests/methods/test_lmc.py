"""LMC: grows where a task is new and nowhere else; what is learned stays; heads are found without a task id."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lifelong.data.augment import normalize
from lifelong.data.task import Split, Task
from lifelong.errors import LifelongError
from lifelong.methods.lmc import LMC, Growth, Samples, mean_state, outlyingness
from lifelong.methods.method import LearnRecord
from lifelong.networks.blocks import make_chain
from lifelong.networks.composition import Catch, LocalModule, Step, StructuralHead, compose, make_module
from lifelong.settings.growing import LMCSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import image_examples
from tests.made import made_batch, made_task
from tests.methods.test_par import context, unchanged, weights

TRAINING = TrainingSettings(epochs=20, batch_size=12, lr=0.05, patience=0)
ALWAYS = 1e-9


def smooth_task(seed: int = 0) -> Task:
    """Images that are smooth: three classes of a few soft patches, under a little noise that `seed` chooses."""
    patches = torch.rand(3, 3, 3, 3, generator=torch.Generator().manual_seed(7)) * 255
    return noisy_task("smooth", F.interpolate(patches, size=8, mode="bilinear"), seed)


def striped_task(seed: int = 0) -> Task:
    """Images that are anything but smooth: lines of one pixel, across, down or both."""
    across = torch.tensor([40.0, 220.0]).repeat(4).view(8, 1).expand(3, 8, 8)
    return noisy_task("striped", torch.stack([across, across.mT, (across + across.mT) / 2]), seed)


def noisy_task(name: str, patterns: Tensor, seed: int) -> Task:
    """Twelve images of each pattern, in every split."""

    def load(split: str) -> Split:
        labels = torch.arange(3).repeat_interleave(12)
        noise = torch.randn(36, 3, 8, 8, generator=torch.Generator().manual_seed(10 * seed + len(split)))
        return Split((patterns[labels] + 15 * noise).clamp(0, 255).to(torch.uint8), labels)

    return Task(name, ["a", "b", "c"], load)


def lmc(*tasks: Task, training: TrainingSettings = TRAINING, **changes) -> tuple[LMC, list[LearnRecord]]:
    method = LMC(LMCSettings(init_channels=8, **changes))
    return method, [method.learn(task, context(index, training)) for index, task in enumerate(tasks)]


def counts(method: LMC) -> list[int]:
    return [len(modules) for modules in method.layers()]


def images() -> Tensor:
    return smooth_task(seed=5).test.images


@pytest.fixture(scope="module")
def first() -> LMC:
    """A method that has learned one task; not to be changed."""
    return lmc(smooth_task())[0]


@pytest.fixture(scope="module")
def grown() -> tuple[LMC, list[LearnRecord]]:
    """A method that has learned two tasks, and every layer has grown for the second; not to be changed."""
    method, records = lmc(smooth_task(), striped_task())
    assert counts(method) == [2, 2, 2, 2]
    return method, records


def restored(method: LMC, **changes) -> LMC:
    again = LMC(replace(method.settings, **changes))
    again.load_state_dict(method.state_dict())
    return again


def test_it_grows_for_new_images_and_not_for_more_of_the_same(first: LMC) -> None:
    more, other = restored(first), restored(first)
    record = more.learn(smooth_task(seed=1), context(1, TRAINING))
    assert counts(more) == [1, 1, 1, 1]
    assert record.frozen
    record = other.learn(striped_task(), context(1, TRAINING))
    assert counts(other)[0] == 2
    assert not record.frozen
    assert "a new module in layers 0" in record.reason


def by_hand(method: LMC, task: Task) -> float:
    """|z| of the only module of the lowest layer, image by image."""
    module = method.layers()[0][0]

    def losses(split: Split, of: Task) -> list[float]:
        found = []
        for image in split.images:
            x = normalize(image[None], of.normalization)
            found.append(((module.structural(module.functional(x), x.shape[2:]) - x) ** 2).mean().item())
        return found

    known, new = losses(smooth_task().train, smooth_task()), losses(task.train, task)
    mu = sum(known) / len(known)
    variance = sum((value - mu) ** 2 for value in known) / len(known)
    return abs(sum(new) / len(new) - mu) / (variance / TRAINING.batch_size) ** 0.5


@pytest.mark.parametrize("make", [striped_task, lambda: made_task(kind=3)], ids=["striped", "other patterns"])
def test_the_statistic_by_hand(first: LMC, make) -> None:
    """The threshold decides at the |z| that a slow plain version finds."""
    z = by_hand(first, make())
    for factor, expected in ((0.999, 2), (1.001, 1)):
        method = restored(first, outlier_threshold=z * factor, outlier_test="mean")
        method.learn(make(), context(1, replace(TRAINING, epochs=1)))
        assert counts(method)[0] == expected


def module_of(mean: float, deviation: float) -> LocalModule:
    module = make_module(make_chain("conv4", 4), 0)
    module.loss_mean.fill_(mean)
    module.loss_std.fill_(deviation)
    return module


def test_one_batch_is_enough_if_all_modules_find_it_strange() -> None:
    """Two modules with means 1 and 7, and deviations 1 and 0.5 of the mean of two images; losses of four images.

    Batches {0, 1} and {2, 3}: means (1, 5) and (9, 2), so |z| (0, 4) and (4, 10), of which each batch's smaller ones are 0 and 4. Batches
    {0, 3} and {1, 2}: means (3, 3) and (6.5, 4.5), |z| (2, 2) and (1, 5), so 1 and 2.
    """
    modules = [module_of(1.0, 2**0.5), module_of(7.0, 0.5 * 2**0.5)]
    losses = torch.tensor([[0.0, 2.0, 4.0, 6.0], [10.0, 8.0, 1.0, 3.0]])
    assert outlyingness(modules, losses, Samples([torch.tensor([[0, 1], [2, 3]])])) == pytest.approx(4.0, rel=1e-5)
    assert outlyingness(modules, losses, Samples([torch.tensor([[0, 3], [1, 2]])])) == pytest.approx(2.0, rel=1e-5)
    # All four at once, with the deviation of a batch of two: means 3 and 5.5, |z| 2 and 3.
    assert outlyingness(modules, losses, Samples([torch.arange(4)[None]], 2)) == pytest.approx(2.0, rel=1e-5)


def test_a_layer_opens_as_often_as_in_the_code() -> None:
    """6,300 batches against a threshold of 4: by normals 77 % open at a mean z of 0.5, 33 % at 0; the mean of all never."""
    generator, module = torch.Generator().manual_seed(0), module_of(0.0, 1.0)
    for mean, expected in ((0.5, 1 - (1 - 2.326e-4 - 3.4e-6) ** 6300), (0.0, 1 - (1 - 6.334e-5) ** 6300)):
        drawn = [mean + torch.randn(1, 6300, generator=generator) for _ in range(400)]
        opened = [outlyingness([module], losses, Samples([torch.arange(6300)[:, None]])) > 4 for losses in drawn]
        assert sum(opened) / 400 == pytest.approx(expected, abs=0.08)  # over three deviations
        assert not any(outlyingness([module], losses, Samples([torch.arange(6300)[None]], 1)) > 4 for losses in drawn)


def test_batches_are_those_of_a_training() -> None:
    """36 images in batches of 16, 20 epochs: three batches of 12 each, every image once an epoch, drawn by the seed."""
    method = LMC(LMCSettings(init_channels=8))
    training = replace(TRAINING, batch_size=16)
    (batches,) = method._tested(0, 36, context(1, training)).batches
    assert batches.shape == (60, 12)
    assert all(sorted(epoch.flatten().tolist()) == list(range(36)) for epoch in batches.split(3))
    assert torch.equal(batches, method._tested(0, 36, context(1, training)).batches[0])
    assert not torch.equal(batches, method._tested(1, 36, context(1, training)).batches[0])


def test_outliers_to_all_others_go_through_the_new_module_alone() -> None:
    """Losses of three modules on four images; the last module is new. Images 1 and 3 lie more than 4 deviations from both others."""
    modules = [module_of(1.0, 0.5), module_of(2.0, 1.0), module_of(0.0, 0.0)]
    losses = torch.tensor([[1.0, 9.0, 3.5, 9.0], [2.0, 9.0, 2.0, 7.0], [0.1, 0.1, 0.1, 50.0]])
    weights = Catch((0,), 4.0).weights(modules, Step(losses, torch.full((3, 4), 1 / 3)))
    torch.testing.assert_close(weights.T, torch.tensor([[1 / 3] * 3, [0, 0, 1.0], [1 / 3] * 3, [0, 0, 1.0]]))


def test_outliers_are_caught_in_training_alone(first: LMC) -> None:
    """In the loss of both phases, if it is asked for; answers are those of the routing."""
    growth, examples = growing(first, 0), image_examples(striped_task())
    inputs = examples.prepare(examples.train)
    batch = made_batch(inputs, examples.train_labels, torch.arange(len(inputs)))
    catching = restored(first, catch_outliers=True, outlier_threshold=ALWAYS)
    # Every image is one: the layer is as if it had the new module alone.
    alone = [[growth.layers[0][-1]], *growth.layers[1:]]
    features, steps = compose(alone, inputs, first.routing)
    structural = steps[0].losses.mean()
    expected = F.cross_entropy(growth.head.classifier(features), examples.train_labels) + 10 * structural
    assert catching.loss(growth)(batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert first.loss(growth)(batch).item() != pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(catching._features(inputs), first._features(inputs))


def test_a_task_that_an_earlier_version_began_is_one_line(first: LMC, tmp_path: Path) -> None:
    method = restored(first)
    (tmp_path / "train.running.safetensors").touch()
    with pytest.raises(LifelongError, match=r"task 'task 1': started by a version with another outlier test"):
        method.learn(striped_task(), replace(context(1), folder=tmp_path))


def test_what_is_learned_stays(first: LMC) -> None:
    method = restored(first, outlier_threshold=ALWAYS)
    learned = [*method.layers()[0], *method.layers()[3], method.heads[0]]
    before = [weights(module) for module in learned]
    assert all("functional.bn.running_var" in state and state["loss_std"] > 0 for state in before[:2])
    for index, task in ((1, striped_task()), (2, made_task(kind=2))):
        method.learn(task, context(index, replace(TRAINING, epochs=8)))
    assert counts(method) == [3, 3, 3, 3]
    assert all(unchanged(module, state) for module, state in zip(learned, before, strict=True))


def test_all_modules_answer_for_every_task(grown: tuple[LMC, list[LearnRecord]]) -> None:
    method, records = grown
    for task in (0, 1):
        assert sum(p.numel() for module in method.modules(task) for p in module.parameters()) == sum(
            p.numel() for module in (*method.library.modules, method.heads[task]) for p in module.parameters()
        )
    assert sum(record.parameters_added for record in records) == method.num_parameters()
    assert method.memory() == {"statistics": 8 * 2 * 4}


def growing(method: LMC, *positions: int) -> Growth:
    """The network with new modules in some layers."""
    torch.manual_seed(3)
    growth = Growth(method.layers(), StructuralHead(method.chain.feature_dim, 3))
    examples = image_examples(striped_task())
    for position in positions:
        method.add(growth, position, method.losses(growth.layers, examples)[position], context(1, TRAINING))
    return growth


def test_projection_changes_the_new_module_alone(first: LMC) -> None:
    growth = growing(first, 0, 1)
    parts = [module for modules in growth.layers for module in modules]
    before, head = [weights(part) for part in parts], weights(growth.head)
    first.project(growth, 1, image_examples(striped_task()), context(1, TRAINING), LearnRecord())
    changed = [part for part, state in zip(parts, before, strict=True) if not unchanged(part, state)]
    assert changed == [growth.layers[1][-1]]
    assert not unchanged(growth.head, head)


def test_projection_makes_the_layers_above_know_what_they_get(first: LMC) -> None:
    method = restored(first, module_init="fresh", projection_epochs=20)
    growth, examples = growing(method, 0), image_examples(striped_task())

    def above() -> float:
        _, steps = compose(growth.layers, examples.prepare(examples.train), method.routing)
        return sum((step.weights * step.losses).sum(dim=0).mean().item() for step in steps[1:])

    before = above()
    method.project(growth, 0, examples, context(1, replace(TRAINING, epochs=160)), LearnRecord())
    assert above() < 0.8 * before


def test_losses_of_both_phases_by_hand(first: LMC) -> None:
    growth, examples = growing(first, 0, 2), image_examples(striped_task())
    inputs = examples.prepare(examples.train)
    batch = made_batch(inputs, examples.train_labels, torch.arange(len(inputs)))
    features, steps = compose(growth.layers, inputs, first.routing)
    error = F.cross_entropy(growth.head.classifier(features), examples.train_labels)
    new = [((growth.layers[p][-1].loss(x, growth.layers[p][-1](x))).mean()) for p, x in ((0, inputs), (2, below(first, growth, inputs, 2)))]
    assert first.loss(growth)(batch).item() == pytest.approx((error + 10 * (new[0] + new[1])).item(), rel=1e-5)
    above = sum((steps[p].weights * steps[p].losses).sum() / len(inputs) for p in (1, 2, 3))
    assert first.loss(growth, projected=0)(batch).item() == pytest.approx((error + 10 * (new[0] + above)).item(), rel=1e-5)


def below(method: LMC, growth: Growth, inputs: Tensor, position: int) -> Tensor:
    """What a layer is given."""
    return compose(growth.layers[:position], inputs, method.routing)[0]


def test_how_a_new_module_starts(grown: tuple[LMC, list[LearnRecord]]) -> None:
    method, _ = grown
    losses = torch.tensor([[0.9, 0.1], [0.3, 0.4]])
    a, b = (weights(module) for module in method.layers()[0])
    starts = {}
    for start in ("most-likely", "mean", "fresh"):
        growth = Growth(method.layers(), StructuralHead(4, 3))
        restored(method, module_init=start).add(growth, 0, losses, context(2, TRAINING))
        starts[start] = growth.layers[0][-1]
    assert unchanged(starts["most-likely"], b)  # 0.35 on average, against 0.5
    name = "functional.conv.weight"
    torch.testing.assert_close(starts["mean"].state_dict()[name], (a[name] + b[name]) / 2)
    assert not unchanged(starts["fresh"], a)
    assert not unchanged(starts["fresh"], b)


def test_a_mean_of_states_keeps_whole_numbers() -> None:
    mean = mean_state([{"w": torch.tensor([1.0, 2.0]), "seen": torch.tensor(3)}, {"w": torch.tensor([3.0, 6.0]), "seen": torch.tensor(8)}])
    assert mean["w"].tolist() == [2.0, 4.0]
    assert mean["seen"] == 3


@pytest.mark.parametrize(("epochs", "projection", "expected"), [(16, 1, 16), (16, 10, 16), (3, 10, 4 + 2)])
def test_projections_are_part_of_the_epochs(first: LMC, epochs: int, projection: int, expected: int) -> None:
    """With a projection for each of four layers; short trainings take longer, for there is an epoch each."""
    method = restored(first, outlier_threshold=ALWAYS, projection_epochs=projection)
    record = method.learn(striped_task(), context(1, replace(TRAINING, epochs=epochs)))
    assert counts(method) == [2, 2, 2, 2]
    assert record.epochs == expected


def test_the_task_is_found_without_an_id(grown: tuple[LMC, list[LearnRecord]]) -> None:
    method, _ = grown
    for index, task in enumerate((smooth_task(), striped_task())):
        probabilities = method.task_probabilities(task.test.images)
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(len(task.test)))
        assert (probabilities.argmax(dim=1) == index).double().mean() > 0.8


def test_without_the_batch_prior_images_are_answered_one_by_one(grown: tuple[LMC, list[LearnRecord]]) -> None:
    for prior in (False, True):
        method = restored(grown[0], batch_prior=prior, routing_temperature=1.0)
        mixed = torch.cat([striped_task().test.images, images()])
        together = method.logits(mixed, 0)
        alone = torch.cat([method.logits(image[None], 0) for image in mixed])
        assert torch.allclose(together, alone, atol=1e-4) != prior


def test_it_learns_and_hardly_forgets(grown: tuple[LMC, list[LearnRecord]]) -> None:
    method, _ = grown
    for index, task in enumerate((smooth_task(), striped_task())):
        assert (method.logits(task.test.images, index).argmax(dim=1) == task.test.labels).double().mean() > 0.8


def test_blocks_of_the_light_resnet_grow_too() -> None:
    method, _ = lmc(
        smooth_task(), striped_task(), training=replace(TRAINING, epochs=1), backbone="light-resnet18", outlier_threshold=ALWAYS
    )
    assert counts(method) == [2, 2, 2, 2, 2]
    assert method.logits(images(), 0).isfinite().all()


def test_state_round_trip(grown: tuple[LMC, list[LearnRecord]]) -> None:
    method, again = lmc()[0], restored(grown[0])
    method.load_state_dict(again.state_dict())
    assert again.num_parameters() == grown[0].num_parameters()
    assert again.memory() == grown[0].memory()
    assert torch.equal(again.task_probabilities(images()), grown[0].task_probabilities(images()))
    records = [copy.learn(made_task(kind=2), context(2, replace(TRAINING, epochs=8))) for copy in (method, again)]
    assert records[0].reason == records[1].reason
    assert all(torch.equal(again.logits(images(), task), method.logits(images(), task)) for task in range(3))
