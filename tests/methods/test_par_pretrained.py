"""PAR with heads, adapters and side networks: what it decides, what a related task's answers bring, and that only what helps stays."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lifelong.data.augment import normalize
from lifelong.data.feature_cache import keeping
from lifelong.data.task import IMAGENET, Augmentation, Split, Task
from lifelong.errors import LifelongError
from lifelong.methods import par_pretrained
from lifelong.methods.beside import Kind
from lifelong.methods.method import LearnRecord
from lifelong.methods.mixed_head import SHARES, Answers, Mixture, choose_mixture
from lifelong.methods.par import PAR
from lifelong.methods.par_pretrained import PretrainedPAR, make_par
from lifelong.methods.registry import make_method
from lifelong.settings.par import PARSettings
from lifelong.storage import load_tree, save_tree
from tests.made import made_split, made_task
from tests.methods.test_floors import context, learn

HEADS = PARSettings(extractor="pixels", expert="head")
ADAPTERS = PARSettings(extractor="resnet18", expert="adapter", enough_accuracy=1.0, adapter_rank=2)


NOISE = 180.0
"""Of a pixel, beside patterns of up to 255."""


@pytest.fixture(autouse=True)
def _few_random_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(par_pretrained, "RANDOM_FEATURES", 60)


def noisy(kind: int, seed: int, train: int, valid: int = 20, flip: bool = False) -> Task:
    """A task in which a pixel says little: few images of a class do not show its pattern."""
    sizes = {"train": train, "valid": valid, "test": 40}

    def load(split: str) -> Any:
        return made_split(4, sizes[split], 10 * seed + list(sizes).index(split), kind=kind, noise=NOISE)

    return Task(f"{kind}-{seed}", list("abcd"), load, augmentation=Augmentation(crop=0, flip=flip))


def accuracy(method: PretrainedPAR, task: Task, index: int) -> float:
    return (method.logits(task.test.images, index).argmax(dim=1) == task.test.labels).float().mean().item()


def test_the_kind_of_expert_chooses_the_class() -> None:
    assert isinstance(make_par(replace(HEADS, expert="cells")), PAR)
    assert isinstance(make_par(HEADS), PretrainedPAR)


def returning() -> list[Task]:
    """A task, another one, and the first again with few images."""
    return [noisy(0, 1, train=40), noisy(5, 2, train=40), noisy(0, 3, train=1)]


def test_a_task_that_returns_with_few_images_reads_the_earlier_answers_and_gains() -> None:
    related, alone, stream = make_par(HEADS), make_par(replace(HEADS, alpha=0.0)), returning()
    records = learn(related, stream)
    learn(alone, stream)
    assert [record.decision for record in records] == ["head", "head", "reuse-expert"]
    assert [record.expert for record in records] == [0, 1, 0]
    assert related.learned[2].earlier == (0,)
    assert records[2].reason.endswith("reads the answers for 0-1")
    assert related.relatedness.groups.members == [[0, 2], [1]]
    assert accuracy(related, stream[2], 2) > accuracy(alone, stream[2], 2) + 0.1
    assert accuracy(related, stream[0], 0) == accuracy(alone, stream[0], 0)


def test_answers_that_do_not_help_are_not_read() -> None:
    """A task that has nothing to do with the first joins its group here: it costs no parameter of such a classifier."""
    method = make_par(replace(HEADS, alpha=10.0))
    records = learn(method, [noisy(0, 1, train=40), noisy(5, 2, train=40)])
    assert records[1].expert == 0
    assert records[1].decision == "head"
    assert method.learned[1].mixture.related == 0
    assert (method.learned[1].related, method.learned[1].earlier) == (None, ())


def slowly(method: PretrainedPAR, images: Tensor, index: int) -> Tensor:
    """The answer of the heads, written out."""
    learned, features = method.learned[index], normalize(images, IMAGENET).flatten(1)

    def own(place: int) -> Tensor:
        head = method.learned[place].own
        drawn = torch.randn(192, 60, generator=torch.Generator().manual_seed(method.seed))
        scores = (features @ drawn).clamp_min(0) @ head.ridge.weight.T
        return (scores.log_softmax(1) + (features @ head.logistic.weight.T + head.logistic.bias).log_softmax(1)) / 2

    answer = learned.mixture.own * own(index)
    if learned.related is not None:
        read = torch.cat([own(place).softmax(1) for place in learned.earlier], dim=1)
        answer = answer + learned.mixture.related * (read @ learned.related.weight.T + learned.related.bias).log_softmax(1)
    return answer


def test_what_several_tasks_read_is_computed_once() -> None:
    """An earlier task's answer, read by all that came back after it: in `answers` twice, as its own and as what they read."""
    method = make_par(HEADS)
    learn(method, [noisy(0, 1, train=40), *(noisy(0, seed, train=1) for seed in (3, 4, 5))])
    assert sum(0 in learned.earlier for learned in method.learned) > 1
    calls: list[int] = []
    for index, learned in enumerate(method.learned):
        learned.own.register_forward_hook(lambda *_, index=index: calls.append(index))
    shown = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = method.answers(shown)[0]
    assert max(calls.count(index) for index in range(4)) <= 2
    for index, answer in enumerate(found):
        torch.testing.assert_close(answer, method.logits(shown, index), rtol=1e-4, atol=1e-5)


def test_the_answer_is_the_written_out_mixture() -> None:
    method, stream = make_par(HEADS), returning()
    learn(method, stream)
    for index in range(3):
        images = stream[index].test.images
        torch.testing.assert_close(method.logits(images, index), slowly(method, images, index), rtol=1e-3, atol=1e-3)


def test_mirrored_images_are_learned_too_where_the_task_may_be_flipped() -> None:
    """Then a head is fitted to twice as many images, and a task of mirrored images is answered about as well."""
    plain, flipped = make_par(HEADS), make_par(HEADS)
    learn(plain, [noisy(0, 1, train=30)])
    learn(flipped, [noisy(0, 1, train=30, flip=True)])
    mirrored = noisy(0, 1, train=30)
    images, labels = mirrored.test.images.flip(3), mirrored.test.labels
    right = [(method.logits(images, 0).argmax(1) == labels).float().mean().item() for method in (plain, flipped)]
    assert right[1] > right[0] + 0.1


@pytest.mark.parametrize("which", list(product([True, False], repeat=3)))
@pytest.mark.parametrize("seed", range(3))
def test_the_mixture_has_the_least_cross_entropy(which: tuple[bool, bool, bool], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (40,), generator=generator)
    parts = [
        (torch.randn(40, 3, generator=generator, dtype=torch.float64) + sharp * functional.one_hot(labels, 3)).log_softmax(1)
        for sharp in (1.0, 1.2, 0.8, 1.1)
    ]
    answers = Answers(parts[0], *(part if there else None for part, there in zip(parts[1:], which, strict=True)))
    best, least = None, float("inf")
    for a, b, c in product(*(SHARES if there else (0.0,) for there in which)):
        if a + b + c <= 1:
            mixed = (1 - a - b - c) * parts[0] + a * parts[1] + b * parts[2] + c * parts[3]
            loss = functional.cross_entropy(mixed, labels).item()
            if loss < least:
                best, least = Mixture(1 - a - b - c, a, b, c), loss
    found = choose_mixture(answers, labels)
    assert found == best
    assert functional.cross_entropy(found.mixed(answers), labels).item() == pytest.approx(least)


def test_the_own_classifier_wins_ties() -> None:
    same = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(1)
    assert choose_mixture(Answers(same, same, same, same), torch.arange(9) % 3) == Mixture(1.0, 0.0, 0.0, 0.0)


def test_adapters_need_a_network_with_stages() -> None:
    with pytest.raises(LifelongError, match=r"^--expert adapter needs the extractor 'resnet18', not 'pixels'; use --expert head$"):
        learn(make_par(replace(ADAPTERS, extractor="pixels")), [made_task()])


def hard() -> list[Task]:
    """Tasks of noise, on which a head is not right everywhere."""
    return [noisy(0, 1, train=4, valid=4), noisy(5, 2, train=4, valid=4)]


def judged(monkeypatch: pytest.MonkeyPatch, **right: bool) -> None:
    """Let the training of adapters, or of a side network, end in answers that are right, or wrong, on all validation images."""
    train = par_pretrained.train_beside

    def trained(kind: Kind, frozen: Any, *parts: Any) -> Any:
        network, _ = train(kind, frozen, *parts)
        rows = parts[1].rows
        labels = rows.labels if right[kind] else (rows.labels + 1) % rows.classes
        return network, (5.0 * functional.one_hot(labels, rows.classes).double()).log_softmax(1)

    monkeypatch.setattr(par_pretrained, "train_beside", trained)


def trainings(method: PretrainedPAR, tasks: Sequence[Task]) -> list[LearnRecord]:
    return [method.learn(task, context(index)) for index, task in enumerate(tasks)]


def test_adapters_that_are_better_are_kept_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, adapted=True)
    method, (task, other) = make_par(ADAPTERS), hard()
    (record,) = trainings(method, [task])
    assert record.decision == "adapter"
    assert not record.frozen
    assert record.epochs == 2
    assert "< 100%; 100% with adapters: kept" in record.reason
    assert method.learned[0].mixture.adapted > 0
    before = method.logits(task.test.images, 0)
    network = {name: tensor.clone() for name, tensor in method.frozen.module.state_dict().items()}
    method.learn(other, context(1))
    assert torch.equal(method.logits(task.test.images, 0), before)
    assert all(torch.equal(tensor, network[name]) for name, tensor in method.frozen.module.state_dict().items())


def test_adapters_that_are_not_better_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, adapted=False)
    method, plain, (task, _) = make_par(ADAPTERS), make_par(replace(ADAPTERS, expert="head")), hard()
    (record,) = trainings(method, [task])
    trainings(plain, [task])
    assert record.decision == "head"
    assert record.reason.endswith("with adapters: dropped")
    assert method.learned[0].adapted is None
    assert method.num_parameters() == plain.num_parameters()
    assert torch.equal(method.logits(task.test.images, 0), plain.logits(task.test.images, 0))


def test_no_adapters_where_the_head_is_enough_or_nothing_judges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(par_pretrained, "train_beside", lambda *given: pytest.fail("adapters were trained"))
    task = noisy(0, 1, train=4, valid=4)
    learn(make_par(replace(ADAPTERS, enough_accuracy=0.0)), [task])
    learn(make_par(replace(ADAPTERS, feature_split="train")), [noisy(0, 1, train=4, valid=0)])


def test_heads_and_adapters_go_through_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a task whose classifier reads the answers of one with adapters."""
    judged(monkeypatch, adapted=True)
    method, again = (make_par(replace(ADAPTERS, alpha=10.0)) for _ in range(2))
    trainings(method, [noisy(0, 1, train=20, valid=4)])
    monkeypatch.setattr(par_pretrained, "choose_mixture", lambda answers, labels: Mixture(0.5, 0.5, 0.0))
    (record,) = (method.learn(noisy(0, 3, train=2, valid=4), context(1)),)
    assert record.decision == "reuse-expert"
    save_tree(tmp_path / "state", method.state_dict())
    again.load_state_dict(load_tree(tmp_path / "state"))
    images = made_task().test.images
    for index in range(2):
        assert torch.equal(again.logits(images, index), method.logits(images, index))
    assert again.num_parameters() == method.num_parameters()
    assert again.extractor() is None
    assert {id(module) for module in method.modules(0)} < {id(module) for module in method.modules(1)}


def patches(seed: int, train: int = 30) -> Task:
    """A task whose class is the direction of a short diagonal anywhere in noise: what a classifier of pixels cannot tell, and cells can."""
    shapes = torch.stack([torch.eye(3), torch.eye(3).flip(1)]).to(torch.uint8)

    def load(split: str) -> Split:
        generator = torch.Generator().manual_seed(10 * seed + ["train", "valid", "test"].index(split))
        labels = torch.arange(2 * (train if split == "train" else 20)) % 2
        images = torch.randint(0, 60, (len(labels), 3, 8, 8), generator=generator, dtype=torch.uint8)
        for image, label, (row, column) in zip(images, labels, torch.randint(0, 6, (len(labels), 2), generator=generator), strict=True):
            image[:, row : row + 3, column : column + 3] += 190 * shapes[label]
        return Split(images, labels)

    return Task(f"patches-{seed}", ["a", "b"], load)


SIDE = replace(HEADS, expert="side", enough_accuracy=0.9, side_channels=6, side_epochs=15, cells=2)


def test_a_network_of_cells_wins_where_the_frozen_features_are_poor(tmp_path: Path) -> None:
    """On patches in noise a head on pixels guesses. The network of cells is kept, answers, and goes through a file."""
    method, heads, again, task = make_par(SIDE), make_par(HEADS), make_par(SIDE), patches(1, 60)
    (record,) = learn(
        method,
        [
            task,
        ],
    )
    learn(heads, [task])
    assert record.decision == "side"
    assert re.search(r"head right on \d\d% of validation images < 90%; (9\d|100)% with a side network: kept$", record.reason)
    assert "side" in record.seconds
    assert record.epochs == 15
    assert accuracy(method, task, 0) > accuracy(heads, task, 0) + 0.2
    images, learned = task.test.images, method.learned[0]
    assert learned.side is not None
    own, side = heads.logits(images, 0), learned.side(normalize(images, IMAGENET)).log_softmax(1)
    torch.testing.assert_close(method.logits(images, 0), learned.mixture.own * own + learned.mixture.side * side, rtol=1e-4, atol=1e-4)
    save_tree(tmp_path / "state", method.state_dict())
    again.load_state_dict(load_tree(tmp_path / "state"))
    assert torch.equal(again.logits(images, 0), method.logits(images, 0))


@pytest.mark.parametrize(
    ("right", "tried", "decision"),
    [((True, False), "100% with adapters: kept", "adapter"), ((False, True), "adapters: dropped; 100% with a side network: kept", "side")],
)
def test_both_are_tried_one_after_the_other_until_one_is_enough(
    monkeypatch: pytest.MonkeyPatch, right: tuple[bool, bool], tried: str, decision: str
) -> None:
    judged(monkeypatch, adapted=right[0], side=right[1])
    method = make_par(replace(ADAPTERS, expert="auto", side_channels=2, side_epochs=1))
    (record,) = trainings(method, hard()[:1])
    assert record.reason.endswith(tried)
    assert record.decision == decision
    assert (method.learned[0].adapted is None, method.learned[0].side is None) == (not right[0], not right[1])


def test_where_adapters_have_no_place_the_side_network_alone_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, side=False)
    (record,) = learn(make_par(replace(SIDE, expert="auto", enough_accuracy=1.0, side_epochs=1)), [patches(1, 4)])
    assert "adapters" not in record.reason
    assert record.reason.endswith("with a side network: dropped")


def test_related_tasks_read_what_a_side_network_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(monkeypatch, side=True)
    method, (task, other) = make_par(replace(SIDE, alpha=10.0, enough_accuracy=1.0, side_epochs=1)), [patches(1, 4), patches(2, 4)]
    learn(method, [task])
    monkeypatch.setattr(par_pretrained, "choose_mixture", lambda answers, labels: Mixture(0.5, 0.5))
    learn(method, [other])
    images, first = normalize(other.test.images, IMAGENET), method.learned[0]
    assert first.side is not None
    features = method.frozen.module(images)
    read = ((first.own(features) + first.side(images).log_softmax(1)) / 2).softmax(1)
    second = method.learned[1]
    assert second.related is not None
    wanted = 0.5 * second.own(features) + 0.5 * second.related(read).log_softmax(1)
    torch.testing.assert_close(method.logits(other.test.images, 1), wanted)


@pytest.mark.parametrize("difficulty", ["logme", "h-score"])
def test_difficulty_without_training_separates_what_the_features_tell_from_what_they_do_not(
    monkeypatch: pytest.MonkeyPatch, difficulty: Literal["logme", "h-score"]
) -> None:
    """The accuracy of the head has no part in it: by that both tasks here would be hard."""
    judged(monkeypatch, side=True)
    method = make_par(replace(SIDE, difficulty=difficulty, enough_accuracy=1.0, side_epochs=1))
    easy, hard = learn(method, [made_task(train=20), patches(2, 20)])
    name = {"logme": "LogME", "h-score": "H-score"}[difficulty]
    assert re.search(rf"; {name} distance 0\.[0-3]\d\d ≤ 0\.45$", easy.reason)
    assert re.search(rf"; {name} distance (0\.[5-9]\d\d|1\.000) > 0\.45; 100% with a side network: kept$", hard.reason)
    assert [easy.decision, hard.decision] == ["head", "side"]


@pytest.mark.parametrize(("setting", "value"), [("allocation", "fixed"), ("regularizer", "none-of-these")])
def test_what_only_cells_have_is_refused(setting: str, value: str) -> None:
    with pytest.raises(LifelongError, match=f"--{setting} {value} is for --expert cells; with --expert head leave it out"):
        make_method("par", PARSettings(expert="head", **{setting: value}))


def test_judging_the_same_images_again_reads_their_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run's answers for test images do not pass the frozen network twice, and are the same."""
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path))
    method, task = make_par(replace(ADAPTERS, expert="head")), made_task()
    learn(method, [task])
    with keeping():
        first = method.logits(task.test.images, 0)
        monkeypatch.setattr(method.frozen.module.network, "pooled", lambda *given: pytest.fail("computed again"))
        assert torch.equal(method.logits(task.test.images, 0), first)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        method.logits(task.test.images, 0)
