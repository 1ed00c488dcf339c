import time

import pytest
import torch

from lifelong.data.augment import augment, draw, normalize
from lifelong.data.task import Augmentation, Normalization
from tests import pretend

POLICIES = [
    Augmentation(crop=4, flip=True),
    Augmentation(crop=2),
    Augmentation(flip=True),
    Augmentation(brightness=63 / 255),
    Augmentation(crop=3, flip=True, brightness=0.9),
]


def random_images(count: int, height: int = 12, width: int = 9) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def one_by_one(images: torch.Tensor, policy: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """The same with the same draws, image by image and pixel by pixel."""
    draws = draw(policy, len(images), generator)
    result = torch.zeros_like(images)
    _, _, height, width = images.shape
    for number, image in enumerate(images.tolist()):
        top = policy.crop if draws.top is None else int(draws.top[number])
        left = policy.crop if draws.left is None else int(draws.left[number])
        for row in range(height):
            for column in range(width):
                y, x = row + top - policy.crop, column + left - policy.crop
                if draws.flip is not None and draws.flip[number]:
                    x = (width - 1 - column) + left - policy.crop
                for channel in range(3):
                    value = image[channel][y][x] if 0 <= y < height and 0 <= x < width else 0
                    if draws.brightness is not None:
                        factor = draws.brightness[number]
                        value = min(255, round(float(torch.tensor(float(value)) * factor)))
                    result[number, channel, row, column] = value
    return result


@pytest.mark.parametrize("policy", POLICIES)
def test_equals_the_slow_version(policy):
    images = random_images(16)
    fast = augment(images, policy, torch.Generator().manual_seed(7))
    slow = one_by_one(images, policy, torch.Generator().manual_seed(7))
    assert torch.equal(fast, slow)
    assert not torch.equal(fast, images)


def test_every_image_has_its_own_draw_and_all_places_occur():
    images = random_images(1).expand(4000, 3, 12, 9)
    policy = Augmentation(crop=1, flip=True)
    seen = augment(images, policy, torch.Generator().manual_seed(0)).flatten(1).unique(dim=0, return_counts=True)[1]
    assert len(seen) == 9 * 2
    assert (seen / 4000 - 1 / 18).abs().max() < 0.02


def test_brightness_draws_fill_their_range():
    factors = draw(Augmentation(brightness=0.25), 10_000, torch.Generator().manual_seed(0)).brightness
    assert factors is not None
    assert 0.75 <= float(factors.min()) < 0.751
    assert 1.249 < float(factors.max()) <= 1.25
    assert abs(float(factors.mean()) - 1) < 0.01


def test_no_policy_changes_nothing_and_draws_nothing():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    images = random_images(4)
    assert augment(images, Augmentation(), generator) is images
    assert torch.equal(generator.get_state(), before)


def test_same_seed_same_images_and_empty_batch():
    images = random_images(8)
    policy = Augmentation(crop=2, flip=True, brightness=0.3)
    first, second = (augment(images, policy, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert augment(images[:0], policy, torch.Generator()).shape == (0, 3, 12, 9)


def test_normalize_equals_the_formula():
    images = random_images(5)
    normalization = Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
    mean, std = (torch.tensor(value, dtype=torch.float64)[:, None, None] for value in (normalization.mean, normalization.std))
    expected = (images.double() / 255 - mean) / std
    result = normalize(images, normalization)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=2e-6, rtol=0)


def test_normalize_on_a_device_never_waits(accelerator):
    """Neither for the first batch of a normalization there, nor for others of other tasks."""
    images = random_images(5)
    there = images.to(accelerator)
    normalizations = [Normalization((0.5, mean, 0.4), (0.2, 0.3, 0.1)) for mean in (0.123, 0.456, 0.123)]
    expected = [normalize(images, normalization) for normalization in normalizations]
    with pretend.counted() as syncs:
        found = [normalize(there, normalization) for normalization in normalizations]
    assert syncs == []
    for one, other in zip(found, expected, strict=True):
        assert one.device.type == "pretend"
        assert torch.equal(one.cpu(), other)


def test_is_fast():
    """Measured at about 150,000 images a second on one core; a tenth of that would mean a loop over images."""
    images = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    policy = Augmentation(crop=4, flip=True)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        augment(images, policy, generator)
        best = min(best, time.perf_counter() - start)
    assert 256 / best > 15_000
