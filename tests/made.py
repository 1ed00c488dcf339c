"""Small made tasks: a coloured pattern per class under noise, learnable in a few epochs."""

import torch

from lifelong.data.task import NO_AUGMENTATION, Augmentation, Split, Task
from lifelong.training.fit import Batch
from lifelong.training.step_runner import HostSide


def made_split(classes: int, per_class: int, seed: int, *, kind: int = 0, size: int = 8, noise: float = 40.0) -> Split:
    """Images whose class is a fixed random pattern; `kind` chooses the set of patterns, `seed` the noise."""
    patterns = torch.rand(classes, 3, size, size, generator=torch.Generator().manual_seed(1000 + kind)) * 255
    labels = torch.arange(classes).repeat_interleave(per_class)
    drawn = torch.randn(len(labels), 3, size, size, generator=torch.Generator().manual_seed(seed))
    images = (patterns[labels] + noise * drawn).clamp(0, 255).to(torch.uint8)
    return Split(images, labels)


def made_task(
    name: str = "made",
    *,
    kind: int = 0,
    seed: int = 0,
    classes: int = 3,
    train: int = 12,
    valid: int = 16,
    test: int = 8,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> Task:
    """A task of made images; two tasks of one kind are the same problem with other images."""
    sizes = {"train": train, "valid": valid, "test": test}

    def load(split: str) -> Split:
        return made_split(classes, sizes[split], 10 * seed + len(split), kind=kind, noise=40.0)

    return Task(name, [f"class {c}" for c in range(classes)], load, augmentation=augmentation)


def made_batch(
    inputs: torch.Tensor,
    labels: torch.Tensor,
    indices: torch.Tensor,
    step: int = 0,
    steps: int = 1,
    *,
    generator: torch.Generator | None = None,
) -> Batch:
    """A batch as the training loop makes it on a CPU, where one generator serves device and host."""
    chosen = generator or torch.Generator()
    host = HostSide(chosen)
    host.indices = indices
    return Batch(inputs, labels, indices, torch.tensor(float(step), dtype=torch.float64), steps, chosen, host)
