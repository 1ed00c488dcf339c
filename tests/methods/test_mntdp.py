"""MNTDP: which task is the source, which paths there are, what is kept; both ways to choose."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lifelong.data.task import Split, Task
from lifelong.errors import LifelongError
from lifelong.methods import mntdp, mntdp_d
from lifelong.methods.method import LearnRecord
from lifelong.methods.mntdp import MNTDP
from lifelong.methods.mntdp_d import MNTDPD
from lifelong.methods.mntdp_s import MNTDPS
from lifelong.networks.frozen import freeze
from lifelong.search.paths import candidate_paths
from lifelong.settings.growing import MNTDPSettings, MNTDPSSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import accuracy, image_examples
from lifelong.training.fit import FitOutcome
from lifelong.training.stages import derive_seed
from tests.made import made_split, made_task
from tests.methods.test_par import context

TRAINING = TrainingSettings(epochs=3, batch_size=9, lr=0.02)
BOTH = [MNTDPD(MNTDPSettings(init_channels=4)), MNTDPS(MNTDPSSettings(init_channels=4))]


@pytest.fixture(params=BOTH, ids=lambda method: method.name)
def method(request: pytest.FixtureRequest) -> MNTDP:
    return type(request.param)(request.param.settings)


def learn(method: MNTDP, *tasks: Task) -> LearnRecord:
    for task in tasks:
        record = method.learn(task, context(len(method.tasks), TRAINING))
    return record


def choosing(monkeypatch: pytest.MonkeyPatch, method: MNTDP, path: int) -> list[int]:
    """Let a method take a path without training; returns a list that gets how many there were."""
    seen = []

    def choose(prefixes, columns, examples, context, record):
        seen.append(len(columns))
        return path, "told so"

    monkeypatch.setattr(method, "choose", choose)
    return seen


def test_a_new_path_is_a_whole_network() -> None:
    """facts: 607,050 with ten classes at 64 channels; a new head alone 650, full reuse nothing."""
    method = MNTDPD(MNTDPSettings())
    added = []
    with pytest.MonkeyPatch.context() as patch:
        for path in (0, 0, 5, 6, 2):
            choosing(patch, method, path)
            added.append(learn(method, made_task(classes=10, train=2, valid=1)).parameters_added)
    assert added == [607_050, 607_050, 650, 0, 607_050 - 1_856 - 147_968]
    assert method.num_parameters() == sum(added)


def test_seven_paths_and_six_where_the_head_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    method = MNTDPD(MNTDPSettings(init_channels=4))
    seen = choosing(monkeypatch, method, 0)
    learn(method, made_task(), made_task(), made_task(classes=2))
    assert seen == [1, 7, 6]


def test_a_path_is_its_source_and_then_new(monkeypatch: pytest.MonkeyPatch) -> None:
    method = MNTDPD(MNTDPSettings(init_channels=4))
    for path in (0, 3, 6):
        choosing(monkeypatch, method, path)
        learn(method, made_task())
    first, second, third = (method.modules(task) for task in range(3))
    assert all(a is b for a, b in zip(first[:3], second[:3], strict=True))
    assert not {*map(id, first[3:])} & {*map(id, second[3:])}
    # Both have the source's beginning, and of equal neighbors the first is taken; whichever it was, all of it is reused.
    assert third in (first, second)


def trained_on(method: MNTDP, *kinds: int) -> MNTDP:
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setattr(method, "choose", choose_all_new)
            learn(method, made_task(f"kind {kind}", kind=kind, train=24))
    return method


def choose_all_new(prefixes, columns, examples, context, record):
    mntdp_d.fit_behind(prefixes[0], columns[0], examples, context.training, context.stage("train"))
    return 0, "told so"


def test_the_duplicate_of_an_earlier_task_is_the_source() -> None:
    """Three tasks of different images; the next has the very images of one of them."""
    method = trained_on(MNTDPD(MNTDPSettings(init_channels=8)), 3, 4, 5)
    found = [method._source(image_examples(made_task(kind=kind, train=24)), context(3)) for kind in (3, 4, 5)]
    assert [source for source, _ in found] == [0, 1, 2]
    assert min(score for _, score in found) > 0.6


def test_of_equal_sources_the_first() -> None:
    method = trained_on(MNTDPD(MNTDPSettings(init_channels=4)), 3)
    twin = copy.deepcopy(method.library.modules)
    for position, modules in enumerate(twin):
        method.library.add(position, modules[0])
    method.heads.append(copy.deepcopy(method.heads[0]))
    method._follow((1,) * 6)
    method._remember(made_task("twin"))
    assert method._source(image_examples(made_task(kind=3)), context(2))[0] == 0


def test_the_neighbors_are_as_many_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = mntdp.nearest_labels

    def recording(features, labels, queries, neighbors):
        seen.append((len(features), len(queries), neighbors, len(labels.unique())))
        return original(features, labels, queries, neighbors)

    monkeypatch.setattr(mntdp, "nearest_labels", recording)
    method = trained_on(MNTDPD(MNTDPSettings(init_channels=4, knn_images=20, knn_neighbors=7)), 3)
    method._source(image_examples(made_task(train=12, valid=16)), context(1))
    assert seen == [(20, 20, 7, 3)]


def weights(method: MNTDP, task: int) -> list[Tensor]:
    return [tensor.clone() for module in method.modules(task) for tensor in module.state_dict().values()]


def answers(method: MNTDP, task: int) -> Tensor:
    return method.logits(made_split(3, 8, seed=77, kind=task).images, task)


def test_what_is_reused_keeps_its_bits(method: MNTDP) -> None:
    """Weights, statistics of batch norms and answers of earlier tasks, over two more tasks."""
    learn(method, made_task(kind=0, train=6))
    before, first = weights(method, 0), answers(method, 0)
    learn(method, made_task(kind=0, seed=1, train=6))
    second = answers(method, 1)
    learn(method, made_task(kind=1, train=6))
    assert all(torch.equal(a, b) for a, b in zip(weights(method, 0), before, strict=True))
    assert torch.equal(answers(method, 0), first)
    assert torch.equal(answers(method, 1), second)


def test_only_the_chosen_path_is_kept(method: MNTDP) -> None:
    learn(method, made_task(kind=0, train=6), made_task(kind=1, train=6))
    held = sum(len(modules) for modules in method.library.modules) + len(method.heads)
    assert held == len({id(module) for task in (0, 1) for module in method.modules(task)})
    assert not any(p.requires_grad or p.grad is not None for task in (0, 1) for m in method.modules(task) for p in m.parameters())


@pytest.mark.usefixtures("in_float64")
def test_the_choice_is_that_of_plain_training_of_every_path() -> None:
    """Each path as one network whose first modules have no gradients, in textbook PyTorch; the best on validation."""
    method = MNTDPD(MNTDPSettings(init_channels=6))
    learn(method, made_task(kind=0, train=20))
    task = made_task(kind=0, seed=4, train=8, classes=3)
    source = [copy.deepcopy(module) for module in method.modules(0)]
    columns = [method._column(candidate, 3, context(1)) for candidate in candidate_paths(6, method.paths[0])]
    scores = [plain(nn.Sequential(*source[:k]), column, task, derive_seed(0, 1, f"path-{k}")) for k, column in enumerate(columns)]
    record = learn(method, task)
    assert len(set(scores)) > 1
    best = max(scores)
    kept = sum(a is b for a, b in zip(method.modules(0), method.modules(1), strict=True))
    assert kept == max(k for k, score in enumerate(scores) if score == best)
    assert record.hyperparameters["valid_accuracy"] == pytest.approx(best)
    assert ", ".join(f"{score:.3f}" for score in scores) in record.reason
    assert record.epochs == 6 * TRAINING.epochs


def plain(prefix: nn.Sequential, column: nn.Sequential, task: Task, seed: int) -> float:
    """The best validation accuracy over the epochs."""
    freeze(prefix)
    examples = image_examples(task)
    inputs, valid = examples.prepare(examples.train), examples.prepare(examples.valid)
    if not len(column):
        return accuracy(prefix(valid), examples.valid_labels)
    optimizer = torch.optim.SGD(column.parameters(), lr=TRAINING.lr, momentum=0.9, weight_decay=TRAINING.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TRAINING.epochs)
    generator, best = torch.Generator().manual_seed(seed), 0.0
    for _ in range(TRAINING.epochs):
        column.train()
        for indices in torch.randperm(len(inputs), generator=generator).split(TRAINING.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(column(prefix(inputs[indices])), examples.train_labels[indices]).backward()
            nn.utils.clip_grad_norm_(column.parameters(), TRAINING.clip_norm)
            optimizer.step()
        schedule.step()
        column.eval()
        with torch.no_grad():
            best = max(best, accuracy(column(prefix(valid)), examples.valid_labels))
    return best


def test_of_equal_paths_the_one_that_adds_least(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.9, 0.5, 0.8, 0.9, 0.9, 0.7, 0.2])
    monkeypatch.setattr(mntdp_d, "fit_behind", lambda *arguments: FitOutcome(2, 1, next(scores), 0.003, 1.5))
    record = LearnRecord()
    empty = [nn.Sequential() for _ in range(7)]
    method = MNTDPD(MNTDPSettings(init_channels=4))
    chosen, _ = method.choose(empty, empty, image_examples(made_task()), context(1), record)
    assert chosen == 4
    assert (record.epochs, record.seconds["train"], record.hyperparameters["valid_accuracy"]) == (14, 10.5, 0.9)


def test_the_stochastic_variant_searches_for_half_of_the_epochs() -> None:
    method = MNTDPS(MNTDPSSettings(init_channels=4))
    first, second = (learn(method, made_task(kind=kind)) for kind in (0, 1))
    assert (first.epochs, second.epochs) == (3, 1 + 2)
    assert set(second.seconds) == {"neighbors", "search", "train"}
    assert "the most probable of 7 paths" in second.reason


def test_without_validation_images_there_is_nothing_to_choose_by(method: MNTDP) -> None:
    whole = made_task("whole")
    splits = {"train": whole.train, "valid": Split(whole.valid.images[:0], whole.valid.labels[:0]), "test": whole.test}
    task = Task("blind", whole.classes, lambda name: splits[name])
    learn(method, task)
    with pytest.raises(LifelongError, match=f"no validation images, and {method.name} chooses by them"):
        learn(method, task)
