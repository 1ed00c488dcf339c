import pytest
import torch

from lifelong.streams.transforms import Transform, rotate_bilinear

IMAGES = torch.randint(0, 256, (5, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_nothing():
    assert torch.equal(Transform().images(IMAGES), IMAGES)
    assert str(Transform()) == ""
    assert str(Transform(rotate=360.0)) == ""


def test_invert():
    assert torch.equal(Transform(invert=True).images(IMAGES).int(), 255 - IMAGES.int())


def test_a_red_background_leaves_white_white():
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[..., 1, 1] = 255
    image[..., 2, 2] = 100
    red = Transform(background=(1.0, 0.0, 0.0)).images(image)
    assert (red[:, 0] == 255).all()
    assert torch.equal(red[:, 1:], image[:, 1:])


def test_a_mixed_background_by_hand():
    image = torch.full((1, 3, 4, 4), 55, dtype=torch.uint8)
    mixed = Transform(background=(0.0, 0.25, 1.0)).images(image)
    assert mixed[0, :, 0, 0].tolist() == [55, 105, 255]


def test_quarter_turns_are_exact_and_counter_clockwise():
    image = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    image[..., 0, 2] = 9  # upper right
    turned = Transform(rotate=90.0).images(image)
    assert turned[0, 0].tolist() == [[9, 0, 0], [0, 0, 0], [0, 0, 0]]
    for turns in range(-5, 6):
        assert torch.equal(Transform(rotate=90.0 * turns).images(IMAGES), IMAGES.rot90(turns, (2, 3)))


@pytest.mark.parametrize("degrees", [90.0, 180.0, 270.0, -90.0])
def test_bilinear_turns_the_same_way(degrees):
    difference = rotate_bilinear(IMAGES, degrees).int() - IMAGES.rot90(int(degrees // 90), (2, 3)).int()
    assert difference.abs().max() <= 1


def test_other_angles_move_a_dot_where_it_should_be():
    image = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    image[..., 15:18, 25:28] = 255  # 10 to the right of the centre
    turned = Transform(rotate=30.0).images(image)[0, 0].float()
    ys, xs = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    x, y = float((turned * xs).sum() / turned.sum()) - 16, float((turned * ys).sum() / turned.sum()) - 16
    assert x == pytest.approx(10 * 3**0.5 / 2, abs=0.1)
    assert y == pytest.approx(-5, abs=0.1)  # up
    assert turned[0, 0] == 0


def test_corners_that_open_take_the_background():
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    blue = Transform(rotate=45.0, background=(0.0, 0.0, 1.0)).images(white)
    assert blue[0, :, 0, 0].tolist() == [0, 0, 255]
    inverted = Transform(rotate=45.0, invert=True).images(torch.zeros_like(white))
    assert inverted.min() == 255


@pytest.mark.parametrize(("shift", "order"), [(0, [0, 1, 2, 3]), (1, [3, 0, 1, 2]), (-1, [1, 2, 3, 0]), (5, [3, 0, 1, 2])])
def test_shifted_labels(shift, order):
    assert Transform(shift_labels=shift).order(4).tolist() == order


def test_words():
    words = str(Transform(rotate=30.0, invert=True, background=(0.0, 0.0, 1.0), shift_labels=2))
    assert words == "rotated by 30 degrees, inverted, background blue, labels shifted by 2"
    assert str(Transform(background=(0.0, 0.5, 1.0))) == "background [0.0, 0.5, 1.0]"
