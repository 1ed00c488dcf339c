"""Expert Gate: what is copied, what is distilled, and where the gate sends images."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lifelong.data.augment import normalize
from lifelong.errors import LifelongError
from lifelong.methods.expertgate import ExpertGate
from lifelong.methods.method import LearnRecord, count_parameters
from lifelong.relatedness.extractor import open_extractor
from lifelong.relatedness.gate import Gate, relatedness
from lifelong.settings.growing import ExpertGateSettings
from lifelong.settings.training import TrainingSettings
from tests.made import made_split, made_task
from tests.methods.test_par import context, unchanged, weights

TRAINING = TrainingSettings(epochs=8, batch_size=8, lr=0.1, patience=0)
SMALL = ExpertGateSettings(init_channels=2, backbone="conv4", extractor="pixels", gate_code=16)
KINDS = (0, 1, 2)
"""Three unlike tasks."""


def learn(method: ExpertGate, kinds: tuple[int, ...], training: TrainingSettings = TRAINING) -> list[LearnRecord]:
    start = len(method.tasks)
    return [method.learn(made_task(f"t{i}", kind=k, seed=i, train=24), context(i, training)) for i, k in enumerate(kinds, start)]


def learned(kinds: tuple[int, ...], **changes) -> ExpertGate:
    method = ExpertGate(replace(SMALL, **changes))
    learn(method, kinds)
    return method


def images(kind: int) -> Tensor:
    return made_split(3, 10, seed=77, kind=kind).images


def open_pixels(name: str, feature_input: str):
    return open_extractor(name, feature_input=feature_input)


@pytest.fixture(scope="module")
def three() -> ExpertGate:
    """A method that has learned the three tasks; not to be changed."""
    return learned(KINDS)


def restored(method: ExpertGate) -> ExpertGate:
    again = ExpertGate(method.settings)
    again.load_state_dict(method.state_dict())
    return again


def test_the_gate_sends_images_to_their_task(three: ExpertGate) -> None:
    """At a temperature of 2, most of the probability is the right task's."""
    for task, kind in enumerate(KINDS):
        probability = three.task_probabilities(images(kind))
        assert probability.shape == (30, 3)
        torch.testing.assert_close(probability.sum(dim=1), torch.ones(30))
        assert (probability.argmax(dim=1) == task).float().mean() > 0.9
        assert probability[:, task].mean() > 0.8


def test_auto_encoders_learn(three: ExpertGate) -> None:
    """On images never seen they leave less than half of the variance, which is what the best constant leaves."""
    for task, kind in enumerate(KINDS):
        autoencoder = three.gate.entries[task].autoencoder
        features = open_extractor("pixels").features(images(kind), three.tasks[task].normalization)
        assert autoencoder.errors(features).mean() < 0.5 * autoencoder.inputs(features).var(dim=0).sum()


def test_a_task_met_again_is_distilled_and_another_is_copied(three: ExpertGate) -> None:
    """Nothing that was learned before changes: experts, heads and auto-encoders keep their bits."""
    method = restored(three)
    answers = [method.logits(images(0), task) for task in range(3)]
    kept = [*method.experts, *method.heads, *(entry.autoencoder for entry in method.gate.entries)]
    before = [weights(module) for module in kept]
    again, other = learn(method, (0, 3))
    assert "to task 0 ('t0') > 0.85: distilled" in again.reason
    assert "<= 0.85: copied" in other.reason
    assert ("distill" in again.seconds, "train" in again.seconds) == (True, False)
    assert ("distill" in other.seconds, "train" in other.seconds) == (False, True)
    assert again.epochs == 2 * TRAINING.epochs  # the auto-encoder's too
    assert all(torch.equal(method.logits(images(0), task), answer) for task, answer in enumerate(answers))
    assert all(unchanged(module, then) for module, then in zip(kept, before, strict=True))
    related = relatedness(Gate(method.gate.entries[:4]).errors(images(0), open_extractor("pixels"))).tolist()
    assert related[0] == pytest.approx(1, abs=0.15)
    assert max(related[1:]) < 0.5


@pytest.mark.parametrize("related_above", [-100.0, 100.0])
def test_a_new_expert_starts_as_the_most_related_one(three: ExpertGate, related_above: float) -> None:
    """At a learning rate of almost zero it stays where it starts, distilled or not; of three experts the second is the related one."""
    method = restored(three)
    method.settings = replace(SMALL, related_above=related_above)
    (record,) = learn(method, (1,), replace(TRAINING, lr=1e-12, epochs=1))
    assert ("distilled" in record.reason) == (related_above < 0)
    pairs = zip(method.experts[3].parameters(), method.experts[1].parameters(), strict=True)
    assert all(torch.allclose(new, old, atol=1e-6) for new, old in pairs)


def test_distillation_keeps_the_answers_of_the_source(three: ExpertGate) -> None:
    """On the new images, the source's head gives more of the old answers with a strong distillation than without."""
    drift = {}
    for kd_weight in (0.0, 10.0):
        method = restored(three)
        method.settings = replace(SMALL, related_above=-100.0, kd_weight=kd_weight)
        (record,) = learn(method, (3,))
        source = int(record.reason.split("to task ")[1][0])
        inputs = normalize(images(3), method.tasks[3].normalization)
        with torch.no_grad():
            now, before = (method.heads[source](expert(inputs)) for expert in (method.experts[3], method.experts[source]))
        drift[kd_weight] = F.kl_div(now.log_softmax(dim=1), before.softmax(dim=1), reduction="batchmean").item()
    assert drift[10.0] < 0.5 * drift[0.0]


def test_auto_encoders_are_memory_and_no_parameters(three: ExpertGate) -> None:
    assert three.num_parameters() == count_parameters([*three.experts, *three.heads])
    assert three.memory() == {"auto-encoders": 3 * 4 * (2 * 192 * 16 + 16 + 192 + 2 * 192)}


def test_a_restored_gate_needs_its_extractor(three: ExpertGate) -> None:
    again = restored(three)
    with pytest.raises(ValueError, match="attach_extractor"):
        again.task_probabilities(images(0))
    again.attach_extractor(open_pixels)
    assert torch.equal(again.task_probabilities(images(0)), three.task_probabilities(images(0)))


def test_without_validation_images_training_images_tell_relatedness() -> None:
    method = learned((0,))
    task = made_task("again", kind=0, seed=5, train=24, valid=0)
    record = method.learn(task, context(1, TRAINING))
    with torch.no_grad():
        errors = method.gate.errors(task.train.images, open_extractor("pixels")).mean(dim=0)
    assert f"relatedness {2 - errors[0] / errors[1]:.3f}" in record.reason


def test_a_code_that_is_no_code() -> None:
    with pytest.raises(LifelongError, match=r"gate_code = 192 must be smaller than the number of features \(192\)"):
        learned((0,), gate_code=192)
