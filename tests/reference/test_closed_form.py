"""Heads in closed form on given features: recordings of RanPAC's code, which has the nearest class mean too, and of FeCAM's."""

import pytest
import torch
from torch.nn import functional

from lifelong.networks.pretrained import CosineHead, mahalanobis, tukey
from lifelong.relatedness.bank import prototypes
from lifelong.training.closed_form import Rows, choose_ridge, solve_ridge
from lifelong.training.covariance import correlation, distances, factor, scatter_within, shrunk, whitening
from tests.reference.recordings import recording

pytestmark = pytest.mark.usefixtures("in_float64")


def test_ranpac_head() -> None:
    """Three tasks with common statistics: the penalty that the last fifth of the images chooses, and the scores of all classes so far."""
    recorded = recording("ranpac-head")

    def project(features: torch.Tensor) -> torch.Tensor:
        return torch.relu(features @ recorded["in/projection"])

    gram, moments = torch.zeros(20, 20), []
    for task in range(3):
        rows = Rows(project(recorded[f"in/features{task}"]), recorded[f"in/labels{task}"], 3)
        kept = torch.arange(len(rows)) < int(0.8 * len(rows))
        penalty = choose_ridge(rows.taken(kept), rows.taken(~kept))
        recorded.holds(torch.tensor(penalty), recorded[f"out/ridge{task}"])
        gram = gram + rows.features.T @ rows.features
        moments.append(rows.features.T @ rows.targets)
        scores = project(recorded["in/queries"]) @ solve_ridge(gram, torch.cat(moments, dim=1), penalty)
        recorded.holds(scores, recorded[f"out/scores{task}"])


def test_ncm_head() -> None:
    recorded = recording("ncm-head")
    head = CosineHead(6, 4)
    with torch.no_grad():
        head.weight.copy_(prototypes(recorded["in/features"], recorded["in/labels"], 4).means)
        recorded.holds(head(recorded["in/queries"]), recorded["out/logits"])


def test_fecam_head() -> None:
    """A covariance for each of three classes, shrunk twice, and the distances of queries."""
    recorded = recording("fecam-head")
    features, labels = recorded["in/features"], recorded["in/labels"]
    raised = Rows(tukey(features, 0.5), labels, 3)
    scatters = [scatter_within(raised.taken(labels == label)) for label in range(3)]
    found = torch.stack([correlation(shrunk(shrunk(scatter.covariance, 1.0), 1.0)) for scatter in scatters])
    recorded.holds(found, recorded["out/correlations"])
    means = functional.normalize(tukey(prototypes(features, labels, 3).means, 0.5), dim=1)
    queries = functional.normalize(tukey(recorded["in/queries"], 0.5), dim=1)
    triangles = [factor(each) for each in found]
    recorded.holds(distances(queries, means, triangles), recorded["out/distances"])
    recorded.holds(mahalanobis(queries, means, torch.stack([whitening(each) for each in triangles])), recorded["out/distances"])
