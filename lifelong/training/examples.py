"""Hold what a training loop needs: inputs and labels of both splits, and how to prepare a batch."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from lifelong.data.augment import augment, normalize
from lifelong.data.task import NO_AUGMENTATION, Augmentation, Normalization, Split, Task

EVALUATION_BATCH = 256
"""Inputs per step where no gradient is wanted. Fixed, because sums of floats depend on it in the last bit."""

CPU_BATCH = 64
"""The same on a CPU, where larger steps are no faster: activations of a training step's size reuse its memory."""


@dataclass(frozen=True)
class Examples:
    """Training and validation examples as whole tensors on the training device.

    Attributes:
        train, valid: inputs of shape (N, ...): uint8 images, precomputed features, or anything else that the loss and the
            prediction accept, such as positions in a store.
        train_labels, valid_labels: class ids of shape (N,).
        normalization: of images; None: the inputs are not images and are used unchanged.
        augmentation: of training images.
        together: in evaluation, the output of an input may depend on the others of its batch.
    """

    train: Shaped[Tensor, "n ..."]
    train_labels: Int64[Tensor, "n"]
    valid: Shaped[Tensor, "m ..."]
    valid_labels: Int64[Tensor, "m"]
    normalization: Normalization | None = None
    augmentation: Augmentation = NO_AUGMENTATION
    together: bool = False

    @property
    def augmented(self) -> bool:
        """Return whether a training input differs from epoch to epoch."""
        return self.normalization is not None and bool(self.augmentation)

    def prepare(self, inputs: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "b ..."]:
        """Prepare a batch for a network, without augmentation."""
        return inputs if self.normalization is None else normalize(inputs, self.normalization)

    def prepare_train(self, inputs: Shaped[Tensor, "b ..."], generator: torch.Generator) -> Shaped[Tensor, "b ..."]:
        """Prepare a training batch for a network, with random augmentation."""
        return self.prepare(augment(inputs, self.augmentation, generator) if self.augmented else inputs)

    def epoch(self, size: int, generator: torch.Generator) -> list[Int64[Tensor, "_"]]:
        """Divide the training examples at random into batches of `size`, as positions; each example occurs once."""
        return batches(torch.randperm(len(self.train_labels), generator=generator, device=generator.device), size)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Examples":
        """Replace every (un-augmented) input by what `function` computes from it, such as frozen features.

        Args:
            function: takes prepared inputs (b, ...), gives features (b, d).
        """
        train, valid = (batched(function, inputs, self.prepare, together=self.together) for inputs in (self.train, self.valid))
        return replace(self, train=train, valid=valid, normalization=None, augmentation=NO_AUGMENTATION)


def image_examples(task: Task, *, augmented: bool = True, together: bool = False) -> Examples:
    """Return the training and validation images of a task.

    Args:
        task: the task that is being learned.
        augmented: whether its augmentation policy is applied.
        together: as in `Examples`.
    """
    train, valid = task.train, task.valid
    policy = task.augmentation if augmented else NO_AUGMENTATION
    return Examples(train.images, train.labels, valid.images, valid.labels, task.normalization, policy, together)


def batched(
    function: Callable[[Tensor], Tensor],
    inputs: Shaped[Tensor, "n ..."],
    prepare: Callable[[Tensor], Tensor] = lambda batch: batch,
    *,
    together: bool = False,
    tell: Callable[[int], None] | None = None,
) -> Shaped[Tensor, "n ..."]:
    """Compute `function(prepare(inputs))` in steps of bounded memory, without gradients.

    Args:
        function: takes (b, ...), gives (b, k).
        inputs: of shape (N, ...); N may be 0.
        prepare: applied to each step first.
        together: the output of an input may depend on the others of its step; steps then have one size on every device.
        tell: called after each step with the number of inputs done.
    """
    size = evaluation_batch(inputs.device, together=together)
    found: list[Tensor] = []
    with torch.no_grad():
        # An empty input still makes one empty step, which gives the result its shape.
        for step, part in enumerate(inputs.split(size)):
            found.append(function(prepare(part)))
            if tell is not None:
                tell(step * size + len(part))
        return torch.cat(found)


def evaluation_batch(device: torch.device, *, together: bool) -> int:
    """Return how many inputs a step without gradients takes.

    Args:
        device: on which they are.
        together: as for `batched`.
    """
    return CPU_BATCH if device.type == "cpu" and not together else EVALUATION_BATCH


def batches(order: Int64[Tensor, "n"], size: int) -> list[Int64[Tensor, "_"]]:
    """Divide positions into batches of `size`; a last batch of one sample, which batch norm cannot use, joins the one before it."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def accuracy(logits: Float[Tensor, "n c"], labels: Int64[Tensor, "n"]) -> float:
    """Compute the share of samples whose largest logit is their label's, in [0, 1]; NaN for no samples."""
    if not len(labels):
        return float("nan")
    return int((logits.argmax(dim=1) == labels).sum()) / len(labels)


def confusion(
    logits: Callable[[Tensor], Tensor], split: Split, *, together: bool = False, tell: Callable[[int], None] | None = None
) -> Int64[Tensor, "c c"]:
    """Compute the confusion matrix: rows are true classes, columns predicted ones.

    Args:
        logits: takes uint8 images (b, 3, h, w), gives (b, C).
        split: the images to evaluate on.
        together, tell: as for `batched`.
    """
    return counted(batched(logits, split.images, together=together, tell=tell), split.labels)


def counted(answers: Float[Tensor, "n c"], labels: Int64[Tensor, "n"]) -> Int64[Tensor, "c c"]:
    """Return the confusion matrix of logits: rows are true classes, columns predicted ones."""
    classes = answers.shape[1]
    pairs = labels * classes + answers.argmax(dim=1)
    return torch.bincount(pairs.cpu(), minlength=classes * classes).view(classes, classes)


def evaluate(logits: Callable[[Tensor], Tensor], split: Split, *, together: bool = False) -> float:
    """Compute the accuracy of a function from images to logits on a split.

    Args:
        logits: takes uint8 images (b, 3, h, w), gives (b, C).
        split: the images to evaluate on.
        together: as for `batched`.
    """
    return accuracy(batched(logits, split.images, together=together), split.labels)
