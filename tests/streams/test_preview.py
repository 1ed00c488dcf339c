import weakref

import numpy as np
import torch

from lifelong.data.task import Split, Task
from lifelong.streams.preview import evaluation_images


def split(labels: list[int]) -> Split:
    """Images whose red channel says their number."""
    images = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    images[:, 0] = torch.arange(len(labels), dtype=torch.uint8)[:, None, None]
    images[:, :, 0, 1] = 255
    return Split(images, torch.tensor(labels))


class MadeStream:
    """Three tasks; which splits were loaded, and whether their images are still held."""

    name = "made"

    def __init__(self):
        self.loaded, self.held = [], []

    def __len__(self):
        return 3

    def __getitem__(self, index):
        def load(name):
            assert not any(reference() is not None for reference in self.held), "an earlier task is still held"
            part = split([1, 0, 1, 0, 1])
            self.loaded.append((index, name))
            self.held.append(weakref.ref(part.images))
            return part

        return Task(f"t{index}", ["a", "b", "c"], load)

    def __iter__(self):
        return (self[index] for index in range(3))

    def describe(self):
        return []

    def prepare(self):
        pass

    def fingerprint(self):
        return ""


def test_the_first_test_images_of_each_class_in_label_order():
    stream = MadeStream()
    first, second = evaluation_images(stream, [(3, 2), (1, 1)])
    assert [[int(image[0, 0, 0]) for image in some] for some in first] == [[1, 3], [0, 2], []]
    assert [[int(image[0, 0, 0]) for image in some] for some in second] == [[1]]
    assert stream.loaded == [(0, "test"), (1, "test")]


def test_pixels_are_where_they_were():
    ((image,), *_), *_ = evaluation_images(MadeStream(), [(1, 1)])
    assert image.dtype == np.uint8
    assert image.shape == (4, 4, 3)
    assert image[0, 1].tolist() == [255, 255, 255]
    assert image[1, 0].tolist() == [1, 0, 0]


def test_one_task_is_held_at_a_time_even_if_its_images_are_kept():
    stream = MadeStream()
    kept = list(evaluation_images(stream, [(2, 2)] * 3))
    assert len(kept) == len(stream.held) == 3
