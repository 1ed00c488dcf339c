import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lifelong.errors import LifelongError
from lifelong.relatedness.bank import PrototypeBank, prototypes
from lifelong.relatedness.divergence import divergences
from lifelong.settings.par import RelatednessSettings
from tests.relatedness.plain import plain_divergences


def features(seed, samples, classes, length=24, scale=1.0, shift=0.0, dtype=torch.float32):
    """Features like those of a network: not negative, some zero, classes apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    centres = 0.5 * torch.randn(classes, length, generator=generator)
    values = (centres[labels] + torch.randn(samples, length, generator=generator)).relu()
    return (values.to(dtype) * scale + shift, labels, classes)


def fast(new, earlier, few=False, **options):
    bank = PrototypeBank()
    for task in earlier:
        bank.add(prototypes(*task))
    return divergences(new[0], new[1], prototypes(*new), bank, RelatednessSettings(**options), few=few).numpy()


def agrees(new, earlier, **options):
    ours = fast(new, earlier, **options)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, plain_divergences(*new, earlier, **options), rtol=1e-6, atol=1e-6)
    return ours


@pytest.mark.parametrize("clamp", ["pair", "class", "none"])
@pytest.mark.parametrize("how", [{}, {"leave_one_out": True}, {"few": True}, {"few": True, "leave_one_out": True}, {"few_images": 11}])
def test_random_tasks_with_other_numbers_of_classes(clamp, how):
    earlier = [features(seed, 60, classes) for seed, classes in enumerate((5, 3, 8, 5, 1, 3))]
    for seed in range(100, 104):
        agrees(features(seed, 70, 5), earlier, clamp=clamp, **how)


@pytest.mark.parametrize(("scale", "shift"), [(1e6, 0), (1e-8, 0), (1e-20, 0), (1e15, 0), (1, 1e4), (1e-3, 1e3), (1e-6, 1e6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sizes_that_lose_digits(scale, shift, dtype):
    """Tiny and huge features, and small ones far from the origin, where x^2 - 2xp + p^2 would cancel."""
    earlier = [features(seed, 40, 4, scale=scale, shift=shift, dtype=dtype) for seed in range(3)]
    new = features(9, 50, 5, scale=scale, shift=shift, dtype=dtype)
    for options in ({}, {"clamp": "none", "leave_one_out": True}):
        agrees(new, earlier, **options)


def test_earlier_tasks_of_very_different_size():
    earlier = [features(1, 40, 4), features(2, 40, 3, scale=1e7), features(3, 40, 4, scale=1e-7), features(4, 40, 4, shift=1e5)]
    agrees(features(9, 50, 5), earlier, clamp="none")
    agrees(features(9, 50, 5, scale=1e-7), earlier, clamp="none")


def test_copies_of_one_image():
    """Every sample equals its prototype (rho = 0): far from others, and at distance 0 from a task of the same points."""
    points = torch.tensor([[1.0, 2.0, 3.0], [0.3, -1.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    new = (points[labels], labels, 2)
    same, other = agrees(new, [new, (points[labels] + 1, labels, 2)])
    assert same == 0
    assert other > 20


def test_a_sample_that_equals_an_earlier_prototype():
    new = features(1, 30, 3)
    earlier = (new[0][:2].clone(), torch.tensor([0, 1]), 2)
    assert agrees(new, [earlier], clamp="none")[0] < 0


def test_samples_nearer_to_an_earlier_prototype_than_rounding():
    """nu is far below rho: the product's terms cancel, and the direct measure takes over."""
    new = features(1, 30, 3, dtype=torch.float64)
    near = (new[0] + 1e-5, torch.arange(30), 30)
    agrees(new, [near, features(2, 30, 3)], clamp="none")


def test_zero_features():
    zeros = (torch.zeros(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    some = features(1, 20, 2, length=4)
    assert agrees(zeros, [zeros])[0] == 0
    agrees(zeros, [some, zeros])
    agrees(some, [zeros, some])


def test_one_class():
    agrees(features(1, 20, 1), [features(2, 20, 1), features(3, 20, 4)], clamp="none")


def test_a_class_of_one_sample_makes_a_task_far_and_is_left_out_when_leaving_one_out():
    values, labels, _ = features(1, 40, 2)
    lonely = (torch.cat([values, values[:1] + 1]), torch.cat([labels, torch.tensor([2])]), 3)
    earlier = [features(1, 40, 2)]
    assert agrees(lonely, earlier)[0] > 5
    left_out = agrees(lonely, earlier, leave_one_out=True, clamp="none")
    without = fast((values, labels, 2), earlier, leave_one_out=True, clamp="none")
    np.testing.assert_allclose(left_out, without * 3 / 2, rtol=1e-6)


def test_only_classes_of_one_sample():
    new = (torch.eye(3), torch.arange(3), 3)
    earlier = [features(1, 20, 3, length=3)]
    assert agrees(new, earlier)[0] > 30
    with pytest.raises(LifelongError, match="two images"):
        fast(new, earlier, leave_one_out=True)


def test_empty_classes_of_either_task_give_no_nan():
    values, labels, _ = features(1, 40, 3)
    gap = (values, labels + (labels > 0), 4)  # class 1 of 4 is empty
    full = (values, labels, 3)
    earlier = [features(2, 30, 4), (features(3, 30, 2)[0], features(3, 30, 2)[1] * 3, 5)]
    ours = agrees(gap, earlier, clamp="none")
    np.testing.assert_allclose(ours, fast(full, earlier, clamp="none") * 4 / 3, rtol=1e-9)


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=st.lists(st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-8, 1e6, 0.5, 3.0]), min_size=3, max_size=3), min_size=4, max_size=12),
    classes=st.integers(1, 3),
    options=st.fixed_dictionaries({"clamp": st.sampled_from(["pair", "class", "none"])}),
)
def test_adversarial_values(values, classes, options):
    """Duplicates, ties, zeros and mixed sizes at once."""
    points = torch.tensor(values)
    labels = torch.arange(len(points)) % classes
    half = len(points) // 2
    earlier = [(points[:half], labels[:half], classes), (points.flip(0), labels, classes)]
    agrees((points, labels, classes), earlier, **options)


def test_by_hand():
    """Two samples at distance 1 from their prototype (0), the nearest earlier prototype at 3 and 1 from them: mean log-ratio ln(3)/2."""
    new = (torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 0]), 1)
    earlier = (torch.tensor([[2.0], [50.0]]), torch.tensor([0, 1]), 2)
    assert fast(new, [earlier])[0] == pytest.approx(math.log(3) / 2)
    assert fast(new, [earlier], leave_one_out=True, clamp="none")[0] == pytest.approx(math.log(3) / 2 - math.log(2))


def test_clamps_differ_where_they_should():
    new = (torch.tensor([[-1.0], [1.0], [9.0], [11.0]]), torch.tensor([0, 0, 1, 1]), 2)
    earlier = (torch.tensor([[2.0], [9.5], [11.5]]), torch.tensor([0, 1, 2]), 3)
    first, second = math.log(3) / 2, math.log(0.5)
    assert fast(new, [earlier], clamp="none")[0] == pytest.approx(first + second)
    assert fast(new, [earlier], clamp="pair")[0] == 0
    assert fast(new, [earlier], clamp="class")[0] == pytest.approx(first)


def test_small_samples_bias_the_distance_as_published():
    """One distribution of 10 classes apart, 50 per class against 50: 0.20; 3 per class against 200: 0.98 after Eq. 6."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(10, 512, generator=generator)

    def draw(each):
        labels = torch.arange(10).repeat_interleave(each)
        return centres[labels] + torch.randn(10 * each, 512, generator=generator), labels, 10

    assert fast(draw(50), [draw(50)])[0] == pytest.approx(0.20, abs=0.02)
    assert 1 - math.exp(-2 * fast(draw(3), [draw(200)])[0]) == pytest.approx(0.98, abs=0.01)
    assert fast(draw(50), [draw(50)], leave_one_out=True, clamp="none")[0] < 0.12


def test_corrected_for_few_images_one_distribution_is_one_task():
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(10, 512, generator=generator)

    def draw(each):
        labels = torch.arange(10).repeat_interleave(each)
        return centres[labels] + torch.randn(10 * each, 512, generator=generator), labels, 10

    for new, old in ((3, 200), (5, 50), (20, 20)):
        left = 10 * 0.25 * math.log(1 + 1 / old)  # Half of what the earlier task's prototypes are off by.
        assert fast(draw(new), [draw(old)], few=True, clamp="none")[0] == pytest.approx(left, abs=0.08)
    new, old = draw(50), draw(5)
    assert fast(new, [old], few_images=6)[0] == pytest.approx(fast(new, [old])[0] - 2.5 * math.log(1.2), rel=1e-6)
    assert fast(new, [old], few_images=5)[0] == fast(new, [old])[0]


def test_of_one_image_a_class_nothing_can_be_corrected():
    alone = (torch.eye(3), torch.arange(3), 3)
    earlier = [features(0, 60, 3, length=3)]
    assert fast(alone, earlier, few=True) == fast(alone, earlier)


def test_it_does_not_depend_on_blocks(monkeypatch):
    new, earlier = features(1, 90, 6), [features(seed, 30, 4) for seed in range(5)]
    whole = fast(new, earlier)
    monkeypatch.setattr("lifelong.relatedness.bank.BLOCK", 64)
    np.testing.assert_allclose(fast(new, earlier), whole, rtol=1e-6)


def test_no_earlier_task():
    assert fast(features(1, 10, 2), []).shape == (0,)


def test_a_bank_comes_back_from_its_state():
    bank = PrototypeBank()
    for seed in range(3):
        bank.add(prototypes(*features(seed, 20, 3 + seed)))
    again = PrototypeBank.from_state(bank.state())
    new = features(7, 20, 3)
    own = prototypes(*new)
    assert bank.bytes == again.bytes > 0
    assert torch.equal(*(divergences(new[0], new[1], own, which, RelatednessSettings()) for which in (bank, again)))


def test_a_bank_forgets_a_task_and_its_bytes():
    bank, without = PrototypeBank(), PrototypeBank()
    for seed in range(4):
        task = prototypes(*features(seed, 20, 3 + seed))
        bank.add(task)
        if seed != 1:
            without.add(task)
    bank.forget(1)
    new = features(7, 20, 3)
    own = prototypes(*new)
    assert bank.bytes == without.bytes == sum(task.means.nbytes + task.counts.nbytes for task in bank)
    assert torch.equal(*(divergences(new[0], new[1], own, which, RelatednessSettings(), few=True) for which in (bank, without)))


def test_bad_features_are_refused():
    values, labels, classes = features(1, 10, 2)
    with pytest.raises(LifelongError, match="NaN or infinity"):
        prototypes(torch.where(values > 1, torch.nan, values), labels, classes)
    with pytest.raises(LifelongError, match="no image"):
        prototypes(values[:0], labels[:0], classes)
    with pytest.raises(LifelongError, match="length 24, the tasks before it 5"):
        fast((values, labels, classes), [features(2, 10, 2, length=5)])
    bank = PrototypeBank()
    bank.add(prototypes(values, labels, classes))
    with pytest.raises(LifelongError, match="not a finite number"):
        divergences(torch.full_like(values, torch.nan), labels, bank[0], bank, RelatednessSettings())
