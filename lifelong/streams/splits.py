"""The classical benchmarks: one source cut into tasks by its classes."""

import numpy as np

from lifelong.data.task import Augmentation, Normalization
from lifelong.streams.spec import StreamSpec, TaskSpec

CIFAR100_NORMALIZATION = Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
CIFAR100_AUGMENTATION = Augmentation(crop=4, flip=True, brightness=63 / 255)


def cifar100_order(seed: int) -> list[int]:
    """The order of the 100 classes in PAR's runs of a seed.

    Source: WenjinW/PAR, dataloaders/cifar100.py: the global generator deals a permutation of the 50,000 training images first,
    then shuffles the classes.
    """
    chance = np.random.RandomState(seed)
    chance.permutation(50_000)
    order = list(range(100))
    chance.shuffle(order)
    return order


def cifar100_10(seed: int) -> StreamSpec:
    """CIFAR100-10: ten tasks of ten classes; a tenth of each class's training images is for validation.

    Args:
        seed: decides the order of the classes.

    Source: PAR, section 4.1, and its public code.
    """
    order = cifar100_order(seed)
    tasks = (
        TaskSpec(
            name=f"cifar100-{number}",
            source="cifar100",
            classes=tuple(order[10 * number : 10 * number + 10]),
            valid_fraction=0.1,
            image_size=32,
            normalization=CIFAR100_NORMALIZATION,
            augmentation=CIFAR100_AUGMENTATION,
        )
        for number in range(10)
    )
    return StreamSpec("cifar100-10", tuple(tasks))
