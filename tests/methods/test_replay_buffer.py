"""The store of images: what a memory of limited size holds, and how each image is prepared."""

from collections import deque

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from lifelong.data.augment import augment, normalize
from lifelong.data.task import NO_AUGMENTATION, Augmentation, Normalization
from lifelong.methods.replay_buffer import KeptImages, ReplayBuffer, reservoir, ring
from lifelong.storage import load_tree, save_tree

NORMS = (Normalization((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), Normalization((0.4, 0.4, 0.4), (1.0, 2.0, 3.0)))


def kept(count: int, task: int = 0, policy: Augmentation = NO_AUGMENTATION, size: int = 8) -> KeptImages:
    generator = torch.Generator().manual_seed(task)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return KeptImages(images, torch.arange(count) % 3, NORMS[task % 2], policy)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_ring_holds_the_last_of_each_class() -> None:
    labels = torch.tensor([0, 1, 0, 2, 0, 1, 0])
    assert ring(labels, 2).tolist() == [4, 6, 1, 5, 3]
    long = torch.randint(0, 7, (300,), generator=generator())
    queues = {label: deque(maxlen=15) for label in range(7)}
    for place, label in enumerate(long.tolist()):
        queues[label].append(place)
    assert ring(long, 15).tolist() == [place for queue in queues.values() for place in queue]


def chi_square(counts: Tensor, trials: int, share: float) -> float:
    """The probability of counts as uneven as these, where each of n samples is kept with the same chance in every trial.

    As many are kept in every trial, so counts are correlated as in a draw without replacement: (n - 1) degrees of freedom.
    """
    n, mean = len(counts), trials * share
    statistic = float(((counts - mean) ** 2).sum()) / (mean * (1 - share)) * (n - 1) / n
    return float(chi2.sf(statistic, n - 1))


@pytest.mark.parametrize(("capacity", "tasks"), [(12, (7, 40, 25, 8)), (1, (2, 1, 2))])
def test_a_reservoir_is_a_uniform_choice_of_all_that_arrived(capacity: int, tasks: tuple[int, ...]) -> None:
    trials = 3000
    counts, random = torch.zeros(sum(tasks)), generator(1)
    for _ in range(trials):
        names: list[int] = []
        seen = 0
        for arriving in tasks:
            numbers = reservoir(len(names), seen, arriving, capacity, random)
            names = [(names + list(range(seen, seen + arriving)))[number] for number in numbers]
            seen += arriving
        assert len(names) == len(set(names)) == capacity
        counts[names] += 1
    assert chi_square(counts, trials, capacity / sum(tasks)) > 0.001


def test_a_reservoir_that_is_not_full_keeps_all() -> None:
    assert reservoir(2, 2, 3, 10, generator()) == [0, 1, 2, 3, 4]
    assert reservoir(0, 0, 0, 10, generator()) == []


def test_parts_are_prepared_as_their_own_task() -> None:
    flips = Augmentation(crop=2, flip=True)
    store = ReplayBuffer([kept(5, 0, flips), kept(0, 1), kept(4, 1), kept(3, 2, flips)])
    assert len(store) == 12
    positions = torch.tensor([11, 4, 6, 0, 9, 5])
    parts = store.parts(positions, None)
    assert [part.task for part in parts] == [0, 2, 3]
    for part, rows in zip(parts, ([4, 0], [1, 0], [2, 0]), strict=True):
        own = store.tasks[part.task]
        assert torch.equal(part.inputs, normalize(own.images[rows], own.normalization))
        assert torch.equal(part.labels, own.labels[rows])
    random = generator(3)
    augmented = store.parts(positions, generator(3))
    assert torch.equal(augmented[0].inputs, normalize(augment(store.tasks[0].images[[4, 0]], flips, random), NORMS[0]))
    assert torch.equal(augmented[1].inputs, parts[1].inputs)
    assert torch.equal(augmented[2].inputs, normalize(augment(store.tasks[3].images[[2, 0]], flips, random), NORMS[0]))
    assert not torch.equal(augmented[0].inputs, parts[0].inputs)
    assert store.parts(positions[:0], None) == []


def test_a_draw_takes_different_images_and_no_more_than_there_are() -> None:
    store = ReplayBuffer([kept(6), kept(5, 1)])
    assert sorted(store.draw(100, generator()).tolist()) == list(range(11))
    drawn = torch.stack([store.draw(4, generator(seed)) for seed in range(1100)])
    assert all(len(set(row.tolist())) == 4 for row in drawn)
    assert chi_square(drawn.flatten().bincount(minlength=11).float(), 1100, 4 / 11) > 0.001


def test_bytes_are_exact_and_images_survive_a_file(tmp_path) -> None:
    store = ReplayBuffer(
        [KeptImages(torch.zeros(150, 3, 32, 32, dtype=torch.uint8), torch.zeros(150).long(), NORMS[0], NO_AUGMENTATION)] * 10
    )
    assert store.image_bytes == 4_608_000
    assert store.label_bytes == 1500 * 8
    store = ReplayBuffer([kept(5, 0, Augmentation(crop=1, brightness=0.2)), kept(0, 1), kept(4, 2, size=6)])
    save_tree(tmp_path / "store", store.state_dict())
    again = ReplayBuffer.from_state(load_tree(tmp_path / "store"), "cpu")
    for one, other in zip(store.tasks, again.tasks, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert (one.normalization, one.augmentation) == (other.normalization, other.augmentation)


def test_keeping_some_lets_the_others_go() -> None:
    store = ReplayBuffer([kept(5), kept(4, 1)])
    images = torch.cat([task.images for task in store.tasks])
    store.keep(torch.tensor([8, 1, 3, 6]))
    assert torch.equal(torch.cat([task.images for task in store.tasks]), images[[1, 3, 8, 6]])
    assert store.image_bytes == 4 * 192
