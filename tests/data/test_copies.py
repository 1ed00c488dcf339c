import pytest
import torch
from torch.nn import functional

from lifelong.data.copies import with_copies
from lifelong.data.task import Augmentation, Split
from lifelong.training.closed_form import Rows, to_judge

IMAGES = torch.randint(0, 256, (4, 3, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
SPLIT = Split(IMAGES, torch.tensor([0, 1, 0, 1]))


def windows(image: torch.Tensor, margin: int) -> list[list]:
    """What a crop may show of an image, mirrored or not."""
    height, width = image.shape[1:]
    padded = functional.pad(image, (margin,) * 4)
    crops = [padded[:, top : top + height, left : left + width] for top in range(2 * margin + 1) for left in range(2 * margin + 1)]
    return [crop.tolist() for crop in crops] + [crop.flip(2).tolist() for crop in crops]


@pytest.mark.parametrize(
    ("policy", "count"), [(Augmentation(), 3), (Augmentation(crop=1), 1), (Augmentation(crop=1, flip=True), 0)], ids=["none", "crop", "0"]
)
def test_without_copies_the_split_is_itself(policy: Augmentation, count: int) -> None:
    assert with_copies(SPLIT, policy, count, 0) is SPLIT


def test_mirrors_alone_give_one_copy() -> None:
    found = with_copies(SPLIT, Augmentation(flip=True), 3, 0)
    assert torch.equal(found.images, torch.cat([SPLIT.images, SPLIT.images.flip(3)]))
    assert found.labels.tolist() == [0, 1, 0, 1] * 2


@pytest.mark.parametrize(("flip", "blocks"), [(True, 4), (False, 3)])
def test_further_copies_are_crops_in_the_same_order(flip: bool, blocks: int) -> None:
    found = with_copies(SPLIT, Augmentation(crop=1, flip=flip), 3, 0)
    assert found.labels.tolist() == SPLIT.labels.tolist() * blocks
    assert torch.equal(found.images[:4], SPLIT.images)
    for place, image in enumerate(found.images[4:]):
        assert image.tolist() in windows(SPLIT.images[place % 4], 1)
    assert not torch.equal(found.images[-4:], found.images[-8:-4])
    assert torch.equal(with_copies(SPLIT, Augmentation(crop=1, flip=flip), 3, 0).images, found.images)
    assert not torch.equal(with_copies(SPLIT, Augmentation(crop=1, flip=flip), 3, 1).images, found.images)


def test_no_copy_of_an_image_that_judges_is_learned() -> None:
    """Features are numbers of images; their copies, a hundred more: of ten images of a class without validation images two judge."""
    numbers = torch.arange(10.0, dtype=torch.float64)[:, None]
    rows = Rows(torch.cat([numbers, numbers + 100, numbers + 200]), torch.zeros(30, dtype=torch.int64), 1, 10)
    fitted, judges = to_judge(rows, Rows(torch.zeros(0, 1, dtype=torch.float64), torch.zeros(0, dtype=torch.int64), 1))
    assert judges.features.flatten().tolist() == [4, 9]
    assert sorted(fitted.features.flatten().remainder(100).unique().tolist()) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert len(fitted) == 24
