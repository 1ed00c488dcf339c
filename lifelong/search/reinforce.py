"""Search for a path by REINFORCE: its distribution and the weights of all paths are learned together, on two halves of the images.

The training images are dealt class by class into two halves. Batches alternate: one of the first half moves weights, one of the second
moves the distribution (`path_distribution.py`). In both, every image takes a path of its own, drawn by the distribution.

A batch walks along the frozen source path, and at each junction the images that leave there go into the column of new modules that
begins there. So a batch norm of a column sees the images of its path alone. While weights are learned it takes their statistics (its
running ones for a single image, which has none). For rewards it takes its running statistics: the reward of an image then depends on
that image's path and on no other's, as the estimate of the gradient assumes.

The distribution lives on the host, since it decides which images take which path, and thus what is computed. So the host waits for the
rewards of a batch before the next; while weights are learned it does not wait.

Source: Veniat et al., MNTDP (ICLR 2021), the stochastic variant and its code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor, nn

from lifelong.devices import widest
from lifelong.search.loop import Search, run_search, stratified_halves
from lifelong.search.path_distribution import entropy, log_probabilities, reinforce_loss
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.examples import Examples
from lifelong.training.optimizer import SGD
from lifelong.training.precision import use_precision
from lifelong.training.stages import Stage, derive_seed, go_on

DECIDED = 1e-3
"""Entropy in nats below which a search ends, as in the paper's code."""

FEWEST = 2
"""Fewest training images of a search: one in each half."""


@dataclass(frozen=True)
class PathResult:
    """The result of a search.

    Attributes:
        path: the most probable path, by the number of modules it reuses; the first on ties.
        probability: of that path.
        epochs: epochs run.
        seconds: wall time, summed over interruptions.
        history: per epoch the mean training loss, the accuracy of drawn paths on the second half, the entropy at its end.
    """

    path: int
    probability: float
    epochs: int
    seconds: float
    history: list[tuple[float, float, float]] = field(default_factory=list)


def search_path(
    source: Sequence[nn.Module],
    columns: nn.ModuleList,
    examples: Examples,
    training: TrainingSettings,
    stage: Stage,
    *,
    epochs: int,
    arch_lr: float,
) -> PathResult:
    """Learn where to leave a source path, and the weights of the new modules.

    Args:
        source: the frozen modules of the source path; column k begins after k of them.
        columns: new modules for each path, trained in place; the result's column holds its weights at the end, whether or not the
            search was interrupted. The others are not usable afterwards.
        examples: their training images are used.
        training: its batch size, learning rate (kept constant), momentum, weight decay and gradient clipping are used.
        stage: names the computation, seeds it and keeps its state; a finished stage is not run again.
        epochs: maximum number of epochs; the search ends early once the distribution has decided.
        arch_lr: the rate of Adam for the distribution.

    Raises:
        LifelongError: fewer than two training images, a loss that is not finite, or a state that cannot be written.
    """
    count = len(examples.train_labels)
    done = run_search(stage, count, FEWEST, lambda: _PathSearch(source, columns, examples, training, stage, epochs, arch_lr))
    column = columns[done["path"]]
    column.load_state_dict(done.pop("column"))
    column.eval()
    return PathResult(**done)


class _PathSearch(Search):
    """A search of where to leave a source path."""

    def __init__(
        self,
        source: Sequence[nn.Module],
        columns: nn.ModuleList,
        examples: Examples,
        training: TrainingSettings,
        stage: Stage,
        epochs: int,
        arch_lr: float,
    ) -> None:
        super().__init__(stage, epochs)
        self.source, self.columns, self.examples, self.training = source, columns, examples, training
        self.optimizer = SGD(columns.parameters(), lr=training.lr, momentum=training.momentum, weight_decay=training.weight_decay)
        # A few numbers: on the CPU, in double precision, regardless of the networks' device.
        self.logits = nn.Parameter(torch.zeros(len(columns) - 1, 2, dtype=torch.float64))
        self.adam = torch.optim.Adam([self.logits], lr=arch_lr)
        self.precision = partial(use_precision, training.precision, examples.train.device)
        self.random = stage.generator()
        self.augmentation = torch.Generator(examples.train.device).manual_seed(derive_seed(stage.seed, "augmentation"))
        self.halves = stratified_halves(examples.train_labels.cpu(), self.random)
        self.resume()

    def _found(self) -> Tree:
        log_p = self._log_p()
        path = int(log_p.argmax())
        return {"path": path, "probability": log_p[path].exp().item(), "column": self.columns[path].state_dict()}

    @property
    def fewest_epochs(self) -> int:
        """The first may decide."""
        return min(1, self.epochs)

    def _decided(self) -> bool:
        return bool(self.history) and self.history[-1][2] < DECIDED

    def _log_p(self) -> Float64[Tensor, " paths"]:
        return log_probabilities(self.logits.detach())

    def _epoch(self, epoch: int) -> tuple[float, float, float]:
        """Train on batches of both halves in turn; also return the entropy of the distribution afterwards."""
        count = math.ceil(len(self.halves[0]) / self.training.batch_size)
        # Batches of nearly equal size: a last batch of a few images would harm batch norm and the baseline.
        weights, rewards = (half[torch.randperm(len(half), generator=self.random)].tensor_split(count) for half in self.halves)
        device = self.examples.train.device
        total, correct = torch.zeros((), dtype=widest(device), device=device), torch.zeros((), dtype=torch.int64, device=device)
        setting = f"lr {self.training.lr:g}"
        for step in self.stage.some(range(count)):
            total += self._learn_weights(weights[step])
            correct += self._learn_distribution(rewards[step])
            self._check_loss(self.logits.detach().sum().item(), setting)
        loss = total.item()
        self._check_loss(loss, setting)
        return loss / len(self.halves[0]), correct.item() / len(self.halves[1]), entropy(self._log_p()).item()

    def _learn_weights(self, indices: Int64[Tensor, "b"]) -> Float[Tensor, ""]:
        """Take a step of the weights; return the sum of the images' losses."""
        self.columns.train()
        self.optimizer.zero_grad()
        with self.precision():
            logits, labels, _ = self._answers(indices)
            loss = F.cross_entropy(logits, labels)
        if loss.requires_grad:  # not if all images follow the source to its end
            loss.backward()
            if self.training.clip_norm:
                nn.utils.clip_grad_norm_(self.optimizer.parameters, self.training.clip_norm)
            self.optimizer.step()
        return loss.detach().to(widest(loss.device)) * len(indices)

    def _learn_distribution(self, indices: Int64[Tensor, "b"]) -> Int64[Tensor, ""]:
        """Take a step of the distribution; return the number of images classified correctly."""
        self.columns.eval()
        with torch.no_grad(), self.precision():
            logits, labels, paths = self._answers(indices)
        rewards = -F.cross_entropy(logits.float(), labels, reduction="none")
        loss = reinforce_loss(log_probabilities(self.logits), paths, rewards.cpu().double())
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return (logits.argmax(dim=1) == labels).sum()

    def _answers(self, indices: Int64[Tensor, "b"]) -> tuple[Float[Tensor, "b c"], Int64[Tensor, "b"], Int64[Tensor, "b"]]:
        """Compute logits of training images, each on a path drawn for it; return their labels and paths too."""
        indices = indices.to(self.examples.train.device, non_blocking=True)
        inputs = self.examples.prepare_train(self.examples.train[indices], self.augmentation)
        paths = torch.multinomial(self._log_p().exp(), len(indices), replacement=True, generator=self.random)
        return walk(self.source, self.columns, inputs, paths), self.examples.train_labels[indices], paths

    def _state(self) -> Tree:
        return {
            "columns": self.columns.state_dict(),
            "momentum": self.optimizer.state(),
            "logits": self.logits,
            "adam": dict(self.adam.state[self.logits]),
            "generators": (self.random.get_state(), self.augmentation.get_state()),
        }

    def _restore(self, saved: Tree) -> None:
        self.columns.load_state_dict(saved["columns"])
        self.optimizer.load(saved["momentum"])
        self.logits.data = saved["logits"]
        self.adam.state[self.logits] = saved["adam"]
        for generator, state in zip((self.random, self.augmentation), saved["generators"], strict=True):
            go_on(generator, state, derive_seed(self.stage.seed, len(saved["history"])))


def walk(
    source: Sequence[nn.Module], columns: nn.ModuleList, inputs: Float[Tensor, "b ..."], paths: Int64[Tensor, "b"]
) -> Float[Tensor, "b c"]:
    """Compute logits of samples that each take their own path.

    Args:
        source: the frozen modules of the source path.
        columns: the modules that follow after k of them, which for the last k may be none.
        inputs: prepared.
        paths: for each sample, after how many modules of the source it leaves; on the host, wherever the networks are.
    """
    training = columns.training
    here, maps = torch.arange(len(paths)), inputs
    answers, places = [], []
    for reused, column in enumerate(columns):
        leaving = paths[here] == reused
        if leaving.any():
            column.train(training and int(leaving.sum()) > 1)
            answers.append(column(_where(maps, leaving)))
            places.append(here[leaving])
        here, maps = here[~leaving], _where(maps, ~leaving)
        if not len(here):
            break
        maps = source[reused](maps)
    return torch.cat(answers)[torch.cat(places).argsort().to(inputs.device, non_blocking=True)]


def _where(maps: Float[Tensor, "b ..."], chosen: Bool[Tensor, "b"]) -> Float[Tensor, "_ ..."]:
    """Select some of the maps on the host: counting them on the device would make the host wait."""
    return maps[chosen.nonzero().squeeze(1).to(maps.device, non_blocking=True)]
