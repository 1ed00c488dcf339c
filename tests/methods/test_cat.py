"""CAT: who is similar, what may change for whom, which head answers."""

import pytest
import torch
from torch import Tensor

from lifelong.methods.cat import CAT, Heads, TaskAttention, largest_divisor
from lifelong.methods.method import LearnRecord
from lifelong.networks.gates import used
from lifelong.settings.baselines import CATSettings
from lifelong.settings.training import TrainingSettings
from lifelong.training.examples import image_examples
from lifelong.training.fit import FitOutcome
from tests.made import made_split, made_task
from tests.methods.test_par import context

TRAINING = TrainingSettings(epochs=2, batch_size=6, lr=0.01, patience=0)


class Told(CAT):
    """With the similarities given, and the choice of a head too."""

    def __init__(self, settings, similar: list[list[int]], attends: bool = True) -> None:
        super().__init__(settings)
        self.told, self.choice = similar, attends

    def _compare(self, task, context):
        return self.told[len(self.tasks)], []

    def consolidate(self, examples, context):
        super().consolidate(examples, context)
        self.attends[-1] = self.choice and self.heads[-1].attention is not None


def learn(method: CAT, tasks: int, training: TrainingSettings = TRAINING) -> LearnRecord | None:
    record = None
    for index in range(len(method.tasks), tasks):
        record = method.learn(made_task(kind=index, seed=index, train=6), context(index, training))
    return record


def told(similar: list[list[int]], *, attends: bool = True, init_channels: int = 8) -> Told:
    return Told(CATSettings(init_channels=init_channels, stem_pool=True), similar, attends)


def answers(method: CAT, task: int) -> Tensor:
    return method.logits(made_split(3, 8, seed=77, kind=task).images, task)


def test_the_test_of_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strictly better than the reference on validation images; stages have names, and their cost is in the record."""
    start = told([[], [], []], init_channels=4)
    learn(start, 3)
    method = CAT(start.settings)
    method.load_state_dict(start.state_dict())
    given = {"reference": 0.5, "transfer-0": 0.5, "transfer-1": 0.51, "transfer-2": 0.49}
    seen = []

    def fitted(module, examples, predict, settings, stage):
        seen.append((stage.name, tuple(examples.train.shape)))
        return FitOutcome(7, 1, given[stage.name], 0.0, 2.0)

    monkeypatch.setattr("lifelong.methods.cat.fit_selected", fitted)
    record = learn(method, 4)
    assert method.similar[3] == [1]
    assert method.similar[0] == []
    assert seen == [("reference", (18, 3, 8, 8)), *((f"transfer-{k}", (18, 4)) for k in range(3))]
    assert (record.seconds["reference"], record.seconds["transfer"], record.epochs) == (2.0, 6.0, 2 + 4 * 7)
    assert record.reason.startswith("similar to made; answers by the ")


def test_transfer_is_under_the_earlier_mask_and_changes_nothing() -> None:
    """The read-out sees the features by which the earlier task is answered for, and the network stays as it is."""
    method = CAT(CATSettings(init_channels=4, stem_pool=True))
    learn(method, 2)
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    task = made_task(kind=0, seed=4)
    similar, spent = method._compare(task, context(2, TRAINING))
    assert [phase for phase, _ in spent] == ["reference", "transfer", "transfer"]
    assert similar == [k for k in range(2) if spent[1 + k][1].accuracy > spent[0][1].accuracy]
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())


def test_what_dissimilar_tasks_use_keeps_its_bits() -> None:
    """Task 1 is similar to task 0, task 2 to task 1 alone."""
    method = told([[], [0], [1]], attends=False)
    learn(method, 1)
    first = answers(method, 0)
    learn(method, 2)
    changed, second = answers(method, 0), answers(method, 1)
    assert not torch.equal(changed, first)
    learn(method, 3)
    assert torch.equal(answers(method, 0), changed)
    assert not torch.equal(answers(method, 1), second)


def test_what_is_attended_to_is_held_too() -> None:
    """Task 1 answers by attention to task 0. Task 2 is similar to task 0, not to task 1, whose answers must not change."""
    method = told([[], [0], [0]])
    learn(method, 2)
    first, second = answers(method, 0), answers(method, 1)
    learn(method, 3)
    assert torch.equal(answers(method, 1), second)
    assert torch.equal(answers(method, 0), first)


def test_held_units() -> None:
    method = told([[], [], [1], [0, 2]], attends=False)
    learn(method, 3)
    method.similar.append([0, 2])
    held, one = method.held(), used(method.backbone, [1])
    assert all(torch.equal(held[name], one[name]) for name in one)
    method.attends[1] = True
    method.similar[1] = [0]
    both = used(method.backbone, [0, 1])
    assert all(torch.equal(value, both[name]) for name, value in method.held().items())


def test_attention_sees_similar_tasks_in_evaluation_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training too; the statistics of an earlier task's batch norm do not follow the new images."""
    method = told([[], [], [0, 1]])
    learn(method, 2)
    norms = {name: value.clone() for name, value in method.backbone.named_buffers()}
    seen = set()
    features = CAT.features

    def watched(self, inputs, task_index):
        seen.add((task_index, self.backbone.training))
        return features(self, inputs, task_index)

    monkeypatch.setattr(CAT, "features", watched)
    learn(method, 3)
    assert seen == {(0, False), (1, False), (2, True), (2, False)}
    after = dict(method.backbone.named_buffers())
    assert norms
    assert all(torch.equal(after[name], value) for name, value in norms.items())


def test_the_better_head_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    method = told([[], [0]])
    learn(method, 2)
    images = made_task(kind=1, seed=1).valid
    inputs = torch.zeros(len(images), 3, 8, 8)
    logits = torch.nn.functional.one_hot(images.labels, 3).float()
    for mask, attention, expected in [(logits, -logits, False), (-logits, logits, True), (logits, logits, False)]:
        monkeypatch.setattr(method, "mask_logits", lambda *_, out=mask: out)
        monkeypatch.setattr(method, "attention_logits", lambda *_, out=attention: out)
        CAT.consolidate(method, image_examples(made_task(kind=1, seed=1)), context(1, TRAINING))
        assert method.attends.pop() is expected
        method.attends[1] = expected
        assert torch.equal(method.answer(method.heads[1], inputs, 1), attention if expected else mask)


def test_attention_by_hand() -> None:
    """One head, written out."""
    torch.manual_seed(0)
    block = TaskAttention(6, 1).eval()
    candidates = torch.randn(4, 3, 6)
    weights = dict(block.attention.named_parameters())
    q, k, v = weights["in_proj_weight"].chunk(3)
    query = block.query.clamp(min=0)
    rows = []
    for image in candidates:
        share = ((image @ k.T) @ (q @ query) / 6**0.5).softmax(dim=0)
        taken = weights["out_proj.weight"] @ (share @ (image @ v.T))
        x = block.norm1(query + taken)
        rows.append(block.norm2(x + block.feed_forward(x)))
    torch.testing.assert_close(block(candidates), torch.stack(rows))


def test_heads_divide_the_features() -> None:
    assert [largest_divisor(features, 5) for features in (2000, 64, 2048, 6, 7)] == [5, 4, 4, 3, 1]


def test_parameters() -> None:
    """Light ResNet-18: HAT's, and per attention 4 d² + 4 d, 2 d² + 2 d, 4 d, d and a second head."""
    method = told([[], [0]], attends=False)
    learn(method, 2)
    mask = method.heads[1].mask
    assert isinstance(method.heads[0], Heads)
    assert method.heads[0].attention is None
    d = mask.in_features
    body = sum(parameter.numel() for parameter in method.backbone.parameters())
    assert method.num_parameters() == body + 3 * (3 * d + 3) + 6 * d * d + 11 * d


def test_state_round_trip() -> None:
    method = told([[], [0], [0, 1]])
    learn(method, 2)
    again = told([[], [0], [0, 1]])
    again.load_state_dict(method.state_dict())
    for task in (0, 1):
        assert torch.equal(answers(again, task), answers(method, task))
    learn(method, 3)
    learn(again, 3)
    assert again.num_parameters() == method.num_parameters()
    assert torch.equal(answers(again, 2), answers(method, 2))
