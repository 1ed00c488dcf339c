"""PAR's promises: what is shared changes only by distillation, what is frozen or another group's does not change by a bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.methods.distillation import distillation_loss, soft_cross_entropy
from lifelong.methods.method import Context, LearnRecord, count_parameters
from lifelong.methods.par import PAR
from lifelong.relatedness.extractor import open_extractor
from lifelong.settings.par import PARSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import image_examples
from tests.made import made_batch, made_split, made_task

SMALL = PARSettings(init_channels=4, cells=3, search_epochs=2, extractor="pixels")
TRAINING = TrainingSettings(epochs=3, batch_size=8, lr=0.05)


def context(index: int, training: TrainingSettings = TRAINING) -> Context:
    return Context(
        task_index=index,
        task_name=f"task {index}",
        training=training,
        seed=0,
        device=torch.device("cpu"),
        open_extractor=lambda name, feature_input: open_extractor(name, feature_input=feature_input),
    )


def learn(method: PAR, tasks: list[Task], training: TrainingSettings = TRAINING) -> list[LearnRecord]:
    start = len(method.tasks)
    return [method.learn(task, context(start + index, training)) for index, task in enumerate(tasks)]


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unchanged(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_related_tasks_share_and_far_ones_do_not() -> None:
    method = PAR(SMALL)
    records = learn(method, [made_task(kind=0, seed=1), made_task(kind=5, seed=2), made_task(kind=0, seed=3)])
    assert [r.decision for r in records] == ["search", "search", "reuse-expert"]
    assert [r.expert for r in records] == [0, 1, 0]
    assert method.relatedness.groups.members == [[0, 2], [1]]
    assert len(records[2].divergences) == 2
    assert records[2].group_distances[0] <= 0.5 < records[2].group_distances[1]
    assert records[1].parameters_added == records[1].parameters_added > records[2].parameters_added == 3 * 16 + 3


def test_undecided_edges_are_recorded_and_said() -> None:
    """Two epochs of search decide nothing. The note is the same for every task, the reason is the task's."""
    said: list[str] = []
    tasks = [made_task(kind=0, seed=1), made_task(kind=5, seed=2), made_task(kind=0, seed=3)]
    method = PAR(replace(SMALL, few_images=20))
    records = [method.learn(task, replace(context(index), on_note=said.append)) for index, task in enumerate(tasks)]
    assert [(record.edges, record.undecided_edges) for record in records] == [(16, 16), (16, 16), (0, 0)]
    assert records[0].reason.endswith("; 16 of its 16 edges undecided, ties broken by the seed")
    assert "undecided" not in records[2].reason
    assert said == [note for record in records for note in record.notes] == records[0].notes * 2
    assert said[0].startswith("search_epochs = 2: ")
    enough = PAR(replace(SMALL, search_epochs=20, few_images=20))
    (record,) = learn(enough, tasks[:1], TrainingSettings(epochs=1, batch_size=40))
    assert (record.notes, record.edges) == ([], 16)
    assert record.undecided_edges < 4


def test_a_frozen_expert_answers_old_tasks_bit_for_bit() -> None:
    """A task with fewer than a tenth of Q images trains its head only."""
    method = PAR(SMALL)
    learn(method, [made_task(kind=0, seed=1, train=24)])
    probe = made_split(3, 4, seed=9).images
    expert, answer = weights(method.experts[0]), method.logits(probe, 0)
    (record,) = learn(method, [made_task(kind=0, seed=3, train=2)])
    assert record.decision == "reuse-expert"
    assert record.frozen
    assert unchanged(method.experts[0], expert)
    assert torch.equal(method.logits(probe, 0), answer)


def test_tasks_and_strangeness_are_found_by_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    method = PAR(SMALL)
    learn(method, [made_task(kind=0, seed=1), made_task(kind=5, seed=2)])
    images = made_task(kind=0, seed=3).test.images
    calls = []
    measured = method.relatedness.recognition.squared_distances
    monkeypatch.setattr(method.relatedness.recognition, "squared_distances", lambda *given: calls.append(1) or measured(*given))
    found = method.recognize(images)
    assert len(calls) == 1
    assert torch.equal(found.probabilities, method.task_probabilities(images))
    assert torch.equal(found.strangeness, method.strangeness(images))


def test_exactly_a_tenth_of_the_images_is_distilled() -> None:
    """The paper's rule is strict: fewer than 10 % of Q."""
    method = PAR(SMALL)
    learn(method, [made_task(kind=0, seed=1, train=20)])
    expert = weights(method.experts[0])
    (record,) = learn(method, [made_task(kind=0, seed=3, train=2)])
    assert record.decision == "reuse-expert"
    assert not record.frozen
    assert not unchanged(method.experts[0], expert)


def test_other_groups_and_old_heads_never_change() -> None:
    method = PAR(SMALL)
    learn(method, [made_task(kind=0, seed=1), made_task(kind=5, seed=2)])
    other, heads = weights(method.experts[1]), [weights(head) for head in method.heads]
    (record,) = learn(method, [made_task(kind=0, seed=3)])
    assert not record.frozen
    assert unchanged(method.experts[1], other)
    assert all(unchanged(head, before) for head, before in zip(method.heads, heads, strict=False))
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in method.experts[1].parameters())


def test_old_heads_of_the_group_are_trained_if_asked() -> None:
    method = PAR(replace(SMALL, train_old_heads=True))
    learn(method, [made_task(kind=0, seed=1), made_task(kind=5, seed=2)])
    heads = [weights(head) for head in method.heads]
    learn(method, [made_task(kind=0, seed=3)])
    assert not unchanged(method.heads[0], heads[0])
    assert unchanged(method.heads[1], heads[1])


def test_reused_cell_is_the_nearest_group_s_and_trained_afresh() -> None:
    method = PAR(replace(SMALL, alpha=0.0, beta=1.0))
    records = learn(method, [made_task(kind=0, seed=1), made_task(kind=0, seed=2)])
    assert records[1].decision == "reuse-cell"
    assert records[1].genotype == records[0].genotype
    assert "search" not in records[1].seconds
    pairs = zip(method.experts[0].parameters(), method.experts[1].parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs if a.ndim == 4)


@pytest.mark.parametrize(
    ("variant", "decisions", "experts"),
    [
        ("fixed", ["reuse-cell", "reuse-cell", "reuse-cell"], 3),
        ("fine", ["search", "search", "search"], 3),
        ("coarse+fine", ["search", "search", "reuse-cell"], 3),
        ("regularization", ["reuse-cell", "reuse-expert", "reuse-expert"], 1),
        ("regularization-searched", ["search", "reuse-expert", "reuse-expert"], 1),
        ("fixed+regularization", ["reuse-cell", "reuse-cell", "reuse-expert"], 2),
        ("fine+regularization", ["search", "search", "reuse-expert"], 2),
    ],
)
def test_ablations_of_table_5(variant: str, decisions: list[str], experts: int) -> None:
    method = PAR(replace(SMALL, variant=variant))
    records = learn(method, [made_task(kind=0, seed=1), made_task(kind=5, seed=2), made_task(kind=0, seed=3)])
    assert [r.decision for r in records] == decisions
    assert len(method.experts) == experts


@pytest.mark.parametrize(("variant", "paper"), [("regularization", 0.244), ("fixed", 2.236)])
def test_the_sizes_of_table_5(variant: str, paper: float) -> None:
    """Rows #4 and #1, in millions: one and ten experts of 221,376 with ten heads of 2,570. 0.02 of them are open in the paper's numbers."""
    method = PAR(PARSettings(variant=variant, extractor="pixels"))
    task = made_task(classes=10, train=2, valid=2)
    learn(method, [task], TrainingSettings(epochs=1, batch_size=20))
    expert, head = method.experts[0], method.heads[0]
    experts = 1 if variant == "regularization" else 10
    parameters = experts * count_parameters([expert]) + 10 * count_parameters([head])
    assert parameters == experts * 221_376 + 10 * 2_570
    assert parameters / 1e6 == pytest.approx(paper, rel=0.02)


def test_a_run_that_was_begun_with_a_searched_cell_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "search.running.safetensors").touch()
    method = PAR(replace(SMALL, variant="regularization"))
    with pytest.raises(LifelongError, match=r"task 'task 0': .*'regularization-searched'"):
        method.learn(made_task(), replace(context(0), folder=tmp_path))


def test_tiny_tasks_join_as_in_the_authors_code() -> None:
    """At most 25 images: the nearest group with ten times as many, whatever alpha; ten times the weight decay where trained."""
    settings = replace(SMALL, tiny_task=25, tiny_task_ratio=10.0, tiny_weight_decay=10.0, freeze_ratio=0.0)
    method = PAR(settings)
    learn(method, [made_task(kind=0, seed=1, train=20)])
    (record,) = learn(method, [made_task(kind=5, seed=2, train=2)])
    assert record.group_distances[0] > settings.alpha
    assert record.decision == "reuse-expert"
    assert record.hyperparameters["weight_decay"] == pytest.approx(0.03)


@pytest.mark.usefixtures("in_float64")
def test_frozen_features_equal_recomputed_ones() -> None:
    """Features computed once train the same head as features recomputed in every step."""
    first, second = PAR(SMALL), PAR(replace(SMALL, frozen_augment=True))
    for method in (first, second):
        learn(method, [made_task(kind=0, seed=1, train=24), made_task(kind=0, seed=3, train=2)], replace(TRAINING, augment=False))
    torch.testing.assert_close(first.heads[1].weight, second.heads[1].weight, rtol=1e-8, atol=1e-10)


def test_distillation_by_hand() -> None:
    """Eq. 8 at temperature 2: cross-entropy of distributions whose probabilities are raised to 1/2 and normalized."""
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    q = F.softmax(teacher, dim=1) ** 0.5
    p = F.softmax(student, dim=1) ** 0.5
    expected = -((q / q.sum()) * (p / p.sum()).log()).sum()
    torch.testing.assert_close(soft_cross_entropy(student, teacher, 2.0), expected)


def test_distillation_starts_without_a_pull() -> None:
    """Student = teacher: the old heads' part of the gradient vanishes."""
    network, old, new = nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), nn.Linear(8, 3), nn.Linear(8, 3)
    examples = image_examples(made_task())
    inputs, labels = examples.prepare(examples.train), examples.train_labels
    loss = distillation_loss(network, new, [old], examples, weight=1.0, temperature=2.0)
    plain = F.cross_entropy(new(network(inputs)), labels)
    total = loss(made_batch(inputs, labels, torch.arange(len(labels))))
    (got,) = torch.autograd.grad(total, [network[1].weight])
    (expected,) = torch.autograd.grad(plain, [network[1].weight])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    assert total > plain  # the entropy of the teacher is there all the same


def test_recorded_and_recomputed_teachers_agree() -> None:
    network, old, new = nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), nn.Linear(8, 3), nn.Linear(8, 3)
    examples = image_examples(made_task())
    augmented = replace(examples, augmentation=replace(examples.augmentation, flip=True))
    losses = [distillation_loss(network, new, [old], e, weight=0.5, temperature=2.0) for e in (examples, augmented)]
    with torch.no_grad():
        network[1].weight.add_(0.1)
    indices = torch.tensor([3, 1, 7])
    batch = made_batch(examples.prepare(examples.train[indices]), examples.train_labels[indices], indices)
    torch.testing.assert_close(losses[0](batch), losses[1](batch))
