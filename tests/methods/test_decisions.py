"""Decision rules: their statistics against plain ways to compute them, and what PAR does with their decisions."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lifelong
from lifelong.data.task import Task
from lifelong.errors import LifelongError
from lifelong.methods.conformance import TRAINING, made_context
from lifelong.methods.decisions import View
from lifelong.methods.density_rules import Gaussian, gaussian, held_out_errors, principal, projected, reconstruction_errors
from lifelong.methods.expert_rules import PENALTY, hindrance_angle, probe_accuracy, widened
from lifelong.methods.method import LearnRecord
from lifelong.methods.par import PAR
from lifelong.methods.trial_rules import calibrated_alpha
from lifelong.settings.par import PARSettings
from lifelong.training.closed_form import Rows, logistic
from tests.made import made_task
from tests.trees import same

SMALL = PARSettings(variant="fixed+regularization", init_channels=4, cells=2, extractor="pixels")
KINDS = (0, 5, 0)
"""Of the tasks: the third is the first one again, and the second is far from both."""


def learned(settings: PARSettings, tasks: list[Task] | None = None) -> tuple[PAR, list[LearnRecord]]:
    method = PAR(settings)
    tasks = tasks or [made_task(kind=kind, seed=seed, train=12, valid=8) for seed, kind in enumerate(KINDS)]
    return method, [method.learn(task, made_context(index, replace(TRAINING, epochs=2))) for index, task in enumerate(tasks)]


def drawn(count: int, length: int, seed: int = 0) -> Tensor:
    return torch.randn(count, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rule", ["thresholds", "z-score", "posterior"])
def test_rules_on_common_features_find_the_task_that_comes_again(rule: str) -> None:
    method, records = learned(replace(SMALL, decision=rule))
    assert [record.decision for record in records] == ["reuse-cell", "reuse-cell", "reuse-expert"]
    assert method.relatedness.groups.members == [[0, 2], [1]]
    assert all(record.reason.endswith("shared") for record in records[2:])


@pytest.mark.parametrize("rule", ["outlier", "gradient-angle", "validation-gain", "calibrated"])
def test_a_rule_decides_and_what_it_keeps_is_counted(rule: str) -> None:
    method, records = learned(replace(SMALL, decision=rule))
    assert all(record.reason.endswith(("shared", "DARTS_V1")) for record in records)
    kept = method.memory().get("decision", 0)
    assert (kept > 0) == (rule != "validation-gain")
    again = PAR(replace(SMALL, decision=rule))
    again.load_state_dict(method.state_dict())
    assert again.memory() == method.memory()


@pytest.mark.parametrize("rule", ["oracle", "posterior", "gradient-angle"])
def test_it_keeps_its_contract(rule: str) -> None:
    """One that tries, one by features, one by experts; interruptions fall into trials, too."""
    lifelong.check_decision(rule, images=3)


def test_a_rule_is_not_asked_by_variants_that_never_or_always_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifelong.methods.decisions.Thresholds.decide", lambda *given: pytest.fail("asked"))
    for variant in ("coarse+fine", "regularization"):
        learned(replace(SMALL, variant=variant, search_epochs=1))
    with pytest.raises(pytest.fail.Exception, match="asked"):
        learned(SMALL)


def test_errors_of_an_auto_encoder_by_least_squares() -> None:
    """What principal components leave is what no other map of as many numbers can explain: the distance to the subspace."""
    features = drawn(40, 18) * torch.linspace(3, 0.1, 18, dtype=torch.float64)
    mean, basis = principal(features)
    assert basis.shape == (18, 3)
    expected = []
    for row in features - features.mean(dim=0):
        code = torch.linalg.lstsq(basis, row[:, None]).solution
        expected.append(((row[:, None] - basis @ code) ** 2).mean())
    torch.testing.assert_close(reconstruction_errors(features, mean, basis), torch.stack(expected))
    best = torch.linalg.svdvals(features - features.mean(dim=0))[3:].square().sum() / features.numel()
    torch.testing.assert_close(reconstruction_errors(features, mean, basis).mean(), best)


def test_held_out_errors_are_those_of_new_images() -> None:
    """Of few images in many dimensions, errors of those that were fitted are far too small."""
    features, new = drawn(40, 60), drawn(2000, 60, seed=1)
    mean, basis = principal(features)
    of_new = reconstruction_errors(new, mean, basis).mean()
    assert held_out_errors(features).mean() == pytest.approx(of_new.item(), rel=0.05)
    assert reconstruction_errors(features, mean, basis).mean() < 0.9 * of_new


def test_the_density_of_a_gaussian() -> None:
    features = drawn(50, 4)
    found = gaussian(features)
    expected = torch.distributions.MultivariateNormal(found.mean, found.covariance).log_prob(features)
    torch.testing.assert_close(found.log_density(features), expected)
    assert found.covariance.trace().item() == pytest.approx(features.var(dim=0, correction=0).sum().item())
    assert gaussian(drawn(3, 20)).log_density(drawn(5, 20)).isfinite().all()
    assert isinstance(found, Gaussian)


def test_projections_are_the_same_for_all_tasks_of_a_run() -> None:
    features = drawn(5, 100)
    assert projected(features, 0).shape == (5, 20)
    # Of more rows the product may be summed up in another order.
    torch.testing.assert_close(projected(features, 0)[2:], projected(features[2:], 0), rtol=1e-12, atol=1e-12)
    assert not torch.equal(projected(features, 0), projected(features, 1))
    assert torch.equal(projected(features[:, :20], 0), features[:, :20])


def test_the_angle_to_a_subspace() -> None:
    labels = torch.arange(3).repeat_interleave(10)
    features = drawn(30, 8) + 3 * F.one_hot(labels, 8)
    rows, everything = Rows(features, labels, 3), torch.eye(8, dtype=torch.float64)
    assert hindrance_angle(rows, everything) == pytest.approx(0.0, abs=1e-4)
    assert hindrance_angle(rows, everything[:, :0]) == pytest.approx(90.0)
    head = logistic(rows, PENALTY)
    inputs = features.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(F.cross_entropy(head(inputs), labels, reduction="sum"), [inputs])
    basis = everything[:, :2]
    cosine = F.cosine_similarity(gradients, gradients @ basis @ basis.T).mean()
    assert hindrance_angle(rows, basis) == pytest.approx(math.degrees(math.acos(cosine)), rel=1e-6)


def test_a_subspace_carries_the_energy_of_both_tasks() -> None:
    first, second = (drawn(30, 10, seed) * torch.logspace(1, -2, 10, dtype=torch.float64) for seed in (0, 1))
    second = second.flip(1)
    basis = widened(second, widened(first, None))
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    for features in (first, second):
        assert (features @ basis).square().sum() >= 0.95 * features.square().sum()
    assert basis.shape[1] < 10


def test_a_probe_is_right_where_classes_are_apart() -> None:
    labels = torch.arange(3).repeat_interleave(8)
    apart = [Rows(0.1 * drawn(24, 6, seed) + F.one_hot(labels, 6), labels, 3) for seed in (0, 1)]
    assert probe_accuracy(View(*apart)) == 1.0
    assert probe_accuracy(View(*(replace(rows, features=torch.ones(24, 6, dtype=torch.float64)) for rows in apart))) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("trials", "alpha"),
    [
        ([[0.2, 0.1], [0.9, -0.3]], 0.5),  # the paper's agrees
        ([[0.6, 0.1], [0.9, -0.3]], 0.75),
        ([[0.1, -0.2], [0.3, -0.2]], 0.05),
        ([[0.7, 0.2], [0.8, 0.0]], 0.9),  # within the margin
        ([[0.3, -0.2], [0.4, 0.05], [0.9, -0.2]], 0.15),  # the larger loss counts
    ],
)
def test_alpha_of_trials(trials: list[list[float]], alpha: float) -> None:
    assert calibrated_alpha(trials, 0.5, 0.01) == pytest.approx(alpha)


@pytest.mark.parametrize("margin", [1.0, 0.0])
def test_an_oracle_gives_what_its_decision_gives_without_it(margin: float) -> None:
    """What was trained on trial equals, to the bit, what the same decision trains; what was not chosen leaves no trace."""
    oracle, records = learned(replace(SMALL, decision="oracle", share_margin=margin))
    shared = [record.decision == "reuse-expert" for record in records]
    if margin == 1.0:
        assert shared == [False, True, True]
        plain, expected = learned(replace(SMALL, alpha=1.0))
        assert [record.parameters_added for record in records] == [record.parameters_added for record in expected]
        of_both = [[module.state_dict() for module in (*method.experts, *method.heads)] for method in (oracle, plain)]
        assert same(*of_both)
    assert records[1].seconds["attempts"] > 0
    assert records[1].reason.startswith("of 2 tried: sharing with group 0 ")
    assert sum(map(len, oracle.relatedness.groups.members)) == 3
    assert oracle.memory().get("decision", 0) == 0


def test_an_oracle_needs_validation_images() -> None:
    tasks = [made_task(kind=0, seed=seed, train=4, valid=0) for seed in range(2)]
    with pytest.raises(LifelongError, match="no validation images, which this decision rule needs"):
        learned(replace(SMALL, decision="oracle", feature_split="train"), tasks)


class Wrong(lifelong.DecisionRule):
    def decide(self, question):
        return question.share(7, "why not")


class Mute(lifelong.DecisionRule):
    def decide(self, question):
        return 0


@pytest.mark.parametrize(
    ("rule", "line"), [(Wrong, "cannot share with group 7; the groups are 0 to 0"), (Mute, "gave 0; it must give what question.share")]
)
def test_a_rule_that_gives_no_decision_is_one_line(rule: type, line: str) -> None:
    from lifelong.settings.sockets import DECISIONS

    lifelong.register_decision("wrong", rule)
    try:
        with pytest.raises(LifelongError, match=f"decision 'wrong': {line}"):
            learned(replace(SMALL, decision="wrong"))
    finally:
        DECISIONS._entries.pop("wrong")
