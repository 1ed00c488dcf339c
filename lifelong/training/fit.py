"""The one training loop: SGD, a schedule, the best epoch by validation accuracy, early stopping; resumable at every epoch."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lifelong.devices import all_finite, widest
from lifelong.settings.training import TrainingSettings
from lifelong.storage import Tree
from lifelong.training.epochs import EpochLoop, run_stage
from lifelong.training.examples import Examples, accuracy, batched
from lifelong.training.optimizer import SGD
from lifelong.training.precision import compiled, step_precision
from lifelong.training.schedule import Schedule
from lifelong.training.stages import Stage, derive_seed, go_on, seeded
from lifelong.training.step_runner import HostSide, StepRunner

Predict = Callable[[Tensor], Tensor]
"""From prepared inputs (b, ...) to logits (b, C)."""


@dataclass(frozen=True)
class Batch:
    """The samples of one training step.

    Attributes:
        inputs: prepared and augmented, (b, ...).
        labels: class ids, (b,).
        indices: the samples' positions in the training split, (b,), by which to look up precomputed values.
        step: which step of the epoch it is, from 0, as a float on the training device (a recorded step sees a tensor change, not a number).
        steps: how many steps the epoch has.
        generator: of random numbers on the training device; what is drawn from it is drawn again when a fit is resumed.
        host: what the host knows of the step. A step that looks at it is never recorded (`lifelong.training.step_runner`).
    """

    inputs: Tensor
    labels: Tensor
    indices: Tensor
    step: Float[Tensor, ""]
    steps: int
    generator: torch.Generator
    host: HostSide

    @property
    def host_generator(self) -> torch.Generator:
        """Return the generator of random numbers that the host has to know, such as the images to replay; on a CPU `generator`."""
        return self.host.generator

    @property
    def host_indices(self) -> Tensor:
        """Return `indices` on the host."""
        return self.host.indices


Loss = Callable[[Batch], Tensor]
"""The scalar training loss of a batch."""

Update = Callable[[Batch], AbstractContextManager[None]]
"""What surrounds the update of the weights: entered when the gradients of the loss are there, before they are clipped; left when the
optimizer has stepped. Here a method changes gradients, or what the step has done."""


def cross_entropy(predict: Predict) -> Loss:
    """Return the loss that is the mean cross-entropy of `predict` (PAR Eq. 7 and 10, divided by the batch size)."""
    return lambda batch: F.cross_entropy(predict(batch.inputs), batch.labels)


@dataclass
class FitOutcome:
    """The outcome of a fit.

    Attributes:
        epochs: epochs run.
        best_epoch: the epoch whose weights were kept, from 1.
        accuracy: its validation accuracy in [0, 1]; NaN without validation images.
        weight_decay: the weight decay it ran with.
        seconds: wall time, summed over interruptions.
        history: per epoch the learning rate, the mean training loss and the validation accuracy.
        diverged: the weight decays that were tried and diverged.
    """

    epochs: int
    best_epoch: int
    accuracy: float
    weight_decay: float
    seconds: float
    history: list[tuple[float, float, float]] = field(default_factory=list)
    diverged: list[float] = field(default_factory=list)


@dataclass
class _Best:
    """The best epoch so far: later ones must be strictly better, as in the authors' code."""

    epoch: int = 0
    accuracy: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, epoch: int, accuracy: float, module: nn.Module) -> None:
        # Without validation images there is nothing to choose by, and the last epoch is kept.
        if math.isnan(accuracy) or accuracy > self.accuracy:
            self.epoch, self.accuracy = epoch, accuracy
            self.weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}


def fit(
    module: nn.Module,
    examples: Examples,
    predict: Predict,
    settings: TrainingSettings,
    stage: Stage,
    *,
    loss: Loss | None = None,
    update: Update | None = None,
) -> FitOutcome:
    """Train `module` in place and leave it, in evaluation mode, with the weights of its best epoch.

    Args:
        module: holds all that training changes; its parameters that require gradients are trained, all of it is set to
            training mode.
        examples: on the module's device.
        predict: the logits to validate by; runs `module`.
        settings: optimizer, schedule, length.
        stage: names the computation, seeds it and keeps its state; a stage that has ended before is not run again.
        loss: the training loss; by default the cross-entropy of `predict`.
        update: surrounds every update of the weights; by default nothing does.

    Raises:
        LifelongError: the loss or the weights that would be kept are not finite, or the state cannot be written.

    Source: PAR section 4.1 and the authors' training loop (best validation accuracy, strict; early stop on patience).
    """
    surrounding = update or (lambda batch: nullcontext())
    outcome = run_stage(stage, lambda: _Fit(module, examples, predict, settings, stage, loss or cross_entropy(predict), surrounding))
    module.load_state_dict(outcome["module"])
    module.eval()
    return FitOutcome(**outcome["outcome"])


class _Fit(EpochLoop[tuple[float, float, float]]):
    """A fit in progress."""

    def __init__(
        self,
        module: nn.Module,
        examples: Examples,
        predict: Predict,
        settings: TrainingSettings,
        stage: Stage,
        loss: Loss,
        update: Update,
    ) -> None:
        super().__init__(stage, settings.epochs)
        self.module, self.examples, self.predict, self.settings = module, examples, predict, settings
        self.loss, self.update = loss, update
        self.optimizer = SGD(module.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
        self.schedule = Schedule(self.optimizer, settings)
        device = examples.train.device
        self.precision = partial(step_precision, settings.precision, device, compiled=settings.compile)
        self.generator, host = stage.generators(device)
        self.host = HostSide(host)
        self.runner = StepRunner(device, (self.generator,), self.host)
        self.loss_sum = torch.zeros((), device=device)
        self.step = torch.zeros((), dtype=widest(device), device=device)
        self.best = _Best()
        self.resume()

    def run(self) -> Tree:
        """Run the remaining epochs, compiled if the settings say so."""
        with compiled(self.module, self.settings.compile):
            return super().run()

    def _outcome(self) -> Tree:
        best = self.best
        outcome = FitOutcome(self.done, best.epoch, best.accuracy, self.settings.weight_decay, self.seconds, self.history)
        return {"module": best.weights, "outcome": asdict(outcome)}

    @property
    def fewest_epochs(self) -> int:
        """The first epoch may be the best one, and then patience runs out."""
        patience = self.settings.patience
        return min(self.epochs, 1 + patience) if self.settings.schedule == "cosine" and patience else self.epochs

    def _decided(self) -> bool:
        """Return whether patience has run out (a plateau schedule spends it on cuts of the rate instead)."""
        patience = self.settings.patience
        waited = self.done - self.best.epoch
        return self.settings.schedule == "cosine" and 0 < patience <= waited

    def _epoch(self, epoch: int) -> tuple[float, float, float]:
        setting = f"lr {self.settings.lr:g}"
        rate = self.schedule.start_epoch(epoch)
        self.module.train()
        # Dropout draws from the global generator: a seed for each epoch, so that a resumed fit drops the same units.
        with seeded(derive_seed(self.stage.seed, epoch)):
            mean_loss = self._train_epoch()
        self._check_loss(mean_loss, setting)
        self.module.eval()
        logits = batched(self.predict, self.examples.valid, self.examples.prepare, together=self.examples.together)
        score = accuracy(logits, self.examples.valid_labels)
        self.schedule.end_epoch(score)
        self.best.offer(epoch + 1, score, self.module)
        if self.best.epoch == epoch + 1 and (bool(logits.isnan().any()) or not all_finite(self.best.weights.values())):
            # A step can ruin weights after the last loss was computed: what is kept is looked at, not only how it came about.
            self.stage.diverged(epoch + 1, setting, "weights or answers")
        return rate, mean_loss, score

    def _reported(self, row: tuple[float, float, float]) -> tuple[float, float]:
        _, mean_loss, score = row
        return mean_loss, score

    def _train_epoch(self) -> float:
        """Run one pass over the training examples in random order, and return the mean loss."""
        self.loss_sum.zero_()
        self.step.zero_()
        parts = self.stage.some(self.examples.epoch(self.settings.batch_size, self.host.generator))
        # One copy to the device for the whole epoch.
        moved = torch.cat(parts).to(self.loss_sum.device, non_blocking=True).split([len(part) for part in parts])
        for places, indices in zip(parts, moved, strict=True):
            self.host.indices = places
            self.runner.run(len(parts), partial(self._step, len(parts)), indices)
        total = self.loss_sum.item()
        self.stage.stepped()
        return total / len(self.examples.train_labels)

    def _step(self, steps: int, indices: Tensor) -> None:
        """Run a training step entirely on the device: it may be recorded, and reads no value."""
        examples = self.examples
        inputs = examples.prepare_train(examples.train[indices], self.generator)
        batch = Batch(inputs, examples.train_labels[indices], indices, self.step, steps, self.generator, self.host)
        self.optimizer.zero_grad()
        with self.precision():
            loss = self.loss(batch)
        loss.backward()
        with self.update(batch):
            if self.settings.clip_norm:
                nn.utils.clip_grad_norm_(self.optimizer.parameters, self.settings.clip_norm)
            self.optimizer.step()
        self.loss_sum += loss.detach() * len(indices)
        self.step += 1

    def _state(self) -> Tree:
        return {
            "module": self.module.state_dict(),
            "momentum": self.optimizer.state(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "host_generator": self.host.generator.get_state(),
            "best": {"epoch": self.best.epoch, "accuracy": self.best.accuracy, "weights": self.best.weights},
        }

    def _restore(self, saved: Tree) -> None:
        self.module.load_state_dict(saved["module"])
        self.optimizer.load(saved["momentum"])
        self.schedule.load_state_dict(saved["schedule"])
        # States of version 0.1 have one generator; it drew on the host too, where it was a CPU's.
        states = {"host_generator": saved["generator"], **saved}
        for name, generator in (("host_generator", self.host.generator), ("generator", self.generator)):
            go_on(generator, states[name], derive_seed(self.stage.seed, name, len(saved["history"])))
        self.best = _Best(**saved["best"])
