"""Decision rules that look at the new task through existing experts: LMC's, LW2G's, and a probe of each expert."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from lifelong.methods.decisions import DecisionRule, Learned, Question, View
from lifelong.methods.gpm import new_directions
from lifelong.relatedness.groups import Decision
from lifelong.storage import Tree
from lifelong.training.closed_form import Rows, choose_ridge, logistic, ridge, to_judge
from lifelong.training.examples import accuracy

ENERGY = 0.95
"""Share of the squared norm of features that a subspace carries. Source: LW2G's code."""

PENALTY = 0.1
"""L2 penalty of a briefly fitted head."""

FOLDS = 5
"""Folds of a task's images; the errors of each are measured by a decoder fitted to the others."""


class Outlier(DecisionRule):
    """Share with an expert for which the new task is not an outlier (LMC: Ostapenko et al., NeurIPS 2021, arXiv 2111.07736).

    Each expert has a decoder, which reconstructs the frozen extractor's features of an image from the expert's, and the mean and deviation
    of its error. For a new task, z is the standardized mean error of a batch; the task gets a new expert if |z| is above a threshold, 4 by
    default (`share_outlier`), for all experts.

    Differences: LMC trains a decoder with each module of each layer, which reconstructs the layer's input; here each expert has one, fitted
    in closed form after the expert's training. LMC tests each batch during training; here all images are tested once, before it:
    z = (mean error - mean) / (deviation / sqrt(batch_size)). A shared expert has the decoder of its newest task only, since older images
    are gone. Errors are measured on images that the decoder was not fitted to.
    """

    def decide(self, question: Question) -> Decision:
        """Compare the smallest |z| with `share_outlier`."""
        limit, size = question.settings.share_outlier, question.context.training.batch_size
        common = question.views.common.judged.features
        outlying = []
        for expert, kept in zip(question.experts, question.kept, strict=True):
            errors = _decoding_errors(question.views.by(expert).judged.features, common, kept["decoder"])
            deviation = kept["error"][1].clamp_min(1e-9 * kept["error"][0].clamp_min(1e-30))
            outlying.append(((errors.mean() - kept["error"][0]) / (deviation / math.sqrt(size))).abs().item())
        group = min(range(len(outlying)), key=outlying.__getitem__)
        if outlying[group] <= limit:
            return question.share(group, f"|z| {outlying[group]:.1f} ≤ {limit:g} to the expert of group {group}")
        return question.allocate(f"|z| {outlying[group]:.1f} > {limit:g} to every expert, that of group {group} the nearest")

    def keep(self, learned: Learned) -> Tree:
        """Return the decoder and the errors of each expert."""
        features, common = learned.views.by(learned.expert).judged.features, learned.views.common.judged.features
        part = torch.arange(len(features), device=features.device) % min(FOLDS, max(len(features), 1))
        errors = torch.zeros(len(features), dtype=features.dtype, device=features.device)
        for held in range(int(part.max()) + 1):
            fitted = part != held if len(features) > 1 else part == held
            decoder = _decoder(features[fitted], common[fitted])
            errors[part == held] = _decoding_errors(features[part == held], common[part == held], decoder)
        error = torch.stack([errors.mean(), errors.std(correction=0)])
        return _put(learned, {"decoder": _decoder(features, common), "error": error})


def _decoder(features: Float64[Tensor, "n d"], common: Float64[Tensor, "n k"]) -> Float64[Tensor, "_d k"]:
    """Fit a linear map with a constant from an expert's features to the extractor's, by a regression with a small ridge penalty."""
    inputs = _with_one(features)
    gram = inputs.T @ inputs
    ridged = gram + (1e-3 * gram.diagonal().mean()).clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve(inputs.T @ common, torch.linalg.cholesky(ridged))


def _decoding_errors(features: Tensor, common: Tensor, decoder: Tensor) -> Float64[Tensor, "n"]:
    return (_with_one(features) @ decoder - common).square().mean(dim=1)


def _with_one(features: Float64[Tensor, "n d"]) -> Float64[Tensor, "n _d"]:
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


class GradientAngle(DecisionRule):
    """Share with the group that hinders the new task least, if less than the frozen features do (LW2G: Feng et al., arXiv 2409.18860).

    An expert's features of its tasks span a subspace, P_g, which carries 95 % of their squared norm. A head for the new task is fitted on
    the expert's features f, and the gradient of each image's cross-entropy with respect to f is compared with its projection:

        a_g = arccos(mean over images of cos(grad, grad P_g))      in degrees

    The larger the angle, the less of the gradient lies in the subspace of earlier tasks, and the less they hinder the new one. The group
    with the largest angle is shared if its angle exceeds a_pre, that of the frozen extractor's features and the subspace of all earlier
    tasks.

    Differences: LW2G takes the gradients of a group's prompt tokens in several layers over an epoch; here they are those of the expert's
    output features, for a head fitted by logistic regression. LW2G's P_pre is a subspace of the pretrained network that all groups prompt;
    experts here are not pretrained, so the frozen extractor takes its place. Subspaces are spanned in feature space, as in the paper; the
    released code spans them in sample space. Gradients are not projected while the task is trained: the regularizer protects the expert.
    """

    def decide(self, question: Question) -> Decision:
        """Compare the largest angle with that on the frozen extractor's features."""
        common = hindrance_angle(question.views.common.judged, question.kept["common"])
        angles = [
            hindrance_angle(question.views.by(expert).judged, basis)
            for expert, basis in zip(question.experts, question.kept["experts"], strict=True)
        ]
        group = max(range(len(angles)), key=angles.__getitem__)
        found = f"angle {angles[group]:.1f}° to the subspace of group {group}"
        if angles[group] > common:
            return question.share(group, f"{found} > {common:.1f}° of the common features")
        return question.allocate(f"{found}, the largest, ≤ {common:.1f}° of the common features")

    def keep(self, learned: Learned) -> Tree:
        """Return the subspace of each expert's features, and of the frozen extractor's."""
        common, experts = (None, []) if learned.kept is None else (learned.kept["common"], list(learned.kept["experts"]))
        known = experts[learned.group] if learned.group < len(experts) else None
        experts[learned.group : learned.group + 1] = [widened(learned.views.by(learned.expert).judged.features, known)]
        return {"common": widened(learned.views.common.judged.features, common), "experts": experts}


def widened(features: Float64[Tensor, "n d"], basis: Float64[Tensor, "d k"] | None) -> Float64[Tensor, "d _k"]:
    """Add the fewest directions to an orthonormal basis so that it carries 95 % of the squared norm of features, as GPM does."""
    gram = features.T @ features
    basis = gram.new_zeros(len(gram), 0) if basis is None else basis
    both, _ = torch.linalg.qr(torch.cat([basis, new_directions(gram, basis, ENERGY)], dim=1))
    return both.contiguous()


def hindrance_angle(rows: Rows, basis: Float64[Tensor, "d k"]) -> float:
    """Compute the mean angle between a subspace and the gradients with respect to images' features, in degrees: 90 if they are orthogonal.

    Args:
        rows: features and labels of the new task's images.
        basis: an orthonormal basis of the subspace.
    """
    head = logistic(rows, PENALTY)
    gradients = (head(rows.features).softmax(dim=1) - rows.targets) @ head.weight.T  # (n, d)
    norms = gradients.norm(dim=1)
    cosines = (gradients @ basis).norm(dim=1) / norms.clamp_min(torch.finfo(norms.dtype).tiny)
    return math.degrees(math.acos(min(1.0, cosines.mean().item())))


class ValidationGain(DecisionRule):
    """Share with the expert whose frozen features classify the new task best, if as well as the frozen extractor's.

    A ridge regression on an expert's features and one on the extractor's are compared on validation images; the expert's accuracy may be
    lower by `share_margin`, 0.01 by default. Nothing is stored. Ties go to the nearest group.

    This rule is our own. It asks directly what other rules estimate: does this expert already solve the task? Without validation images,
    every fifth training image is held out instead.
    """

    def decide(self, question: Question) -> Decision:
        """Compare the best probe of an expert with that of the frozen extractor's features."""
        margin, common = question.settings.share_margin, probe_accuracy(question.views.common)
        found = [probe_accuracy(question.views.by(expert)) for expert in question.experts]
        group = max(range(len(found)), key=lambda group: (found[group], -question.distances[group]))
        said = f"probe on the expert of group {group} right on {found[group]:.1%}"
        if found[group] >= common - margin - 1e-9:
            return question.share(group, f"{said} ≥ {common:.1%} - {margin:.1%} on the common features")
        return question.allocate(f"{said}, the best, < {common:.1%} - {margin:.1%} on the common features")


def probe_accuracy(view: View) -> float:
    """Return the validation accuracy of a ridge regression on features, standardized by those of the images that it is fitted to."""
    fitted, judges = to_judge(view.train, view.valid)
    mean, deviation = fitted.features.mean(dim=0), fitted.features.std(dim=0, correction=0)
    scale = torch.where(deviation > 1e-6 * deviation.max().clamp_min(1e-12), deviation, torch.inf)
    rows = [Rows(_with_one((part.features - mean) / scale), part.labels, part.classes) for part in (fitted, judges)]
    return accuracy(rows[1].features @ ridge(rows[0], choose_ridge(*rows)), judges.labels)


def _put(learned: Learned, record: Tree) -> list[Tree]:
    """Return the records of all experts, with that of the task's expert replaced."""
    experts = list(learned.kept or [])
    experts[learned.group : learned.group + 1] = [record]
    return experts
