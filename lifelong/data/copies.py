"""Changed copies of a task's training images, for classifiers that see each image once."""

import torch

from lifelong.data.augment import augment
from lifelong.data.task import Augmentation, Split


def with_copies(split: Split, policy: Augmentation, count: int, seed: int) -> Split:
    """Return images followed by copies of all of them, in the same order.

    Args:
        split: the images.
        policy: how the task's images may be changed.
        count: copies of each image at most: the first is mirrored, if the policy mirrors; the others are changed at random as in training,
            if the policy does more than that.
        seed: of these changes, which are drawn on the CPU.
    """
    if not count:
        return split
    images, generator = split.images.cpu(), torch.Generator().manual_seed(seed)
    copies = [images.flip(3)] if policy.flip else []
    if policy.crop or policy.brightness:
        copies += [augment(images, policy, generator) for _ in range(count - 1)]
    if not copies:
        return split
    copied = torch.cat([images, *copies]).to(split.images.device)
    return Split(copied, split.labels.repeat(1 + len(copies)))
