import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from lifelong.data.images import check_images, decode_images, square_grey
from tests.parquet_files import png

RANDOM = np.random.default_rng(0)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(encoded: bytes | None, size: int) -> np.ndarray:
    """As (size, size, 3)."""
    images, problems = decode_images([encoded], size)
    assert not problems
    return images[0].permute(1, 2, 0).numpy()


def test_right_size_is_untouched():
    pixels = RANDOM.integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(decode(png(pixels), 32), pixels)
    grey = RANDOM.integers(0, 256, (32, 32), np.uint8)
    assert np.array_equal(decode(png(grey), 32), np.repeat(grey[:, :, None], 3, 2))


@pytest.mark.parametrize(("old", "new"), [(28, 32), (8, 32), (8, 16)])
def test_small_grey_grows_as_interpolate_does(old, new):
    grey = RANDOM.integers(0, 256, (old, old), np.uint8)
    grown = functional.interpolate(torch.from_numpy(grey)[None, None].float(), (new, new), mode="bilinear", align_corners=False)
    expected = grown[0, 0].to(torch.uint8).numpy()
    assert np.array_equal(decode(png(grey), new), np.repeat(expected[:, :, None], 3, 2))


def test_grown_constant_stays_constant():
    for size in (9, 31, 33, 84):
        assert (square_grey(np.full((1, 8, 8), 255, np.uint8), size) == 255).all()


def test_28_to_32_by_hand():
    grey = np.zeros((28, 28), np.uint8)
    grey[0, 0], grey[0, 1] = 64, 128
    result = decode(png(grey), 32)[..., 0]
    # Pixel 1 of the large row lies at 1.5 * 28/32 - 0.5 = 0.8125 of the small one.
    assert result[0, 0] == 64
    assert result[0, 1] == 64 + 0.8125 * 64


def test_large_images_have_their_short_side_scaled_and_their_middle_kept():
    pixels = RANDOM.integers(0, 256, (64, 100, 3), np.uint8)
    scaled = np.asarray(Image.fromarray(pixels).resize((50, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(decode(png(pixels), 32), scaled[:, 9:41])
    tall = np.asarray(Image.fromarray(pixels.transpose(1, 0, 2)).resize((32, 50), Image.Resampling.BICUBIC))
    assert np.array_equal(decode(png(pixels.transpose(1, 0, 2)), 32), tall[9:41])


@pytest.mark.parametrize("shape", [(218, 178, 3), (178, 218), (20, 40, 3)])
def test_squeezed_images_keep_all_of_the_picture(shape):
    pixels = RANDOM.integers(0, 256, shape, np.uint8)
    whole = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR).convert("RGB"))
    squeezed, _ = decode_images([png(pixels), png(whole)], 32, squeeze=True)
    assert np.array_equal(squeezed[0].permute(1, 2, 0).numpy(), whole)
    assert np.array_equal(squeezed[1].permute(1, 2, 0).numpy(), whole)


@pytest.mark.parametrize("side", range(300, 700, 23))
def test_no_width_leaves_a_gap(side):
    """The scale of the original code truncates some widths to one pixel less."""
    white = np.full((side, 322, 3), 255, np.uint8)
    assert decode(png(white), 32).min() == 255


def test_modes():
    colours = RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
    image = Image.fromarray(colours)

    opaque = np.dstack([colours, np.full((8, 8), 255, np.uint8)])
    assert np.array_equal(decode(png(opaque), 8), colours)
    clear = np.dstack([colours, np.zeros((8, 8), np.uint8)])
    assert (decode(png(clear), 8) == 255).all()

    palette = image.quantize(16)
    assert np.array_equal(decode(encode(palette), 8), np.asarray(palette.convert("RGB")))

    deep = np.array([[0, 255, 256, 65535]] * 4, np.uint16)
    assert np.array_equal(decode(encode(Image.fromarray(deep)), 4)[0, :, 0], [0, 0, 1, 255])

    bits = Image.fromarray(colours[..., 0] > 127)
    assert bits.mode == "1"
    assert np.array_equal(decode(encode(bits), 8)[..., 1], np.where(colours[..., 0] > 127, 255, 0))

    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = decode(encode(ink, "JPEG", quality=95), 8)
    assert red[..., 0].min() > 200
    assert red[..., 1:].max() < 60


def test_camera_rotation_is_obeyed():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right: left becomes top
    turned = decode(encode(Image.fromarray(pixels), "PNG", exif=exif), 8)
    assert turned[:4].min() == 255
    assert turned[4:].max() == 0


def test_a_damaged_camera_mark_says_nothing():
    pixels = RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(decode(encode(Image.fromarray(pixels), exif=b"Exif\0\0no tiff at all"), 8), pixels)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (1, 60_000, 3), (60_000, 2), (3, 5, 3)])
def test_strange_shapes(shape):
    pixels = RANDOM.integers(0, 256, shape, np.uint8)
    image = decode(png(pixels), 84)
    assert image.shape == (84, 84, 3)
    if shape[:2] == (1, 1):
        assert (image == pixels.reshape(1, 1, -1)).all()


def test_of_a_very_long_image_the_middle_is_kept():
    pixels = np.zeros((20, 2001, 3), np.uint8)
    pixels[:, 980:1021] = 255  # the middle square, and a little more
    assert decode(png(pixels), 8).min() > 250
    assert decode(png(pixels.transpose(1, 0, 2)), 8).min() > 250


FRAMES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_films_are_refused_and_stills_are_not(kind):
    film = encode(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:])
    _, problems = decode_images([film, encode(FRAMES[0], kind)], 8)
    assert problems == {0: "3 frames"}
    assert check_images([film, encode(FRAMES[0], kind)]) == problems


def test_of_a_phones_pictures_the_first_is_taken():
    photo = encode(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:])
    with Image.open(io.BytesIO(photo)) as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 3)
    image = decode(photo, 8)
    assert image[..., 0].min() > 200
    assert image[..., 1:].max() < 60


NOISE = png(RANDOM.integers(0, 256, (32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty"),
        (b"no image", "no image, or of an unknown format"),
        (NOISE[:1000], "truncated"),
        (NOISE[:100] + bytes(100) + NOISE[200:], "broken: "),
        (None, "no image bytes, only a path"),
    ],
)
def test_broken_images_are_found_all_and_with_their_reason(encoded, reason):
    good = png(np.full((4, 4), 9, np.uint8))
    images, problems = decode_images([good] * 101 + [encoded, good, encoded], 4)
    assert list(problems) == [101, 103]
    assert problems[101].startswith(reason)
    assert "\n" not in problems[101]
    assert (images[[0, 100, 102]] == 9).all()
    assert not images[101].any()
    assert check_images([encoded, good]) == {0: problems[101]}


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_images([png(np.zeros((20, 20), np.uint8)), png(np.zeros((8, 8), np.uint8))], 4)[1] == {0: "too many pixels"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000"])
@pytest.mark.filterwarnings("ignore")  # Pillow's own words about what it had to guess
def test_damage_is_a_problem_never_a_crash(kind):
    whole = encode(Image.fromarray(RANDOM.integers(0, 256, (16, 16, 3), np.uint8)), kind)
    damaged = []
    for _ in range(60):
        content = bytearray(whole)
        for place in RANDOM.integers(0, len(whole), 5):
            content[place] = RANDOM.integers(0, 256)
        damaged += [bytes(content), bytes(content[: RANDOM.integers(1, len(whole))])]
    images, problems = decode_images(damaged, 8)
    assert images.shape == (120, 3, 8, 8)
    assert problems == check_images(damaged)
    assert problems


def test_order_is_kept_and_nothing_is_fine():
    images, problems = decode_images([png(np.full((4, 4), number, np.uint8)) for number in range(200)], 4)
    assert images[:, 0, 0, 0].tolist() == list(range(200))
    assert decode_images([], 4)[0].shape == (0, 3, 4, 4)
    assert not problems
