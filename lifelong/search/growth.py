"""Search for what a task reuses, adapts or adds in a growing network: the choices are relaxed and learned by gradients.

The training images are split into two halves by class. In turn, the logits alpha of the choices take a step (Adam) on a batch of
the one, and all other weights of the relaxed network take one (SGD) on a batch of the other. What was learned of earlier tasks is
frozen. In the end the heaviest choice of each convolution is taken, and all weights of the search are dropped.

    loss of alpha    CE + size_weight * sum over convolutions, over choices c of softmax(alpha)_c log10(1 + parameters that c adds)
    loss of weights  CE                                                         first order: alpha is fixed while the weights move

Source: Li et al., Learn to Grow (ICML 2019, arXiv 1904.00310), section 3.1; the bilevel form is that of Liu et al., DARTS (ICLR 2019).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lifelong.networks.growing_resnet import Choice, ChoicePath, Mixture, choices, mixtures
from lifelong.search.loop import Search, run_search, set_rate, stratified_halves
from lifelong.settings.growing import LearnToGrowSettings
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples
from lifelong.training.optimizer import SGD
from lifelong.training.precision import use_precision
from lifelong.training.stages import Stage, derive_seed, go_on
from lifelong.training.step_runner import StepRunner

FEWEST = 4
"""Fewest training images of a search: batch norm needs two in each half."""

ALPHA_BETAS = (0.5, 0.999)
"""Adam's betas (DARTS, and the code of PAR's authors)."""

START_DEVIATION = 1e-3
"""Standard deviation of the initial logits of choices if they start at random (DARTS)."""


@dataclass(frozen=True)
class GrowthResult:
    """The result of a search.

    Attributes:
        path: the heaviest choice of each convolution.
        epochs: epochs run.
        seconds: wall time, summed over interruptions.
        weights: softmax(alpha) of each convolution at the end, in the order of `choices`.
        history: per epoch the mean training loss of the weights, and the accuracy of the relaxed network on the other half.
    """

    path: ChoicePath
    epochs: int
    seconds: float
    weights: list[Tensor]
    history: list[tuple[float, float]] = field(default_factory=list)


def search_growth(
    network: nn.Module, examples: Examples, settings: LearnToGrowSettings, training: TrainingSettings, stage: Stage
) -> GrowthResult:
    """Search the path of a task.

    Args:
        network: from prepared images to logits, with `Mixture`s; trained in place, and not usable afterwards.
        examples: on the network's device; no validation example is used.
        settings: length, rates and the price of parameters.
        training: its batch size, momentum and weight decay are used.
        stage: names the computation, seeds it and keeps its state; a finished stage is not run again.

    Raises:
        LifelongError: fewer than four images, a loss that is not finite, or a state that cannot be written.
    """
    done = run_search(stage, len(examples.train_labels), FEWEST, lambda: _Growth(network, examples, settings, training, stage))
    return GrowthResult(path=tuple(map(_heaviest, done["weights"])), **done)


def expected_size(relaxed: list[Mixture]) -> Float[Tensor, ""]:
    """Sum over convolutions the mean size of their choices."""
    return torch.stack([mixture.expected_size() for mixture in relaxed]).sum()


def _heaviest(weights: Float[Tensor, "c"]) -> Choice:
    """Return the heaviest choice, on ties the first: reuse before adapt before new."""
    return choices(len(weights) // 2)[int(weights.argmax())]


class _Growth(Search):
    """A search of what a task reuses, adapts or adds."""

    def __init__(
        self, network: nn.Module, examples: Examples, settings: LearnToGrowSettings, training: TrainingSettings, stage: Stage
    ) -> None:
        super().__init__(stage, settings.search_epochs)
        self.network, self.examples, self.settings = network.train(), examples, settings
        self.batch_size = training.batch_size
        self.relaxed = mixtures(network)
        self.alphas = [mixture.alpha for mixture in self.relaxed]
        self.best: tuple[float, list[Tensor]] | None = None
        chosen = set(map(id, self.alphas))
        self.weights = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
        self.optimizer = SGD(self.weights, lr=settings.search_lr, momentum=training.momentum, weight_decay=training.weight_decay)
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas, lr=settings.search_alpha_lr, betas=ALPHA_BETAS, weight_decay=settings.search_alpha_decay
        )
        device = examples.train.device
        self.precision = partial(use_precision, training.precision, device)
        self.generator = stage.generator(device)
        self.runner = StepRunner(device, (self.generator,))
        self.loss_sum = torch.zeros((), device=device)
        self.weight_half, self.alpha_half = stratified_halves(examples.train_labels, self.generator)
        if settings.search_start == "random":
            drawn = torch.Generator().manual_seed(derive_seed(stage.seed, "alpha"))
            for alpha in self.alphas:
                alpha.data.copy_(START_DEVIATION * torch.randn(alpha.shape, generator=drawn))
        self.resume()

    def _found(self) -> Tree:
        alphas = self.alphas if self.best is None else self.best[1]
        return {"weights": [alpha.detach().softmax(0) for alpha in alphas]}

    def _epoch(self, epoch: int) -> tuple[float, float]:
        set_rate(self.optimizer, self.settings.search_lr, epoch, self.epochs)
        self.loss_sum.zero_()
        correct = torch.zeros_like(self.loss_sum)
        for weight_batch, alpha_batch in self._rounds():
            # Adam counts its steps on the host, so this half is not recorded.
            correct += self._step_alpha(alpha_batch)
            self.runner.run("weights", self._step_weights, weight_batch)
        loss = self.loss_sum.item() / len(self.weight_half)
        self._check_loss(loss, f"search_lr {self.settings.search_lr:g}")
        accuracy = correct.item() / len(self.alpha_half)
        if self.settings.search_kept == "best" and (self.best is None or accuracy > self.best[0]):
            self.best = accuracy, [alpha.detach().clone() for alpha in self.alphas]
        return loss, accuracy

    def _rounds(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a batch of each half at a time."""
        count = math.ceil(len(self.weight_half) / self.batch_size)
        # Batches of nearly equal size: a last batch of a few images would harm batch norm.
        parts = [half[self._permutation(len(half))].tensor_split(count) for half in (self.weight_half, self.alpha_half)]
        yield from self.stage.some(list(zip(*parts, strict=True)))

    def _permutation(self, count: int) -> Int64[Tensor, "n"]:
        return torch.randperm(count, generator=self.generator, device=self.generator.device)

    def _step_alpha(self, indices: Tensor) -> Tensor:
        """Take a step of the choices' logits; return the number of images classified correctly before it."""
        with self.precision():
            logits, labels = self._logits(indices)
            loss = F.cross_entropy(logits, labels) + self.settings.size_weight * expected_size(self.relaxed)
        for alpha, gradient in zip(self.alphas, torch.autograd.grad(loss, self.alphas), strict=True):
            alpha.grad = gradient
        self.alpha_optimizer.step()
        return (logits.argmax(dim=1) == labels).sum()

    def _step_weights(self, indices: Tensor) -> None:
        """Take a step of all other weights, and add up the losses of all images."""
        with self.precision():
            loss = F.cross_entropy(*self._logits(indices))
        for weight, gradient in zip(self.weights, torch.autograd.grad(loss, self.weights), strict=True):
            weight.grad = gradient
        if self.settings.search_clip_norm:
            nn.utils.clip_grad_norm_(self.weights, self.settings.search_clip_norm)
        self.optimizer.step()
        self.loss_sum += loss.detach() * len(indices)

    def _logits(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits of augmented images, and return their labels too."""
        inputs = self.examples.prepare_train(self.examples.train[indices], self.generator)
        return self.network(inputs), self.examples.train_labels[indices]

    def _state(self) -> Tree:
        return {
            "network": self.network.state_dict(),
            "momentum": self.optimizer.state(),
            "adam": self.alpha_optimizer.state_dict(),
            "generator": self.generator.get_state(),
        } | ({} if self.best is None else {"best": self.best})

    def _restore(self, saved: Tree) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimizer.load(saved["momentum"])
        self.alpha_optimizer.load_state_dict(saved["adam"])
        self.best = saved.get("best")
        go_on(self.generator, saved["generator"], derive_seed(self.stage.seed, len(saved["history"])))
