"""EWC: Elastic Weight Consolidation (Kirkpatrick et al., PNAS 2017, arXiv 1612.00796; online: Schwarz et al., ICML 2018, arXiv 1805.06370).

After a task k its weights theta*_k and the diagonal of the Fisher information F_k at them, through its own head, are kept; a new task is
learned with (Kirkpatrick Eq. 3, for any number of tasks)

    separate:  L = CE + penalty_weight / 2 * sum over earlier tasks k of sum_i F_ki (theta_i - theta*_ki)^2
    online:    L = CE + penalty_weight / 2 * sum_i F_i (theta_i - theta*_i)^2,   F <- gamma F + F_k,  theta* <- theta*_k
    average:   the same with F <- (t F + F_k) / (t + 1) after t tasks: the code of PAR's and of HAT's authors, neither paper's form

with F_ki = E_x E_y~p(y|x) [(d log p(y|x) / d theta_i)^2]. The papers do not say how that is estimated, and public code differs by a
factor of a hundred; see van de Ven, "On the computation of the Fisher information in continual learning", arXiv 2502.11756. So the
estimator has a name (`fisher`), and a `penalty_weight` goes with one estimator:

``exact``
    The expectation over y as it stands: C - 1 backward passes.
``signs``
    Its estimate without bias by one backward pass: the gradient of a sum over classes and a few images under random signs is squared, in
    which products of two images vanish on average, and those of two classes add up to what they should (Martens et al., curvature
    propagation, ICML 2012, arXiv 1206.6464). 64 such squares: a standard error of about 20 % for a weight.
``sampled``
    One label an image, drawn from the network's own prediction.
``empirical``
    The true label.
``batched``
    B times the square of a batch's mean gradient, true labels, B = `batch_size`. This is what PAR's authors' code computes (there in
    training mode, on augmented images). The code of HAT and FACIL divides once more by B.

Choices: un-augmented images, evaluation mode, all training images unless `fisher_samples`. `exact` is the definition, and `signs`, the
default, estimates it at a price that grows with neither images nor classes; the same `penalty_weight` fits both. Backbone weights only,
with the affine weights of batch norms: no head is penalized, and running statistics, which no penalty holds, are the matter of
`batch_norm`. The separate penalties are added up to one quadratic with summed Fishers and the Fisher-weighted mean of the anchors (Huszar,
PNAS 2018, arXiv 1712.03847). That is the same penalty but for a constant, which is left out of the reported loss; memory, which is counted
as it is, and time do not grow with the tasks, where a Fisher and an anchor for each task would take two floats a weight and task.

The step of the penalized loss is stable only while lr * penalty_weight * F_i < 2 (more with momentum): a larger `penalty_weight` makes the
most important weights swing, held only by `clip_norm`.

Default `penalty_weight`: 1000, van de Ven et al.'s for task-incremental CIFAR-100, with Fishers of single images, which `signs` estimates.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lifelong.methods.importance import (
    Quadratic,
    QuadraticPenaltyMethod,
    mean_over_samples,
    squared_sums,
)
from lifelong.methods.method import Context
from lifelong.settings.baselines import EWCSettings
from lifelong.training.examples import Examples, batched
from lifelong.training.stages import Stage, derive_seed

DRAWS, IMAGES_PER_DRAW = 64, 8
"""Squared gradients that `signs` averages, and the most images per gradient. A square's relative variance is 2 from its signs, which more
images do not reduce, plus a few from its images, divided by their number."""


class EWC(QuadraticPenaltyMethod[EWCSettings]):
    """Cross-entropy on the new task plus a quadratic penalty, weighted by the Fisher information of earlier tasks."""

    name = "ewc"
    scale = 0.5

    def importance(self, head: nn.Module, examples: Examples, context: Context) -> Float[Tensor, "p"]:
        """Estimate the diagonal of the Fisher information at the learned weights."""
        device = examples.train.device
        generator = torch.Generator(device).manual_seed(derive_seed(context.seed, context.task_index, "fisher"))
        wanted, network = self.settings.fisher_samples, self._network()
        if 0 < wanted < len(examples.train):
            chosen = torch.randperm(len(examples.train), generator=generator, device=device)[:wanted]
            examples = replace(examples, train=examples.train[chosen], train_labels=examples.train_labels[chosen])
        stage = context.stage("importance")
        match self.settings.fisher:
            case "exact":
                return exact_fisher(network, head, examples, stage)
            case "signs":
                return signed_fisher(network, head, examples, generator, stage)
            case "sampled":
                return labelled_fisher(network, head, examples, sampled_labels(network, head, examples, generator), stage)
            case "empirical":
                return labelled_fisher(network, head, examples, examples.train_labels, stage)
            case _:
                return batched_fisher(network, head, examples, context.training.batch_size, generator, stage)

    def merged(self, old: Quadratic, new: Quadratic) -> Quadratic:
        """Merge two penalties: their sum, or the running or mean Fisher at the newest weights."""
        match self.settings.penalty:
            case "separate":
                return old.plus(new)
            case "online":
                return old.moved(new, self.settings.gamma)
            case _:
                return old.averaged(new, len(self.tasks) - 1)


def exact_fisher(network: nn.Module, head: nn.Module, examples: Examples, stage: Stage | None = None) -> Float[Tensor, "p"]:
    """Compute the mean over x of sum over y of p(y|x) (d log p(y|x) / d theta)^2, for the shared weights of a backbone.

    With J = dz/dtheta this is the diagonal of J' H J, H = diag(p) - p p', whose rank is C - 1: that many rows R with R'R = H suffice.
    """

    def rows(logits: Tensor, label: Tensor) -> Tensor:
        # H = S (1 - s s') S with s = sqrt(p), S = diag(s). The reflection that takes s to an axis has s in its first row, up to sign, and
        # in the others an orthonormal basis of what is orthogonal to s.
        s = logits.softmax(dim=0).sqrt()
        normal = s + F.one_hot(torch.zeros_like(label), len(s))
        reflection = torch.eye(len(s), device=s.device) - normal.outer(normal) / (1 + s[0])
        return reflection[1:] * s  # (c - 1, c)

    return mean_over_samples(network, head, examples, examples.train_labels, rows, torch.square, stage)


def labelled_fisher(
    network: nn.Module, head: nn.Module, examples: Examples, labels: Int64[Tensor, "n"], stage: Stage | None = None
) -> Float[Tensor, "p"]:
    """Compute the mean over samples of (d log p(label|x) / d theta)^2, for the shared weights of a backbone.

    Args:
        network: the backbone, in evaluation mode.
        head: of the task.
        examples: their training images are used.
        labels: the true ones for the empirical Fisher, `sampled_labels` for an unbiased estimate of the exact one.
    """

    def rows(logits: Tensor, label: Tensor) -> Tensor:
        is_label = torch.arange(len(logits), device=logits.device) == label
        return (is_label.to(logits.dtype) - logits.softmax(dim=0)).unsqueeze(0)  # (1, c)

    return mean_over_samples(network, head, examples, labels, rows, torch.square, stage)


def sampled_labels(network: nn.Module, head: nn.Module, examples: Examples, generator: torch.Generator) -> Int64[Tensor, "n"]:
    """Sample a label for each training image from the network's prediction."""
    logits = batched(lambda inputs: head(network(inputs)), examples.train, examples.prepare)
    return torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)


def batched_fisher(
    network: nn.Module,
    head: nn.Module,
    examples: Examples,
    batch_size: int,
    generator: torch.Generator,
    stage: Stage | None = None,
) -> Float[Tensor, "p"]:
    """Compute the mean over batches of B (mean gradient of the cross-entropy)^2, for the shared weights of a backbone.

    A smaller last batch counts in proportion to its images: B (sum / B)^2, weighted by B images of all.
    """
    order = torch.randperm(len(examples.train), generator=generator, device=examples.train.device)

    def cotangents(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.softmax(dim=1) - F.one_hot(labels, logits.shape[1])

    return squared_sums(network, head, examples, order.split(batch_size), cotangents, stage, generator) / len(order)


def signed_fisher(
    network: nn.Module, head: nn.Module, examples: Examples, generator: torch.Generator, stage: Stage | None = None
) -> Float[Tensor, "p"]:
    """Estimate the exact Fisher without bias: the mean of `DRAWS` squared gradients, each of a few images under random signs.

    With fewer than `DRAWS` images it is computed exactly, which is then cheap.
    """
    count = len(examples.train)
    if count < DRAWS:
        return exact_fisher(network, head, examples, stage)
    size = min(count // DRAWS, IMAGES_PER_DRAW)
    chosen = torch.randperm(count, generator=generator, device=generator.device)[: size * DRAWS]

    def cotangents(logits: Tensor, labels: Tensor) -> Tensor:
        # sum over y of +-sqrt(p_y) (e_y - p)
        p = logits.softmax(dim=1)
        signed = p.sqrt() * (2 * torch.randint(2, p.shape, generator=generator, device=generator.device) - 1)
        return signed - p * signed.sum(dim=1, keepdim=True)

    return squared_sums(network, head, examples, chosen.split(size), cotangents, stage, generator) / len(chosen)
