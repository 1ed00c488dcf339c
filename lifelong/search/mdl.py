"""Cell search by multinomial distribution learning (MDL): one sampled network is trained at a time.

The training images are split at random into two halves; of an odd number the first has one more, in the authors' code one less. Each round
draws an operation for every edge, trains the network that has only these for one pass over the first half, measures its accuracy on the
second, and moves the probabilities of operations: towards those that do better after less training.

Source: PAR section 3.3 and the authors' code (mdenas_search.py); Zheng et al., MdeNAS (ICCV 2019).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float64
from torch import Tensor, nn

from lifelong.data.augment import augment, normalize
from lifelong.data.task import Augmentation, Normalization, Split
from lifelong.networks.genotype import NODES, Genotype
from lifelong.networks.supernet import SampledPath, SuperNetwork
from lifelong.search.distribution import ENOUGH_ROUNDS, FEWEST_ROUNDS, Distribution, derive
from lifelong.search.loop import Search, run_search, set_rate
from lifelong.settings.par import SearchSettings
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.optimizer import SGD
from lifelong.training.precision import step_precision
from lifelong.training.stages import Stage, derive_seed, initial
from lifelong.training.step_runner import StepRunner

FEWEST = 2
"""Fewest training images of a search: one in each half."""

EDGES_OF_CELLS = 2 * 2 * NODES
"""Edges of a genotype: two to each node of both cells."""


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        genotype: the cell.
        epochs: epochs run.
        seconds: wall time, summed over interruptions.
        normal, reduce: the probabilities at the end; a row per edge, a column per operation.
        history: per epoch the mean training loss and the accuracy on the held-out half.
    """

    genotype: Genotype
    epochs: int
    seconds: float
    normal: Float64[Tensor, "edges operations"]
    reduce: Float64[Tensor, "edges operations"]
    history: list[tuple[float, float]] = field(default_factory=list)

    @property
    def undecided(self) -> int:
        """Undecided edges of the genotype, out of `EDGES_OF_CELLS`."""
        return sum(derive(table, None).undecided for table in (self.normal, self.reduce))


def rounds(images: int, settings: SearchSettings, batch_size: int) -> int:
    """Count the networks that a search samples.

    Args:
        images: training images of the task.
        settings: length and sampling of the search.
        batch_size: of the training.
    """
    return settings.search_epochs * (1 if settings.search_sampling == "epoch" else _batches((images + 1) // 2, batch_size))


def too_short(images: int, settings: SearchSettings, batch_size: int) -> str | None:
    """Return a warning if the search is too short to decide anything, else None. Arguments as for `rounds`."""
    sampled = rounds(images, settings, batch_size)
    if sampled >= FEWEST_ROUNDS:
        return None
    networks = "1 sampled network" if sampled == 1 else f"{sampled} sampled networks"
    return (
        f"search_epochs = {settings.search_epochs}: a search of {networks} decides no edge of a cell, so all {EDGES_OF_CELLS} are ties; "
        f"{FEWEST_ROUNDS} decide some, {ENOUGH_ROUNDS} nearly all"
    )


def _batches(images: int, batch_size: int) -> int:
    return math.ceil(images / batch_size)


def search_cell(
    train: Split,
    classes: int,
    settings: SearchSettings,
    training: TrainingSettings,
    stage: Stage,
    *,
    normalization: Normalization,
    augmentation: Augmentation,
    channels: int,
    cells: int = 4,
    reduce_bn: bool = True,
    start: tuple[Distribution, Distribution] | None = None,
) -> SearchResult:
    """Search the two cells of an expert for a task.

    Args:
        train: the task's training images, on the device to compute on. No other split is used.
        classes: classes of the task.
        settings: length, rates, projection, sampling.
        training: its batch size, momentum and weight decay are used.
        stage: names the computation, seeds it and keeps its state; a finished stage is not run again.
        normalization: of the images.
        augmentation: of the images of both halves.
        channels: channels C of the search network, where `settings.search_channels` is 0.
        cells: cells of the search network.
        reduce_bn: apply the batch norm of factorized reductions.
        start: distributions of the normal and the reduction cell to begin with; None: even ones.

    Raises:
        LifelongError: fewer than two images, a loss that is not finite, or a state that cannot be written.
    """

    def begin() -> Search:
        with initial(stage.seed):
            width, running = settings.search_channels or channels, settings.search_bn == "running"
            network = SuperNetwork(classes, width, cells, reduce_bn=reduce_bn, running_bn=running)
        images = _Images(train, normalization, augmentation, torch.Generator(train.images.device))
        return _CellSearch(network.to(train.images.device), images, settings, training, stage, start or (Distribution(), Distribution()))

    done = run_search(stage, len(train), FEWEST, begin)
    return SearchResult(Genotype.parse(done.pop("genotype")), **done)


@dataclass(frozen=True)
class _Images:
    """The training images, prepared batch by batch."""

    split: Split
    normalization: Normalization
    augmentation: Augmentation
    generator: torch.Generator

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Prepare a batch of augmented inputs, and return its labels too."""
        images = augment(self.split.images[indices], self.augmentation, self.generator)
        return normalize(images, self.normalization), self.split.labels[indices]


class _CellSearch(Search):
    """A search of the two cells of an expert."""

    def __init__(
        self,
        network: SuperNetwork,
        images: _Images,
        settings: SearchSettings,
        training: TrainingSettings,
        stage: Stage,
        start: tuple[Distribution, Distribution],
    ) -> None:
        super().__init__(stage, settings.search_epochs)
        self.network, self.images, self.settings, self.batch_size = network, images, settings, training.batch_size
        self.optimizer = SGD(network.parameters(), lr=settings.search_lr, momentum=training.momentum, weight_decay=training.weight_decay)
        device = images.split.images.device
        self.precision = partial(step_precision, training.precision, device)
        self.runner = StepRunner(device, (images.generator,))
        self.loss_sum = torch.zeros((), device=device)
        self.right = torch.zeros((), dtype=torch.int64, device=device)
        self.random = stage.generator()
        images.generator.manual_seed(derive_seed(stage.seed, "augmentation"))
        order = torch.randperm(len(images.split), generator=self.random)
        self.train_half, self.held_out = order.tensor_split([(len(order) + 1) // 2])
        self.normal, self.reduce = start
        self.idle_rest = settings.search_idle == "rest"
        self.resume()

    def _found(self) -> Tree:
        normal, reduce = self.normal.probabilities, self.reduce.probabilities
        ties = None
        if self.settings.search_ties == "seed":
            ties = torch.Generator().manual_seed(derive_seed(self.stage.seed, "ties"))
        genotype = Genotype(derive(normal, ties).plan, derive(reduce, ties).plan)
        return {"genotype": str(genotype), "normal": normal, "reduce": reduce}

    def _epoch(self, epoch: int) -> tuple[float, float]:
        set_rate(self.optimizer, self.settings.search_lr, epoch, self.epochs)
        total, correct = 0.0, 0
        for training, held_out in self._rounds():
            path = (self.normal.sample(self.random), self.reduce.sample(self.random))
            self._train(training, path)
            right = self._count_correct(held_out, path)
            # Only here does the host wait: a device trains while the host prepares the evaluation.
            total += self.loss_sum.item()
            self._check_loss(total, f"search_lr {self.settings.search_lr:g}")
            correct += right
            accuracy = right / sum(map(len, held_out))
            for cell, plan in zip((self.normal, self.reduce), path, strict=True):
                cell.learn(plan, accuracy, self.settings.search_step, self.settings.search_projection)
        return total / len(self.train_half), correct / len(self.held_out)

    def _rounds(self) -> Iterator[tuple[Sequence[Tensor], Sequence[Tensor]]]:
        """Yield the training and evaluation batches of each sampled network: all of an epoch's, or one of each."""
        count = _batches(len(self.train_half), self.batch_size)
        device = self.images.split.images.device
        orders = [half[torch.randperm(len(half), generator=self.random)].to(device) for half in (self.train_half, self.held_out)]
        # Batches of nearly equal size: a last batch of a few images would harm batch norm and the accuracy of a round.
        rounds = self.stage.some(list(zip(*(order.tensor_split(count) for order in orders), strict=True)))
        if self.settings.search_sampling == "epoch":
            yield [training for training, _ in rounds], [held_out for _, held_out in rounds]
        else:
            yield from (([training], [held_out]) for training, held_out in rounds)

    def _train(self, batches: Sequence[Tensor], path: SampledPath) -> None:
        """Take a step on each batch, and leave the sum of the losses of all images in `loss_sum`."""
        self.loss_sum.zero_()
        self.network.train()
        for indices in batches:
            # If idle operations also move, the set of moving parameters grows with every newly sampled operation.
            moving = 0 if self.idle_rest else len(self._with_gradient())
            self.runner.run((path, "train", moving), partial(self._step, path), indices, kind="train")

    def _step(self, path: SampledPath, indices: Tensor) -> None:
        """Train the sampled network on a batch. Operations off the path get no gradient and, unless idle operations move, no step."""
        inputs, labels = self.images.batch(indices)
        if self.idle_rest:
            self.optimizer.zero_grad()
        else:
            self.optimizer.clear_grad()
        with self.precision():
            loss = F.cross_entropy(self.network(inputs, path), labels)
        loss.backward()
        if self.settings.search_clip_norm:
            nn.utils.clip_grad_norm_(self.optimizer.parameters, self.settings.search_clip_norm)
        self.optimizer.step()
        self.loss_sum += loss.detach() * len(labels)

    def _count_correct(self, batches: Sequence[Tensor], path: SampledPath) -> int:
        """Count the images that the sampled network classifies correctly."""
        self.right.zero_()
        # Matters only for running statistics.
        self.network.eval()
        for indices in batches:
            self.runner.run((path, "judge"), partial(self._evaluate, path), indices, kind="judge")
        return int(self.right)

    @torch.no_grad()
    def _evaluate(self, path: SampledPath, indices: Tensor) -> None:
        """Evaluate the sampled network on a batch."""
        inputs, labels = self.images.batch(indices)
        with self.precision():
            answers = self.network(inputs, path).argmax(dim=1)
        self.right += (answers == labels).sum()

    def _with_gradient(self) -> list[int]:
        """Return positions of the parameters with a gradient: if idle operations move, all that have been sampled."""
        return [position for position, parameter in enumerate(self.optimizer.parameters) if parameter.grad is not None]

    def _state(self) -> Tree:
        return {
            "network": self.network.state_dict(),
            "momentum": self.optimizer.state(),
            "distributions": (asdict(self.normal), asdict(self.reduce)),
            "generators": (self.random.get_state(), self.images.generator.get_state()),
        } | ({} if self.idle_rest else {"touched": self._with_gradient()})

    def _restore(self, saved: Tree) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimizer.load(saved["momentum"])
        self.normal, self.reduce = (Distribution(**tables) for tables in saved["distributions"])
        for generator, state in zip((self.random, self.images.generator), saved["generators"], strict=True):
            generator.set_state(state)
        for position in saved.get("touched", ()):
            parameter = self.optimizer.parameters[position]
            parameter.grad = torch.zeros_like(parameter)
