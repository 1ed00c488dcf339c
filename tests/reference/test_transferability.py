"""Scores of given features and answers: recordings of the codes of LogME's authors."""

import pytest
import torch
from torch.nn.functional import one_hot

from lifelong.relatedness.transferability import evidence, h_score, leep
from tests.reference.recordings import recording

pytestmark = pytest.mark.usefixtures("in_float64")


def test_leep() -> None:
    recorded = recording("leep")
    score = leep(recorded["in/logits"].log_softmax(dim=1), recorded["in/labels"], 4)
    recorded.holds(torch.tensor(score), recorded["out/score"])


def test_logme() -> None:
    """The evidence of each class's indicator, from features as they are; `logme` also scales them, and adds a constant one."""
    recorded = recording("logme")
    left, singular, _ = torch.linalg.svd(recorded["in/features"], full_matrices=False)
    found = evidence(left, singular.square(), one_hot(recorded["in/labels"]).double())
    recorded.holds(found, recorded["out/evidence"])


def test_h_score() -> None:
    recorded = recording("h-score")
    score = h_score(recorded["in/features"], recorded["in/labels"], 4, shrinkage=0.0)
    recorded.holds(torch.tensor(score), recorded["out/score"])
