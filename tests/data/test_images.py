import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torch.nn import functional

from lifelong.data import decoding
from lifelong.data.decoding import check_images
from lifelong.data.images import decode_images, square_grey
from tests.parquet_files import png

RANDOM = np.random.default_rng(0)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(encoded: bytes | None, size: int) -> np.ndarray:
    """As (size, size, 3)."""
    squares, problems, _ = decode_images([encoded], size)
    assert not problems
    return squares[0].permute(1, 2, 0).numpy()


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
    squeezed, _, _ = decode_images([png(pixels), png(whole)], 32, squeeze=True)
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
    _, problems, _ = decode_images([film, encode(FRAMES[0], kind)], 8)
    assert problems == {0: "3 frames"}
    assert check_images([film, encode(FRAMES[0], kind)])[0] == problems


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
    squares, problems, _ = decode_images([good] * 101 + [encoded, good, encoded], 4)
    assert list(problems) == [101, 103]
    assert problems[101].startswith(reason)
    assert "\n" not in problems[101]
    assert (squares[[0, 100, 102]] == 9).all()
    assert not squares[101].any()
    assert check_images([encoded, good])[0] == {0: problems[101]}


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_images([png(np.zeros((20, 20), np.uint8)), png(np.zeros((8, 8), np.uint8))], 4)[1] == {0: "too many pixels"}


def test_bombs_are_refused_where_the_program_lets_them_pass(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    head = bytearray(raw_png(b"\0", 1, 8, GREY))
    head[16:24] = struct.pack(">II", 20_000, 10_000)
    head[29:33] = struct.pack(">I", zlib.crc32(bytes(head[12:29])))
    assert decode_images([bytes(head)], 4).problems == {0: "too many pixels"}


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
    squares, problems, _ = decode_images(damaged, 8)
    assert squares.shape == (120, 3, 8, 8)
    assert problems == check_images(damaged)[0]
    assert problems


def test_order_is_kept_and_nothing_is_fine():
    squares, problems, _ = decode_images([png(np.full((4, 4), number, np.uint8)) for number in range(200)], 4)
    assert squares[:, 0, 0, 0].tolist() == list(range(200))
    assert decode_images([], 4)[0].shape == (0, 3, 4, 4)
    assert not problems


# -- what files hold in their own ways ---------------------------------------------------------------------------------------------


def raw_png(row: bytes, width: int, depth: int, kind: int, clear: bytes = b"") -> bytes:
    """A PNG of one row as it is stored, with the chunk `clear` that names a transparent colour; written by hand, as Pillow writes none."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))
    named = chunk(b"tRNS", clear) if clear else b""
    return b"\x89PNG\r\n\x1a\n" + head + named + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


def looked_at(encoded: bytes) -> tuple[list, str]:
    """The pixels of the only row, and the remark."""
    with decoding._opened_up(encoded) as (pixels, remark):
        pass
    return pixels[0].tolist(), remark


GREY, COLOUR = 0, 2
DEEP = (256, 512, 1000, 1024, 2000, 3000)
MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "LA", "PA", "RGBX", "RGBa", "La", "I;16", "I;16B"]


@pytest.mark.parametrize(
    ("encoded", "wanted"),
    [
        # The clear colour in the numbers of the file: of 16, 8, 4, 2 and 1 bits, and of colours.
        (raw_png(struct.pack(">2H", 51200, 777), 2, 16, GREY, struct.pack(">H", 777)), [200, 255]),
        (raw_png(bytes([3, 200]), 2, 8, GREY, struct.pack(">H", 3)), [255, 200]),
        (raw_png(bytes([0x3F]), 2, 4, GREY, struct.pack(">H", 3)), [255, 255]),
        (raw_png(bytes([0x3A]), 2, 4, GREY, struct.pack(">H", 3)), [255, 170]),
        (raw_png(bytes([0b00011011]), 4, 2, GREY, struct.pack(">H", 1)), [0, 255, 170, 255]),
        (raw_png(bytes([0b10100000]), 3, 1, GREY, struct.pack(">H", 0)), [255, 255, 255]),
        (
            raw_png(struct.pack(">6H", *DEEP), 2, 16, COLOUR, struct.pack(">3H", *DEEP[3:])),
            [[1, 2, 3], [255, 255, 255]],
        ),
    ],
)
def test_the_clear_colour_is_laid_on_white(encoded, wanted):
    pixels = looked_at(encoded)[0]
    assert pixels == (wanted if isinstance(wanted[0], list) or isinstance(pixels[0], int) else [[value] * 3 for value in wanted])


def tiff_32(values: list[int]) -> bytes:
    return encode(Image.fromarray(np.array([values], np.int32)), "TIFF")


def tiff_12(first: int, second: int) -> bytes:
    """A TIFF of one row of two pixels of 12 bits, written by hand."""
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    row = (first << 12 | second).to_bytes(3, "big")
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + row


@pytest.mark.parametrize(
    ("encoded", "wanted", "remark"),
    [
        (tiff_12(0x0F0, 0xFFF), [0x0F, 0xFF], ""),
        (raw_png(struct.pack(">3H", 0, 7, 255), 3, 16, GREY), [0, 7, 255], "values of 8 bits in a file of more, taken as they are"),
        (raw_png(struct.pack(">3H", 0, 7, 256), 3, 16, GREY), [0, 0, 1], "values from 0 to 256 of 65535: 2 of their levels of grey remain"),
        (
            raw_png(struct.pack(">3H", 300, 301, 302), 3, 16, GREY),
            [1, 1, 1],
            "values from 300 to 302 of 65535: 1 of their levels of grey remain",
        ),
        (raw_png(struct.pack(">3H", 0, 0x8000, 0xFFFF), 3, 16, GREY), [0, 128, 255], ""),
        (raw_png(struct.pack(">3H", 9, 9, 9), 3, 16, GREY), [9, 9, 9], "all of one colour"),
        (tiff_32([0, 100, 200]), [0, 100, 200], "values of 8 bits in a file of more, taken as they are"),
        (tiff_32([0, 100, 51200]), [0, 0, 200], "values from 0 to 51200 of 65535: 2 of their levels of grey remain"),
        (tiff_32([-5, 1024, 70000]), [0, 4, 255], "values from -5 to 70000, cut to 0..65535"),
        (
            raw_png(struct.pack(">6H", 1, 2, 3, 40, 50, 60), 2, 16, COLOUR),
            [[1, 2, 3], [40, 50, 60]],
            "values of 8 bits in a file of 16, taken as they are",
        ),
        (
            raw_png(struct.pack(">8H", 1, 2, 3, 255, 40, 50, 60, 0), 2, 16, 6),
            [[1, 2, 3], [255, 255, 255]],
            "values of 8 bits in a file of 16, taken as they are",
        ),
        (
            raw_png(struct.pack(">8H", 1, 2, 3, 0xFFFF, 40, 50, 60, 0), 2, 16, 6),
            [[1, 2, 3], [255, 255, 255]],
            "values of 8 bits in a file of 16, taken as they are",
        ),
        (
            raw_png(struct.pack(">4H", 100, 255, 50, 0), 2, 16, 4),
            [[100, 100, 100], [255, 255, 255]],
            "values of 8 bits in a file of 16, taken as they are",
        ),
        (
            raw_png(struct.pack(">6H", 1, 2, 3, 4, 5, 6), 2, 16, COLOUR, struct.pack(">3H", 4, 5, 6)),
            [[1, 2, 3], [255, 255, 255]],
            "values of 8 bits in a file of 16, taken as they are",
        ),
        (raw_png(struct.pack(">6H", *[0x8001, 0x8002, 0x8003] * 2), 2, 16, COLOUR), [[128] * 3] * 2, "all of one colour"),
        (raw_png(bytes([5, 5, 5, 5]), 4, 8, GREY), [5, 5, 5, 5], "all of one colour"),
        (raw_png(bytes([5, 5, 5, 6]), 4, 8, GREY), [5, 5, 5, 6], ""),
    ],
)
def test_deep_values_are_read_right_or_it_is_said(encoded, wanted, remark):
    assert looked_at(encoded) == (wanted, remark)
    _, _, remarks = decode_images([png(RANDOM.integers(0, 256, (4, 4, 3), np.uint8)), encoded], 4)
    assert remarks == ({1: remark} if remark else {})
    assert check_images([encoded]) == ({}, {0: remark} if remark else {})


def test_no_other_format_is_tried(monkeypatch):
    """EPS would start Ghostscript; ICNS and PSD are not photographs."""
    asked = []
    known = Image.open
    monkeypatch.setattr(Image, "open", lambda file, formats: asked.append(formats) or known(file, formats=formats))
    drawing = encode(Image.new("RGB", (8, 8), "red"), "EPS")
    icon = encode(Image.new("RGB", (16, 16), "red"), "ICO")
    assert check_images([drawing, icon])[0] == dict.fromkeys((0, 1), "no image, or of an unknown format")
    assert not {"EPS", "WMF", "FITS", "HDF5", "PSD"} & {name for formats in asked for name in formats}


def test_truncation_is_found_whatever_the_program_has_told_pillow(monkeypatch):
    photo = encode(Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: check_images([photo[: len(photo) // 2], photo, NOISE[:1000]] * 4)[0], range(8)))
    assert found == [{number: "truncated" for number in range(12) if number % 3 != 1}] * 8
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("mode", MODES)
def test_opened_pictures_of_every_mode(mode):
    decoded = decode_images([Image.new(mode, (8, 6))], 4)
    assert not decoded.problems
    assert decoded.images.shape == (1, 3, 4, 4)
